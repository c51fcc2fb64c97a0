"""Owns least squares with weights that are not negative and sum to one, for many small problems at once."""

from __future__ import annotations

import numpy as np

from ssmfin.models.interface import FloatArray

TIE = 1e-8  # pull to equal weights, relative to the mean of the diagonal: members that agree to the bit share evenly
TOLERANCE = 1e-10  # of a multiplier, in the same unit


def simplex_weights(gram: FloatArray, moment: FloatArray) -> FloatArray:
    """The best weights on the simplex, problem by problem.

    min_w  w'A w / 2 - b'w   subject to  w >= 0, sum w = 1

    by a primal active set that begins at equal weights: with the weights that are free, solve the problem under the sum
    alone; if one of them turns negative, go as far as it allows and fix it at zero; if none does, set free the fixed
    weight with the most negative multiplier; if there is none, that is the solution. A problem's answer depends, bit
    for bit, on that problem alone.

    Args:
        gram: (m, K, K) A, positive semidefinite. moment: (m, K) b.
    Returns:
        (m, K); equal weights where A is zero (all members are the same).
    References:
        Nocedal, Wright (2006), Numerical Optimization, algorithm 16.3.

    >>> simplex_weights(np.diag([1.0, 4.0])[None], np.zeros((1, 2)))[0].round(6)
    array([0.8, 0.2])
    """
    m, K = moment.shape
    size = np.trace(gram, axis1=1, axis2=2) / K
    weights = np.full((m, K), 1.0 / K)
    open_ = np.flatnonzero(size > 0)
    a = gram[open_] / size[open_, None, None] + TIE * np.eye(K)
    b = moment[open_] / size[open_, None] + TIE / K
    w, free = weights[open_], np.ones((len(open_), K), dtype=bool)
    for _ in range(10 * K):  # each round frees or fixes one weight; two to three per weight were the most seen
        if not len(open_):
            break
        candidate, level = _under_the_sum(a, b, free)
        blocked = np.any(candidate < 0, axis=1)
        step = np.where(candidate < 0, w / np.maximum(w - candidate, np.finfo(float).tiny), np.inf)
        first = step.argmin(axis=1)
        rows = np.flatnonzero(blocked)
        length = step[rows, first[rows], None]
        w = np.where(blocked[:, None], w, candidate)
        w[rows] += length * (candidate[rows] - w[rows])
        w[rows, first[rows]] = 0.0
        free[rows, first[rows]] = False
        w = np.maximum(w, 0.0)
        slope = np.where(free, np.inf, (a @ w[:, :, None])[:, :, 0] - b - level[:, None])
        worst = slope.argmin(axis=1)
        pressing = ~blocked & (slope[np.arange(len(w)), worst] < -TOLERANCE)
        free[pressing, worst[pressing]] = True
        weights[open_] = w
        going = blocked | pressing
        a, b, w, free, open_ = a[going], b[going], w[going], free[going], open_[going]
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _under_the_sum(a: FloatArray, b: FloatArray, free: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Solution on the free weights under sum w = 1, (m, K), and the multiplier of the sum, (m,)."""
    K = b.shape[1]
    pair = free[:, :, None] & free[:, None, :]
    system = np.where(pair, a, np.where(np.eye(K, dtype=bool), 1.0, 0.0))
    sides = np.stack([np.where(free, b, 0.0), free.astype(np.float64)], axis=2)  # (m, K, 2)
    solved = np.linalg.solve(system, sides)
    level = (1.0 - solved[:, :, 0].sum(axis=1)) / solved[:, :, 1].sum(axis=1)
    return solved[:, :, 0] + level[:, None] * solved[:, :, 1], level
