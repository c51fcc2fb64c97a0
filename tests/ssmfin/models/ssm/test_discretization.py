"""Zero-order hold against a dense matrix exponential, and the published initial spectra."""

from __future__ import annotations

import math

import pytest
import torch

from ssmfin.models.ssm.discretization import (
    bilinear,
    diagonal_frequencies,
    hippo_legs,
    hippo_legs_matrices,
    log_uniform,
    zero_order_hold,
)


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


def test_bilinear_solves_the_trapezoidal_rule() -> None:
    A, dt = torch.tensor([[-0.5 + 3.1j, -2.0 + 0.0j]], dtype=torch.complex128), torch.tensor([0.3], dtype=torch.float64)
    A_bar, B_bar = bilinear(A, dt)
    before, u = torch.tensor([1.0 + 2.0j, -1.0], dtype=torch.complex128), 0.7
    after = A_bar * before + B_bar * u
    torch.testing.assert_close(after - before, dt * (A * (after + before) / 2 + u), rtol=1e-12, atol=1e-14)
    assert not bilinear(A.real, dt)[0].is_complex()


@pytest.mark.parametrize("pairs", [1, 4, 16, 64])
def test_legs_is_diagonal_plus_low_rank_in_an_orthonormal_basis(pairs: int) -> None:
    A, B = hippo_legs_matrices(2 * pairs)
    Lambda, P, B_half, V = hippo_legs(pairs)
    full = torch.cat((V, V.conj()), dim=1)
    eye = torch.eye(2 * pairs, dtype=V.dtype)
    torch.testing.assert_close(full.conj().T @ full, eye, rtol=0, atol=1e-11)
    P, poles = torch.cat((P, P.conj())), torch.cat((Lambda, Lambda.conj()))
    rebuilt = full @ (torch.diag(poles) - P[:, None] * P.conj()) @ full.conj().T
    torch.testing.assert_close(rebuilt, A.to(V.dtype), rtol=0, atol=1e-12 * float(A.abs().max()) * pairs)
    torch.testing.assert_close(full @ torch.cat((B_half, B_half.conj())), B.to(V.dtype), rtol=0, atol=1e-10)
    assert (Lambda.real == -0.5).all()
    assert (Lambda.imag > 0).all()
    assert (Lambda.imag.diff() > 0).all()


def test_legs_eigenvalues_are_minus_one_to_minus_N() -> None:
    Lambda, P, _, _ = hippo_legs(4)
    P, poles = torch.cat((P, P.conj())), torch.cat((Lambda, Lambda.conj()))
    eigenvalues = torch.linalg.eigvals(torch.diag(poles) - P[:, None] * P.conj())
    found = eigenvalues.real.sort(descending=True).values
    torch.testing.assert_close(found, -torch.arange(1.0, 9, dtype=torch.float64), rtol=1e-8, atol=0)


def test_inv_is_the_law_of_the_fastest_modes_of_legs() -> None:
    errors = []
    for pairs in (16, 64):
        legs, inv = diagonal_frequencies(pairs, "legs").flip(0), diagonal_frequencies(pairs, "inv")
        errors.append((legs / inv - 1).abs()[:4])
    assert (errors[1] < 0.06).all()
    assert (errors[1] < errors[0]).all()


def test_log_uniform_has_one_value_in_each_part() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = log_uniform(50, 2.0, 200.0)
    places = ((values / 2).log() / math.log(100) * 50).int().tolist()
    assert sorted(places) == list(range(50))
    assert places != sorted(places)
