"""Owns the Triton kernels of the filter for a state of two and one observation: a lane per series.

Matrices are passed around as their elements; of symmetric ones the lower triangle 00, 10, 11. The algebra is that of
`naive.py` forward and of `lanes_backward.py` backward.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# Triton compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG_2PI = tl.constexpr(1.8378770664093453)
TINY = tl.constexpr(1.1754944e-38)


@triton.jit
def _gain(
    y, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, DIFFUSE: tl.constexpr
):  # fmt: skip
    """v, M, F, M_inf, F_inf, g, g0 and log p of one observation."""
    seen = y == y
    m0 = p00 * h0 + p10 * h1
    m1 = p10 * h0 + p11 * h1
    f = h0 * m0 + h1 * m1 + r
    v = tl.where(seen, y - d - (h0 * a0 + h1 * a1), 0.0)
    if DIFFUSE:
        n0 = i00 * h0 + i10 * h1
        n1 = i10 * h0 + i11 * h1
        fi = h0 * n0 + h1 * n1
        unknown = seen & (rank > 0) & (tolerance * (h0 * h0 + h1 * h1) < fi)
        g0 = tl.where(unknown, 1.0 / tl.where(unknown, fi, 1.0), 0.0)
    else:
        n0 = m0 * 0.0
        n1 = n0
        fi = n0
        unknown = seen & (n0 > 0)  # never
        g0 = n0
    known = seen & (f > TINY) & (unknown == 0)
    g = tl.where(known, 1.0 / tl.where(known, f, 1.0), 0.0)
    used = tl.where(known, f, tl.where(unknown, fi, 1.0))
    log_p = tl.where(known | unknown, -0.5 * (LOG_2PI + tl.log(used) + v * v * g), 0.0)
    return v, m0, m1, f, n0, n1, fi, g, g0, log_p


@triton.jit
def _condition(
    a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, DIFFUSE: tl.constexpr
):  # fmt: skip
    """The state after the observation, and whether P_inf is kept (it is zeroed with the last rank)."""
    gv = g * v
    a0 += m0 * gv
    a1 += m1 * gv
    p00 -= m0 * m0 * g
    p10 -= m1 * m0 * g
    p11 -= m1 * m1 * g
    keep = g * 0.0
    if DIFFUSE:
        a0 += n0 * (g0 * v)
        a1 += n1 * (g0 * v)
        e = f * g0
        p00 += (n0 * n0 * e - 2.0 * m0 * n0) * g0
        p10 += (n1 * n0 * e - m1 * n0 - m0 * n1) * g0
        p11 += (n1 * n1 * e - 2.0 * m1 * n1) * g0
        rank = rank - tl.where(g0 > 0, 1.0, 0.0)
        keep = tl.where(rank > 0, 1.0, 0.0)
        i00 = (i00 - n0 * n0 * g0) * keep
        i10 = (i10 - n1 * n0 * g0) * keep
        i11 = (i11 - n1 * n1 * g0) * keep
    return a0, a1, p00, p10, p11, i00, i10, i11, rank, keep


@triton.jit
def _sandwich(p00, p10, p11, f00, f01, f10, f11):
    """F P F'."""
    t00 = f00 * p00 + f01 * p10
    t01 = f00 * p10 + f01 * p11
    t10 = f10 * p00 + f11 * p10
    t11 = f10 * p10 + f11 * p11
    return t00 * f00 + t01 * f01, t10 * f00 + t11 * f01, t10 * f10 + t11 * f11


@triton.jit
def _predict(
    a0, a1, p00, p10, p11, i00, i10, i11, f00, f01, f10, f11, q00, q10, q11, c0, c1, DIFFUSE: tl.constexpr
):  # fmt: skip
    b0 = c0 + f00 * a0 + f01 * a1
    b1 = c1 + f10 * a0 + f11 * a1
    p00, p10, p11 = _sandwich(p00, p10, p11, f00, f01, f10, f11)
    if DIFFUSE:
        i00, i10, i11 = _sandwich(i00, i10, i11, f00, f01, f10, f11)
    return b0, b1, p00 + q00, p10 + q10, p11 + q11, i00, i10, i11


@triton.jit
def _load_model(parameters, b, inside, B):
    p = parameters + b
    return (
        tl.load(p, inside, 0.0), tl.load(p + B, inside, 0.0), tl.load(p + 2 * B, inside, 0.0),
        tl.load(p + 3 * B, inside, 0.0), tl.load(p + 4 * B, inside, 0.0), tl.load(p + 5 * B, inside, 0.0),
        tl.load(p + 6 * B, inside, 0.0), tl.load(p + 7 * B, inside, 0.0), tl.load(p + 8 * B, inside, 0.0),
        tl.load(p + 9 * B, inside, 0.0), tl.load(p + 10 * B, inside, 0.0), tl.load(p + 11 * B, inside, 0.0),
        tl.load(p + 12 * B, inside, 0.0),
    )  # fmt: skip


@triton.jit
def _load_start(parameters, b, inside, B):
    p = parameters + b + 13 * B
    return (
        tl.load(p, inside, 0.0), tl.load(p + B, inside, 0.0), tl.load(p + 2 * B, inside, 0.0),
        tl.load(p + 3 * B, inside, 0.0), tl.load(p + 4 * B, inside, 0.0), tl.load(p + 5 * B, inside, 0.0),
        tl.load(p + 6 * B, inside, 0.0), tl.load(p + 7 * B, inside, 0.0),
    )  # fmt: skip


@triton.jit
def _save(p, B, inside, a0, a1, p00, p10, p11, i00, i10, i11, rank):
    tl.store(p, a0, inside)
    tl.store(p + B, a1, inside)
    tl.store(p + 2 * B, p00, inside)
    tl.store(p + 3 * B, p10, inside)
    tl.store(p + 4 * B, p11, inside)
    tl.store(p + 5 * B, i00, inside)
    tl.store(p + 6 * B, i10, inside)
    tl.store(p + 7 * B, i11, inside)
    tl.store(p + 8 * B, rank, inside)


@triton.jit
def _restore(p, B, inside):
    return (
        tl.load(p, inside, 0.0), tl.load(p + B, inside, 0.0), tl.load(p + 2 * B, inside, 0.0),
        tl.load(p + 3 * B, inside, 0.0), tl.load(p + 4 * B, inside, 0.0), tl.load(p + 5 * B, inside, 0.0),
        tl.load(p + 6 * B, inside, 0.0), tl.load(p + 7 * B, inside, 0.0), tl.load(p + 8 * B, inside, 0.0),
    )  # fmt: skip


@triton.jit
def _four(y, row, t, T, inside, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Four steps of every series: a lane reads 16 bytes at once where rows are aligned. Beyond T: NaN."""
    k = tl.arange(0, 4)
    at = row[:, None] + (t + k)[None, :]
    if ALIGNED:
        tile = tl.load(y + tl.multiple_of(at, (1, 4)), inside[:, None], float("nan"))
    else:
        tile = tl.load(y + at, inside[:, None] & ((t + k) < T)[None, :], float("nan"))
    even, odd = tl.split(tl.reshape(tile, (BLOCK, 2, 2)))
    y0, y2 = tl.split(even)
    y1, y3 = tl.split(odd)
    return y0, y1, y2, y3


@triton.jit
def _log_likelihood_kernel(
    y, parameters, rank_in, tolerance_in, out, checkpoints, B, T,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    state = tl.full((), 9, tl.int64) * B  # floats of one saved state of every series; past 2^31 times its number
    f00, f01, f10, f11, h0, h1, q00, q10, q11, r, c0, c1, d = _load_model(parameters, b, inside, B)
    a0, a1, p00, p10, p11, i00, i10, i11 = _load_start(parameters, b, inside, B)
    rank = tl.load(rank_in + b, inside, 0.0)
    tolerance = tl.load(tolerance_in + b, inside, 0.0)
    total = tl.zeros((BLOCK,), y.dtype.element_ty)
    lost = tl.zeros((BLOCK,), y.dtype.element_ty)  # Kahan: a thousand terms of one size would cost three digits
    t = 0
    while (t < T) & (tl.max(rank, 0) > 0):
        if t % CHUNK == 0:
            p = checkpoints + (t // CHUNK) * state + b
            _save(p, B, inside, a0, a1, p00, p10, p11, i00, i10, i11, rank)
        x = tl.load(y + row + t, inside, float("nan"))
        v, m0, m1, f, n0, n1, _, g, g0, log_p = _gain(
            x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, True
        )
        a0, a1, p00, p10, p11, i00, i10, i11, rank, _ = _condition(
            a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, True
        )
        a0, a1, p00, p10, p11, i00, i10, i11 = _predict(
            a0, a1, p00, p10, p11, i00, i10, i11, f00, f01, f10, f11, q00, q10, q11, c0, c1, True
        )
        term = log_p - lost
        new = total + term
        lost = (new - total) - term
        total = new
        t += 1
    while (t < T) & (t % 4 != 0):
        # up to the next four steps, one at a time; a checkpoint is never among them, CHUNK being a multiple of four
        x = tl.load(y + row + t, inside, float("nan"))
        v, m0, m1, f, n0, n1, _, g, g0, log_p = _gain(
            x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, False
        )
        a0, a1, p00, p10, p11, i00, i10, i11, rank, _ = _condition(
            a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, False
        )
        a0, a1, p00, p10, p11, i00, i10, i11 = _predict(
            a0, a1, p00, p10, p11, i00, i10, i11, f00, f01, f10, f11, q00, q10, q11, c0, c1, False
        )
        term = log_p - lost
        new = total + term
        lost = (new - total) - term
        total = new
        t += 1
    for s in range(t, T, 4):
        if s % CHUNK == 0:
            p = checkpoints + (s // CHUNK) * state + b
            _save(p, B, inside, a0, a1, p00, p10, p11, i00, i10, i11, rank)
        y0, y1, y2, y3 = _four(y, row, s, T, inside, ALIGNED, BLOCK)
        for k in tl.static_range(4):
            x = y0 if k == 0 else (y1 if k == 1 else (y2 if k == 2 else y3))
            v, m0, m1, f, n0, n1, _, g, g0, log_p = _gain(
                x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, False
            )
            a0, a1, p00, p10, p11, i00, i10, i11, rank, _ = _condition(
                a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, False
            )
            a0, a1, p00, p10, p11, i00, i10, i11 = _predict(
                a0, a1, p00, p10, p11, i00, i10, i11, f00, f01, f10, f11, q00, q10, q11, c0, c1, False
            )
            term = log_p - lost
            new = total + term
            lost = (new - total) - term
            total = new
    tl.store(out + b, total, inside)


@triton.jit
def _through(s00, s10, s11, p00, p10, p11, f00, f01, f10, f11):
    """2 S F P (its four elements) and F' S F."""
    t00 = s00 * f00 + s10 * f10
    t01 = s00 * f01 + s10 * f11
    t10 = s10 * f00 + s11 * f10
    t11 = s10 * f01 + s11 * f11
    d00 = 2.0 * (t00 * p00 + t01 * p10)
    d01 = 2.0 * (t00 * p10 + t01 * p11)
    d10 = 2.0 * (t10 * p00 + t11 * p10)
    d11 = 2.0 * (t10 * p10 + t11 * p11)
    return d00, d01, d10, d11, f00 * t00 + f10 * t10, f01 * t00 + f11 * t10, f01 * t01 + f11 * t11


@triton.jit
def _backward_kernel(
    y, parameters, tolerance_in, checkpoints, grad, scratch, d_y, d_parameters, B, T, chunks,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    state = tl.full((), 9, tl.int64) * B  # floats of one saved state of every series; past 2^31 times its number
    f00, f01, f10, f11, h0, h1, q00, q10, q11, r, c0, c1, d = _load_model(parameters, b, inside, B)
    tolerance = tl.load(tolerance_in + b, inside, 0.0)
    lg = tl.load(grad + b, inside, 0.0)
    zero = tl.zeros((BLOCK,), y.dtype.element_ty)
    df00, df01, df10, df11, dh0, dh1 = zero, zero, zero, zero, zero, zero
    dq00, dq10, dq11, dr, dc0, dc1, dd = zero, zero, zero, zero, zero, zero, zero
    ga0, ga1, s00, s10, s11, z00, z10, z11 = zero, zero, zero, zero, zero, zero, zero, zero
    for backwards in range(0, chunks):
        chunk = chunks - 1 - backwards
        t0 = chunk * CHUNK
        t1 = tl.minimum(T, t0 + CHUNK)
        saved = _restore(checkpoints + chunk * state + b, B, inside)
        a0, a1, p00, p10, p11, i00, i10, i11, rank = saved
        for t in range(t0, t1):
            _save(scratch + (t - t0) * state + b, B, inside, a0, a1, p00, p10, p11, i00, i10, i11, rank)
            x = tl.load(y + row + t, inside, float("nan"))
            v, m0, m1, f, n0, n1, _, g, g0, _ = _gain(
                x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, True
            )
            a0, a1, p00, p10, p11, i00, i10, i11, rank, _ = _condition(
                a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, True
            )
            a0, a1, p00, p10, p11, i00, i10, i11 = _predict(
                a0, a1, p00, p10, p11, i00, i10, i11, f00, f01, f10, f11, q00, q10, q11, c0, c1, True
            )
        for back in range(0, t1 - t0):
            t = t1 - 1 - back
            saved = _restore(scratch + (t - t0) * state + b, B, inside)
            a0, a1, p00, p10, p11, i00, i10, i11, rank = saved
            x = tl.load(y + row + t, inside, float("nan"))
            v, m0, m1, f, n0, n1, _, g, g0, _ = _gain(
                x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, True
            )
            e0, e1, u00, u10, u11, w00, w10, w11, _, keep = _condition(
                a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, True
            )
            # the prediction
            dc0 += ga0
            dc1 += ga1
            dq00 += s00
            dq10 += 2.0 * s10
            dq11 += s11
            d00, d01, d10, d11, s00, s10, s11 = _through(s00, s10, s11, u00, u10, u11, f00, f01, f10, f11)
            df00 += ga0 * e0 + d00
            df01 += ga0 * e1 + d01
            df10 += ga1 * e0 + d10
            df11 += ga1 * e1 + d11
            d00, d01, d10, d11, z00, z10, z11 = _through(z00, z10, z11, w00, w10, w11, f00, f01, f10, f11)
            df00 += d00
            df01 += d01
            df10 += d10
            df11 += d11
            new0 = f00 * ga0 + f10 * ga1
            ga1 = f01 * ga0 + f11 * ga1
            ga0 = new0
            z00 *= keep
            z10 *= keep
            z11 *= keep
            # the observation
            sm0 = s00 * m0 + s10 * m1
            sm1 = s10 * m0 + s11 * m1
            ma = m0 * ga0 + m1 * ga1
            sn0 = s00 * n0 + s10 * n1
            sn1 = s10 * n0 + s11 * n1
            zn0 = z00 * n0 + z10 * n1
            zn1 = z10 * n0 + z11 * n1
            na = n0 * ga0 + n1 * ga1
            nsn = n0 * sn0 + n1 * sn1
            vb = g * ma + g0 * na - lg * g * v
            fb = g * g * (m0 * sm0 + m1 * sm1 - v * ma) - 0.5 * lg * (g - g * g * v * v) + g0 * g0 * nsn
            fib = (
                g0 * g0 * (2.0 * (m0 * sn0 + m1 * sn1) + n0 * zn0 + n1 * zn1 - v * na - 2.0 * f * g0 * nsn)
                - 0.5 * lg * g0
            )
            mb0 = g * (v * ga0 - 2.0 * sm0) - 2.0 * g0 * sn0 + fb * h0
            mb1 = g * (v * ga1 - 2.0 * sm1) - 2.0 * g0 * sn1 + fb * h1
            nb0 = g0 * (v * ga0 + 2.0 * f * g0 * sn0 - 2.0 * sm0 - 2.0 * zn0) + fib * h0
            nb1 = g0 * (v * ga1 + 2.0 * f * g0 * sn1 - 2.0 * sm1 - 2.0 * zn1) + fib * h1
            dh0 += fb * m0 + p00 * mb0 + p10 * mb1 + fib * n0 + i00 * nb0 + i10 * nb1 - vb * a0
            dh1 += fb * m1 + p10 * mb0 + p11 * mb1 + fib * n1 + i10 * nb0 + i11 * nb1 - vb * a1
            s00 += mb0 * h0
            s10 += 0.5 * (mb1 * h0 + mb0 * h1)
            s11 += mb1 * h1
            z00 += nb0 * h0
            z10 += 0.5 * (nb1 * h0 + nb0 * h1)
            z11 += nb1 * h1
            ga0 -= vb * h0
            ga1 -= vb * h1
            dr += fb
            dd -= vb
            tl.store(d_y + row + t, vb, inside)
    p = d_parameters + b
    tl.store(p, df00, inside)
    tl.store(p + B, df01, inside)
    tl.store(p + 2 * B, df10, inside)
    tl.store(p + 3 * B, df11, inside)
    tl.store(p + 4 * B, dh0, inside)
    tl.store(p + 5 * B, dh1, inside)
    tl.store(p + 6 * B, dq00, inside)
    tl.store(p + 7 * B, dq10, inside)
    tl.store(p + 8 * B, dq11, inside)
    tl.store(p + 9 * B, dr, inside)
    tl.store(p + 10 * B, dc0, inside)
    tl.store(p + 11 * B, dc1, inside)
    tl.store(p + 12 * B, dd, inside)
    tl.store(p + 13 * B, ga0, inside)
    tl.store(p + 14 * B, ga1, inside)
    tl.store(p + 15 * B, s00, inside)
    tl.store(p + 16 * B, 2.0 * s10, inside)
    tl.store(p + 17 * B, s11, inside)
    tl.store(p + 18 * B, z00, inside)
    tl.store(p + 19 * B, 2.0 * z10, inside)
    tl.store(p + 20 * B, z11, inside)


@triton.jit
def _store_vector(target, t, b, B, x0, x1, inside, N: tl.constexpr):
    """One step of a vector into (T, N, B)."""
    p = target + (tl.full((), N, tl.int64) * B) * t + b
    tl.store(p, x0, inside)
    if N == 2:
        tl.store(p + B, x1, inside)


@triton.jit
def _store_matrix(target, t, b, B, x00, x10, x11, inside, N: tl.constexpr):
    """One step of a symmetric matrix into (T, N, N, B)."""
    p = target + (tl.full((), N * N, tl.int64) * B) * t + b
    tl.store(p, x00, inside)
    if N == 2:
        tl.store(p + B, x10, inside)
        tl.store(p + 2 * B, x10, inside)
        tl.store(p + 3 * B, x11, inside)


@triton.jit
def _moments_kernel(
    y, parameters, rank_in, tolerance_in, steps, pm, pc, fm, fc, last, last_c, last_d, innovation, spread, flags, B, T,
    N: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    # Results lie series next to series, so that a warp writes whole lines. Time next to time, every series had a
    # half-filled sector of every array in flight, more than the cache holds: 54 ms where this layout's floor is 1.5.
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    f00, f01, f10, f11, h0, h1, q00, q10, q11, r, c0, c1, d = _load_model(parameters, b, inside, B)
    a0, a1, p00, p10, p11, i00, i10, i11 = _load_start(parameters, b, inside, B)
    rank = tl.load(rank_in + b, inside, 0.0)
    tolerance = tl.load(tolerance_in + b, inside, 0.0)
    series = tl.full((), 1, tl.int64) * B
    for t in range(0, T, 4):
        y0, y1, y2, y3 = _four(y, row, t, T, inside, ALIGNED, BLOCK)
        for s in tl.static_range(4):
            x = y0 if s == 0 else (y1 if s == 1 else (y2 if s == 2 else y3))
            here = inside & (t + s < T)
            at = series * (t + s) + b
            v, m0, m1, f, n0, n1, _, g, g0, log_p = _gain(
                x, a0, a1, p00, p10, p11, i00, i10, i11, rank, h0, h1, r, d, tolerance, True
            )
            tl.store(steps + at, log_p, here)
            tl.store(innovation + at, tl.where(x == x, v, x), here)
            tl.store(spread + at, f, here)
            tl.store(flags + at, rank > 0, here)
            _store_vector(pm, t + s, b, B, a0, a1, here, N)
            _store_matrix(pc, t + s, b, B, p00, p10, p11, here, N)
            e0, e1, u00, u10, u11, w00, w10, w11, after, _ = _condition(
                a0, a1, p00, p10, p11, i00, i10, i11, rank, v, m0, m1, f, n0, n1, g, g0, True
            )
            _store_vector(fm, t + s, b, B, e0, e1, here, N)
            _store_matrix(fc, t + s, b, B, u00, u10, u11, here, N)
            e0, e1, u00, u10, u11, w00, w10, w11 = _predict(
                e0, e1, u00, u10, u11, w00, w10, w11, f00, f01, f10, f11, q00, q10, q11, c0, c1, True
            )
            on = t + s < T  # nothing moves beyond the last step
            a0, a1 = tl.where(on, e0, a0), tl.where(on, e1, a1)
            p00, p10, p11 = tl.where(on, u00, p00), tl.where(on, u10, p10), tl.where(on, u11, p11)
            i00, i10, i11 = tl.where(on, w00, i00), tl.where(on, w10, i10), tl.where(on, w11, i11)
            rank = tl.where(on, after, rank)
    _store_vector(last, 0, b, B, a0, a1, inside, N)
    _store_matrix(last_c, 0, b, B, p00, p10, p11, inside, N)
    _store_matrix(last_d, 0, b, B, i00, i10, i11, inside, N)


BLOCK = 64  # series to a program, in two warps: many small programs, so that every scheduler has several


def log_likelihood(
    y: Tensor, parameters: Tensor, rank: Tensor, tolerance: Tensor, out: Tensor, checkpoints: Tensor, chunk: int
) -> None:
    """Fill out (B,) and checkpoints (chunks, 9, B)."""
    B, T = y.shape
    _log_likelihood_kernel[(triton.cdiv(B, BLOCK),)](
        y, parameters, rank, tolerance, out, checkpoints, B, T, chunk, BLOCK, T % 4 == 0, num_warps=BLOCK // 32
    )


def backward(
    y: Tensor,
    parameters: Tensor,
    tolerance: Tensor,
    checkpoints: Tensor,
    grad: Tensor,
    d_y: Tensor,
    d_parameters: Tensor,
    chunk: int,
) -> None:
    """Fill d_y (B, T) and d_parameters (21, B) from the gradient (B,) of the log-likelihood."""
    B, T = y.shape
    scratch = torch.empty(min(chunk, T), 9, B, device=y.device, dtype=y.dtype)
    _backward_kernel[(triton.cdiv(B, BLOCK),)](
        y, parameters, tolerance, checkpoints, grad, scratch, d_y, d_parameters, B, T, checkpoints.shape[0],
        chunk, BLOCK, num_warps=BLOCK // 32,
    )  # fmt: skip


def moments(N: int, y: Tensor, parameters: Tensor, rank: Tensor, tolerance: Tensor, *out: Tensor) -> None:
    """Fill the moments, in the order of `naive.Moments`, each with the series last: (T, .., B)."""
    B, T = y.shape
    _moments_kernel[(triton.cdiv(B, BLOCK),)](
        y, parameters, rank, tolerance, *out, B, T, N, BLOCK, T % 4 == 0, num_warps=BLOCK // 32
    )
