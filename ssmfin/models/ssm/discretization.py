"""Owns the step from continuous to discrete time, and where state matrices and step sizes start. Imports torch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Spectrum = Literal["lin", "inv", "legs", "real"]
Rule = Literal["zoh", "bilinear"]


def zero_order_hold(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Discretise x' = A x + u, the input held constant over each step.

        dtA = dt A,        B_bar = (exp(dt A) - 1) / A

    Args:
        A: (D, N) diagonal state matrix, real or complex, no zeros. dt: (D,) real step.
    Returns:
        dtA (D, N), the logarithm of the transition; B_bar (D, N), the discretised unit input weight.
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models, eq. 3.
    """
    dtA = dt[:, None] * A
    # expm1: exp(dt A) - 1 loses all digits as dt A -> 0
    return dtA, torch.expm1(dtA) / A


def bilinear(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Discretise x' = A x + u by the trapezoidal rule.

        A_bar = (1 + dt A / 2) / (1 - dt A / 2),        B_bar = dt / (1 - dt A / 2)

    Real modes with dt |A| > 2 alternate in sign, and decay more slowly the larger dt |A| is.

    Args:
        A: (D, N) diagonal state matrix, real or complex, real part <= 0. dt: (D,) real step.
    Returns:
        A_bar (D, N), B_bar (D, N), the discretised unit input weight; real where A is.
    References:
        Gu, Gupta, Goel, Re (2022), eq. 3.
    """
    half = 0.5 * dt[:, None] * A
    return (1 + half) / (1 - half), dt[:, None] / (1 - half)


def diagonal_frequencies(pairs: int, spectrum: Literal["lin", "inv", "legs"]) -> Tensor:
    """Imaginary parts of the S4D initialisations, (pairs,) float64; the real part is -1/2 in all of them.

        lin: pi n        inv: (N / pi) (N / (2 n + 1) - 1),        N = 2 pairs
        legs: those of the diagonal part of HiPPO-LegS, which inv approximates

    References:
        Gu, Gupta, Goel, Re (2022), eq. 9 (S4D-Lin), eq. 8 (S4D-Inv), eq. 7 (S4D-LegS).
    """
    n = torch.arange(pairs, dtype=torch.float64)
    if spectrum == "lin":
        return math.pi * n
    if spectrum == "legs":
        return hippo_legs(pairs)[0].imag
    states = 2 * pairs
    return states / math.pi * (states / (2 * n + 1) - 1)


def hippo_legs_matrices(states: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS, which remembers its whole input by Legendre polynomials.

        A_nk = -sqrt((2n + 1)(2k + 1)) for n > k, -(n + 1) for n = k, 0 above;        B_n = sqrt(2n + 1)

    Returns:
        A (N, N), B (N,), float64.
    References:
        Gu, Dao, Ermon, Rudra, Re (2020), HiPPO: recurrent memory with optimal polynomial projections, theorem 2.
    """
    n = torch.arange(states, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    return -torch.tril(root[:, None] * root, -1) - torch.diag(n + 1), root


def hippo_legs(pairs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """HiPPO-LegS as diagonal plus low rank, in the basis that diagonalises its normal part.

        A = V (diag(Lambda) - P P^*) V^*,        A + p p^T = -1/2 + skew,        p_n = sqrt(n + 1/2)

    One state of each conjugate pair is given. Computed in float64 through the Hermitian matrix i skew, whose
    eigenvectors are orthonormal to rounding (those of A itself are ill-conditioned).

    Args:
        pairs: N / 2.
    Returns:
        Lambda (pairs,), P (pairs,), B (pairs,), and V (N, pairs), complex128, slowest frequency first.
    References:
        Gu, Goel, Re (2022), Efficiently modeling long sequences with structured state spaces, theorem 1, appendix C.1.
    """
    A, B = hippo_legs_matrices(2 * pairs)
    p = torch.sqrt(torch.arange(2 * pairs, dtype=torch.float64) + 0.5)
    skew = A + p[:, None] * p
    skew = 0.5 * (skew - skew.T)  # its diagonal is -1/2, exactly
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    # ascending, in pairs -w, w: the upper half are the positive ones
    Lambda = torch.complex(torch.full_like(frequencies, -0.5), frequencies)[pairs:]
    V = vectors[:, pairs:]
    change = V.conj().T
    return Lambda, change @ p.to(V.dtype), change @ B.to(V.dtype), V


def log_uniform(count: int, low: float, high: float) -> Tensor:
    """(count,) float64 in random order, each log-uniform between low and high, one in each of `count` equal parts.

    In parts, because a handful of independent draws may leave most of the range empty. Uses torch's global generator.
    """
    part = (torch.randperm(count) + torch.rand(count, dtype=torch.float64)) / count
    return low * (high / low) ** part
