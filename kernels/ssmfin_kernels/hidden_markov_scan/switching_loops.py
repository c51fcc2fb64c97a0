"""Owns Kim's filter as numba loops, for real or complex parameters: `switching.py` has the algebra.

Complex parameters give derivatives by the complex step, so nothing below takes an absolute value or a conjugate, and
comparisons look at real parts. Weights are kept as logarithms: a regime that looked impossible can come back.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

_LOG_2PI = math.log(2 * math.pi)
_serial = njit(cache=True, error_model="numpy")
_parallel = njit(cache=True, parallel=True, error_model="numpy")


@_serial
def _predict(F, Q, c, mean, covariance, out_mean, out_covariance, scratch):
    """F mean + c and F covariance F' + Q."""
    n = len(mean)
    for r in range(n):
        total = c[r]
        for k in range(n):
            total += F[r, k] * mean[k]
            scratch[r, k] = F[r, 0] * covariance[0, k]
            for i in range(1, n):
                scratch[r, k] += F[r, i] * covariance[i, k]
        out_mean[r] = total
    for r in range(n):
        for k in range(n):
            total = Q[r, k]
            for i in range(n):
                total += scratch[r, i] * F[k, i]
            out_covariance[r, k] = total


@_serial
def _update(y, H, R, d, mean, covariance, gain):
    """Take y in; log-density of y."""
    n = len(mean)
    v, f = y - d, R
    for r in range(n):
        v -= H[r] * mean[r]
        gain[r] = covariance[r, 0] * H[0]
        for k in range(1, n):
            gain[r] += covariance[r, k] * H[k]
    for r in range(n):
        f += H[r] * gain[r]
    for r in range(n):
        mean[r] += gain[r] * v / f
        for k in range(n):
            covariance[r, k] -= gain[r] * gain[k] / f
    return -0.5 * (_LOG_2PI + np.log(f) + v * v / f)


@_serial
def _log_sum(x):
    """log sum exp, the largest by its real part."""
    top = -np.inf
    for i in range(len(x)):
        top = max(top, x[i].real)
    total = np.exp(x[0] - top)
    for i in range(1, len(x)):
        total += np.exp(x[i] - top)
    return top + np.log(total)


@_serial
def step(y, model, log_transition, log_p, mean, covariance, scratch):
    """One row for one series: log p(y); log_p (K,), mean (K, n), covariance (K, n, n) in place."""
    F, H, Q, R, c, d = model
    pair_mean, pair_covariance, weight, by_regime, square, gain = scratch
    K = len(log_p)
    n = mean.shape[1]
    for j in range(K):
        for i in range(K):
            _predict(F[j], Q[j], c[j], mean[i], covariance[i], pair_mean[j, i], pair_covariance[j, i], square)
            weight[j, i] = log_p[i] + log_transition[i, j]
            if not np.isnan(y):
                weight[j, i] += _update(y, H[j], R[j], d[j], pair_mean[j, i], pair_covariance[j, i], gain)
    for j in range(K):
        by_regime[j] = _log_sum(weight[j])
    total = _log_sum(by_regime)
    for j in range(K):
        log_p[j] = by_regime[j] - total
        for r in range(n):
            mean[j, r] = 0.0
            for k in range(n):
                covariance[j, r, k] = 0.0
        for i in range(K):
            weight[j, i] = np.exp(weight[j, i] - by_regime[j])
            for r in range(n):
                mean[j, r] += weight[j, i] * pair_mean[j, i, r]
        for i in range(K):
            for r in range(n):
                apart = pair_mean[j, i, r] - mean[j, r]
                for k in range(n):
                    other = pair_mean[j, i, k] - mean[j, k]
                    covariance[j, r, k] += weight[j, i] * (pair_covariance[j, i, r, k] + apart * other)
    return total


@_serial
def _scratch(K, n, like):
    return (
        np.zeros((K, K, n), like.dtype),
        np.zeros((K, K, n, n), like.dtype),
        np.zeros((K, K), like.dtype),
        np.zeros(K, like.dtype),
        np.zeros((n, n), like.dtype),
        np.zeros(n, like.dtype),
    )


@_parallel
def log_likelihood(y, of, F, H, Q, R, c, d, log_transition, log_p, mean, covariance, burn, out):
    """Approximate log-likelihood of N jobs, the first `burn` observations left out; states are overwritten."""
    N, K = log_p.shape
    n = mean.shape[2]
    for job in prange(N):
        m = np.int64(job)
        b = of[m]
        scratch = _scratch(K, n, log_p)
        first, last = y.shape[1], -1
        for t in range(y.shape[1]):
            if not np.isnan(y[b, t]):
                first, last = min(first, t), t
        seen = 0
        total = log_p[m, 0] * 0.0
        model = (F[m], H[m], Q[m], R[m], c[m], d[m])
        for t in range(first, last + 1):
            gained = step(y[b, t], model, log_transition[m], log_p[m], mean[m], covariance[m], scratch)
            if not np.isnan(y[b, t]):
                seen += 1
                if seen > burn:
                    total += gained
        out[m] = total


@_parallel
def run(y, F, H, Q, R, c, d, transition, log_p, mean, covariance, seen, burn, steps, predicted, filtered):
    """Filter from the given states, overwritten with those after the last row; seen (B,) counts observations."""
    B, T, K = filtered.shape
    n = mean.shape[2]
    for series in prange(B):
        b = np.int64(series)
        scratch = _scratch(K, n, log_p)
        log_transition = np.log(transition[b])
        model = (F[b], H[b], Q[b], R[b], c[b], d[b])
        for t in range(T):
            observed = not np.isnan(y[b, t])
            for j in range(K):
                total = 0.0
                for i in range(K):
                    total += math.exp(log_p[b, i]) * transition[b, i, j]
                predicted[b, t, j] = total
            steps[b, t] = np.nan
            if observed or seen[b] > 0:
                gained = step(y[b, t], model, log_transition, log_p[b], mean[b], covariance[b], scratch)
            if observed:
                seen[b] += 1
                if seen[b] > burn:
                    steps[b, t] = gained
            for j in range(K):
                filtered[b, t, j] = math.exp(log_p[b, j])


@_serial
def smooth(transition, predicted, filtered, smoothed):
    """Kim's smoother of regimes, for one series: (T, K) each."""
    T, K = filtered.shape
    for j in range(K):
        smoothed[T - 1, j] = filtered[T - 1, j]
    for t in range(T - 2, -1, -1):
        for i in range(K):
            total = 0.0
            for j in range(K):
                if predicted[t + 1, j] > 0.0:
                    total += transition[i, j] * smoothed[t + 1, j] / predicted[t + 1, j]
            smoothed[t, i] = filtered[t, i] * total
