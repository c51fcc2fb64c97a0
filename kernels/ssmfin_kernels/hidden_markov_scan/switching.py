"""Owns Kim's filter: linear Gaussian state-space models whose matrices are those of a hidden regime.

    alpha_t = c_j + F_j alpha_{t-1} + eta_t,   eta ~ N(0, Q_j)       y_t = d_j + H_j' alpha_t + eps_t,   eps ~ N(0, R_j)

with j = s_t. The exact filter needs K^t moments; Kim keeps K, one for each present regime. For every pair i = s_{t-1},
j = s_t a Kalman step gives mean a_ij, covariance P_ij and density f_ij; then, w_ij = p_i transition_ij f_ij / sum,

    p_j = sum_i w_ij,   a_j = sum_i w_ij a_ij / p_j,   P_j = sum_i w_ij (P_ij + (a_ij - a_j)(a_ij - a_j)') / p_j

and sum_t log sum_ij p_i transition_ij f_ij is the approximate log-likelihood. NumPy in and out, float64; complex
matrices are taken too, for derivatives by the complex step: Im l(theta + i h) / h.

References:
    Kim (1994), Journal of Econometrics 60, eq. 2.8 to 2.14; Kim & Nelson (1999), State-Space Models with Regime
    Switching, chapter 5. Squire & Trapp (1998), SIAM Review 40 (complex step).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SwitchingModel(NamedTuple):
    """Matrices of N models of K regimes and n states, and the distribution after the row before the first one.

    Attributes:
        F, Q: (N, K, n, n).
        H, c: (N, K, n).
        R, d: (N, K).
        transition: (N, K, K), P(s_t = j | s_{t-1} = i) at [i, j].
        p: (N, K), of the regime before the first row.
        mean: (N, K, n), of the state before the first row, in each regime.
        covariance: (N, K, n, n).
    """

    F: np.ndarray
    H: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    c: np.ndarray
    d: np.ndarray
    transition: np.ndarray
    p: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


class SwitchingFiltered(NamedTuple):
    """What `switching_filter` returns.

    Attributes:
        steps: (B, T), log p(y_t | y_1 .. y_{t-1}); NaN where missing or among the first `burn` observations.
        predicted, filtered: (B, T, K), probabilities of regimes.
        log_p, mean, covariance, seen: after the last row, where a run goes on.
    """

    steps: np.ndarray
    predicted: np.ndarray
    filtered: np.ndarray
    log_p: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    seen: np.ndarray


def switching_log_likelihood(y: np.ndarray, of: np.ndarray, model: SwitchingModel, *, burn: int = 0) -> np.ndarray:
    """(N,) approximate log-likelihoods, real or complex.

    Args:
        y: (B, T), NaN = missing.
        of: (N,), the series of each model.
        model: SwitchingModel of N.
        burn: how many first observations are left out (as many as there are diffuse states).
    """
    from ssmfin_kernels import library
    from ssmfin_kernels.hidden_markov_scan import switching_loops

    dtype = np.result_type(*model)
    _check(model, len(of))
    parts = SwitchingModel(*(np.ascontiguousarray(part, dtype=dtype) for part in model))
    out = np.zeros(len(of), dtype=dtype)
    library.match_numba_threads()
    switching_loops.log_likelihood(
        *(np.ascontiguousarray(y, dtype=np.float64), np.ascontiguousarray(of, dtype=np.int64), *parts[:6]),
        *(np.log(parts.transition), np.log(parts.p), parts.mean.copy(), parts.covariance.copy(), burn, out),
    )
    return out


def switching_gradient(
    y: np.ndarray, of: np.ndarray, model: SwitchingModel, tangents: SwitchingModel, *, burn: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) approximate log-likelihoods, and (N, D) their exact derivatives in D directions, in one pass.

    Args:
        y, of, model, burn: as for `switching_log_likelihood`; real.
        tangents: what each part of the model moves by in each direction, the directions along an axis at the end.
    """
    from ssmfin_kernels import library
    from ssmfin_kernels.hidden_markov_scan import switching_tangents

    _check(model, len(of))
    D = tangents.p.shape[-1]
    for name, part, along in zip(model._fields, model, tangents, strict=True):
        if along.shape != (*part.shape, D):
            raise ValueError(f"tangents.{name} has shape {along.shape}, expected {(*part.shape, D)}.")
    parts, moved = (
        SwitchingModel(*(np.array(part, dtype=np.float64, order="C") for part in either))
        for either in (model, tangents)
    )
    out, gradient = np.zeros(len(of)), np.zeros((len(of), D))
    library.match_numba_threads()
    switching_tangents.log_likelihood(
        *(np.ascontiguousarray(y, dtype=np.float64), np.ascontiguousarray(of, dtype=np.int64), parts[:6], moved[:6]),
        *(np.log(parts.transition), moved.transition / parts.transition[..., None]),
        *((np.log(parts.p), *parts[8:]), (moved.p / parts.p[..., None], *moved[8:]), burn, out, gradient),
    )
    return out, gradient


def switching_filter(
    y: np.ndarray, model: SwitchingModel, *, burn: int = 0, seen: np.ndarray | None = None
) -> SwitchingFiltered:
    """Probabilities of regimes as the series go on.

    Args:
        y: (B, T), NaN = missing. Missing rows before the first observation leave the state as it is.
        model: SwitchingModel of B.
        burn: as for `switching_log_likelihood`.
        seen: (B,) observations before the first row, of a run that goes on; None for none.
    """
    from ssmfin_kernels import library
    from ssmfin_kernels.hidden_markov_scan import switching_loops

    (B, T), K = y.shape, model.p.shape[1]
    _check(model, B)
    parts = SwitchingModel(*(np.ascontiguousarray(part, dtype=np.float64) for part in model))
    with np.errstate(divide="ignore"):
        log_p, mean, covariance = np.log(parts.p), parts.mean.copy(), parts.covariance.copy()
    counted = np.zeros(B, dtype=np.int64) if seen is None else np.array(seen, dtype=np.int64)
    steps, predicted, filtered = np.empty((B, T)), np.empty((B, T, K)), np.empty((B, T, K))
    library.match_numba_threads()
    switching_loops.run(
        *(np.ascontiguousarray(y, dtype=np.float64), *parts[:7], log_p, mean, covariance, counted, burn),
        *(steps, predicted, filtered),
    )
    return SwitchingFiltered(steps, predicted, filtered, log_p, mean, covariance, counted)


def switching_smoother(transition: np.ndarray, filtered: SwitchingFiltered) -> np.ndarray:
    """(B, T, K) probabilities of regimes given the whole series (Kim 1994, eq. 3.2): two-sided.

    Args:
        transition: (B, K, K).
        filtered: what `switching_filter` gave.
    """
    from ssmfin_kernels.hidden_markov_scan import switching_loops

    smoothed = np.empty_like(filtered.filtered)
    for b in range(len(smoothed)):
        matrix = np.ascontiguousarray(transition[b], dtype=np.float64)
        switching_loops.smooth(matrix, filtered.predicted[b], filtered.filtered[b], smoothed[b])
    return smoothed


def _check(model: SwitchingModel, N: int) -> None:
    """Refuse shapes that do not fit: the loops do not look."""
    K, n = model.H.shape[1:]
    square, vector, number = (N, K, n, n), (N, K, n), (N, K)
    expected = (square, vector, square, number, vector, number, (N, K, K), number, vector, square)
    for name, part, shape in zip(model._fields, model, expected, strict=True):
        if part.shape != shape:
            raise ValueError(f"{name} has shape {part.shape}, expected {shape}.")
