"""Owns the recursion that the extended and the unscented filter share; they differ in how a moment is carried over.

With the predicted moments (a, P) of the state, and (m, S, C) the mean and covariance of y and its covariance with the
state, all given y_1 .. y_{t-1}:

    v = y - m,   a <- a + C S^{-1} v,   P <- P - C S^{-1} C',   log p = -1/2 (p log 2 pi + log det S + v' S^{-1} v)

Missing components leave the update: their rows of v and C become zero and of S those of the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin.classical.nonlinear.model import GaussianState, NonlinearFiltered, Problem

# (problem, state, t) -> mean, covariance without noise, covariance with the state (last one for observations only)
Transformed = tuple[Tensor, Tensor, Tensor]
Transform = Callable[[Problem, GaussianState, int], Transformed]


def run(problem: Problem, observe: Transform, predict: Transform) -> NonlinearFiltered:
    """Filter every series with the given approximations of the moments of h(alpha) and f(alpha)."""
    model, state = problem.model, problem.start
    predicted, filtered, innovations, covariances, steps = [], [], [], [], []
    for t in range(problem.y.shape[1]):
        mean, S, C = observe(problem, state, t)
        S = S + problem.covariance(model.observation_covariance, state.mean, t)
        after, v, step = _condition(state, problem.y[:, t], mean, S, C)
        predicted.append(state)
        filtered.append(after)
        innovations.append(v)
        covariances.append(S)
        steps.append(step)
        mean, P, _ = predict(problem, after, t)
        state = GaussianState(mean, P + problem.covariance(model.process_covariance, after.mean, t))
    return _collected(problem, predicted, filtered, innovations, covariances, steps, state)


def outer_product(left: Tensor, right: Tensor, weight: Tensor | None = None) -> Tensor:
    """sum_s w_s left_s right_s' over the second dimension of (B, S, n) and (B, S, m) -> (B, n, m)."""
    weighted = left if weight is None else left * weight[:, None]
    return weighted.mT @ right


def symmetric(matrix: Tensor) -> Tensor:
    """Half of a matrix and its transpose: rounding must not build up an antisymmetric part."""
    return 0.5 * (matrix + matrix.mT)


def _condition(
    state: GaussianState, y: Tensor, mean: Tensor, S: Tensor, C: Tensor
) -> tuple[GaussianState, Tensor, Tensor]:
    """The state given y, the innovation (NaN where missing) and log p(y)."""
    seen = ~torch.isnan(y)
    v = torch.where(seen, torch.where(seen, y, 0.0) - mean, 0.0)
    both = seen[:, :, None] & seen[:, None, :]
    S = torch.where(both, symmetric(S), torch.eye(y.shape[-1], dtype=y.dtype))
    C = torch.where(seen[:, None, :], C, 0.0)  # (B, N, P)
    L, failed = torch.linalg.cholesky_ex(S)
    L = torch.where((failed == 0)[:, None, None], L, torch.nan)
    whitened = torch.linalg.solve_triangular(L, v[..., None], upper=False)  # (B, P, 1)
    carried = torch.linalg.solve_triangular(L, C.mT, upper=False)  # (B, P, N)
    after = GaussianState(
        state.mean + (carried.mT @ whitened)[..., 0], symmetric(state.covariance - carried.mT @ carried)
    )
    log_determinant = 2.0 * torch.diagonal(L, dim1=-2, dim2=-1).log().sum(-1)
    step = -0.5 * (seen.sum(-1).double() * math.log(2 * math.pi) + log_determinant + whitened.square().sum((-2, -1)))
    return after, torch.where(seen, v, torch.nan), step


def _collected(
    problem: Problem,
    predicted: list[GaussianState],
    filtered: list[GaussianState],
    innovations: list[Tensor],
    covariances: list[Tensor],
    steps: list[Tensor],
    carry: GaussianState,
) -> NonlinearFiltered:
    B, T, P = problem.y.shape
    N = problem.start.mean.shape[-1]

    def stacked(items: list[Tensor], *shape: int) -> Tensor:
        return torch.stack(items, 1) if items else problem.y.new_zeros(B, T, *shape)

    by_step = stacked(steps)
    return NonlinearFiltered(
        stacked([state.mean for state in predicted], N),
        stacked([state.covariance for state in predicted], N, N),
        stacked([state.mean for state in filtered], N),
        stacked([state.covariance for state in filtered], N, N),
        stacked(innovations, P),
        stacked(covariances, P, P),
        by_step.sum(1),
        by_step,
        carry,
    )
