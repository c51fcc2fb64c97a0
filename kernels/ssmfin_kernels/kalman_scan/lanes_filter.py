"""Owns the forward pass over blocks of lanes: the filter, and the log-likelihood that stores nothing."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmfin_kernels.kalman_scan import lanes
from ssmfin_kernels.kalman_scan.lanes import LOG_2PI, TINY, W, compiled, log, view

STAGED = 64  # steps written at a time: long bursts to each of the many rows; a quarter of it where states are many
_ONE = lanes.layout.py_func(1, 1, 1)
_TWO = lanes.layout.py_func(2, 1, 2)


@compiled
def step_of_one(w):
    """take_in and predict for N = P = 1, nothing diffuse; the filtered state is left in S1 and T1."""
    o = _ONE
    for i in range(W):
        h, a, P, f = w[o.H + i], w[o.a + i], w[o.P + i], w[o.F + i]
        M = P * h
        F = M * h + w[o.R + i]
        v = (w[o.y + i] - w[o.d + i] - h * a) * w[o.seen + i]
        known = (w[o.seen + i] > 0) & (F > TINY)
        used = F if known else 1.0
        g = 1.0 / used if known else 0.0
        w[o.log_p + i] = -0.5 * (LOG_2PI + log(used) + v * v * g) if known else 0.0
        a += M * (g * v)
        P -= M * M * g
        w[o.S1 + i] = a
        w[o.T1 + i] = P
        w[o.a + i] = w[o.c + i] + f * a
        w[o.P + i] = f * P * f + w[o.Q + i]


@compiled
def step_of_two(w):
    """The same for N = 2."""
    o = _TWO
    for i in range(W):
        h0, h1 = w[o.H + i], w[o.H + W + i]
        a0, a1 = w[o.a + i], w[o.a + W + i]
        P00, P10, P11 = w[o.P + i], w[o.P + 2 * W + i], w[o.P + 3 * W + i]
        M0, M1 = P00 * h0 + P10 * h1, P10 * h0 + P11 * h1
        F = h0 * M0 + h1 * M1 + w[o.R + i]
        v = (w[o.y + i] - w[o.d + i] - (h0 * a0 + h1 * a1)) * w[o.seen + i]
        known = (w[o.seen + i] > 0) & (F > TINY)
        used = F if known else 1.0
        g = 1.0 / used if known else 0.0
        w[o.log_p + i] = -0.5 * (LOG_2PI + log(used) + v * v * g) if known else 0.0
        a0 += M0 * (g * v)
        a1 += M1 * (g * v)
        P00 -= M0 * M0 * g
        P10 -= M1 * M0 * g
        P11 -= M1 * M1 * g
        w[o.S1 + i] = a0
        w[o.S1 + W + i] = a1
        w[o.T1 + i] = P00
        w[o.T1 + W + i] = P10
        w[o.T1 + 2 * W + i] = P10
        w[o.T1 + 3 * W + i] = P11
        f00, f01, f10, f11 = w[o.F + i], w[o.F + W + i], w[o.F + 2 * W + i], w[o.F + 3 * W + i]
        w[o.a + i] = w[o.c + i] + (f00 * a0 + f01 * a1)
        w[o.a + W + i] = w[o.c + W + i] + (f10 * a0 + f11 * a1)
        t00, t01 = f00 * P00 + f01 * P10, f00 * P10 + f01 * P11
        t10, t11 = f10 * P00 + f11 * P10, f10 * P10 + f11 * P11
        off = t10 * f00 + t11 * f01
        w[o.P + i] = t00 * f00 + t01 * f01 + w[o.Q + i]
        w[o.P + W + i] = off + w[o.Q + W + i]
        w[o.P + 2 * W + i] = off + w[o.Q + 2 * W + i]
        w[o.P + 3 * W + i] = t10 * f10 + t11 * f11 + w[o.Q + 3 * W + i]


@compiled
def advance(w, o, N, P, m, diffuse):
    """One step, take_in and predict, by the shortest code for its size."""
    if P == 1 and N == 1 and not diffuse:
        step_of_one(w)
    elif P == 1 and N == 2 and not diffuse:
        step_of_two(w)
    else:
        lanes.take_in(w, o, N, P, m, diffuse)
        lanes.copy(w, o.S1, w, o.a, N)
        lanes.predict(w, o, N, diffuse)


@compiled
def _stage_innovation(buffer, s, row, w, o, N, P, m):
    """y - d - H a (NaN where missing) and H P H' + R of the predicted state, into rows of the buffer."""
    staged = buffer[s]
    for p in range(P):
        h = o.H + p * m * W
        v, d, y, seen = view(staged, row + p * W), view(w, o.d + p * W), view(w, o.y + p * W), view(w, o.seen + p * W)
        for i in range(W):
            v[i] = d[i]
        for k in range(N):
            hk, ak = view(w, h + k * W), view(w, o.a + k * W)
            for i in range(W):
                v[i] += hk[i] * ak[i]
        for i in range(W):
            v[i] = y[i] - v[i] if seen[i] > 0 else np.nan
        for q in range(p + 1):
            at = row + (P + p * P + q) * W
            out = view(staged, at)
            lanes.copy(staged, at, w, o.R + (p * P + q) * W, 1)
            for k in range(N):
                hk = view(w, h + k * W)
                for j in range(N):
                    c, z = view(w, o.P + (k * N + j) * W), view(w, o.H + (q * m + j) * W)
                    for i in range(W):
                        out[i] += hk[i] * c[i] * z[i]
            if q < p:
                lanes.copy(staged, row + (P + q * P + p) * W, staged, at, 1)


@compiled
def _flush(target, buffer, row, rows, b0, n, t0, count):
    """Steps of the buffer into a (B, T, rows) array."""
    T, width = target.shape[1], buffer.shape[1]
    flat, staged = target.reshape(-1), buffer.reshape(-1)
    for i in range(n):
        for r in range(rows):
            to = view(flat, ((b0 + i) * T + t0) * rows + r)
            source = view(staged, (row + r) * W + i)
            for s in range(count):
                to[s * rows] = source[s * width]


@njit(cache=True, parallel=True, error_model="numpy")
def log_likelihood(data, N, m, out):
    """out (B,): the sum over time; nothing is stored."""
    B, T, P = data.y.shape
    for block in prange((B + W - 1) // W):
        b0 = np.int64(block) * W
        n = min(W, B - b0)
        o = lanes.layout(N, P, m)
        w = np.empty(o.end + W)
        total = o.end
        lanes.fill(w, total, 1, 0.0)
        lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
        diffuse = True
        for t in range(T):
            lanes.load_start(w, o, data, N, b0, n, t)
            if t > 0:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, data, P, b0, n, t)
            if diffuse or data.reset.shape[0] > 0:
                diffuse = lanes.any_diffuse(w, o)
            advance(w, o, N, P, m, diffuse)
            for i in range(W):
                w[total + i] += w[o.log_p + i]
        for i in range(n):
            out[b0 + i] = w[total + i]


@njit(cache=True, parallel=True, error_model="numpy")
def run(data, N, m, steps, pm, pc, fm, fc, last_mean, last_covariance, last_diffuse, innovation, spread, diffuse_flags):
    """Every moment of `naive.Moments`, matrices flattened, steps (B, T, 1).

    Steps are written STAGED at a time: step by step, a block would touch a page of each array for each of its lanes.
    """
    B, T, P = data.y.shape
    for block in prange((B + W - 1) // W):
        b0 = np.int64(block) * W
        n = min(W, B - b0)
        o = lanes.layout(N, P, m)
        w = np.empty(o.end)
        NN = N * N
        staged = STAGED if N <= 4 else STAGED // 4
        buffer = np.empty((staged, (1 + 2 * N + 2 * NN + P + P * P) * W))
        r_pm, r_pc, r_fm = 1, 1 + N, 1 + N + NN
        r_fc, r_v = r_fm + N, r_fm + N + NN
        lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
        diffuse = True
        for t in range(T):
            s = t % staged
            lanes.load_start(w, o, data, N, b0, n, t)
            if t > 0:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, data, P, b0, n, t)
            if diffuse or data.reset.shape[0] > 0:
                diffuse = lanes.any_diffuse(w, o)
            lanes.copy(buffer[s], r_pm * W, w, o.a, N)
            lanes.copy(buffer[s], r_pc * W, w, o.P, NN)
            _stage_innovation(buffer, s, r_v * W, w, o, N, P, m)
            for i in range(n):
                diffuse_flags[b0 + i, t] = diffuse and w[o.rank + i] > 0
            if P == 1 and N <= 2 and not diffuse:
                advance(w, o, N, P, m, diffuse)
                lanes.copy(buffer[s], r_fm * W, w, o.S1, N)
                lanes.copy(buffer[s], r_fc * W, w, o.T1, NN)
            else:
                lanes.take_in(w, o, N, P, m, diffuse)
                lanes.copy(buffer[s], r_fm * W, w, o.a, N)
                lanes.copy(buffer[s], r_fc * W, w, o.P, NN)
                lanes.predict(w, o, N, diffuse)
            lanes.copy(buffer[s], 0, w, o.log_p, 1)
            if s == staged - 1 or t == T - 1:
                t0 = t - s
                _flush(steps, buffer, 0, 1, b0, n, t0, s + 1)
                _flush(pm, buffer, r_pm, N, b0, n, t0, s + 1)
                _flush(pc, buffer, r_pc, NN, b0, n, t0, s + 1)
                _flush(fm, buffer, r_fm, N, b0, n, t0, s + 1)
                _flush(fc, buffer, r_fc, NN, b0, n, t0, s + 1)
                _flush(innovation, buffer, r_v, P, b0, n, t0, s + 1)
                _flush(spread, buffer, r_v + P, P * P, b0, n, t0, s + 1)
        for i in range(n):
            for r in range(N):
                last_mean[b0 + i, r] = w[o.a + r * W + i]
            for r in range(NN):
                last_covariance[b0 + i, r] = w[o.P + r * W + i]
                last_diffuse[b0 + i, r] = w[o.Pi + r * W + i] if w[o.rank + i] > 0 else 0.0
