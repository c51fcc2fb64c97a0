"""The Mamba block: its start, its size, and its equation written out step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import linear, silu, softplus

from ssmfin.models.ssm.blocks.mamba import MambaBlock, inverse_softplus


def block(width: int = 20, **changes: object) -> MambaBlock:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return MambaBlock(width, **changes).double()  # type: ignore[arg-type]


def test_parameter_count() -> None:
    D, E, N, K = 20, 40, 16, 4
    R = math.ceil(D / 16)
    expected = D * 2 * E + E * K + E + E * (R + 2 * N) + R * E + E + E * N + E + E * D
    assert sum(p.numel() for p in block().parameters()) == expected


def test_start_is_the_paper_recipe() -> None:
    made = block(state=5, timescales=(2, 200))
    torch.testing.assert_close(
        made.log_A.exp(), torch.arange(1.0, 6, dtype=torch.float64).repeat(40, 1), rtol=1e-6, atol=0
    )
    assert (made.skip == 1).all()
    memory = 1 / softplus(made.dt_bias.detach())
    assert memory.min() >= 2 * (1 - 1e-5)
    assert memory.max() <= 200 * (1 + 1e-5)
    place = ((memory / 2).log() / math.log(100) * 40).clamp(0, 39.999)
    assert sorted(place.int().tolist()) == list(range(40))
    torch.testing.assert_close(made.time_scales()[:, 0], memory, rtol=1e-6, atol=0)
    torch.testing.assert_close(made.time_scales()[:, 4], memory / 5, rtol=1e-6, atol=0)


def test_output_starts_smaller_by_the_root_of_the_layers() -> None:
    torch.testing.assert_close(block(layers=4).leave.weight, block().leave.weight / 2)


@pytest.mark.parametrize("value", [1e-6, 1e-2, 1.0, 30.0])
def test_inverse_softplus_inverts(value: float) -> None:
    y = torch.tensor(value, dtype=torch.float64)
    torch.testing.assert_close(softplus(inverse_softplus(y)), y, rtol=1e-10, atol=0)


def test_block_is_its_equation() -> None:
    made = block(width=6, state=3)
    x = torch.randn(2, 30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, z = made.enter(x).chunk(2, dim=-1)
    padded = torch.nn.functional.pad(u, (0, 0, 3, 0))
    u = silu(sum(padded[:, j : j + 30] * made.convolution[:, j] for j in range(4)) + made.convolution_bias)
    r, B, C = made.select(u).split([1, 3, 3], dim=-1)
    dt = softplus(linear(r, made.dt_weight) + made.dt_bias)
    h, rows = torch.zeros(2, 12, 3, dtype=torch.float64), []
    for t in range(30):
        decay = torch.exp(-dt[:, t, :, None] * made.log_A.exp())
        h = decay * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        rows.append((h * C[:, t, None]).sum(-1) + made.skip * u[:, t])
    expected = made.leave(torch.stack(rows, dim=1) * silu(z))
    torch.testing.assert_close(made(x)[0], expected, rtol=1e-10, atol=1e-12)
