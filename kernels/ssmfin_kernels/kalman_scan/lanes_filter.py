"""Owns the forward pass over blocks of lanes: the filter, and the log-likelihood that stores nothing."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ssmfin_kernels.kalman_scan import lanes
from ssmfin_kernels.kalman_scan.lanes import COLLECTED, SCORED, SILENT, TINY, W, compiled, inlined, view
from ssmfin_kernels.kalman_scan.lanes_tiles import SIDE, into_lanes, out_of_lanes, settle

MOST_STEPS = 256  # to a tile: long bursts to each of the many rows in memory
TILE = 1024  # steps times rows of lanes: 256 KiB, which the second-level cache of a core holds
_ONE = lanes.layout.py_func(1, 1, 1)
_TWO = lanes.layout.py_func(2, 1, 2)


@inlined
def _lane_of_one(w, i, kept):
    """take_in and predict of a lane for N = P = 1, nothing diffuse; returns v, F and g.

    kept: leaves the filtered state in S1 and T1, and v and F where `lanes.gains` does.
    """
    o = _ONE
    h, a, P, f, y = w[o.H + i], w[o.a + i], w[o.P + i], w[o.F + i], w[o.y + i]
    M = P * h
    F = M * h + w[o.R + i]
    v = y - w[o.d + i] - h * a if y == y else 0.0
    known = (y == y) & (F > TINY)
    g = 1.0 / (F if known else 1.0) if known else 0.0
    a += M * (g * v)
    P -= M * M * g
    if kept:
        w[o.one + i] = v
        w[o.one + W + i] = F
        w[o.S1 + i] = a
        w[o.T1 + i] = P
    w[o.a + i] = w[o.c + i] + f * a
    w[o.P + i] = f * P * f + w[o.Q + i]
    return v, F, g


@inlined
def _lane_of_two(w, i, kept):
    """The same for N = 2."""
    o = _TWO
    h0, h1, y = w[o.H + i], w[o.H + W + i], w[o.y + i]
    a0, a1 = w[o.a + i], w[o.a + W + i]
    P00, P10, P11 = w[o.P + i], w[o.P + 2 * W + i], w[o.P + 3 * W + i]
    M0, M1 = P00 * h0 + P10 * h1, P10 * h0 + P11 * h1
    F = h0 * M0 + h1 * M1 + w[o.R + i]
    v = y - w[o.d + i] - (h0 * a0 + h1 * a1) if y == y else 0.0
    known = (y == y) & (F > TINY)
    g = 1.0 / (F if known else 1.0) if known else 0.0
    a0 += M0 * (g * v)
    a1 += M1 * (g * v)
    P00 -= M0 * M0 * g
    P10 -= M1 * M0 * g
    P11 -= M1 * M1 * g
    if kept:
        w[o.one + i] = v
        w[o.one + W + i] = F
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
    return v, F, g


@compiled
def _small_step(w, N, likelihood):
    """One step of every lane for N <= 2, P = 1, nothing diffuse; bits as of `lanes.take_in` and `lanes.predict`."""
    lanes.wide()
    if N == 1:
        at = _ONE.end
        if likelihood == SILENT:
            for i in range(W):
                _lane_of_one(w, i, True)
        elif likelihood == SCORED:
            for i in range(W):
                v, F, g = _lane_of_one(w, i, True)
                w[_ONE.log_p + i] = lanes.score_of(v, F, g)
        else:
            for i in range(W):
                v, F, g = _lane_of_one(w, i, False)
                lanes.collect_of(w, at + i, v, F, g)
    else:
        at = _TWO.end
        if likelihood == SILENT:
            for i in range(W):
                _lane_of_two(w, i, True)
        elif likelihood == SCORED:
            for i in range(W):
                v, F, g = _lane_of_two(w, i, True)
                w[_TWO.log_p + i] = lanes.score_of(v, F, g)
        else:
            for i in range(W):
                v, F, g = _lane_of_two(w, i, False)
                lanes.collect_of(w, at + i, v, F, g)


@compiled
def advance(w, o, N, P, m, diffuse, likelihood):
    """One step, take_in and predict, by the shortest code for its size."""
    if P == 1 and N <= 2 and not diffuse:
        _small_step(w, N, likelihood)
    else:
        lanes.take_in(w, o, N, P, m, diffuse, likelihood)
        lanes.copy(w, o.S1, w, o.a, N)
        lanes.predict(w, o, N, diffuse)


@compiled
def _tile_steps(T, rows):
    """How many steps make a tile of so many rows of lanes a step; whole squares, or all of a short series."""
    return min(T, max(2 * SIDE, min(MOST_STEPS, TILE // rows // SIDE * SIDE)))


@compiled
def _load_tile(tile, data, b0, n, t0, count):
    """Observations of `count` steps from t0 on into rows of lanes, step after step."""
    _, T, P = data.y.shape
    into_lanes(tile, data.y.reshape(-1), (b0 * T + t0) * P, T * P, n, count * P)


@compiled
def _innovations(w, o, N, P, m, tile, v, spread):
    """y - d - H a (NaN where missing) and H P H' + R of the predicted state, into rows of the tile; for P > 1."""
    for p in range(P):
        h = o.H + p * m * W
        out, d, y = view(tile, v + p * W), view(w, o.d + p * W), view(w, o.y + p * W)
        for i in range(W):
            out[i] = d[i]
        for k in range(N):
            hk, ak = view(w, h + k * W), view(w, o.a + k * W)
            for i in range(W):
                out[i] += hk[i] * ak[i]
        for i in range(W):
            out[i] = y[i] - out[i]  # NaN where y is
        for q in range(p + 1):
            at = spread + (p * P + q) * W
            out = view(tile, at)
            lanes.copy(tile, at, w, o.R + (p * P + q) * W, 1)
            for k in range(N):
                hk = view(w, h + k * W)
                for j in range(N):
                    c, z = view(w, o.P + (k * N + j) * W), view(w, o.H + (q * m + j) * W)
                    for i in range(W):
                        out[i] += hk[i] * c[i] * z[i]
            if q < p:
                lanes.copy(tile, spread + (q * P + p) * W, tile, at, 1)


@compiled
def _innovation(w, o, tile, v, spread):
    """The same for P = 1, after the observation was taken in: what the gain was made of."""
    known, y, out = view(w, o.one), view(w, o.y), view(tile, v)
    for i in range(W):
        out[i] = known[i] if y[i] == y[i] else np.nan
    lanes.copy(tile, spread, w, o.one + W, 1)


@njit(cache=True, parallel=True, error_model="numpy")
def log_likelihood(data, N, m, out):
    """out (B,): the sum over time; nothing is stored."""
    B, T, P = data.y.shape
    varying, restarts = lanes.varies(data), data.reset.shape[0] > 0
    for block in prange((B + W - 1) // W):
        b0 = np.int64(block) * W
        n = min(W, B - b0)
        o = lanes.layout(N, P, m)
        w = np.empty(o.end + 4 * W)
        tile_steps = _tile_steps(T, P)
        tile = np.empty(tile_steps * P * W)
        total = o.end + 3 * W
        lanes.fill(w, o.end, 4, 0.0)
        lanes.fill(w, o.end + W, 1, 1.0)
        most = max(1, 512 // P)  # steps to a logarithm
        lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
        diffuse = True
        for t in range(T):
            s = t % tile_steps
            if s == 0:
                _load_tile(tile, data, b0, n, t, min(tile_steps, T - t))
            if t == 0 or restarts:
                lanes.load_start(w, o, data, N, b0, n, t)
            if varying:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.copy(w, o.y, tile, s * P * W, P)
            if diffuse or restarts:
                diffuse = lanes.any_diffuse(w, o)
            advance(w, o, N, P, m, diffuse, COLLECTED)
            if t % most == most - 1 or t == T - 1:
                lanes.collected(w, o.end, total)
        for i in range(n):
            out[b0 + i] = w[total + i]


@njit(cache=True, parallel=True, error_model="numpy")
def run(data, N, m, steps, pm, pc, fm, fc, last_mean, last_covariance, last_diffuse, innovation, spread, diffuse_flags):
    """The moments of `naive.Moments`, matrices flattened, steps (B, T, 1); flags come as False; empty: not wanted.

    A tile of steps at a time: step by step, a block would touch a page of each array for each of its lanes.
    """
    B, T, P = data.y.shape
    NN, PP = N * N, P * P
    varying, restarts = lanes.varies(data), data.reset.shape[0] > 0
    predicted, filtered, innovations, scores = pm.size > 0, fm.size > 0, innovation.size > 0, steps.size > 0
    for block in prange((B + W - 1) // W):
        b0 = np.int64(block) * W
        n = min(W, B - b0)
        o = lanes.layout(N, P, m)
        w = np.empty(o.end)
        rows = P + (1 if scores else 0) + ((P + PP) if innovations else 0)
        rows += ((N + NN) if predicted else 0) + ((N + NN) if filtered else 0)
        most = _tile_steps(T, rows)
        likelihood = SCORED if scores else SILENT
        tile, scratch = np.empty(rows * most * W), np.empty(SIDE * most * max(NN, PP))
        y_ = 0  # where each quantity starts in the tile
        steps_ = y_ + P * most * W
        pm_ = steps_ + most * W if scores else steps_
        pc_ = pm_ + N * most * W
        fm_ = pc_ + NN * most * W if predicted else pm_
        fc_ = fm_ + N * most * W
        v_ = fc_ + NN * most * W if filtered else fm_
        spread_ = v_ + P * most * W
        lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
        diffuse = True
        for t0 in range(0, T, most):
            count = min(most, T - t0)
            _load_tile(tile, data, b0, n, t0, count)
            for s in range(count):
                t = t0 + s
                if t == 0 or restarts:
                    lanes.load_start(w, o, data, N, b0, n, t)
                if varying:
                    lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
                lanes.copy(w, o.y, tile, y_ + s * P * W, P)
                if diffuse or restarts:
                    diffuse = lanes.any_diffuse(w, o)
                if diffuse:
                    for i in range(n):
                        diffuse_flags[b0 + i, t] = w[o.rank + i] > 0
                if predicted:
                    lanes.copy(tile, pm_ + s * N * W, w, o.a, N)
                    lanes.copy(tile, pc_ + s * NN * W, w, o.P, NN)
                if innovations and P > 1:
                    _innovations(w, o, N, P, m, tile, v_ + s * P * W, spread_ + s * PP * W)
                if P == 1 and N <= 2 and not diffuse:
                    advance(w, o, N, P, m, diffuse, likelihood)
                    if filtered:
                        lanes.copy(tile, fm_ + s * N * W, w, o.S1, N)
                        lanes.copy(tile, fc_ + s * NN * W, w, o.T1, NN)
                else:
                    lanes.take_in(w, o, N, P, m, diffuse, likelihood)
                    if filtered:
                        lanes.copy(tile, fm_ + s * N * W, w, o.a, N)
                        lanes.copy(tile, fc_ + s * NN * W, w, o.P, NN)
                    lanes.predict(w, o, N, diffuse)
                if innovations and P == 1:
                    _innovation(w, o, tile, v_ + s * W, spread_ + s * W)
                if scores:
                    lanes.copy(tile, steps_ + s * W, w, o.log_p, 1)
            at = b0 * T + t0
            if scores:
                out_of_lanes(steps.reshape(-1), at, T, tile, steps_, n, count, scratch)
            if predicted:
                out_of_lanes(pm.reshape(-1), at * N, T * N, tile, pm_, n, count * N, scratch)
                out_of_lanes(pc.reshape(-1), at * NN, T * NN, tile, pc_, n, count * NN, scratch)
            if filtered:
                out_of_lanes(fm.reshape(-1), at * N, T * N, tile, fm_, n, count * N, scratch)
                out_of_lanes(fc.reshape(-1), at * NN, T * NN, tile, fc_, n, count * NN, scratch)
            if innovations:
                out_of_lanes(innovation.reshape(-1), at * P, T * P, tile, v_, n, count * P, scratch)
                out_of_lanes(spread.reshape(-1), at * PP, T * PP, tile, spread_, n, count * PP, scratch)
        for i in range(n):
            for r in range(N):
                last_mean[b0 + i, r] = w[o.a + r * W + i]
            for r in range(NN):
                last_covariance[b0 + i, r] = w[o.P + r * W + i]
                last_diffuse[b0 + i, r] = w[o.Pi + r * W + i] if w[o.rank + i] > 0 else 0.0
        settle()
