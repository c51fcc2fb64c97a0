"""Owns the arithmetic of the Triton kernels: one step of a filter with one observation, a lane per series.

Of symmetric matrices the lower triangle 00, 10, 11 is kept. Everything travels in tuples, shorter for a state of one:

    state     (a0, a1, p00, p10, p11)                        or (a, p)
    unknown   (i00, i10, i11, rank), of P_inf                or (i, rank)
    model     (f00, f01, f10, f11, h0, h1, q00, q10, q11, r, c0, c1, d)   or (f, h, q, r, c, d)

The algebra is that of `naive.py`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# Triton compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import triton
import triton.language as tl

LOG_2PI = tl.constexpr(1.8378770664093453)
TINY = tl.constexpr(1.1754944e-38)


@triton.jit
def load_model(F, H, Q, R, c, d, by_series, b, inside, N: tl.constexpr):
    """Matrices of every lane; bit k of `by_series`: whether the k-th of them differs by series."""
    F += b * (N * N * (by_series & 1))
    H += b * (N * (by_series >> 1 & 1))
    Q += b * (N * N * (by_series >> 2 & 1))
    R += b * (by_series >> 3 & 1)
    c += b * (N * (by_series >> 4 & 1))
    d += b * (by_series >> 5 & 1)
    if N == 1:
        return (
            tl.load(F, inside, 0.0), tl.load(H, inside, 0.0), tl.load(Q, inside, 0.0), tl.load(R, inside, 0.0),
            tl.load(c, inside, 0.0), tl.load(d, inside, 0.0),
        )  # fmt: skip
    else:
        return (
            tl.load(F, inside, 0.0), tl.load(F + 1, inside, 0.0), tl.load(F + 2, inside, 0.0),
            tl.load(F + 3, inside, 0.0), tl.load(H, inside, 0.0), tl.load(H + 1, inside, 0.0),
            tl.load(Q, inside, 0.0), tl.load(Q + 2, inside, 0.0), tl.load(Q + 3, inside, 0.0),
            tl.load(R, inside, 0.0), tl.load(c, inside, 0.0), tl.load(c + 1, inside, 0.0), tl.load(d, inside, 0.0),
        )  # fmt: skip


@triton.jit
def load_start(mean, covariance, diffuse, by_series, b, inside, N: tl.constexpr):
    """Initial state, what of it is unknown, and below what h' P_inf h counts as rounding; as `model.diffuse_rank`."""
    mean += b * (N * (by_series >> 6 & 1))
    covariance += b * (N * N * (by_series >> 7 & 1))
    diffuse += b * (N * N * (by_series >> 8 & 1))
    if N == 1:
        i = tl.load(diffuse, inside, 0.0)
        state = tl.load(mean, inside, 0.0), tl.load(covariance, inside, 0.0)
        unknown = i, tl.where(i > 0, 1.0, 0.0).to(i.dtype)
        scale = i
    else:
        i00 = tl.load(diffuse, inside, 0.0)
        i10 = tl.load(diffuse + 2, inside, 0.0)
        i11 = tl.load(diffuse + 3, inside, 0.0)
        trace = i00 + i11
        if i00.dtype == tl.float64:
            tiny = 8 * 2.220446049250313e-16 * trace * trace
        else:
            tiny = 8 * 1.1920928955078125e-07 * trace * trace
        rank = tl.where(trace > 0, 1.0, 0.0) + tl.where(i00 * i11 - i10 * i10 > tiny, 1.0, 0.0)
        state = (
            tl.load(mean, inside, 0.0), tl.load(mean + 1, inside, 0.0), tl.load(covariance, inside, 0.0),
            tl.load(covariance + 2, inside, 0.0), tl.load(covariance + 3, inside, 0.0),
        )  # fmt: skip
        unknown = i00, i10, i11, rank.to(i00.dtype)
        scale = tl.maximum(i00, i11)
    if scale.dtype == tl.float64:
        tolerance = scale * 1e-10
    else:
        tolerance = scale * 1e-5
    return state, unknown, tolerance


@triton.jit
def observe(y, state, model, N: tl.constexpr):
    """v, (M), F and the gain 1 / F of one observation, zero where it is missing or says nothing."""
    seen = y == y
    if N == 1:
        a, p = state
        _, h, _, r, _, d = model
        m0 = p * h
        m = (m0,)
        f = h * m0 + r
        v = y - d - h * a
    else:
        a0, a1, p00, p10, p11 = state
        _, _, _, _, h0, h1, _, _, _, r, _, _, d = model
        m0 = p00 * h0 + p10 * h1
        m1 = p10 * h0 + p11 * h1
        m = (m0, m1)
        f = h0 * m0 + h1 * m1 + r
        v = y - d - (h0 * a0 + h1 * a1)
    known = seen & (f > TINY)
    g = tl.where(known, 1.0 / tl.where(known, f, 1.0), 0.0)
    return tl.where(seen, v, 0.0), m, f, g


@triton.jit
def score(v, f, g):
    """log p of the observation; 0 where its gain is."""
    known = g > 0
    return tl.where(known, -0.5 * (LOG_2PI + tl.log(tl.where(known, f, 1.0)) + v * v * g), 0.0)


@triton.jit
def mantissa_and_exponent(x):
    """x = mantissa 2^exponent, of a positive normal number: 1 <= mantissa < 2, and the exponent as it is stored."""
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        return ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).to(tl.float64, bitcast=True), bits >> 52
    else:
        bits = x.to(tl.int32, bitcast=True)
        return ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True), bits >> 23


@triton.jit
def score_of_many(terms, product, exponent, COUNT: tl.constexpr):
    """Sum of log p of COUNT observations: of the terms log 2 pi + v^2 g, and of the logarithm of all f in one.

    Nearly half of the instructions of a step were those of its logarithm.
    """
    if product.dtype == tl.float64:
        shift = exponent - 1023 * COUNT
    else:
        shift = exponent - 127 * COUNT
    return -0.5 * (terms + (shift.to(product.dtype) * 0.6931471805599453 + tl.log(product)))


@triton.jit
def condition(state, v, m, g, N: tl.constexpr):
    """The state after the observation."""
    gv = g * v
    if N == 1:
        a, p = state
        (m0,) = m
        return a + m0 * gv, p - m0 * m0 * g
    else:
        a0, a1, p00, p10, p11 = state
        m0, m1 = m
        k0 = m0 * g
        k1 = m1 * g
        return a0 + m0 * gv, a1 + m1 * gv, p00 - m0 * k0, p10 - m1 * k0, p11 - m1 * k1


@triton.jit
def sandwich(p00, p10, p11, f00, f01, f10, f11):
    """F P F'."""
    t00 = f00 * p00 + f01 * p10
    t01 = f00 * p10 + f01 * p11
    t10 = f10 * p00 + f11 * p10
    t11 = f10 * p10 + f11 * p11
    return t00 * f00 + t01 * f01, t10 * f00 + t11 * f01, t10 * f10 + t11 * f11


@triton.jit
def predict(state, model, N: tl.constexpr):
    """The state of the next step."""
    if N == 1:
        a, p = state
        f, _, q, _, c, _ = model
        return c + f * a, f * p * f + q
    else:
        a0, a1, p00, p10, p11 = state
        f00, f01, f10, f11, _, _, q00, q10, q11, _, c0, c1, _ = model
        p00, p10, p11 = sandwich(p00, p10, p11, f00, f01, f10, f11)
        return c0 + f00 * a0 + f01 * a1, c1 + f10 * a0 + f11 * a1, p00 + q00, p10 + q10, p11 + q11


@triton.jit
def observe_unknown(y, state, unknown, model, tolerance, N: tl.constexpr):
    """The same while P_inf is not exhausted: v, (M), F, (M_inf), F_inf, g, g0 and log p."""
    v, m, f, g = observe(y, state, model, N)
    if N == 1:
        i, rank = unknown
        h = model[1]
        n = (i * h,)
        fi = h * n[0]
        size = h * h
    else:
        i00, i10, i11, rank = unknown
        h0, h1 = model[4], model[5]
        n = (i00 * h0 + i10 * h1, i10 * h0 + i11 * h1)
        fi = h0 * n[0] + h1 * n[1]
        size = h0 * h0 + h1 * h1
    new = (y == y) & (rank > 0) & (tolerance * size < fi)
    g0 = tl.where(new, 1.0 / tl.where(new, fi, 1.0), 0.0)
    g = tl.where(new, 0.0, g)
    known = g > 0
    used = tl.where(known, f, tl.where(new, fi, 1.0))
    log_p = tl.where(known | new, -0.5 * (LOG_2PI + tl.log(used) + v * v * g), 0.0)
    return v, m, f, n, fi, g, g0, log_p


@triton.jit
def condition_unknown(state, unknown, v, m, f, n, g, g0, N: tl.constexpr):
    """State and P_inf after the observation, and whether P_inf is kept (it is zeroed with the last rank)."""
    state = condition(state, v, m, g, N)
    e = f * g0
    if N == 1:
        a, p = state
        i, rank = unknown
        (m0,) = m
        (n0,) = n
        rank -= tl.where(g0 > 0, 1.0, 0.0).to(rank.dtype)
        keep = tl.where(rank > 0, 1.0, 0.0).to(rank.dtype)
        return (
            (a + n0 * (g0 * v), p + (n0 * n0 * e - 2.0 * m0 * n0) * g0),
            ((i - n0 * n0 * g0) * keep, rank),
            keep,
        )
    else:
        a0, a1, p00, p10, p11 = state
        i00, i10, i11, rank = unknown
        m0, m1 = m
        n0, n1 = n
        rank -= tl.where(g0 > 0, 1.0, 0.0).to(rank.dtype)
        keep = tl.where(rank > 0, 1.0, 0.0).to(rank.dtype)
        state = (
            a0 + n0 * (g0 * v),
            a1 + n1 * (g0 * v),
            p00 + (n0 * n0 * e - 2.0 * m0 * n0) * g0,
            p10 + (n1 * n0 * e - m1 * n0 - m0 * n1) * g0,
            p11 + (n1 * n1 * e - 2.0 * m1 * n1) * g0,
        )
        unknown = (i00 - n0 * n0 * g0) * keep, (i10 - n1 * n0 * g0) * keep, (i11 - n1 * n1 * g0) * keep, rank
        return state, unknown, keep


@triton.jit
def predict_unknown(unknown, model, N: tl.constexpr):
    """P_inf of the next step."""
    if N == 1:
        i, rank = unknown
        return model[0] * i * model[0], rank
    else:
        i00, i10, i11, rank = unknown
        i00, i10, i11 = sandwich(i00, i10, i11, model[0], model[1], model[2], model[3])
        return i00, i10, i11, rank


@triton.jit
def widened(state, unknown, N: tl.constexpr):
    """A state of one as a state of two whose second is always zero."""
    if N == 1:
        a, p = state
        i, rank = unknown
        z = a * 0.0
        return (a, z, p, z, z), (i, z, z, rank)
    else:
        return state, unknown


@triton.jit
def widened_model(model, N: tl.constexpr):
    """The model of such a state."""
    if N == 1:
        f, h, q, r, c, d = model
        z = f * 0.0
        return f, z, z, z, h, z, q, z, z, r, c, z, d
    else:
        return model


@triton.jit
def save(p, B, inside, values):
    """Rows of B lanes, from p on."""
    for k in tl.static_range(len(values)):
        tl.store(p, values[k], inside)
        p += B


@triton.jit
def restore(p, B, inside, COUNT: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.load(p, inside, 0.0),)
        p += B
    return values


@triton.jit
def load_steps(y, row, t, T, inside, COUNT: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """COUNT steps of every lane, four to a load of 16 bytes where rows are aligned; NaN beyond T."""
    values = ()
    k = tl.arange(0, 4)
    for j in tl.static_range(0, COUNT, 4):
        at = row[:, None] + (t + j + k)[None, :]
        if ALIGNED:
            tile = tl.load(y + tl.multiple_of(at, (1, 4)), inside[:, None] & (t + j < T), float("nan"))
        else:
            tile = tl.load(y + at, inside[:, None] & ((t + j + k) < T)[None, :], float("nan"))
        even, odd = tl.split(tl.reshape(tile, (BLOCK, 2, 2)))
        y0, y2 = tl.split(even)
        y1, y3 = tl.split(odd)
        values = values + (y0, y1, y2, y3)
    return values


@triton.jit
def store_steps(y, row, t, T, inside, values, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """The reverse."""
    k = tl.arange(0, 4)
    for j in tl.static_range(0, len(values), 4):
        at = row[:, None] + (t + j + k)[None, :]
        tile = tl.join(tl.join(values[j], values[j + 2]), tl.join(values[j + 1], values[j + 3]))
        tile = tl.reshape(tile, (BLOCK, 4))
        if ALIGNED:
            tl.store(y + tl.multiple_of(at, (1, 4)), tile, inside[:, None] & (t + j < T))
        else:
            tl.store(y + at, tile, inside[:, None] & ((t + j + k) < T)[None, :])
