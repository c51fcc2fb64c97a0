"""Memory of large results is used again, and never while anything still looks at it."""

import gc

import numpy as np
import pytest
import torch

from ssmfin_kernels.kalman_scan import StateSpace, kalman_filter, memory

LARGE = (300, 1000)  # 2.4 MB


@pytest.fixture(autouse=True)
def nothing_waits():
    gc.collect()
    memory.waiting.pieces.clear()
    memory.waiting.size = 0


def test_memory_comes_back_once_nothing_looks_at_it():
    first = memory.empty(*LARGE)
    address = first.data_ptr()
    view = first.reshape(-1)[5:].numpy()[::2]
    del first
    assert memory.empty(*LARGE).data_ptr() != address
    assert not any(piece.ctypes.data <= address < piece.ctypes.data + piece.nbytes for piece in memory.waiting.pieces)
    view[:] = 1.0
    del view
    again = [memory.empty(*LARGE) for _ in range(2)]
    assert address in [tensor.data_ptr() for tensor in again]
    assert again[0].data_ptr() != again[1].data_ptr()


@pytest.mark.parametrize("shape", [(3,), (0, 5), LARGE, (2**18,), (2**18 + 1,), (1000, 1000, 2)])
def test_shape_type_and_room_are_those_asked_for(shape):
    for _ in range(2):
        tensor = memory.empty(*shape)
        assert tensor.shape == shape
        assert tensor.dtype == torch.float64
        tensor.fill_(1.0)
        assert tensor.is_contiguous()


def test_no_more_is_kept_than_said():
    held = [memory.empty(2**20) for _ in range(12)]  # 8 MiB each
    assert memory.waiting.size == 0
    held.clear()
    assert 0 < memory.waiting.size <= memory.KEPT
    assert memory.waiting.size == sum(piece.nbytes for piece in memory.waiting.pieces)


def test_much_larger_memory_is_left_for_larger_results():
    large = memory.empty(2**22)
    del large
    before = memory.waiting.size
    small = memory.empty(*LARGE)
    assert memory.waiting.size == before
    assert small.shape == LARGE


def test_a_result_outlives_those_that_follow_it():
    def one(value):
        return torch.tensor([[value]], dtype=torch.float64)

    level = StateSpace(one(1.0), one(1.0), one(0.5), one(2.0), one(1.0))
    y = torch.from_numpy(np.random.default_rng(0).standard_normal((*LARGE, 1)))
    kept = kalman_filter(y, level).filtered_mean
    copy = kept.clone()
    for shift in range(3):
        kalman_filter(y + shift, level)
    assert torch.equal(kept, copy)
