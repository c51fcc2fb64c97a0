"""Owns the fixed-interval smoother over blocks of lanes: backward in time, each chunk of steps recomputed first.

With k = M g + M_inf g0 and k1 = (M_inf F g0 - M) g0 (`naive.py`: L = I - k h', L1 = k1 h'), a component adds to each of
N0, N1, N2 a matrix h u' + u h' + beta h h':

    N0: u = -N0 k            beta = g + k'N0 k
    N1: u = -N1 k + N0 k1    beta = g0 + k'N1 k - 2 k1'N0 k
    N2: u = -N2 k + N1 k1    beta = -F g0^2 + k'N2 k - 2 k1'N1 k + k1'N0 k1
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ssmfin_kernels.kalman_scan import lanes, lanes_backward
from ssmfin_kernels.kalman_scan.lanes import W, compiled
from ssmfin_kernels.kalman_scan.lanes_backward import CHUNK
from ssmfin_kernels.kalman_scan.lanes_backward_small import layout
from ssmfin_kernels.kalman_scan.lanes_filter import advance


class Extra(NamedTuple):
    """Rows of a second array: records of the components, r0, r1, N0, N1, N2 of size m, scratch."""

    r0: int
    r1: int
    N0: int
    N1: int
    N2: int
    k: int
    k1: int
    u: int
    z: int
    s: int
    P: int
    Pi: int
    T1: int
    T2: int
    end: int


@compiled
def _layout(N, P, m):
    mm = m * m * W
    r0 = layout(N, P, m).ga  # behind the records
    r1 = r0 + m * W
    N0 = r1 + m * W
    N1 = N0 + mm
    N2 = N1 + mm
    k = N2 + mm
    k1 = k + m * W
    u = k1 + m * W
    z = u + m * W
    s = z + m * W
    P0 = s + 4 * W
    return Extra(r0, r1, N0, N1, N2, k, k1, u, z, s, P0, P0 + mm, P0 + 2 * mm, P0 + 3 * mm, P0 + 4 * mm)


@compiled
def _update(w, e, x, Nq, h, m):
    """Nq += h u' + u h' + beta h h', beta in row s + 3."""
    for j in range(m):
        u, hj, b = x.u + j * W, h + j * W, x.s + 3 * W
        for i in range(W):
            e[u + i] = 2.0 * e[u + i] + e[b + i] * w[hj + i]
    lanes_backward._sym_add(e, Nq, x.u, w, h, m)


@compiled
def _linear(e, x, A, k, sign, B, k1, m, second):
    """u = -A k (+ B k1); leaves A k in z."""
    lanes.matvec(e, x.z, A, k, m)
    for i in range(m * W):
        e[x.u + i] = sign * e[x.z + i]
    if second:
        lanes.matvec(e, x.T1, B, k1, m)
        for i in range(m * W):
            e[x.u + i] += e[x.T1 + i]


@compiled
def _undo_component(w, o, e, x, at, p, m, diffuse):
    M = at + (m + 2 * m * m) * W
    Mi = M + m * W
    v = Mi + m * W
    F, g, g0 = v + W, v + 3 * W, v + 4 * W
    h = o.H + p * m * W
    s0, s1, s2, beta = x.s, x.s + W, x.s + 2 * W, x.s + 3 * W
    for j in range(m):
        k, k1, Mj, Ij = x.k + j * W, x.k1 + j * W, M + j * W, Mi + j * W
        for i in range(W):
            e[k + i] = e[Mj + i] * e[g + i]
        if diffuse:
            for i in range(W):
                e[k + i] += e[Ij + i] * e[g0 + i]
                e[k1 + i] = (e[Ij + i] * e[F + i] * e[g0 + i] - e[Mj + i]) * e[g0 + i]
    if diffuse:
        lanes.dot(e, s0, x.k, x.r1, m)
        lanes.dot(e, s1, x.k1, x.r0, m)
        for j in range(m):
            r, hj = x.r1 + j * W, h + j * W
            for i in range(W):
                e[r + i] += w[hj + i] * (e[v + i] * e[g0 + i] - e[s0 + i] + e[s1 + i])
    lanes.dot(e, s0, x.k, x.r0, m)
    for j in range(m):
        r, hj = x.r0 + j * W, h + j * W
        for i in range(W):
            e[r + i] += w[hj + i] * (e[v + i] * e[g + i] - e[s0 + i])
    if diffuse:
        _linear(e, x, x.N2, x.k, -1.0, x.N1, x.k1, m, True)  # T1 = N1 k1
        lanes.dot(e, s0, x.k, x.z, m)
        lanes.dot(e, s1, x.k, x.T1, m)
        lanes.matvec(e, x.z, x.N0, x.k1, m)
        lanes.dot(e, s2, x.k1, x.z, m)
        for i in range(W):
            e[beta + i] = e[s0 + i] - 2.0 * e[s1 + i] + e[s2 + i] - e[F + i] * e[g0 + i] * e[g0 + i]
        _update(w, e, x, x.N2, h, m)
        _linear(e, x, x.N1, x.k, -1.0, x.N0, x.k1, m, True)  # T1 = N0 k1
        lanes.dot(e, s0, x.k, x.z, m)
        lanes.dot(e, s1, x.k, x.T1, m)
        for i in range(W):
            e[beta + i] = e[g0 + i] + e[s0 + i] - 2.0 * e[s1 + i]
        _update(w, e, x, x.N1, h, m)
    _linear(e, x, x.N0, x.k, -1.0, x.N0, x.k1, m, False)
    lanes.dot(e, s0, x.k, x.z, m)
    for i in range(W):
        e[beta + i] = e[g + i] + e[s0 + i]
    _update(w, e, x, x.N0, h, m)


@compiled
def _minus_product(w, e, x, A, Nq, B, twice, N, target):
    """target -= A N B, and its transpose if `twice`."""
    lanes.matmul(e, x.T1, A, Nq, N, False, False)
    lanes.matmul(e, x.T2, x.T1, B, N, False, False)
    for j in range(N):
        for k in range(N):
            q, a, b = target + (j * N + k) * W, x.T2 + (j * N + k) * W, x.T2 + (k * N + j) * W
            for i in range(W):
                w[q + i] -= e[a + i] + (e[b + i] if twice else 0.0)


@compiled
def _smooth(w, o, e, x, N, diffuse):
    """The smoothed state over a and P of w, which hold the predicted one."""
    lanes.copy(e, x.P, w, o.P, N * N)
    lanes.matvec(e, x.u, x.P, x.r0, N)
    for i in range(N * W):
        w[o.a + i] += e[x.u + i]
    _minus_product(w, e, x, x.P, x.N0, x.P, False, N, o.P)
    if diffuse:
        lanes.copy(e, x.Pi, w, o.Pi, N * N)
        lanes.matvec(e, x.u, x.Pi, x.r1, N)
        for i in range(N * W):
            w[o.a + i] += e[x.u + i]
        _minus_product(w, e, x, x.Pi, x.N1, x.P, True, N, o.P)
        _minus_product(w, e, x, x.Pi, x.N2, x.Pi, False, N, o.P)


@compiled
def _to_previous(w, o, e, x, data, N, b0, n, t, diffuse):
    """r <- F' r, N <- F' N F, with F of step t - 1 in w; zero where a sequence starts at t."""
    lanes.copy(e, x.P, w, o.F, N * N)
    for q in range(2 if diffuse else 1):
        r = x.r0 if q == 0 else x.r1
        lanes.matvec_t(e, x.u, x.P, r, N)
        lanes.copy(e, r, e, x.u, N)
    for q in range(3 if diffuse else 1):
        Nq = x.N0 if q == 0 else (x.N1 if q == 1 else x.N2)
        lanes.matmul(e, x.T1, Nq, x.P, N, False, False)
        lanes.matmul(e, Nq, x.P, x.T1, N, True, False)
    if data.reset.shape[0] > 0:
        for i in range(W):
            if data.reset[b0 + (i if i < n else 0), t]:
                for row in range(N):
                    e[x.r0 + row * W + i] = 0.0
                    e[x.r1 + row * W + i] = 0.0
                for row in range(N * N):
                    e[x.N0 + row * W + i] = 0.0
                    e[x.N1 + row * W + i] = 0.0
                    e[x.N2 + row * W + i] = 0.0


@compiled
def _block(data, N, m, block, mean, covariance, steps):
    B, T, P = data.y.shape
    observed, varying, restarts = data.y, lanes.varies(data), data.reset.shape[0] > 0
    b0 = block * W
    n = min(W, B - b0)
    o, x, record = lanes.layout(N, P, m), _layout(N, P, m), layout(N, P, m)
    w, e = np.zeros(o.end), np.zeros(x.end)
    rows = (N + 2 * N * N + 1) * W
    chunks = (T + CHUNK - 1) // CHUNK
    starts, history = np.empty((chunks, rows)), np.empty((CHUNK, rows))
    lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
    for t in range((chunks - 1) * CHUNK + 1):
        if t == 0 or restarts:
            lanes.load_start(w, o, data, N, b0, n, t)
        if t % CHUNK == 0:
            lanes.copy(starts[t // CHUNK], 0, w, 0, rows // W)
        if varying:
            lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
        lanes.load_y(w, o, observed, P, b0, n, t)
        advance(w, o, N, P, m, lanes.any_diffuse(w, o), lanes.SILENT)
    for chunk in range(chunks - 1, -1, -1):
        t0, t1 = chunk * CHUNK, min(T, (chunk + 1) * CHUNK)
        lanes.copy(w, 0, starts[chunk], 0, rows // W)
        for t in range(t0, t1):
            if t > t0 and restarts:
                lanes.load_start(w, o, data, N, b0, n, t)
            lanes.copy(history[t - t0], 0, w, 0, rows // W)
            if varying:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, observed, P, b0, n, t)
            advance(w, o, N, P, m, lanes.any_diffuse(w, o), lanes.SILENT)
        for t in range(t1 - 1, t0 - 1, -1):
            lanes.copy(w, 0, history[t - t0], 0, rows // W)
            if varying:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, observed, P, b0, n, t)
            diffuse = lanes.any_diffuse(w, o)
            if t < T - 1:  # F of this step leads to t + 1
                _to_previous(w, o, e, x, data, N, b0, n, t + 1, diffuse)
            lanes_backward._take_in_recorded(w, o, e, record, N, P, m, diffuse, lanes.SCORED)
            for i in range(n):
                steps[b0 + i, t] = w[o.log_p + i]
            lanes.fill(e, x.r0 + N * W, m - N, 0.0)
            lanes.fill(e, x.r1 + N * W, m - N, 0.0)
            for q in range(3):
                lanes_backward._square(e, x.N0 + q * m * m * W, N, m, True)
            for p in range(P - 1, -1, -1):
                _undo_component(w, o, e, x, p * record.width, p, m, diffuse)
            for q in range(3):
                lanes_backward._square(e, x.N0 + q * m * m * W, N, m, False)
            lanes.copy(w, 0, history[t - t0], 0, rows // W)
            _smooth(w, o, e, x, N, diffuse)
            for i in range(n):
                for r in range(N):
                    mean[b0 + i, t, r] = w[o.a + r * W + i]
                for r in range(N * N):
                    covariance[b0 + i, t, r] = w[o.P + r * W + i]


@njit(cache=True, parallel=True, error_model="numpy")
def run(data, N, m, mean, covariance, steps):
    """Smoothed moments, matrices flattened, and the log-likelihood by step."""
    for block in prange((data.y.shape[0] + W - 1) // W):
        _block(data, N, m, np.int64(block), mean, covariance, steps)
