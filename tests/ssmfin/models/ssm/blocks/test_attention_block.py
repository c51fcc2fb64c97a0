"""Windowed attention: its equation, its independence of the absolute step, its cost."""

from __future__ import annotations

import pytest
import torch

from ssmfin.errors import InputError
from ssmfin.models.ssm.blocks.attention import WindowedAttention


def block(width: int = 8, heads: int = 2, window: int = 7) -> WindowedAttention:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return WindowedAttention(width, heads=heads, window=window).double()


def inputs(steps: int) -> torch.Tensor:
    return torch.randn(2, steps, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("window", [1, 2, 7, 64])
def test_block_is_dense_attention_with_a_band(window: int) -> None:
    made, T = block(window=window), 33
    x = inputs(T)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in made.enter(x).chunk(3, dim=-1))
    distance = torch.arange(T)[:, None] - torch.arange(T)
    slopes = torch.tensor([2 / max(window, 4), 0.5], dtype=torch.float64)
    scores = q @ k.mT / 2 - slopes[:, None, None] * distance
    scores = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf)
    y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(made(x)[0], made.leave(y), rtol=1e-6, atol=1e-7)


def test_nothing_depends_on_the_absolute_step() -> None:
    made, x = block(), inputs(40)
    late = torch.cat((inputs(40).flip(1), x), dim=1)
    torch.testing.assert_close(made(late)[0][:, 40 + 6 :], made(x)[0][:, 6:], rtol=1e-10, atol=1e-12)


def test_no_matrix_of_all_steps_by_all_steps_is_made() -> None:
    made, x = block(window=16).float(), inputs(20_000).float()  # a dense one would take 6.4 GB
    assert made(x)[0].isfinite().all()


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="heads is 3, which does not divide the width 8"):
        block(heads=3)
    with pytest.raises(InputError, match="window is 0; give at least 1 step"):
        block(window=0)
