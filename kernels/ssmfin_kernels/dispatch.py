"""Owns the choice among the implementations of an operation, and the account of it that `backends()` gives.

An operation has up to three implementations, each a module of its folder:

    naive   plain torch on any device: the definition. Always there.
    cpu     the fast twin for CPU tensors. Needs what the operation says it needs: numba, or torch alone.
    gpu     Triton, for CUDA tensors; on CPU tensors only under Triton's interpreter (TRITON_INTERPRET=1), to test it.

The device of the arguments chooses; `backend=` forces. An operation tells this module what it needs once, when its
folder is imported:

    _OPERATION = dispatch.operation("linear_scan", cpu="numba", gpu="triton")
    ...
    backend = _OPERATION.choose(a, backend)     # "naive", "cpu" or "gpu"
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["naive", "cpu", "gpu"]
NAMES: tuple[Backend, ...] = ("naive", "cpu", "gpu")

_OPERATIONS: dict[str, Operation] = {}

# found, not imported: numba takes half a second to import and is wanted only when it runs. Found once, here, since
# torch.compile traces choose() and neither a search nor a functools cache can be traced
_INSTALLED = {package: importlib.util.find_spec(package) is not None for package in ("torch", "numba", "triton")}


@dataclass(frozen=True)
class Operation:
    """What one operation needs.

    Attributes:
        name: of the public function.
        cpu: package the fast CPU twin needs: "numba", "torch" (nothing more), or None where there is no such twin.
        gpu: package the GPU implementation needs: "triton", "torch", or None where there is none.
    """

    name: str
    cpu: str | None
    gpu: str | None

    def choose(self, tensor: Tensor, backend: str | None = None) -> Backend:
        """The implementation for `tensor`.

        Args:
            tensor: an argument of the operation; its device decides.
            backend: "naive", "cpu" or "gpu" to force one, None for the fastest that can run.
        Raises:
            ValueError: an unknown name, or one that cannot run here: the message says why.
        """
        kind = tensor.device.type
        if backend is None:
            fast: Backend = "gpu" if kind == "cuda" else "cpu"
            return fast if kind in ("cpu", "cuda") and self.obstacle(fast, kind) is None else "naive"
        for known in NAMES:
            if backend == known:
                obstacle = self.obstacle(known, kind)
                if obstacle is not None:
                    raise ValueError(f"backend is {backend!r}, which {self.name} cannot use here: {obstacle}.")
                return known
        raise ValueError(f"backend is {backend!r}, expected None, 'naive', 'cpu' or 'gpu'.")

    def obstacle(self, backend: Backend, device: str) -> str | None:
        """Why `backend` cannot run on a device of this type ("cpu", "cuda", ...), or None where it can."""
        if backend == "naive":
            return None
        package = self.cpu if backend == "cpu" else self.gpu
        if package is None:
            return f"there is no {backend} implementation"
        if not _installed(package):
            return f"{package} is not installed"
        if backend == "cpu" and device != "cpu":
            return f"the tensors are on {device}"
        if backend == "gpu" and device != "cuda" and not (device == "cpu" and package == "triton" and interpreting()):
            return f"the tensors are on {device} (to test: TRITON_INTERPRET=1, set before Python starts)"
        return None


def operation(name: str, *, cpu: str | None, gpu: str | None) -> Operation:
    """Make an operation known to `backends()`."""
    _OPERATIONS[name] = Operation(name, cpu, gpu)
    return _OPERATIONS[name]


class Backends(dict[str, dict[str, str]]):
    """What each operation would use: {operation: {"cpu tensors": ..., "cuda tensors": ...}}; prints as a table."""

    def __repr__(self) -> str:
        rows = [("operation", *next(iter(self.values()), {}))] + [(name, *uses.values()) for name, uses in self.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def backends() -> Backends:
    """Which implementation each operation uses for CPU and for CUDA tensors, and why where it is not the fast one.

    Returns:
        Backends: a dictionary, operation -> device -> words; printing it gives a table.

    >>> import ssmfin_kernels
    >>> sorted(ssmfin_kernels.backends()["associative_scan"])
    ['cpu tensors', 'cuda tensors']
    """
    package = importlib.import_module("ssmfin_kernels")
    for name in package.__all__:
        getattr(package, name)  # importing the folder of an operation registers it
    table = Backends()
    for name, known in sorted(_OPERATIONS.items()):
        table[name] = {"cpu tensors": _account(known, "cpu"), "cuda tensors": _account(known, "cuda")}
    return table


def _account(known: Operation, device: Literal["cpu", "cuda"]) -> str:
    fast: Backend = "gpu" if device == "cuda" else "cpu"
    package = known.gpu if device == "cuda" else known.cpu
    obstacle = known.obstacle(fast, device)
    if device == "cuda" and not torch.cuda.is_available():
        would = f"would be {fast}: {package}" if obstacle is None else f"would be naive: {obstacle}"
        return f"none here ({would})"
    return f"{fast} ({package})" if obstacle is None else f"naive ({obstacle})"


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _installed(package: str) -> bool:
    return _INSTALLED[package]
