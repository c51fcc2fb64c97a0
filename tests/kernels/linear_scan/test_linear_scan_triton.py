"""Owns the linear scan in Triton, run by Triton's interpreter on small tiles: chains, groups of tiles, every option."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
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

from ssmfin_kernels import linear_scan
from ssmfin_kernels.linear_scan import gpu

fast = functools.partial(linear_scan, backend="gpu")
naive = functools.partial(linear_scan, backend="naive")


@pytest.fixture(params=["chain", "groups"], autouse=True)
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiles of 8 steps and 4 channels, alone or in groups of two, so that short sequences cross every edge."""
    monkeypatch.setattr(gpu, "_TILES", dict.fromkeys(gpu._TILES, gpu.Tile(4, 2, 4, 1)))
    # blocks of 8 real numbers are awaited in halves here, as those of 64 are on a GPU
    chains = {
        key: (gpu.Tile(4, 2, 8, 1), gpu.Tile(4, 2, 4, 1, tiles[0].prefetch))[key[0] != "single" :]
        for key, tiles in gpu._CHAINS.items()
    }
    monkeypatch.setattr(gpu, "_CHAINS", chains)
    monkeypatch.setattr(gpu, "_GROUP", 2)
    monkeypatch.setattr(gpu, "_MANY", 0 if request.param == "chain" else 10**9)
    return


def draw(B: int, T: int, D: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(T)
    a = torch.randn(B, T, D, dtype=dtype, generator=generator) * 0.7
    b = torch.randn(B, T, D, dtype=dtype, generator=generator)
    return {"a": a, "b": strided(b), "initial_state": torch.randn(B, D, dtype=dtype, generator=generator)}


@pytest.mark.parametrize("T", [1, 2, 3, 64, 65])
@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_with_its_definition(T: int, reverse: bool) -> None:
    assert_agrees(fast, naive, {**draw(1, T, 3), "reverse": reverse, "reset": random_reset(1, T)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_in_every_type_without_reset(dtype: torch.dtype, reverse: bool) -> None:
    arguments = {**draw(2, 11, 5, dtype), "reverse": reverse}
    assert_agrees(fast, naive, arguments)
    del arguments["initial_state"]
    assert_agrees(fast, naive, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("packed", [False, True])
def test_agrees_where_rows_are_whole_words(dtype: torch.dtype, packed: bool) -> None:
    # half precision goes in pairs here, and chains have tiles of their own
    reset = random_reset(2, 27) if packed else None
    for reverse in (False, True):
        assert_agrees(fast, naive, {**draw(2, 27, 32, dtype), "reset": reset, "reverse": reverse})


@pytest.mark.parametrize("result", [0, 1])
def test_gradient_of_one_result_alone(result: int) -> None:
    assert_agrees(lambda **x: fast(**x)[result], lambda **x: naive(**x)[result], draw(1, 11, 3))


def test_complex_with_reset() -> None:
    assert_agrees(fast, naive, {**draw(1, 19, 3, torch.complex64), "reset": random_reset(1, 19)})


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy, in the interpreter, about the NaN put in
def test_nothing_crosses_a_reset_not_even_nan() -> None:
    arguments = draw(1, 40, 2)
    arguments["b"][0, 3, 0] = torch.nan
    arguments["a"][0, 4, 1] = torch.inf
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[0, 21] = True
    h, _ = fast(**arguments, reset=reset)
    assert torch.isfinite(h[:, 21:]).all()
    assert torch.isnan(h[:, 3:21, 0]).all()


def test_a_result_with_the_bits_of_an_unwritten_word_still_arrives() -> None:
    unwritten = torch.full((1,), -1, dtype=torch.int32).view(torch.float32)  # a NaN with every bit set
    b = unwritten.expand(1, 40, 1).contiguous()
    h, _ = fast(torch.zeros(1, 40, 1), b)
    assert torch.isnan(h).all()


def test_repeatable() -> None:
    assert_repeatable(fast, draw(1, 40, 3), times=2)


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(fast, draw(1, 4, 2))


def test_operators_pass_opcheck() -> None:
    x = draw(1, 9, 3)
    x = {name: value.contiguous().requires_grad_() for name, value in x.items()}
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (x["a"], x["b"], x["initial_state"], random_reset(1, 9), True)
    torch.library.opcheck(gpu.linear_scan_gpu, arguments, test_utils=utilities)


class Recorder:
    """Stands for the kernel, and keeps the options of its launch."""

    def __getitem__(self, grid: object) -> Recorder:
        return self

    def __call__(self, *arguments: object, **options: Any) -> None:
        self.steps = options["STEPS"]


@pytest.mark.parametrize(
    ("width", "offset", "steps"), [(32, 0, 20), (33, 0, 8), (32, 1, 8)], ids=["words", "odd width", "odd storage"]
)
def test_rows_that_are_not_whole_words_get_short_tiles(
    width: int, offset: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 20 steps of them exhausted the registers on an H200: the assembler's code lost resets and masks
    recorder = Recorder()
    monkeypatch.setattr(gpu, "look_back_kernel", recorder)
    monkeypatch.setattr(gpu, "_TILES", dict.fromkeys(gpu._TILES, gpu.Tile(16, 20, 32, 4)))
    monkeypatch.setattr(gpu, "_CHAINS", dict.fromkeys(gpu._CHAINS, (gpu.Tile(16, 20, 32, 4),)))
    a, b = (torch.zeros(40 * width + offset)[offset:].view(1, 40, width) for _ in range(2))
    gpu.linear_scan_gpu(a, b, None, None, False)
    assert recorder.steps == steps
