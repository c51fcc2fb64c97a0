"""Owns Kim's log-likelihood with its derivatives in D directions, carried forward beside the values, as numba loops.

For every quantity x of `switching_loops.step` there is dx, its directions along the last axis, by the rules of sums,
products and quotients; with weights w_ij = exp(l_ij - log sum exp l), d log sum exp l = sum_ij w_ij dl_ij. Logarithms
and exponentials, most of the time of a step, are taken once for all directions.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmfin_kernels.hidden_markov_scan import switching_loops as values

_serial = njit(cache=True, error_model="numpy")
_parallel = njit(cache=True, parallel=True, error_model="numpy")


@_serial
def _predict(j, i, F, mean, covariance, square, dF, dQ, dc, dmean, dcovariance, out_mean, out_covariance, dsquare):
    """Directions of F mean + c and F covariance F' + Q, from regime i to j; square: F covariance."""
    n, D = dc.shape[1:]
    for u in range(D):
        for r in range(n):
            total = dc[j, r, u]
            for k in range(n):
                total += dF[j, r, k, u] * mean[i, k] + F[j, r, k] * dmean[i, k, u]
                moved = 0.0
                for h in range(n):
                    moved += dF[j, r, h, u] * covariance[i, h, k] + F[j, r, h] * dcovariance[i, h, k, u]
                dsquare[r, k] = moved
            out_mean[j, i, r, u] = total
        for r in range(n):
            for k in range(n):
                total = dQ[j, r, k, u]
                for h in range(n):
                    total += dsquare[r, h] * F[j, k, h] + square[r, h] * dF[j, k, h, u]
                out_covariance[j, i, r, k, u] = total


@_serial
def _update(j, i, y, H, R, d, mean, covariance, dH, dR, dd, dmean, dcovariance, gain, dgain, dweight):
    """Directions of the moments after y, in place, and of its log-density, onto dweight; values are those before y."""
    n, D = dH.shape[1:]
    v, f = y - d[j], R[j]
    for r in range(n):
        v -= H[j, r] * mean[j, i, r]
        gain[r] = 0.0
        for k in range(n):
            gain[r] += covariance[j, i, r, k] * H[j, k]
        f += H[j, r] * gain[r]
    g = 1.0 / f
    for u in range(D):
        dv, df = -dd[j, u], dR[j, u]
        for r in range(n):
            dv -= dH[j, r, u] * mean[j, i, r] + H[j, r] * dmean[j, i, r, u]
            total = 0.0
            for k in range(n):
                total += dcovariance[j, i, r, k, u] * H[j, k] + covariance[j, i, r, k] * dH[j, k, u]
            dgain[r] = total
            df += dH[j, r, u] * gain[r] + H[j, r] * total
        dg = g * df
        for r in range(n):
            dmean[j, i, r, u] += (dgain[r] * v + gain[r] * (dv - v * dg)) * g
            for k in range(n):
                both = dgain[r] * gain[k] + gain[r] * dgain[k]
                dcovariance[j, i, r, k, u] -= (both - gain[r] * gain[k] * dg) * g
        dweight[j, i, u] -= 0.5 * (dg + g * v * (2.0 * dv - v * dg))


@_serial
def _step(y, model, dmodel, log_transition, dlog_transition, state, dstate, scratch, dscratch, dtotal):
    """`switching_loops.step` with directions: log p(y), and those of it into dtotal (D,)."""
    F, H, Q, R, c, d = model
    dF, dH, dQ, dR, dc, dd = dmodel
    log_p, mean, covariance = state
    dlog_p, dmean, dcovariance = dstate
    pair_mean, pair_covariance, weight, by_regime, square, gain = scratch
    dpair_mean, dpair_covariance, dweight, dby_regime, dsquare, dgain = dscratch
    K, _, D = dmean.shape
    for j in range(K):
        for i in range(K):
            values._predict(F[j], Q[j], c[j], mean[i], covariance[i], pair_mean[j, i], pair_covariance[j, i], square)
            _predict(
                j, i, F, mean, covariance, square, dF, dQ, dc, dmean, dcovariance, dpair_mean, dpair_covariance, dsquare
            )
            weight[j, i] = log_p[i] + log_transition[i, j]
            for u in range(D):
                dweight[j, i, u] = dlog_p[i, u] + dlog_transition[i, j, u]
            if not np.isnan(y):
                _update(
                    j, i, y, H, R, d, pair_mean, pair_covariance, dH, dR, dd, dpair_mean, dpair_covariance,
                    gain, dgain, dweight,
                )  # fmt: skip
                weight[j, i] += values._update(y, H[j], R[j], d[j], pair_mean[j, i], pair_covariance[j, i], gain)
    for j in range(K):
        by_regime[j] = values._log_sum(weight[j])
        for i in range(K):
            weight[j, i] = np.exp(weight[j, i] - by_regime[j])
        for u in range(D):
            moved = 0.0
            for i in range(K):
                moved += weight[j, i] * dweight[j, i, u]
            dby_regime[j, u] = moved
    total = values._log_sum(by_regime)
    for u in range(D):
        dtotal[u] = 0.0
    for j in range(K):
        log_p[j] = by_regime[j] - total
        share = np.exp(log_p[j])
        for u in range(D):
            dtotal[u] += share * dby_regime[j, u]
    for j in range(K):
        _collapse(j, weight, pair_mean, pair_covariance, mean, covariance)
        for u in range(D):
            dlog_p[j, u] = dby_regime[j, u] - dtotal[u]
            for i in range(K):
                dweight[j, i, u] = weight[j, i] * (dweight[j, i, u] - dby_regime[j, u])
        _collapse_directions(
            j, weight, pair_mean, pair_covariance, mean, dweight, dpair_mean, dpair_covariance, dmean, dcovariance
        )
    return total


@_serial
def _collapse(j, w, means, covariances, mean, covariance):
    """Moments of the mixture of K Gaussians that end in regime j."""
    K, n = mean.shape
    for r in range(n):
        total = 0.0
        for i in range(K):
            total += w[j, i] * means[j, i, r]
        mean[j, r] = total
    for r in range(n):
        for k in range(n):
            total = 0.0
            for i in range(K):
                apart, other = means[j, i, r] - mean[j, r], means[j, i, k] - mean[j, k]
                total += w[j, i] * (covariances[j, i, r, k] + apart * other)
            covariance[j, r, k] = total


@_serial
def _collapse_directions(j, w, means, covariances, mean, dw, dmeans, dcovariances, dmean, dcovariance):
    """Directions of `_collapse`."""
    K, n, D = dmean.shape
    for u in range(D):
        for r in range(n):
            total = 0.0
            for i in range(K):
                total += dw[j, i, u] * means[j, i, r] + w[j, i] * dmeans[j, i, r, u]
            dmean[j, r, u] = total
        for r in range(n):
            for k in range(n):
                total = 0.0
                for i in range(K):
                    apart, other = means[j, i, r] - mean[j, r], means[j, i, k] - mean[j, k]
                    moved = (dmeans[j, i, r, u] - dmean[j, r, u]) * other
                    moved += apart * (dmeans[j, i, k, u] - dmean[j, k, u])
                    total += dw[j, i, u] * (covariances[j, i, r, k] + apart * other)
                    total += w[j, i] * (dcovariances[j, i, r, k, u] + moved)
                dcovariance[j, r, k, u] = total


@_serial
def _scratch(K, n, D):
    return (
        np.zeros((K, K, n, D)),
        np.zeros((K, K, n, n, D)),
        np.zeros((K, K, D)),
        np.zeros((K, D)),
        np.zeros((n, n)),
        np.zeros(n),
    )


@_parallel
def log_likelihood(y, of, model, dmodel, log_transition, dlog_transition, state, dstate, burn, out, dout):
    """As `switching_loops.log_likelihood`: out (N,) and its directions dout (N, D); states are overwritten."""
    F, H, Q, R, c, d = model
    dF, dH, dQ, dR, dc, dd = dmodel
    log_p, mean, covariance = state
    dlog_p, dmean, dcovariance = dstate
    N, K, n, D = dmean.shape
    for job in prange(N):
        m = np.int64(job)
        b = of[m]
        scratch, dscratch, dgained = values._scratch(K, n, log_p), _scratch(K, n, D), np.zeros(D)
        first, last = y.shape[1], -1
        for t in range(y.shape[1]):
            if not np.isnan(y[b, t]):
                first, last = min(first, t), t
        seen = 0
        own, down = (F[m], H[m], Q[m], R[m], c[m], d[m]), (dF[m], dH[m], dQ[m], dR[m], dc[m], dd[m])
        begin, dbegin = (log_p[m], mean[m], covariance[m]), (dlog_p[m], dmean[m], dcovariance[m])
        for t in range(first, last + 1):
            gained = _step(
                y[b, t], own, down, log_transition[m], dlog_transition[m], begin, dbegin, scratch, dscratch, dgained
            )
            if not np.isnan(y[b, t]):
                seen += 1
                if seen > burn:
                    out[m] += gained
                    for u in range(D):
                        dout[m, u] += dgained[u]
