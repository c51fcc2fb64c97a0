"""The S5 block: block-diagonal HiPPO, its size, its memories, its stability."""

from __future__ import annotations

import pytest
import torch

from ssmfin.errors import InputError
from ssmfin.models.ssm.blocks.s5 import S5Block
from ssmfin.models.ssm.discretization import hippo_legs


def block(width: int = 6, state: int = 24, **changes: object) -> S5Block:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return S5Block(width, state=state, **changes).double()  # type: ignore[arg-type]


def test_parameter_count() -> None:
    D, n = 6, 12
    assert sum(p.numel() for p in block().parameters()) == 3 * n + 2 * (2 * n * D) + D + D * D + D


def test_state_matrix_starts_as_copies_of_hippo() -> None:
    made = block(parts=3)
    expected = hippo_legs(4)[0].repeat(3)
    torch.testing.assert_close(made.frequency.detach(), expected.imag, rtol=1e-6, atol=0)
    torch.testing.assert_close(-made.log_decay.exp().detach(), expected.real, rtol=1e-6, atol=0)


def test_start_is_a_real_system_in_the_basis_of_hippo() -> None:
    """B = V^* B_real, so that the other half of each pair contributes the conjugate."""
    made, (_, _, _, V) = block(parts=1), hippo_legs(12)
    B = torch.view_as_complex(made.input.detach())
    full = V @ B + (V @ B).conj()  # (N, D): V V^* B_real + conj, the projection on both halves
    torch.testing.assert_close((V.conj().T @ full.real.to(V.dtype)), B, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_memories_cover_the_time_scales_in_each_copy(parts: int) -> None:
    scales = block(state=64, parts=parts, timescales=(3, 90)).time_scales()[0].view(parts, -1)
    assert scales.min() >= 3 * (1 - 1e-6)
    assert scales.max() <= 90 * (1 + 1e-6)
    step = 30 ** (1 / scales.shape[1])
    assert (scales.min(dim=1).values <= 3 * step * 1.001).all()
    assert (scales.max(dim=1).values >= 90 / step / 1.001).all()


def test_no_mode_grows_whatever_is_learned() -> None:
    for rule in ("zoh", "bilinear"):
        made = block(discretization=rule)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 3 * torch.randn(
                    parameter.shape, dtype=parameter.dtype, generator=torch.Generator().manual_seed(0)
                )
        assert float(made.discrete()[0].detach().abs().max()) <= 1


def test_a_state_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InputError, match="state is 18 with 2 parts; give a multiple of 4"):
        block(state=18)
