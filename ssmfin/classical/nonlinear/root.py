"""Owns the square root of a positive semidefinite covariance, smooth, differentiable and the same in any unit.

    P = D C D,  D = sqrt(diag P),  C = V diag(l) V';     L = D C^{1/2},  C^{1/2} = V diag(sqrt l) V',  L L' = P

Singular covariances are common (lags in the state, a known start), and there Cholesky's algorithm fails or, without
pivoting, divides rounding errors by small pivots; with pivoting it would jump where the order of the pivots changes.
Nothing of this holds for the symmetric root, and its derivative needs no distinct eigenvalues:

    C^{1/2} dX + dX C^{1/2} = dC     so     (V' dX V)_ij = (V' dC V)_ij / (sqrt l_i + sqrt l_j)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Eigenvalues of a correlation matrix below -_INDEFINITE are no rounding: the covariance is broken.
_INDEFINITE = 1e-8


def semidefinite_root(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """L with L L' = P for positive semidefinite P (B, N, N), and (B,) bool, whether P was one.

    >>> P = torch.tensor([[[4.0, 2.0], [2.0, 1.0]]], dtype=torch.float64)  # singular
    >>> L, valid = semidefinite_root(P)
    >>> torch.allclose(L @ L.mT, P), valid.tolist()
    (True, [True])
    """
    diagonal = torch.diagonal(covariance, dim1=-2, dim2=-1)
    positive = diagonal > 0
    scale = torch.where(positive, torch.sqrt(torch.where(positive, diagonal, 1.0)), 0.0)  # (B, N)
    divisor = torch.where(positive, scale, 1.0)
    correlation = covariance / (divisor[:, :, None] * divisor[:, None, :])
    finite = torch.isfinite(correlation).flatten(1).all(1)
    correlation = torch.where(finite[:, None, None], correlation, 0.0)
    root, lowest = _SymmetricRoot.apply(correlation)  # type: ignore[no-untyped-call]
    valid = finite & (lowest >= -_INDEFINITE) & (diagonal >= 0).all(1)
    return scale[:, :, None] * root, valid


class _SymmetricRoot(torch.autograd.Function):
    """C^{1/2} of symmetric C (B, N, N), negative eigenvalues taken for zero, and the lowest eigenvalue (B,)."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        roots = torch.sqrt(values.clamp(min=0.0))
        ctx.save_for_backward(roots, vectors)
        lowest = values[:, 0].clone()
        ctx.mark_non_differentiable(lowest)
        return (vectors * roots[:, None]) @ vectors.mT, lowest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        sums = roots[:, :, None] + roots[:, None, :]
        inverse = torch.where(sums > 0, 1.0 / torch.where(sums > 0, sums, 1.0), 0.0)
        inner = vectors.mT @ gradients[0] @ vectors
        result: Tensor = vectors @ (0.5 * (inner + inner.mT) * inverse) @ vectors.mT
        return result
