"""The diagonal scan in Triton's interpreter, on shapes small enough for it."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import functools

import pytest
import torch
from kernels_support.compare import assert_agrees, assert_repeatable, random_reset, strided
from torch import Tensor

from ssmfin_kernels import diagonal_scan

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("triton was imported before the interpreter was asked for", allow_module_level=True)

FAST = functools.partial(diagonal_scan, backend="gpu")
NAIVE = functools.partial(diagonal_scan, backend="naive")


def arguments(T: int, *, D: int = 3, N: int = 5, dtype: torch.dtype = torch.complex64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(T)
    dtA = torch.complex(-0.1 * torch.rand(D, N, generator=generator), 3 * torch.rand(D, N, generator=generator))
    return {
        "u": torch.randn(2, T, D, generator=generator, dtype=dtype.to_real()),
        "C": torch.randn(D, N, dtype=dtype, generator=generator),
        "dtA": dtA.to(dtype),
        "initial_state": torch.randn(2, D, N, dtype=dtype, generator=generator),
    }


@pytest.mark.parametrize("T", [1, 2, 63, 64, 65, 129, 200])
def test_equals_the_recurrence_with_every_gradient(T: int) -> None:
    assert_agrees(FAST, NAIVE, arguments(T), tolerance=3e-6)
    assert_agrees(FAST, NAIVE, {**arguments(T), "reset": random_reset(2, T, rate=0.02)}, tolerance=3e-6)


def test_double_precision_and_more_states_than_a_block() -> None:
    assert_agrees(FAST, NAIVE, arguments(130, D=5, N=33, dtype=torch.complex128), tolerance=1e-12)


def test_strided_and_half_precision_input() -> None:
    call = {name: strided(value) for name, value in arguments(70).items()}
    assert_agrees(FAST, NAIVE, call, tolerance=3e-6)
    assert_agrees(FAST, NAIVE, {**call, "u": call["u"].half()}, tolerance=2e-3)


def test_two_calls_give_the_same_bits() -> None:
    assert_repeatable(FAST, {**arguments(130), "reset": random_reset(2, 130, rate=0.05)})
