"""Owns the Markov chain of regimes: its transition matrix from free parameters, its stationary distribution, gradients.

    P_ij = e + (1 - K e) exp(u_ij) / sum_l exp(u_il),   u_ii = 0,   e = 1e-10

e keeps every transition possible, so that probabilities never underflow; it costs at most T e in log-likelihood. The
first state has the stationary distribution, pi = pi P, so the likelihood depends on P through it as well.
"""

from __future__ import annotations

import numpy as np

SMALLEST = 1e-10  # transition probability
_FARTHEST = 20.0  # logit at which a fit starts; exp(-20) is 2e-9


def transition_from_free(free: np.ndarray, regimes: int) -> np.ndarray:
    """(N, K (K - 1)) logits against staying, row by row -> (N, K, K)."""
    K = regimes
    logits = np.zeros((free.shape[0], K, K), dtype=free.dtype)  # complex for derivatives
    for place, (i, j) in enumerate(_off_diagonal(K)):
        logits[:, i, j] = free[:, place]
    weights = np.exp(logits - logits.max(2, keepdims=True))
    share: np.ndarray = weights / _sum_last(weights)[:, :, None]
    return SMALLEST + (1 - K * SMALLEST) * share


def free_from_transition(transition: np.ndarray) -> np.ndarray:
    """(N, K, K) -> (N, K (K - 1)); logits beyond 20 are cut there."""
    K = transition.shape[1]
    log_p = np.log(np.maximum(transition - SMALLEST, 1e-300))
    columns = [log_p[:, i, j] - log_p[:, i, i] for i, j in _off_diagonal(K)]
    return np.asarray(np.clip(np.stack(columns, 1), -_FARTHEST, _FARTHEST))


def free_gradient(transition: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Gradient for the logits (N, K (K - 1)) from that for the transition matrix (N, K, K)."""
    K = transition.shape[1]
    scale = 1 - K * SMALLEST
    share = (transition - SMALLEST) / scale
    mean = _sum_last(share * gradient)
    return np.stack([scale * share[:, i, j] * (gradient[:, i, j] - mean[:, i]) for i, j in _off_diagonal(K)], 1)


def stationary(transition: np.ndarray) -> np.ndarray:
    """Distribution that the chain keeps, pi = pi P.

    Args:
        transition: (B, K, K), P(s_{t+1} = j | s_t = i) at [i, j]. NaN gives NaN.
    Returns:
        (B, K), at least 1e-20.

    >>> stationary(np.array([[[0.9, 0.1], [0.3, 0.7]]]))
    array([[0.75, 0.25]])
    """
    K = transition.shape[-1]
    if K == 2:  # the closed form keeps all digits where regimes last very long
        leave, enter = transition[..., 0, 1], transition[..., 1, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            pi = np.stack([enter, leave], -1) / (leave + enter)[..., None]
        return np.where(np.isnan(pi), np.where(np.isnan(transition[..., 0]), np.nan, 0.5), np.maximum(pi, 1e-20))
    return np.asarray(np.maximum(_solve_transposed(_system(transition), np.ones(transition.shape[:-1])), 1e-20))


def with_stationary_gradient(
    transition: np.ndarray, initial: np.ndarray, counts: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Gradient of the log-likelihood for the transition matrix, through the first state's distribution too.

    d l / d P_ij = counts_ij / P_ij + pi_i (A^-1 (start / pi))_j,   A = I - P + 1 1'

    Args:
        transition: (N, K, K).
        initial: (N, K), its stationary distribution.
        counts: (N, K, K), expected number of each transition.
        start: (N, K), probability of each first state given the series.
    Returns:
        (N, K, K).
    """
    sensitivity = np.linalg.solve(_system(transition), (start / initial)[:, :, None])[:, :, 0]
    return np.asarray(counts / transition + initial[:, :, None] * sensitivity[:, None, :])


def _system(transition: np.ndarray) -> np.ndarray:
    K = transition.shape[-1]
    system: np.ndarray = np.eye(K) - transition + np.ones((K, K))
    return system


def _solve_transposed(system: np.ndarray, right: np.ndarray) -> np.ndarray:
    ok = np.isfinite(system).all((-2, -1))
    solved = np.full(right.shape, np.nan, dtype=system.dtype)
    solved[ok] = np.linalg.solve(np.swapaxes(system[ok], -1, -2), right[ok][..., None])[..., 0]
    return solved


def _off_diagonal(K: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(K) for j in range(K) if i != j]


def _sum_last(x: np.ndarray) -> np.ndarray:
    """Over the last axis, term by term: the same bits whatever the batch."""
    total = x[..., 0].copy()
    for k in range(1, x.shape[-1]):
        total += x[..., k]
    return total
