"""Zero-order hold against a dense matrix exponential, and the published initial spectra."""

from __future__ import annotations

import math

import pytest
import torch

from ssmfin.models.ssm.discretization import diagonal_frequencies, zero_order_hold


@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 2.0])
def test_zero_order_hold_equals_the_exponential_of_the_augmented_matrix(dt: float) -> None:
    A = torch.tensor([-0.5 + 0.0j, -0.5 + 3.1j, -2.0 - 1.0j], dtype=torch.complex128)
    dtA, B_bar = zero_order_hold(A[None], torch.tensor([dt], dtype=torch.float64))
    augmented = torch.zeros(4, 4, dtype=torch.complex128)
    augmented[:3, :3], augmented[:3, 3] = torch.diag(A), 1.0
    held = torch.linalg.matrix_exp(augmented * dt)
    torch.testing.assert_close(dtA[0].exp(), held[:3, :3].diagonal(), rtol=1e-12, atol=0)
    torch.testing.assert_close(B_bar[0], held[:3, 3], rtol=1e-9, atol=0)


def test_small_steps_keep_their_digits_in_float32() -> None:
    A = torch.tensor([[-0.5 + 0.3j]], dtype=torch.complex64)
    _, B_bar = zero_order_hold(A, torch.tensor([1e-6]))
    assert abs(complex(B_bar) / 1e-6 - 1) < 1e-6


def test_lin_is_the_fourier_spectrum_and_inv_its_inverse_law() -> None:
    assert diagonal_frequencies(4, "lin").tolist() == pytest.approx([0, math.pi, 2 * math.pi, 3 * math.pi])
    assert diagonal_frequencies(2, "inv").tolist() == pytest.approx([4 / math.pi * 3, 4 / math.pi / 3])
