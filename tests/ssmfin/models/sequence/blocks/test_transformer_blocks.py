"""Attention equals its explicit sum over steps, sees distances only, and fused kernels only where nothing is masked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock

WIDTH, HEADS = 12, 2


def explicit(block: AttentionBlock, x: Tensor, reset: Tensor) -> Tensor:
    """One query and head at a time; a pair of channels is a complex number, turned by its angle."""
    P = WIDTH // HEADS
    frequency = 10_000.0 ** (-torch.arange(0, P, 2, dtype=torch.float64) / P)
    out = torch.zeros_like(x)
    for row in range(len(x)):
        q, k, v = (x[row] @ part.T for part in block.enter.weight.chunk(3))
        for t in range(x.shape[1]):
            starts = reset[row, : t + 1].nonzero()[:, 0]
            first = max(t - block.window + 1, int(starts[-1]) if len(starts) else 0)
            heads = []
            for h in range(HEADS):
                part = slice(h * P, (h + 1) * P)
                query, keys = (
                    torch.complex(rows[..., part][..., ::2], rows[..., part][..., 1::2])
                    for rows in (q[t], k[first : t + 1])
                )
                distance = torch.arange(t - first, -1, -1, dtype=torch.float64)
                turn = torch.polar(torch.ones(()).double(), distance[:, None] * frequency)
                scores = (query * keys.conj() * turn).real.sum(-1) / math.sqrt(P)
                heads.append(torch.softmax(scores, 0) @ v[first : t + 1, part])
            out[row, t] = block.leave.weight @ torch.cat(heads)
    return out


def made(window: int, **more: int) -> AttentionBlock:
    torch.manual_seed(1)
    block = AttentionBlock(WIDTH, heads=HEADS, window=window, **more).double()
    with torch.no_grad():
        block.enter.weight *= 3  # scores far from uniform
    return block


def sample(steps: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, steps, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    reset = torch.zeros(2, steps, dtype=torch.bool)
    reset[0, [0, 5, 6]] = True
    reset[1, steps // 2] = True
    return x, reset


@pytest.mark.parametrize("window, steps", [(50, 20), (20, 20), (20, 33), (70, 150), (3, 70), (1, 9)])
def test_attention_is_its_explicit_sum(window: int, steps: int) -> None:
    block = made(window)
    x, reset = sample(steps)
    torch.testing.assert_close(block(x)[0], explicit(block, x, torch.zeros_like(reset)), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(block(x, None, reset)[0], explicit(block, x, reset), rtol=1e-9, atol=1e-11)


def test_only_distances_between_steps_enter() -> None:
    block = made(40)
    x, _ = sample(30)
    before = torch.randn(2, 95, WIDTH, dtype=torch.float64)
    late = torch.cat((before, x), dim=1)
    reset = torch.zeros(2, 125, dtype=torch.bool)
    reset[:, 95] = True
    torch.testing.assert_close(block(late, None, reset)[0][:, 95:], block(x)[0], rtol=1e-9, atol=1e-11)
    # the order of past steps does enter
    swapped = x[:, [1, 0, *range(2, 30)]]
    assert not torch.allclose(block(swapped)[0][:, -1], block(x)[0][:, -1])


def test_a_window_as_long_as_the_sequence_is_full_attention() -> None:
    x, _ = sample(40)
    torch.testing.assert_close(made(40)(x)[0], made(1_000)(x)[0], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(made(39)(x)[0], made(40)(x)[0])


def test_the_state_keeps_what_the_window_still_sees_and_nothing_of_older_sequences() -> None:
    block = made(8)
    x, reset = sample(30)
    reset[0, 27] = True
    keys, values, present = block(x, None, reset)[1]
    assert present[0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert present[1].tolist() == [1] * 7
    assert (keys[0, :4] == 0).all()
    assert (values[0, :4] == 0).all()


def test_feed_forward_is_a_map_of_each_step() -> None:
    torch.manual_seed(0)
    block = FeedForwardBlock(6, expand=3)
    x = torch.randn(2, 5, 6)
    y, state = block(x)
    assert state == ()
    W, b, V, c = block.parameters()
    expected = torch.nn.functional.gelu(x[1, 3] @ W.T + b) @ V.T + c
    torch.testing.assert_close(y[1, 3], expected)


@pytest.mark.parametrize(
    "wrong, message", [({"heads": 5}, "multiple of 10"), ({"heads": 2, "window": 0}, "at least 1 step")]
)
def test_impossible_shapes_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AttentionBlock(WIDTH, **wrong)
