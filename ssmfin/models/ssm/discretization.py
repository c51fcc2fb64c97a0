"""Owns the step from continuous to discrete time, and the diagonal initialisations it starts from. Imports torch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def zero_order_hold(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Discretise x' = A x + u, the input held constant over each step.

        dtA = dt A,        B_bar = (exp(dt A) - 1) / A

    Args:
        A: (D, N) complex diagonal state matrix, no zeros. dt: (D,) real step.
    Returns:
        dtA (D, N), the logarithm of the transition; B_bar (D, N), the discretised unit input weight.
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models, eq. 3.
    """
    dtA = dt[:, None] * A
    # expm1: exp(dt A) - 1 loses all digits as dt A -> 0
    return dtA, torch.expm1(dtA) / A


def diagonal_frequencies(pairs: int, spectrum: Literal["lin", "inv"]) -> Tensor:
    """Imaginary parts of the S4D initialisations, (pairs,) float64; the real part is -1/2 in both.

        lin: pi n        inv: (N / pi) (N / (2 n + 1) - 1),        N = 2 pairs

    References:
        Gu, Gupta, Goel, Re (2022), eq. 9 (S4D-Lin) and eq. 8 (S4D-Inv).
    """
    n = torch.arange(pairs, dtype=torch.float64)
    if spectrum == "lin":
        return math.pi * n
    states = 2 * pairs
    return states / math.pi * (states / (2 * n + 1) - 1)
