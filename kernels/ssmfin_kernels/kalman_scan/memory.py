"""Owns the memory of large results on a CPU: on large pages, and used again once a result is gone.

The first touch of fresh memory, which the system fills with zeros, takes longer than the filter that writes to it. So
up to KEPT bytes of results that nobody holds any more wait here for the next call, as GPU memory does in torch.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

KEPT = 2**27  # bytes
_PAGE = 2**21  # bytes of a large page, where the system has them


class _Waiting:
    """Pieces of memory that nobody holds, the oldest first.

    A piece may come back while another is looked for, from another thread or, by the garbage collector, from the same.
    """

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.size = 0
        self.lock = threading.RLock()

    def give_back(self, piece: np.ndarray) -> None:
        with self.lock:
            self.pieces.append(piece)
            self.size += piece.nbytes
            while self.size > KEPT:
                self.size -= self.pieces.pop(0).nbytes

    def take(self, size: int) -> np.ndarray | None:
        """The smallest piece that is large enough, and not much larger."""
        with self.lock:
            best = None
            for piece in tuple(self.pieces):
                fits = size + _PAGE <= piece.nbytes <= 2 * size + 2 * _PAGE
                if fits and (best is None or piece.nbytes < best.nbytes):
                    best = piece
            for i in range(len(self.pieces)):
                if self.pieces[i] is best:
                    self.size -= self.pieces.pop(i).nbytes
                    break
            return best


waiting = _Waiting()


def empty(*shape: int) -> Tensor:
    """An uninitialised float64 tensor."""
    size = math.prod(shape)
    if 8 * size < _PAGE:
        return torch.from_numpy(np.empty(shape))
    piece = waiting.take(8 * size)
    if piece is None:
        # numpy asks for large pages from 4 MiB on; aligned, and with room for the last, all of the array gets them
        piece = np.empty((-(-8 * size // _PAGE) + 1) * _PAGE // 8)
    first = -piece.ctypes.data % _PAGE // 8
    array = piece[first : first + size].reshape(shape)
    weakref.finalize(array, waiting.give_back, piece).atexit = False  # the tensor and all its views hold the array
    return torch.from_numpy(array)
