"""The Mamba-2 block: its start, its size, and its equation as a masked attention matrix."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import silu, softplus

from ssmfin.errors import InputError
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block


def block(width: int = 16, **changes: object) -> Mamba2Block:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return Mamba2Block(width, **changes).double()  # type: ignore[arg-type]


def test_parameter_count() -> None:
    D, E, N, H, K = 16, 32, 8, 4, 4
    made = block(state=N, head=8)
    expected = D * (2 * E + 2 * N + H) + (E + 2 * N) * (K + 1) + 3 * H + E + E * D
    assert sum(p.numel() for p in made.parameters()) == expected


def test_heads_start_at_several_time_scales() -> None:
    made = block(width=64, head=4, timescales=(2, 200))
    A = made.log_A.exp()
    assert A.min() >= 1
    assert A.max() <= 16
    memory = made.time_scales()[:, 0]
    place = ((memory / 2).log() / math.log(100) * 32).clamp(0, 31.999)
    assert sorted(place.int().tolist()) == list(range(32))


def test_a_head_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match=r"head is 12, which does not divide expand \* width = 32"):
        block(head=12)


def test_block_is_masked_attention_without_a_softmax() -> None:
    """State-space duality: y = (L * C B^T) (dt x) with L the products of decays."""
    made, T = block(width=6, state=3, head=4), 40
    x = torch.randn(2, T, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z, v, dt = made.enter(x).split([12, 18, 3], dim=-1)
    padded = torch.nn.functional.pad(v, (0, 0, 3, 0))
    v = silu(sum(padded[:, j : j + T] * made.convolution[:, j] for j in range(4)) + made.convolution_bias)
    u, B, C = v.split([12, 3, 3], dim=-1)
    u = u.unflatten(-1, (3, 4))
    dt = softplus(dt + made.dt_bias)
    total = (-dt * made.log_A.exp()).cumsum(1).transpose(1, 2)  # (B, H, T)
    L = (total[..., :, None] - total[..., None, :]).exp().tril()
    weights = L * (C @ B.mT)[:, None]
    y = torch.einsum("bhts,bsh,bshp->bthp", weights, dt, u) + made.skip[:, None] * u
    y = y.flatten(2) * silu(z)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * made.norm.weight
    torch.testing.assert_close(made(x)[0], made.leave(y), rtol=1e-9, atol=1e-11)
