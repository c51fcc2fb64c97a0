"""Linear attention equals its quadratic form and the scan of state-space duality."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import elu

from ssmfin.errors import InputError
from ssmfin.models.sequence.blocks.linear_attention import LinearAttentionBlock
from ssmfin_kernels import chunk_scan

WIDTH, HEADS = 12, 3
P = WIDTH // HEADS


def made(feature_map: Literal["elu", "identity"], memory: tuple[float, float] | None) -> LinearAttentionBlock:
    torch.manual_seed(2)
    return LinearAttentionBlock(WIDTH, heads=HEADS, feature_map=feature_map, memory=memory).double()


def sample() -> tuple[Tensor, Tensor]:
    x = 2 * torch.randn(2, 90, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    reset = torch.zeros(2, 90, dtype=torch.bool)
    reset[0, [0, 5, 70]] = True
    return x, reset


def by_head(block: LinearAttentionBlock, x: Tensor) -> list[Tensor]:
    """q, k, v of (B, H, T, P)."""
    return [(x @ W.T).view(*x.shape[:2], HEADS, P).transpose(1, 2) for W in block.enter.weight.chunk(3)]


@pytest.mark.parametrize("memory", [None, (3.0, 48.0)])
@pytest.mark.parametrize("feature_map", ["elu", "identity"])
def test_it_is_its_quadratic_form(feature_map: Literal["elu", "identity"], memory: tuple[float, float] | None) -> None:
    block = made(feature_map, memory)
    x, reset = sample()
    q, k, v = by_head(block, x)
    t = torch.arange(90, dtype=torch.float64)
    distance = t[:, None] - t
    number = reset.cumsum(1)
    seen = (distance >= 0) & (number[:, None, :, None] == number[:, None, None, :])  # (B, 1, T, T)
    decay = torch.exp(distance * block.log_decay[:, None, None])  # (H, T, T)
    if feature_map == "elu":
        weights = (elu(q) + 1) @ (elu(k) + 1).mT * decay * seen
        y = weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)
    else:
        y = (q @ k.mT / math.sqrt(P) * decay * seen) @ v
        y = y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-5)
    expected = y.transpose(1, 2).reshape(x.shape) @ block.leave.weight.T
    torch.testing.assert_close(block(x, None, reset)[0], expected, rtol=1e-9, atol=1e-11)


def test_without_decay_it_is_the_scan_with_a_zero_state_matrix() -> None:
    block = made("elu", None)
    x, _ = sample()
    q, k, v = (part.transpose(1, 2) for part in by_head(block, x))
    dt, A = torch.ones(2, 90, HEADS).double(), torch.zeros(HEADS).double()
    top, S = chunk_scan(v, dt, A, elu(k) + 1, elu(q) + 1, backend="naive")
    bottom, z = chunk_scan(torch.ones_like(v[..., :1]), dt, A, elu(k) + 1, elu(q) + 1, backend="naive")
    y, (state,) = block(x)
    torch.testing.assert_close(y, (top / (bottom + 1e-6)).flatten(2) @ block.leave.weight.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, torch.cat((S, z), dim=2), rtol=1e-12, atol=1e-12)


def test_without_decay_the_order_of_the_past_does_not_matter_and_with_decay_it_does() -> None:
    x, _ = sample()
    shuffled = x[:, [*torch.randperm(89, generator=torch.Generator().manual_seed(0)).tolist(), 89]]
    for memory in (None, (3.0, 48.0)):
        block = made("elu", memory)
        same = torch.allclose(block(shuffled)[0][:, -1], block(x)[0][:, -1], rtol=1e-9, atol=1e-12)
        assert same == (memory is None)


def test_memories_are_the_stated_ones() -> None:
    assert made("elu", None).time_scales() is None
    scales = made("elu", (3.0, 48.0)).time_scales()
    assert scales is not None
    torch.testing.assert_close(scales, torch.tensor([[3.0], [12.0], [48.0]]).double(), rtol=1e-6, atol=0)


def test_a_stream_of_a_hundred_thousand_steps_stays_near_double_precision() -> None:
    block = made("elu", None)
    x = torch.randn(1, 100_000, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = block(x.double())[0][:, -100:]
        single = block.float()(x)[0][:, -100:]
    assert float((single.double() - exact).abs().max() / exact.abs().max()) < 1e-4


@pytest.mark.parametrize(
    "wrong, message",
    [({"heads": 5}, "give a divisor"), ({"memory": (9.0, 2.0)}, "shorter first"), ({"memory": (0.0, 2.0)}, "shorter")],
)
def test_impossible_shapes_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LinearAttentionBlock(WIDTH, **wrong)
