"""Owns the causal convolution in Triton, run by Triton's interpreter on small tiles."""

from __future__ import annotations

import functools
import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined

import pytest
import torch

pytest.importorskip("triton", reason="tests Triton kernels")

from kernels_support.compare import (
    assert_agrees,
    assert_repeatable,
    assert_second_derivative_raises,
    random_reset,
    strided,
)

from ssmfin_kernels import causal_convolution
from ssmfin_kernels.causal_convolution import gpu

fast = functools.partial(causal_convolution, backend="gpu")
naive = functools.partial(causal_convolution, backend="naive")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of 4 steps and 4 channels, so that short sequences cross every edge."""
    tiles = {key: gpu.Tile(2, 2, 4, 1, 4, stages=tile.stages) for key, tile in gpu._TILES.items()}
    monkeypatch.setattr(gpu, "_TILES", tiles)


def draw(B: int, T: int, D: int, K: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(T)
    shapes = {"x": (B, T, D), "weight": (D, K), "bias": (D,), "initial_state": (B, K - 1, D)}
    return {name: strided(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65])
@pytest.mark.parametrize("packed", [False, True])
def test_agrees_with_its_definition(T: int, packed: bool) -> None:
    reset = random_reset(1, T) if packed else None
    assert_agrees(fast, naive, {**draw(1, T, 3, 4), "reset": reset, "activation": "silu"})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_agrees_in_every_type(dtype: torch.dtype) -> None:
    assert_agrees(fast, naive, {**draw(2, 19, 5, 4, dtype), "reset": random_reset(2, 19), "activation": "silu"})


@pytest.mark.parametrize("K", [1, 2, 5])
def test_agrees_for_any_number_of_taps(K: int) -> None:
    for T in (1, 4, 11):
        assert_agrees(fast, naive, {**draw(2, T, 3, K), "reset": random_reset(2, T)})


def test_without_optional_arguments() -> None:
    arguments = draw(2, 11, 3, 4)
    assert_agrees(fast, naive, {name: arguments[name] for name in ("x", "weight")})


def test_gradient_of_one_result_alone() -> None:
    x = draw(1, 7, 3, 4)
    assert_agrees(lambda **x: fast(**x)[0], lambda **x: naive(**x)[0], x)
    (found,), (exact,) = (
        torch.autograd.grad(run(x["x"].requires_grad_(), x["weight"])[1].sum(), x["x"]) for run in (fast, naive)
    )
    assert torch.equal(found, exact)


def test_repeatable() -> None:
    assert_repeatable(fast, {**draw(1, 20, 3, 4), "activation": "silu"}, times=2)


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(functools.partial(fast, activation="silu"), draw(1, 4, 2, 3))


def test_operators_pass_opcheck() -> None:
    x = [value.contiguous().requires_grad_() for value in draw(1, 9, 3, 4).values()]
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(gpu.causal_convolution_gpu, (*x, random_reset(1, 9), True), test_utils=utilities)
