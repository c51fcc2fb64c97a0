"""Owns the arithmetic of many small filters side by side: W series to a block, one lane each, compiled by numba.

A block keeps its state, its matrices and its scratch in one flat float64 array w of rows of W lanes: entry (j, k) of
lane l's covariance is w[P + (j * m + k) * W + l]. Every loop over lanes is innermost, runs the same instructions for
every lane and has no branch, so that it becomes vector instructions; a missing observation is a gain of zero. One array
rather than many, because the vectoriser must know that rows do not overlap. The algebra is that of `naive.py`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

W = 32  # series to a block
GROUPS = 16  # partial sums of shared gradients; fixed, so that results do not depend on the number of threads
TINY = 2.2250738585072014e-308  # as naive.py: an innovation variance below it carries no information
LOG_2PI = math.log(2 * math.pi)
_LN_2 = math.log(2)
_HALF = 0x3FE6A09E00000000  # bits of 1 / sqrt 2: mantissas lie between it and sqrt 2

# what becomes of the likelihood of a step: nothing, log p in a row, or one logarithm for many steps
SILENT, SCORED, COLLECTED = 0, 1, 2

# no fast-math, not even fused multiply-adds: the compiler would fuse differently in the code for blocks with a diffuse
# lane, and a series would owe its last bit to its neighbours. All code here sums in the same order for that reason.
compiled = njit(cache=True, error_model="numpy")
inlined = njit(cache=True, error_model="numpy", forceinline=True)  # into the loop over lanes that calls it


class Data(NamedTuple):
    """A Problem as numba takes it: float64, contiguous, matrices flattened to (b, t, rows * columns)."""

    y: np.ndarray  # (B, T, P)
    F: np.ndarray
    H: np.ndarray
    Q: np.ndarray
    R: np.ndarray
    c: np.ndarray
    d: np.ndarray
    mean: np.ndarray  # (b, N)
    covariance: np.ndarray  # (b, N * N)
    diffuse: np.ndarray  # (b, N * N)
    rank: np.ndarray  # (b,) float64
    tolerance: np.ndarray  # (b,)
    reset: np.ndarray  # (B, T) bool, or (0, 0)


class Rows(NamedTuple):
    """Where each quantity starts in w. m is N, or N + P where the errors of several components correlate."""

    a: int
    P: int
    Pi: int
    rank: int
    F: int
    H: int
    Q: int
    R: int
    c: int
    d: int
    y: int
    log_p: int
    tolerance: int
    xa: int  # the state while observations are taken in, of size m; the same rows as a, P, Pi where m = N
    xP: int
    xPi: int
    M: int
    Mi: int
    S1: int
    S2: int
    one: int  # v, F, Fi, g, g0, keep: a row each
    T1: int
    end: int


@compiled
def layout(N, P, m):
    """Rows of a block, and how many floats it takes."""
    nn, mm = N * N, m * m
    a = 0
    Pm = a + N * W
    Pi = Pm + nn * W
    rank = Pi + nn * W
    F = rank + W
    H = F + nn * W
    Q = H + P * m * W
    R = Q + nn * W
    c = R + P * P * W
    d = c + N * W
    y = d + P * W
    log_p = y + P * W
    tolerance = log_p + W
    xa, xP, xPi, M = a, Pm, Pi, tolerance + W
    if m > N:
        xa = M
        xP = xa + m * W
        xPi = xP + mm * W
        M = xPi + mm * W
    Mi = M + m * W
    S1 = Mi + m * W
    S2 = S1 + m * W
    one = S2 + m * W
    T1 = one + 6 * W
    end = T1 + mm * W
    return Rows(a, Pm, Pi, rank, F, H, Q, R, c, d, y, log_p, tolerance, xa, xP, xPi, M, Mi, S1, S2, one, T1, end)


@intrinsic
def wide(typingctx):  # type: ignore[no-untyped-def]
    """Let loops of this function use vectors of 512 bits where the processor has them; LLVM prefers 256 unless told."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # past its own `add`, which knows no attribute with a value
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _bits(typingctx, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _from_bits(typingctx, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def view(typingctx, w, at):  # type: ignore[no-untyped-def]
    """The row of W lanes that starts at w[at].

    Indexed from zero, unlike w itself at an offset: numba takes an index that may be negative for one from the end,
    and the test for it keeps a loop from becoming vector instructions.
    """
    result = types.Array(types.float64, 1, "C")

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source = context.make_array(signature.args[0])(context, builder, args[0])
        row = context.make_array(result)(context, builder)
        size, width = context.get_constant(types.intp, 8), context.get_constant(types.intp, W)
        start = builder.gep(source.data, [args[1]], inbounds=True)
        shape, strides = cgutils.pack_array(builder, [width]), cgutils.pack_array(builder, [size])
        populate_array(row, data=start, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return row._getvalue()

    return result(w, types.int64), codegen


@inlined
def log(x):
    """Natural logarithm of a positive normal number, to 2 ulp: arithmetic only, so that lanes vectorise.

    x = 2^e m with m in [1/sqrt 2, sqrt 2);  log m = 2 atanh s = 2 (s + s^3/3 + ...),  s = (m - 1) / (m + 1).
    """
    bits = _bits(x)
    e = (bits - _HALF) >> 52
    m = _from_bits(bits - (e << 52))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1 / 19
    p = p * z + 1 / 17
    p = p * z + 1 / 15
    p = p * z + 1 / 13
    p = p * z + 1 / 11
    p = p * z + 1 / 9
    p = p * z + 1 / 7
    p = p * z + 1 / 5
    p = p * z + 1 / 3
    # ln 2 in two parts: e * high is exact
    return e * 0.693147180369123816490 + (2.0 * s + (2.0 * s * z * p + e * 1.90821492927058770002e-10))


@compiled
def fill(w, row, rows, value):
    for r in range(rows):
        x = view(w, row + r * W)
        for i in range(W):
            x[i] = value


@compiled
def copy(w, row, source, at, rows):
    for r in range(rows):
        x, y = view(w, row + r * W), view(source, at + r * W)
        for i in range(W):
            x[i] = y[i]


@compiled
def weigh(w, out, a, da, b, db, n):
    """out = sum over h < n of row (a + h da) times row (b + h db), added in that order; up to four rows in one pass."""
    x, a0, b0 = view(w, out), view(w, a), view(w, b)
    if n == 1:
        for i in range(W):
            x[i] = a0[i] * b0[i]
        return
    a1, b1 = view(w, a + da), view(w, b + db)
    if n == 2:
        for i in range(W):
            x[i] = a0[i] * b0[i] + a1[i] * b1[i]
        return
    a2, b2 = view(w, a + 2 * da), view(w, b + 2 * db)
    for i in range(W):
        x[i] = a0[i] * b0[i] + a1[i] * b1[i] + a2[i] * b2[i]
    for h in range(3, n):
        ah, bh = view(w, a + h * da), view(w, b + h * db)
        for i in range(W):
            x[i] += ah[i] * bh[i]


@compiled
def matvec(w, out, A, x, n):
    """out = A x."""
    for j in range(n):
        weigh(w, out + j * W, A + j * n * W, W, x, W, n)


@compiled
def matvec_t(w, out, A, x, n):
    """out = A' x."""
    for j in range(n):
        weigh(w, out + j * W, A + j * W, n * W, x, W, n)


@compiled
def dot(w, out, x, y, n):
    """out = x' y."""
    weigh(w, out, x, W, y, W, n)


@compiled
def matmul(w, out, A, B, n, ta, tb):
    """out = A B, with A transposed if ta and B if tb."""
    da, db = (n * W if ta else W), (W if tb else n * W)
    for j in range(n):
        for k in range(n):
            a, b = A + (j * W if ta else j * n * W), B + (k * n * W if tb else k * W)
            weigh(w, out + (j * n + k) * W, a, da, b, db, n)


@compiled
def load(w, row, source, rows, b0, n, t):
    """Rows of a (b, t, rows) array into lanes; lanes beyond the last series repeat the first of the block."""
    at = t if source.shape[1] > 1 else 0
    many = source.shape[0] > 1
    for r in range(rows):
        x = view(w, row + r * W)
        for i in range(W):
            b = b0 + (i if i < n else 0) if many else 0
            x[i] = source[b, at, r]


@compiled
def varies(data):
    """Whether any matrix varies with time. Asked once: to hand `data` to a function takes longer than a step."""
    return (
        data.F.shape[1] > 1
        or data.H.shape[1] > 1
        or data.Q.shape[1] > 1
        or data.R.shape[1] > 1
        or data.c.shape[1] > 1
        or data.d.shape[1] > 1
    )


@compiled
def load_matrices(w, o, data, N, P, m, b0, n, t):
    """Matrices of step t: at the first call all of them, later those that vary with time."""
    first = t < 0
    t = max(t, 0)
    if first or data.F.shape[1] > 1:
        load(w, o.F, data.F, N * N, b0, n, t)
    if first or data.Q.shape[1] > 1:
        load(w, o.Q, data.Q, N * N, b0, n, t)
    if first or data.R.shape[1] > 1:
        load(w, o.R, data.R, P * P, b0, n, t)
    if first or data.c.shape[1] > 1:
        load(w, o.c, data.c, N, b0, n, t)
    if first or data.d.shape[1] > 1:
        load(w, o.d, data.d, P, b0, n, t)
    if first or data.H.shape[1] > 1:
        if m == N:
            load(w, o.H, data.H, P * N, b0, n, t)
        else:  # rows (h, e_i)
            at = t if data.H.shape[1] > 1 else 0
            for p in range(P):
                for k in range(m):
                    for i in range(W):
                        b = b0 + (i if i < n else 0) if data.H.shape[0] > 1 else 0
                        w[o.H + (p * m + k) * W + i] = (
                            data.H[b, at, p * N + k] if k < N else (1.0 if k - N == p else 0.0)
                        )


@compiled
def load_start(w, o, data, N, b0, n, t):
    """The initial state: into every lane at t = 0, later into those that reset."""
    if t > 0 and data.reset.shape[0] == 0:
        return
    for i in range(W):
        b = b0 + (i if i < n else 0)
        if t > 0 and not data.reset[b, t]:
            continue
        bm, bc, bd = (
            min(b, data.mean.shape[0] - 1),
            min(b, data.covariance.shape[0] - 1),
            min(b, data.diffuse.shape[0] - 1),
        )
        for j in range(N):
            w[o.a + j * W + i] = data.mean[bm, j]
        for j in range(N * N):
            w[o.P + j * W + i] = data.covariance[bc, j]
            w[o.Pi + j * W + i] = data.diffuse[bd, j]
        w[o.rank + i] = data.rank[bd]
        w[o.tolerance + i] = data.tolerance[bd]


@compiled
def load_y(w, o, source, P, b0, n, t):
    """Observations of step t, NaN where missing."""
    for p in range(P):
        y = view(w, o.y + p * W)
        for i in range(W):
            y[i] = source[b0 + (i if i < n else 0), t, p]


@compiled
def any_diffuse(w, o):
    return w[o.rank : o.rank + W].max() > 0


@compiled
def extend(w, o, N, P, m):
    """(alpha, eps) with covariance diag(P, R), where m > N."""
    if m == N:
        return
    copy(w, o.xa, w, o.a, N)
    fill(w, o.xa + N * W, P, 0.0)
    fill(w, o.xP, m * m, 0.0)
    fill(w, o.xPi, m * m, 0.0)
    for j in range(N):
        copy(w, o.xP + j * m * W, w, o.P + j * N * W, N)
        copy(w, o.xPi + j * m * W, w, o.Pi + j * N * W, N)
    for j in range(P):
        copy(w, o.xP + ((N + j) * m + N) * W, w, o.R + j * P * W, P)


@compiled
def shrink(w, o, N, m):
    """Back to alpha."""
    if m == N:
        return
    copy(w, o.a, w, o.xa, N)
    for j in range(N):
        copy(w, o.P + j * N * W, w, o.xP + j * m * W, N)
        copy(w, o.Pi + j * N * W, w, o.xPi + j * m * W, N)


@compiled
def gains(w, o, p, P, N, m, diffuse):
    """v, M, F, M_inf, F_inf and the two gains of component p."""
    h = o.H + p * m * W
    v, F, Fi = view(w, o.one), view(w, o.one + W), view(w, o.one + 2 * W)
    g, g0 = view(w, o.one + 3 * W), view(w, o.one + 4 * W)
    matvec(w, o.M, o.xP, h, m)
    dot(w, o.one + W, h, o.M, m)
    if m == N:
        r = view(w, o.R + (p * P + p) * W)
        for i in range(W):
            F[i] += r[i]
    dot(w, o.one, h, o.xa, m)
    y, d = view(w, o.y + p * W), view(w, o.d + p * W)
    for i in range(W):
        v[i] = y[i] - d[i] - v[i] if y[i] == y[i] else 0.0
    if diffuse:
        rank, tolerance = view(w, o.rank), view(w, o.tolerance)
        matvec(w, o.Mi, o.xPi, h, m)
        dot(w, o.one + 2 * W, h, o.Mi, m)
        dot(w, o.one + 3 * W, h, h, m)
        for i in range(W):
            unknown = (y[i] == y[i]) and (rank[i] > 0) and (tolerance[i] * g[i] < Fi[i])
            g0[i] = 1.0 / Fi[i] if unknown else 0.0
            known = (y[i] == y[i]) and (not unknown) and (F[i] > TINY)
            g[i] = 1.0 / F[i] if known else 0.0
        return
    for i in range(W):
        known = (y[i] == y[i]) & (F[i] > TINY)
        g[i] = 1.0 / (F[i] if known else 1.0) if known else 0.0


@inlined
def score_of(v, F, g):
    """log p of an observation; 0 where its gain is."""
    return -0.5 * (LOG_2PI + log(F if g > 0 else 1.0) + v * v * g) if g > 0 else 0.0


@inlined
def collect_of(w, at, v, F, g):
    """Add the same to what `collected` sums up: to terms at `at`, variances' mantissas a row on, exponents another.

    The logarithm of a product in place of a sum of logarithms, which take most of the time of a step.
    """
    bits = _bits(F if g > 0 else 1.0)
    e = (bits - _HALF) >> 52
    w[at] += LOG_2PI + v * v * g if g > 0 else 0.0
    w[at + W] *= _from_bits(bits - (e << 52))
    w[at + 2 * W] += e


@compiled
def score(w, o, diffuse, likelihood):
    """The likelihood of the component whose gains were just computed: to log_p, or to the rows behind the last."""
    v, F, Fi = view(w, o.one), view(w, o.one + W), view(w, o.one + 2 * W)
    g, g0 = view(w, o.one + 3 * W), view(w, o.one + 4 * W)
    log_p, rows = view(w, o.log_p), view(w, o.end)  # and the two rows after it
    for i in range(W):
        first = diffuse and g0[i] > 0  # log F_inf alone
        used, gain = Fi[i] if first else F[i], g0[i] if first else g[i]
        if likelihood == SCORED:
            log_p[i] += score_of(0.0 if first else v[i], used, gain)
        elif likelihood == COLLECTED:
            collect_of(rows, i, 0.0 if first else v[i], used, gain)


@compiled
def collected(w, at, total):
    """Row `total` += log p of all that was collected, of up to a thousand components; begins anew."""
    terms, product, exponent, out = view(w, at), view(w, at + W), view(w, at + 2 * W), view(w, total)
    for i in range(W):
        out[i] -= 0.5 * (terms[i] + (exponent[i] * _LN_2 + log(product[i])))
        terms[i] = 0.0
        product[i] = 1.0
        exponent[i] = 0.0


@compiled
def condition(w, o, m, diffuse):
    """Move the state by the component whose gains were just computed."""
    v, F, g, g0 = view(w, o.one), view(w, o.one + W), view(w, o.one + 3 * W), view(w, o.one + 4 * W)
    for j in range(m):
        a, Mj = view(w, o.xa + j * W), view(w, o.M + j * W)
        for i in range(W):
            a[i] += Mj[i] * (g[i] * v[i])
        for k in range(j + 1):
            jk, Mk = o.xP + (j * m + k) * W, view(w, o.M + k * W)
            Pjk = view(w, jk)
            for i in range(W):
                Pjk[i] -= Mj[i] * Mk[i] * g[i]
            if not diffuse and k < j:
                copy(w, o.xP + (k * m + j) * W, w, jk, 1)
    if not diffuse:
        return
    rank, keep = view(w, o.rank), view(w, o.one + 5 * W)
    for i in range(W):
        rank[i] -= 1.0 if g0[i] > 0 else 0.0
        keep[i] = 1.0 if rank[i] > 0 else 0.0
    for j in range(m):
        a, Mj, Ij = view(w, o.xa + j * W), view(w, o.M + j * W), view(w, o.Mi + j * W)
        for i in range(W):
            a[i] += Ij[i] * (g0[i] * v[i])
        for k in range(j + 1):
            Mk, Ik = view(w, o.M + k * W), view(w, o.Mi + k * W)
            jk, kj = (j * m + k) * W, (k * m + j) * W
            Pjk, Qjk = view(w, o.xP + jk), view(w, o.xPi + jk)
            for i in range(W):
                both = Mj[i] * Ik[i] + Ij[i] * Mk[i]
                Pjk[i] += (Ij[i] * Ik[i] * F[i] * g0[i] - both) * g0[i]
            for i in range(W):
                Qjk[i] = (Qjk[i] - Ij[i] * Ik[i] * g0[i]) * keep[i]
            copy(w, o.xP + kj, w, o.xP + jk, 1)
            copy(w, o.xPi + kj, w, o.xPi + jk, 1)


@compiled
def take_in(w, o, N, P, m, diffuse, likelihood):
    """All components of a step. COLLECTED: in rows behind the last of `layout`."""
    fill(w, o.log_p, 1, 0.0)
    extend(w, o, N, P, m)
    for p in range(P):
        gains(w, o, p, P, N, m, diffuse)
        if likelihood != SILENT:
            score(w, o, diffuse, likelihood)
        condition(w, o, m, diffuse)
    shrink(w, o, N, m)


@compiled
def predict(w, o, N, diffuse):
    """a <- c + F a, P <- F P F' + Q, P_inf <- F P_inf F'."""
    matvec(w, o.M, o.F, o.a, N)
    for j in range(N):
        a, c, moved = view(w, o.a + j * W), view(w, o.c + j * W), view(w, o.M + j * W)
        for i in range(W):
            a[i] = c[i] + moved[i]
    _sandwich(w, o, o.P, N)
    for j in range(N * N):
        Pj, Qj = view(w, o.P + j * W), view(w, o.Q + j * W)
        for i in range(W):
            Pj[i] += Qj[i]
    if diffuse:
        _sandwich(w, o, o.Pi, N)


@compiled
def _sandwich(w, o, P, N):
    """P <- F P F', symmetric to the last bit."""
    matmul(w, o.T1, o.F, P, N, False, False)
    for j in range(N):
        for k in range(j + 1):
            out = P + (j * N + k) * W
            weigh(w, out, o.T1 + j * N * W, W, o.F + k * N * W, W, N)
            if k < j:
                copy(w, P + (k * N + j) * W, w, out, 1)
