"""Owns the selective scan in Triton, run by Triton's interpreter: tiles that do not fit, split time, every option."""

from __future__ import annotations

import functools
import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="tests Triton kernels")

from kernels_support.compare import (
    assert_agrees,
    assert_repeatable,
    assert_second_derivative_raises,
    random_reset,
    strided,
)

from ssmfin_kernels import selective_scan
from ssmfin_kernels.selective_scan import gpu, gpu_backward
from ssmfin_kernels.selective_scan.segments import CHUNK, segment_length

fast = functools.partial(selective_scan, backend="gpu")
naive = functools.partial(selective_scan, backend="naive")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


def draw(B: int, T: int, D: int, N: int, G: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1000 * T + D)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "u": normal(B, T, D),
        "delta": normal(B, T, D) - 1,
        "A": -4 * torch.rand(D, N, generator=generator),
        "B": normal(B, T, G, N),
        "C": normal(B, T, G, N),
        "D": torch.randn(D, generator=generator),
        "z": normal(B, T, D),
        "delta_bias": torch.randn(D, generator=generator),
        "initial_state": torch.randn(B, D, N, generator=generator),
    }


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(R: int, U: int, segments: int, backward: tuple[int, int] = (1, 4)) -> None:
        monkeypatch.setattr(gpu, "choose", lambda *sizes: gpu.Tiles(R, U, segments))
        monkeypatch.setattr(gpu_backward, "choose", lambda *sizes: gpu_backward.Tiles(*backward, segments))

    return use


SLOW = pytest.mark.slow


@pytest.mark.parametrize("T", [1, 2, 3, 33, *(pytest.param(T, marks=SLOW) for T in (31, 32, 63, 64, 65, 127))])
def test_agrees_with_its_definition(T: int, tiles: Any) -> None:
    tiles(1, 8, 1)
    assert_agrees(fast, naive, {**draw(1, T, 3, 3), "delta_softplus": True, "reset": random_reset(1, T)})


@pytest.mark.parametrize(
    "segments, resets", [(3, True), pytest.param(2, True, marks=SLOW), pytest.param(2, False, marks=SLOW)]
)
def test_split_time_agrees_with_its_definition(segments: int, resets: bool, tiles: Any) -> None:
    tiles(1, 4, segments)
    arguments = {**draw(1, 65, 3, 2), "delta_softplus": True}
    assert_agrees(fast, naive, {**arguments, "reset": random_reset(1, 65, rate=0.03) if resets else None})


def test_groups_and_channels_that_do_not_fill_a_tile(tiles: Any) -> None:
    tiles(2, 4, 1)
    assert_agrees(fast, naive, {**draw(1, 5, 22, 3, 2), "delta_softplus": True})


@pytest.mark.parametrize("CR, U, N", [(2, 2, 5), (4, 2, 16), pytest.param(2, 8, 7, marks=SLOW)])
def test_every_way_to_spread_a_tile_over_lanes_backwards(CR: int, U: int, N: int, tiles: Any) -> None:
    tiles(2, 4, 1, backward=(CR, U))
    assert_agrees(fast, naive, {**draw(1, 6, 18, N), "delta_softplus": True, "reset": random_reset(1, 6, rate=0.2)})


@pytest.mark.parametrize("N", [9, 12])
def test_a_lane_holds_four_states_where_it_could_hold_three(N: int, tiles: Any) -> None:
    """Three a lane do not divide a block of rows: forwards and backwards must both take four."""
    tiles(1, 4, 1)
    assert_agrees(fast, naive, {**draw(1, 5, 3, N), "delta_softplus": True})


def test_more_states_than_the_lanes_of_a_channel_hold_at_once(tiles: Any) -> None:
    tiles(1, 4, 1)
    assert_agrees(fast, naive, {**draw(1, 5, 3, 17), "delta_softplus": True})


@pytest.mark.parametrize("absent", [OPTIONAL, *(pytest.param((name,), marks=SLOW) for name in OPTIONAL)])
def test_each_option_may_be_absent(absent: tuple[str, ...], tiles: Any) -> None:
    tiles(1, 4, 2)
    arguments = {name: value for name, value in draw(1, 34, 3, 2).items() if name not in absent}
    arguments["delta"] = arguments["delta"].abs()
    arguments["A"] = arguments["A"] * 0.3
    assert_agrees(fast, naive, {**arguments, "delta_softplus": False})


@pytest.mark.parametrize("D, N", [(5, 3), (6, 6)])  # numbers of 16 bits one by one, and in words of two
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_single_precision_state(dtype: torch.dtype, D: int, N: int) -> None:
    arguments = {**draw(1, 9, D, N, dtype=dtype), "delta_softplus": True}
    assert_agrees(fast, naive, arguments)
    assert fast(**arguments)[1].dtype == torch.float32


def test_strided_arguments() -> None:
    arguments = {name: strided(value) for name, value in draw(1, 6, 3, 2).items()}
    assert_agrees(fast, naive, {**arguments, "delta_softplus": True})


def test_same_bits_in_every_run() -> None:
    assert_repeatable(fast, {**draw(1, 5, 20, 3), "delta_softplus": True}, times=2)


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(fast, draw(1, 3, 2, 2))


def test_double_precision_is_refused() -> None:
    arguments = draw(1, 3, 2, 2)
    arguments["A"] = arguments["A"].double()
    with pytest.raises(
        ValueError, match=r"A has dtype float64, expected float16, bfloat16 or float32 on backend 'gpu'"
    ):
        fast(**arguments)


@pytest.mark.parametrize("size", [(1, 128, 262144, 16), (8, 2048, 2048, 16), (1, 3, 1, 1), (100000, 1, 5, 2)])
def test_chosen_tiles_are_launchable(size: tuple[int, int, int, int]) -> None:
    batch, channels, steps, states = size
    chosen_tiles: list[Any] = [gpu.choose(batch, steps, channels, 1, states, ring) for ring in (False, True)]
    for ring, size in ((False, 4), (True, 2), (True, 4)):
        chosen_tiles.append(gpu_backward.choose(batch, steps, channels, 1, states, size, ring))
    for chosen in chosen_tiles:
        length = segment_length(steps, chosen.segments)
        assert length % CHUNK == 0
        assert CHUNK % chosen.U == 0
        assert 0 < -(-steps // length) <= max(chosen.segments, 1)
