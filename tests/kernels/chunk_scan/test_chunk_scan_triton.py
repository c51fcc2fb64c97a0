"""chunk_scan in Triton's interpreter, on shapes small enough for it.

bfloat16 arithmetic is wrong in the interpreter: kernels/benchmarks/chunk_scan.py checks it on a GPU.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import functools
from typing import Any

import pytest
import torch
from kernels_support.compare import assert_agrees, assert_repeatable, random_reset
from torch import Tensor

from ssmfin_kernels import chunk_scan

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("triton was imported before the interpreter was asked for", allow_module_level=True)

FAST = functools.partial(chunk_scan, backend="gpu", dt_softplus=True)
NAIVE = functools.partial(chunk_scan, backend="naive", dt_softplus=True)


def arguments(
    T: int, *, B: int = 1, H: int = 2, P: int = 3, G: int = 1, N: int = 5, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(T)

    def noise(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "x": noise(B, T, H, P),
        "dt": noise(B, T, H, dtype=torch.float32),
        "A": -torch.rand(H, generator=generator),
        "B": noise(B, T, G, N),
        "C": noise(B, T, G, N),
        "D": noise(H, P, dtype=torch.float32),
        "z": noise(B, T, H, P),
        "dt_bias": noise(H, dtype=torch.float32),
        "initial_state": noise(B, H, P, N, dtype=torch.float32),
        "reset": random_reset(B, T, rate=0.05),
    }


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127])
def test_equals_the_recurrence_with_every_gradient(T: int) -> None:
    assert_agrees(FAST, NAIVE, arguments(T), tolerance=5e-6)


@pytest.mark.parametrize("sizes", [{"P": 70, "N": 17, "H": 1}, {"H": 4, "G": 2, "B": 2}, {"H": 9, "P": 1, "N": 1}])
def test_sizes_beside_the_blocks(sizes: dict[str, int]) -> None:
    assert_agrees(FAST, NAIVE, arguments(67, **sizes), tolerance=5e-6)


def test_wide_states_go_in_parts() -> None:
    assert_agrees(FAST, NAIVE, arguments(66, N=131, H=1), tolerance=5e-6)


def test_float16_has_its_digits() -> None:
    assert_agrees(FAST, NAIVE, arguments(66, dtype=torch.float16), tolerance=2e-3)


@pytest.mark.parametrize("A, dt", [(-1e4, 50.0), (-16.0, 6.0)])
def test_extreme_decays_stay_finite_and_exact(A: float, dt: float) -> None:
    call = {**arguments(130), "A": torch.full((2,), A)}
    call["dt"] = torch.where(torch.rand(1, 130, 2, generator=torch.Generator().manual_seed(0)) < 0.3, dt, 1e-6)
    del call["dt_bias"]
    fast, naive = (functools.partial(chunk_scan, backend=backend) for backend in ("gpu", "naive"))
    assert_agrees(fast, naive, call, tolerance=1e-5)


def test_nothing_passes_a_reset_not_even_rounding() -> None:
    call = arguments(80)
    leaves = {n: v.requires_grad_() for n, v in call.items() if v.is_floating_point()}
    call["reset"] = torch.arange(80)[None] == 40
    y, _ = FAST(**call)
    for part, other in ((slice(None, 40), slice(40, None)), (slice(40, None), slice(None, 40))):
        names = ("x", "dt", "B", "C", "z")
        grads = torch.autograd.grad(y[:, part].sum(), [leaves[name] for name in names], retain_graph=True)
        for name, grad in zip(names, grads, strict=True):
            assert grad[:, other].abs().max() == 0, name


def test_two_calls_give_the_same_bits() -> None:
    assert_repeatable(FAST, arguments(70))
