"""Powers by doubling and Toeplitz matrices, against their definitions."""

from __future__ import annotations

import pytest
import torch

from ssmfin.models.ssm.blocks.linear_system import chunk_length, power, powers, squares, toeplitz


@pytest.mark.parametrize("Q", [1, 2, 5, 8])
def test_toeplitz_has_the_taps_on_its_diagonals(Q: int) -> None:
    taps = torch.arange(1.0, 3 * Q + 1).view(3, Q)
    expected = torch.zeros(3, Q, Q)
    for t in range(Q):
        for s in range(t + 1):
            expected[:, t, s] = taps[:, t - s]
    assert torch.equal(toeplitz(taps), expected)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 65])
def test_powers_by_doubling_are_repeated_products(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    A = 0.4 * torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
    first = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    dense = powers(squares(A, count), first, count)
    diagonal = powers(squares(A[:, 0], count), first, count)
    torch.testing.assert_close(power(squares(A, count), count), torch.linalg.matrix_power(A, count))
    expected, other = first, first
    for step in range(count):
        torch.testing.assert_close(dense[..., step], expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(diagonal[..., step], other, rtol=1e-12, atol=1e-14)
        expected, other = (A @ expected[..., None])[..., 0], A[:, 0] * other


def test_powers_of_zero_and_their_gradient_are_finite() -> None:
    A = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    made = powers(squares(A, 4), torch.ones(1, 1, dtype=torch.float64), 4)
    assert made.flatten().tolist() == [1, 0, 0, 0]
    made.sum().backward()
    assert A.grad is not None
    assert float(A.grad) == 1


@pytest.mark.parametrize(
    "steps, expected", [(1, (1, 1)), (63, (63, 63)), (64, (64, 64)), (65, (64, 1)), (130, (64, 2))]
)
def test_the_last_chunk_is_never_empty(steps: int, expected: tuple[int, int]) -> None:
    assert chunk_length(steps) == expected
