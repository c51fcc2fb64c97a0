"""The Vandermonde kernel in Triton's interpreter, on shapes small enough for it."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import functools

import pytest
import torch
from kernels_support.compare import assert_agrees, assert_repeatable
from torch import Tensor

from ssmfin_kernels import vandermonde_kernel

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("triton was imported before the interpreter was asked for", allow_module_level=True)


def diagonal(D: int, N: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(N)
    decay, frequency = -0.1 * torch.rand(D, N, generator=generator), 3 * torch.rand(D, N, generator=generator)
    return {
        "C": torch.randn(D, N, dtype=torch.complex64, generator=generator),
        "dtA": torch.complex(decay, frequency),
    }


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 127, 2049, 9000])
def test_equals_its_definition_with_gradients(length: int) -> None:
    fast, naive = (functools.partial(vandermonde_kernel, length=length, backend=b) for b in ("gpu", "naive"))
    assert_agrees(fast, naive, diagonal(2, 5))


@pytest.mark.parametrize("real", [("C",), ("dtA",), ("C", "dtA")])
def test_real_arguments_and_more_states_than_a_block(real: tuple[str, ...]) -> None:
    call = {name: value.real if name in real else value for name, value in diagonal(2, 35).items()}
    fast, naive = (functools.partial(vandermonde_kernel, length=70, backend=b) for b in ("gpu", "naive"))
    assert_agrees(fast, naive, call)


def test_two_calls_give_the_same_bits() -> None:
    assert_repeatable(functools.partial(vandermonde_kernel, length=9000, backend="gpu"), diagonal(1, 3))
