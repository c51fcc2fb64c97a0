"""Owns Gaussian regimes: hidden Markov recursions that read observations, not densities, and return what a fit needs.

An observation is a vector z_t (what is explained, its lags, regressors, a one), and the state a tuple of regimes
m = (s_t, .., s_{t-p}), p the order, moved by a chain of K regimes with transition(i, j) = P(s_{t+1} = j | s_t = i):

    log f_m(z_t) = c_m - 1/2 |L_m z_t|^2        regression: L = (1, -b') / sigma;  vector: L = chol(S)^-1 (I, -mean)

With gamma_t(m) = P(m at t | all z) and xi likewise for transitions, the log-likelihood l and its derivatives need, by
Fisher's identity, only the expected sufficient statistics that EM needs too:

    weight_m = sum_t gamma_t(m),   moments_m = sum_t gamma_t(m) z_t z_t',   counts_ij = sum_t xi_t(i, j)
    dl/dc_m = weight_m,   dl/dL_m = -L_m moments_m,   dl/d log transition = counts,   dl/d log initial = start

so one pass forward and one backward give both, and no array of the size of the data is written. NumPy in and out: the
caller is a fit that differentiates these statistics by hand. All of float64. Rows of pattern -1 are missing; other
patterns choose among several sets of c and L (which columns of a vector were seen).

References:
    Hamilton (1994), Time Series Analysis, section 22.4; Hamilton (1990), Journal of Econometrics 45.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """What `expectation` returns, for N jobs, M = K^(order + 1) tuples, Q patterns, D the size of z.

    Attributes:
        log_likelihood: (N,).
        counts: (N, K, K), expected number of transitions, those within the first tuple included.
        start: (N, K), probability of the oldest regime of the first tuple.
        weight: (N, Q, M), expected number of observations.
        moments: (N, Q, M, D, D), expected sum of z z'.
    """

    log_likelihood: np.ndarray
    counts: np.ndarray
    start: np.ndarray
    weight: np.ndarray
    moments: np.ndarray


class Filtered(NamedTuple):
    """What `run` returns.

    Attributes:
        steps: (B, T), log p(z_t | z_1 .. z_{t-1}); NaN where missing.
        predicted: (B, T, K), P(s_t | z_1 .. z_{t-1}).
        filtered: (B, T, K), P(s_t | z_1 .. z_t).
        tuples: (B, M), predicted for step T + 1: where a run goes on.
        started: (B,) bool, whether a row has been observed.
    """

    steps: np.ndarray
    predicted: np.ndarray
    filtered: np.ndarray
    tuples: np.ndarray
    started: np.ndarray


def expectation(
    z: np.ndarray,
    pattern: np.ndarray,
    of: np.ndarray,
    constant: np.ndarray,
    rows: np.ndarray,
    transition: np.ndarray,
    initial: np.ndarray,
    *,
    order: int = 0,
) -> Statistics:
    """Log-likelihoods and expected sufficient statistics: the E-step, and all that a gradient needs.

    Args:
        z: (B, T, D), no NaN (zero where missing).
        pattern: (B, T) integer below Q; -1 where the row is missing.
        of: (N,), the series of each job (several starts of one series are several jobs).
        constant: (N, Q, M), c.
        rows: (N, Q, M, R, D), L.
        transition: (N, K, K), positive: exact zeros may make a series impossible (log-likelihood NaN).
        initial: (N, K), of the oldest regime of the first tuple.
        order: number of lagged regimes in a tuple.
    Raises:
        ValueError: a shape does not fit.
    """
    from ssmfin_kernels.hidden_markov_scan import gaussian_loops

    loop: Any = gaussian_loops.expectation
    N, K = initial.shape
    M, D = _check(z, pattern, constant, rows, transition, initial, order, N)
    if of.shape != (N,):
        raise ValueError(f"of has shape {of.shape}, expected (N,) with N = {N}.")
    Q = constant.shape[1]
    result = Statistics(np.zeros(N), np.zeros((N, K, K)), np.zeros((N, K)), np.zeros((N, Q, M)), _zeros(N, Q, M, D, D))
    _match_threads()
    loop(
        *(_array(z), _pattern(pattern), np.ascontiguousarray(of, dtype=np.int64)),
        *(_array(x) for x in (constant, rows, transition, initial)),
        order,
        *result,
    )
    return result


def run(
    z: np.ndarray,
    pattern: np.ndarray,
    constant: np.ndarray,
    rows: np.ndarray,
    transition: np.ndarray,
    initial: np.ndarray,
    *,
    order: int = 0,
    carry: tuple[np.ndarray, np.ndarray] | None = None,
) -> Filtered:
    """Probabilities of regimes as the series goes on.

    Args:
        z, pattern, constant, rows, transition, initial, order: as for `expectation`, one job a series (N = B).
        carry: (tuples, started) of the run that this one continues; None to begin from `initial`.
    Raises:
        ValueError: a shape does not fit.
    """
    from ssmfin_kernels.hidden_markov_scan import gaussian_loops

    loop: Any = gaussian_loops.run
    (B, T, _), K = z.shape, initial.shape[1]
    M, _ = _check(z, pattern, constant, rows, transition, initial, order, B)
    if carry is None:
        tuples, started = np.empty((B, M)), np.zeros(B, dtype=np.bool_)
        for b in range(B):
            gaussian_loops.initial_tuples(_array(transition[b]), _array(initial[b]), order, tuples[b])
    else:
        tuples, started = np.array(carry[0], dtype=np.float64), np.array(carry[1], dtype=np.bool_)
        if tuples.shape != (B, M) or started.shape != (B,):
            raise ValueError(
                f"carry has shapes {tuples.shape} and {started.shape}, expected (B, M) and (B,) with B = {B}, M = {M}."
            )
    steps, predicted, filtered = np.empty((B, T)), np.empty((B, T, K)), np.empty((B, T, K))
    _match_threads()
    loop(
        *(_array(z), _pattern(pattern), *(_array(x) for x in (constant, rows, transition))),
        *(tuples, started, order, steps, predicted, filtered),
    )
    return Filtered(steps, predicted, filtered, tuples, started)


def smooth(
    z: np.ndarray,
    pattern: np.ndarray,
    constant: np.ndarray,
    rows: np.ndarray,
    transition: np.ndarray,
    initial: np.ndarray,
    *,
    order: int = 0,
) -> np.ndarray:
    """Probabilities of regimes given the whole series (B, T, K): two-sided, never a feature of a forecast.

    Arguments as for `run`; `initial` is taken to be the stationary distribution where rows precede the first
    observation.
    """
    from ssmfin_kernels.hidden_markov_scan import gaussian_loops

    (B, T, _), K = z.shape, initial.shape[1]
    _check(z, pattern, constant, rows, transition, initial, order, B)
    smoothed = np.empty((B, T, K))
    _match_threads()
    gaussian_loops.smooth(
        *(_array(z), _pattern(pattern), *(_array(x) for x in (constant, rows, transition, initial)), order, smoothed)
    )
    return smoothed


def _check(
    z: np.ndarray,
    pattern: np.ndarray,
    constant: np.ndarray,
    rows: np.ndarray,
    transition: np.ndarray,
    initial: np.ndarray,
    order: int,
    N: int,
) -> tuple[int, int]:
    """M and D; refuse shapes that do not fit: the loops do not look."""
    B, T, D = z.shape
    K = initial.shape[1]
    M, Q = K ** (order + 1), constant.shape[1]
    expected = {
        "pattern": (pattern, (B, T)),
        "constant": (constant, (N, Q, M)),
        "rows": (rows, (N, Q, M, rows.shape[3] if rows.ndim == 5 else 1, D)),
        "transition": (transition, (N, K, K)),
        "initial": (initial, (N, K)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}.")
    if pattern.size and pattern.max() >= Q:
        raise ValueError(f"pattern holds {pattern.max()}, expected numbers below {Q}, the patterns of constant.")
    return M, D


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape)


def _array(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float64)


def _pattern(pattern: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pattern, dtype=np.int16)


def _match_threads() -> None:
    from ssmfin_kernels import library

    library.match_numba_threads()
