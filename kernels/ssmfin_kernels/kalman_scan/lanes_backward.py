"""Owns the gradient of the filter over blocks of lanes: backward in time, each chunk of steps recomputed first.

The forward pass of a block leaves its state at the start of every chunk of CHUNK steps. Backward, a chunk is run
again with every predicted state kept, then its steps are undone last to first. With a* the gradient of the mean, S
that of P and S_inf that of P_inf, all symmetric, one component contributes (notation of `naive.py`, g = 1 / F or 0,
g0 = 1 / F_inf or 0, l* the gradient of log p; bars are gradients):

    v-    = g M'a* + g0 M_inf'a* - l* g v
    F-    = g^2 (M'S M - v M'a*) - l* (g - g^2 v^2) / 2 + g0^2 M_inf'S M_inf
    M-    = g v a* - 2 g S M - 2 g0 S M_inf + F- h
    F_inf-= -g0^2 v M_inf'a* - 2 F g0^3 M_inf'S M_inf + 2 g0^2 M'S M_inf + g0^2 M_inf'S_inf M_inf - l* g0 / 2
    M_inf-= g0 v a* + 2 F g0^2 S M_inf - 2 g0 S M - 2 g0 S_inf M_inf + F_inf- h
    h-   += F- M + P M- + F_inf- M_inf + P_inf M_inf- - v- a,    y- = v-,   d- = -v-,   r- = F-
    a*   -= v- h,   S += sym(M- h'),   S_inf += sym(M_inf- h')

and the prediction a' = c + F a, P' = F P F' + Q:

    c- += a*',  F- += a*' a' + 2 S' F P + 2 S_inf' F P_inf,  Q- += S',  a* = F'a*',  S = F'S'F,  S_inf = F'S_inf'F

Shared matrices: a group of blocks adds to one partial sum, groups are added in order. Same bits every time.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ssmfin_kernels.kalman_scan import lanes
from ssmfin_kernels.kalman_scan.lanes import GROUPS, W, compiled, view
from ssmfin_kernels.kalman_scan.lanes_backward_small import layout, undo_one, undo_two
from ssmfin_kernels.kalman_scan.lanes_filter import advance

CHUNK = 32


class Upstream(NamedTuple):
    """Gradients of the outputs; arrays of length zero for those nothing depends on."""

    steps: np.ndarray  # (B, T), or (B, 1) for the gradient of the sum
    predicted_mean: np.ndarray  # (B, T, N)
    predicted_covariance: np.ndarray  # (B, T, N * N)
    filtered_mean: np.ndarray
    filtered_covariance: np.ndarray
    final_mean: np.ndarray  # (B, 1, N)
    final_covariance: np.ndarray
    final_diffuse: np.ndarray


class Gradients(NamedTuple):
    """Gradients of the inputs, (B or GROUPS, t, rows), zeroed beforehand, or empty where not wanted.

    y as it is, initial ones (B, 1, rows).
    """

    y: np.ndarray
    F: np.ndarray
    H: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    c: np.ndarray
    d: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray


@compiled
def _take_in_recorded(w, o, e, x, N, P, m, diffuse, likelihood):
    lanes.fill(w, o.log_p, 1, 0.0)
    lanes.extend(w, o, N, P, m)
    for p in range(P):
        at = x.a + p * x.width
        lanes.copy(e, at, w, o.xa, m)
        lanes.copy(e, at + m * W, w, o.xP, m * m)
        if diffuse:
            lanes.copy(e, at + (m + m * m) * W, w, o.xPi, m * m)
        lanes.gains(w, o, p, P, N, m, diffuse)
        if likelihood != lanes.SILENT:
            lanes.score(w, o, diffuse, likelihood)
        lanes.condition(w, o, m, diffuse)
        at += (m + 2 * m * m) * W
        lanes.copy(e, at, w, o.M, m)
        if diffuse:
            lanes.copy(e, at + m * W, w, o.Mi, m)
        lanes.copy(e, at + 2 * m * W, w, o.one, 6)
    lanes.shrink(w, o, N, m)


@compiled
def _add(target, e, row, rows, b0, n, t, group):
    """Rows of gradients into (B or GROUPS, t, rows): to each series, or summed into the partial sum of a group."""
    if target.shape[0] == 0:  # not wanted
        return
    at = t if target.shape[1] > 1 else 0
    if group < 0:
        for i in range(n):
            for r in range(rows):
                target[b0 + i, at, r] += e[row + r * W + i]
    else:
        for r in range(rows):
            total = 0.0
            for i in range(n):
                total += e[row + r * W + i]
            target[group, at, r] += total


@compiled
def _add_upstream(e, row, source, N, width, matrix, b0, n, t):
    """Add gradients of an output to those of the state, whose rows are `width` apart; matrices symmetrised."""
    if source.shape[0] == 0:
        return
    for i in range(n):
        for j in range(N):
            if matrix:
                for k in range(N):
                    both = source[b0 + i, t, j * N + k] + source[b0 + i, t, k * N + j]
                    e[row + (j * width + k) * W + i] += 0.5 * both
            else:
                e[row + j * W + i] += source[b0 + i, t, j]


@compiled
def _square(e, row, N, m, out):
    """Between (N, N) and (m, m) rows in place: out > 0 widens with zeros, else cuts."""
    if m == N:
        return
    if out:
        for j in range(N - 1, -1, -1):
            for k in range(N - 1, -1, -1):
                lanes.copy(e, row + (j * m + k) * W, e, row + (j * N + k) * W, 1)
            lanes.fill(e, row + (j * m + N) * W, m - N, 0.0)
        lanes.fill(e, row + N * m * W, (m - N) * m, 0.0)
    else:
        for j in range(N):
            for k in range(N):
                lanes.copy(e, row + (j * N + k) * W, e, row + (j * m + k) * W, 1)


@compiled
def _sym_add(e, S, x, hw, h, m):
    """S += (x h' + h x') / 2, h in hw."""
    for j in range(m):
        for k in range(j + 1):
            xj, xk, hj, hk = view(e, x + j * W), view(e, x + k * W), view(hw, h + j * W), view(hw, h + k * W)
            jk = S + (j * m + k) * W
            Sjk = view(e, jk)
            for i in range(W):
                Sjk[i] += 0.5 * (xj[i] * hk[i] + xk[i] * hj[i])
            if k < j:
                lanes.copy(e, S + (k * m + j) * W, e, jk, 1)


@compiled
def _accumulate(e, row, source, at, rows):
    """row += source."""
    for r in range(rows):
        x, y = view(e, row + r * W), view(source, at + r * W)
        for i in range(W):
            x[i] += y[i]


@compiled
def _undo_prediction(w, o, e, x, N, diffuse):
    """Gradients of F, Q, c and of the filtered state, from those of the next predicted one (all of size N)."""
    _accumulate(e, x.c, e, x.ga, N)
    _accumulate(e, x.Q, e, x.S, N * N)
    for j in range(N):
        g = view(e, x.ga + j * W)
        for k in range(N):
            f, a = view(e, x.F + (j * N + k) * W), view(w, o.a + k * W)
            for i in range(W):
                f[i] += g[i] * a[i]
    # F and P move over: products of lanes take their factors from one array
    lanes.copy(e, x.T1, w, o.F, N * N)
    _through(e, x, x.S, w, o.P, N)
    if diffuse:
        _through(e, x, x.Si, w, o.Pi, N)
    lanes.matvec_t(e, x.x1, x.T1, x.ga, N)
    lanes.copy(e, x.ga, e, x.x1, N)


@compiled
def _through(e, x, S, w, P, N):
    """F- += 2 S F P;  S <- F' S F."""
    record = x.a  # the records of this step are written later: free here
    lanes.copy(e, record, w, P, N * N)
    lanes.matmul(e, x.T2, S, x.T1, N, False, False)  # S F
    for j in range(N):
        for k in range(N):
            f = view(e, x.F + (j * N + k) * W)
            for h in range(N):
                q, z = view(e, x.T2 + (j * N + h) * W), view(e, record + (h * N + k) * W)
                for i in range(W):
                    f[i] += 2.0 * q[i] * z[i]
    lanes.matmul(e, S, x.T1, x.T2, N, True, False)  # F' S F


@compiled
def _undo_component(w, o, e, x, p, P, N, m, diffuse, lg):
    """One component; gradients of size m. lg: row of l*."""
    at = x.a + p * x.width
    a, Pm, Pi = at, at + m * W, at + (m + m * m) * W
    M = at + (m + 2 * m * m) * W
    Mi = M + m * W
    one = Mi + m * W
    v, F, g, g0, keep = (
        view(e, one),
        view(e, one + W),
        view(e, one + 3 * W),
        view(e, one + 4 * W),
        view(e, one + 5 * W),
    )
    h = o.H + p * m * W
    top, Ma, MSM, vb = view(e, lg), view(e, x.s), view(e, x.s + W), view(e, x.s + 2 * W)
    Fb, Mia, Fib = view(e, x.s + 3 * W), view(e, x.s + 4 * W), view(e, x.s + 5 * W)
    SM, Mb, SMi, SiMi = x.x1, x.x2, x.x3, x.x4
    lanes.dot(e, x.s, M, x.ga, m)
    lanes.matvec(e, SM, x.S, M, m)
    lanes.dot(e, x.s + W, M, SM, m)
    for i in range(W):
        vb[i] = g[i] * Ma[i] - top[i] * g[i] * v[i]
    for i in range(W):
        gi, vi = g[i], v[i]
        Fb[i] = gi * gi * (MSM[i] - vi * Ma[i]) - 0.5 * top[i] * (gi - gi * gi * vi * vi)
    for j in range(m):
        b, s, ga = view(e, Mb + j * W), view(e, SM + j * W), view(e, x.ga + j * W)
        for i in range(W):
            b[i] = g[i] * (v[i] * ga[i] - 2.0 * s[i])
    if diffuse:
        for j in range(m * m):
            q = view(e, x.Si + j * W)
            for i in range(W):
                q[i] *= keep[i]
        s1, s2, s3 = view(e, x.s + 6 * W), view(e, x.s + 7 * W), view(e, x.T2)
        lanes.matvec(e, SMi, x.S, Mi, m)
        lanes.matvec(e, SiMi, x.Si, Mi, m)
        lanes.dot(e, x.s + 4 * W, Mi, x.ga, m)
        lanes.dot(e, x.s + 6 * W, Mi, SMi, m)
        lanes.dot(e, x.s + 7 * W, M, SMi, m)
        lanes.dot(e, x.T2, Mi, SiMi, m)
        for i in range(W):
            k = g0[i]
            vb[i] += k * Mia[i]
            Fb[i] += k * k * s1[i]
            Fib[i] = k * k * (2.0 * s2[i] + s3[i] - v[i] * Mia[i] - 2.0 * k * F[i] * s1[i]) - 0.5 * top[i] * k
        for j in range(m):
            b, s, si = view(e, Mb + j * W), view(e, SMi + j * W), view(e, SiMi + j * W)
            sm, ga = view(e, SM + j * W), view(e, x.ga + j * W)
            for i in range(W):
                k = g0[i]
                b[i] -= 2.0 * k * s[i]
                total = v[i] * ga[i] + 2.0 * F[i] * k * s[i]
                si[i] = k * (total - 2.0 * sm[i] - 2.0 * si[i])  # M_inf-, over S_inf M_inf
        _gather(w, e, x, h, p, m, SiMi, Mi, Pi, Fib, SMi)
        _sym_add(e, x.Si, SiMi, w, h, m)
    _gather(w, e, x, h, p, m, Mb, M, Pm, Fb, SM)
    _sym_add(e, x.S, Mb, w, h, m)
    for j in range(m):
        hb, aj, ga, hj = view(e, x.H + (p * m + j) * W), view(e, a + j * W), view(e, x.ga + j * W), view(w, h + j * W)
        for i in range(W):
            hb[i] -= vb[i] * aj[i]
        for i in range(W):
            ga[i] -= vb[i] * hj[i]
    d = view(e, x.d + p * W)
    for i in range(W):
        d[i] -= vb[i]
    if m == N:
        _accumulate(e, x.R + (p * P + p) * W, e, x.s + 3 * W, 1)


@compiled
def _gather(w, e, x, h, p, m, Mb, M, Pm, Fb, scratch):
    """M- += F- h, then h- += F- M + P M-."""
    for j in range(m):
        b, hj = view(e, Mb + j * W), view(w, h + j * W)
        for i in range(W):
            b[i] += Fb[i] * hj[i]
    lanes.matvec(e, scratch, Pm, Mb, m)
    for j in range(m):
        hb, s, mj = view(e, x.H + (p * m + j) * W), view(e, scratch + j * W), view(e, M + j * W)
        for i in range(W):
            hb[i] += Fb[i] * mj[i] + s[i]


@compiled
def _flush(w, o, e, x, grads, data, N, P, m, b0, n, t, group, last):
    """Matrix gradients to their arrays: each step for those that vary with time, at the end the others."""
    if last or data.F.shape[1] > 1:
        _add(grads.F, e, x.F, N * N, b0, n, t, group if data.F.shape[0] == 1 else -1)
        lanes.fill(e, x.F, N * N, 0.0)
    if last or data.H.shape[1] > 1:
        for p in range(P):  # without the columns of eps
            lanes.copy(e, x.T2 + p * N * W, e, x.H + p * m * W, N)
        _add(grads.H, e, x.T2, P * N, b0, n, t, group if data.H.shape[0] == 1 else -1)
        lanes.fill(e, x.H, P * m, 0.0)
    if last or data.Q.shape[1] > 1:
        _add(grads.Q, e, x.Q, N * N, b0, n, t, group if data.Q.shape[0] == 1 else -1)
        lanes.fill(e, x.Q, N * N, 0.0)
    if last or data.R.shape[1] > 1:
        _add(grads.R, e, x.R, P * P, b0, n, t, group if data.R.shape[0] == 1 else -1)
        lanes.fill(e, x.R, P * P, 0.0)
    if last or data.c.shape[1] > 1:
        _add(grads.c, e, x.c, N, b0, n, t, group if data.c.shape[0] == 1 else -1)
        lanes.fill(e, x.c, N, 0.0)
    if last or data.d.shape[1] > 1:
        _add(grads.d, e, x.d, P, b0, n, t, group if data.d.shape[0] == 1 else -1)
        lanes.fill(e, x.d, P, 0.0)


@compiled
def _leave_start(e, x, grads, data, N, b0, n, t):
    """Where a sequence starts, its gradient goes to the initial state and no further."""
    if t > 0 and data.reset.shape[0] == 0:
        return
    for i in range(W):
        start = t == 0
        if not start and data.reset.shape[0] > 0:
            start = data.reset[b0 + (i if i < n else 0), t]
        if not start:
            continue
        for j in range(N):
            if i < n:
                grads.mean[b0 + i, 0, j] += e[x.ga + j * W + i]
            e[x.ga + j * W + i] = 0.0
        for j in range(N * N):
            if i < n:
                grads.covariance[b0 + i, 0, j] += e[x.S + j * W + i]
                grads.diffuse[b0 + i, 0, j] += e[x.Si + j * W + i]
            e[x.S + j * W + i] = 0.0
            e[x.Si + j * W + i] = 0.0


@compiled
def _load_upstream(e, lg, steps, b0, n, t):
    for i in range(W):
        e[lg + i] = steps[b0 + (i if i < n else 0), t if steps.shape[1] > 1 else 0]


@compiled
def _leave_y(e, x, target, b0, n, t):
    for i in range(n):
        target[b0 + i, t, 0] = e[x.s + 2 * W + i]


@compiled
def _leave(w, o, e, x, grads, data, N, P, m, b0, n, t, group):
    """Write down what step t leaves: only where matrices vary or sequences start, and at the first step."""
    _leave_start(e, x, grads, data, N, b0, n, t)
    _flush(w, o, e, x, grads, data, N, P, m, b0, n, t, group, t == 0)


@compiled
def _block(data, up, grads, N, m, block, group):
    B, T, P = data.y.shape
    observed, varying, restarts = data.y, lanes.varies(data), data.reset.shape[0] > 0
    b0 = block * W
    n = min(W, B - b0)
    o, x = lanes.layout(N, P, m), layout(N, P, m)
    w, e = np.zeros(o.end), np.zeros(x.end + W)
    lg = x.end
    rows = (N + 2 * N * N + 1) * W  # a, P, P_inf and rank follow each other in w
    chunks = (T + CHUNK - 1) // CHUNK
    starts = np.empty((chunks, rows))
    history = np.empty((CHUNK, rows))
    lanes.load_matrices(w, o, data, N, P, m, b0, n, -1)
    diffuse = True
    for t in range(T):
        if t == 0 or restarts:
            lanes.load_start(w, o, data, N, b0, n, t)
        if t % CHUNK == 0:
            lanes.copy(starts[t // CHUNK], 0, w, 0, rows // W)
        if t >= (chunks - 1) * CHUNK:
            break
        if varying:
            lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
        lanes.load_y(w, o, observed, P, b0, n, t)
        if diffuse or restarts:
            diffuse = lanes.any_diffuse(w, o)
        advance(w, o, N, P, m, diffuse, lanes.SILENT)

    _add_upstream(e, x.ga, up.final_mean, N, N, False, b0, n, 0)
    _add_upstream(e, x.S, up.final_covariance, N, N, True, b0, n, 0)
    _add_upstream(e, x.Si, up.final_diffuse, N, N, True, b0, n, 0)
    # gradients of the moments of a step are added between its two halves: only the general code has the place
    of_y, by_step = grads.y.shape[0] > 0, up.steps.shape[1] > 1
    whole = up.predicted_mean.shape[0] + up.predicted_covariance.shape[0] == 0
    small = P == 1 and N <= 2 and whole and up.filtered_mean.shape[0] + up.filtered_covariance.shape[0] == 0
    for chunk in range(chunks - 1, -1, -1):
        t0, t1 = chunk * CHUNK, min(T, (chunk + 1) * CHUNK)
        lanes.copy(w, 0, starts[chunk], 0, rows // W)
        # a direction once known stays known until a reset
        unknown = restarts or lanes.any_diffuse(w, o)
        for t in range(t0, t1):
            if t > t0 and restarts:
                lanes.load_start(w, o, data, N, b0, n, t)
            lanes.copy(history[t - t0], 0, w, 0, rows // W)
            if t == t1 - 1:
                break
            if varying:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, observed, P, b0, n, t)
            advance(w, o, N, P, m, unknown and lanes.any_diffuse(w, o), lanes.SILENT)
        for t in range(t1 - 1, t0 - 1, -1):
            lanes.copy(w, 0, history[t - t0], 0, rows // W)
            if varying:
                lanes.load_matrices(w, o, data, N, P, m, b0, n, t)
            lanes.load_y(w, o, observed, P, b0, n, t)
            diffuse = unknown and lanes.any_diffuse(w, o)
            if small and not diffuse:
                if t == T - 1 or by_step:
                    _load_upstream(e, lg, up.steps, b0, n, t)
                if N == 1:
                    undo_one(w, e)
                else:
                    undo_two(w, e)
                if of_y and P == 1:
                    _leave_y(e, x, grads.y, b0, n, t)
                if t == 0 or varying or restarts:
                    _leave(w, o, e, x, grads, data, N, P, m, b0, n, t, group)
                continue
            lanes.take_in(w, o, N, P, m, diffuse, lanes.SILENT)
            _undo_prediction(w, o, e, x, N, diffuse)
            lanes.copy(w, 0, history[t - t0], 0, rows // W)
            _take_in_recorded(w, o, e, x, N, P, m, diffuse, lanes.SILENT)
            _add_upstream(e, x.ga, up.filtered_mean, N, N, False, b0, n, t)
            _add_upstream(e, x.S, up.filtered_covariance, N, N, True, b0, n, t)
            lanes.fill(e, x.ga + N * W, m - N, 0.0)
            _square(e, x.S, N, m, True)
            _square(e, x.Si, N, m, True)
            _load_upstream(e, lg, up.steps, b0, n, t)
            for p in range(P - 1, -1, -1):
                _undo_component(w, o, e, x, p, P, N, m, diffuse, lg)
                if of_y and P > 1:
                    for i in range(n):
                        grads.y[b0 + i, t, p] = e[x.s + 2 * W + i]
            if m > N:
                for j in range(P):
                    for k in range(P):
                        r, s = x.R + (j * P + k) * W, x.S + ((N + j) * m + N + k) * W
                        for i in range(W):
                            e[r + i] += e[s + i]
            _square(e, x.S, N, m, False)
            _square(e, x.Si, N, m, False)
            _add_upstream(e, x.ga, up.predicted_mean, N, N, False, b0, n, t)
            _add_upstream(e, x.S, up.predicted_covariance, N, N, True, b0, n, t)
            if of_y and P == 1:
                _leave_y(e, x, grads.y, b0, n, t)
            if t == 0 or varying or restarts:
                _leave(w, o, e, x, grads, data, N, P, m, b0, n, t, group)


@njit(cache=True, parallel=True, error_model="numpy")
def run(data, up, grads, N, m):
    """Fill `grads`."""
    blocks = (data.y.shape[0] + W - 1) // W
    for group in prange(min(GROUPS, blocks)):
        g = np.int64(group)  # numba counts parallel loops in unsigned integers, which make floats of a sum
        for block in range(g, blocks, GROUPS):
            _block(data, up, grads, N, m, block, g)
