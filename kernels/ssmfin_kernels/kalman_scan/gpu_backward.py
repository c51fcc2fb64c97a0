"""Owns the Triton kernels of the gradient of the log-likelihood: chunks of steps, the last first, from checkpoints.

Where nothing is unknown the states of a chunk are computed again and stay in registers. The first steps, up to where
`ends` says that some lane was diffuse, go by a second kernel, which keeps their states in memory. The algebra is that
of `lanes_backward.py`. Sums over time are kept by series; sums over series are left to torch: all is deterministic.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, call-arg, var-annotated"
# Triton compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels.kalman_scan import gpu_steps as s
from ssmfin_kernels.kalman_scan.gpu_forward import BLOCK, CHUNK, HEAD

# rows of the gradients of a series: F (4), H (2), Q (3), R, c (2), d, a_1 (2), P_1 (3), P_inf (3)
ROWS = 21


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
def _back(x, state, model, adjoint, sums, lg, N: tl.constexpr, ALL: tl.constexpr):
    """Through one step: adjoint of its prediction -> of its state; sums of the matrices' gradients; and y's."""
    v, m, _, g = s.observe(x, state, model, N)
    after = s.condition(state, v, m, g, N)
    if N == 1:
        ga, sp = adjoint
        a, p = state
        e, u = after
        F, h, _, _, _, _ = model
        (m0,) = m
        df, dh, dq, dr, dc, dd = sums
        dq += sp
        if ALL:
            dc += ga
            df += ga * e + 2.0 * sp * F * u
        ga *= F
        sp *= F * F
        sm = sp * m0
        ma = m0 * ga
        vb = g * (ma - lg * v)
        fb = g * (g * (m0 * sm - v * ma) - 0.5 * lg * (1.0 - g * v * v))
        mb = g * (v * ga - 2.0 * sm) + fb * h
        if ALL:
            dh += fb * m0 + p * mb - vb * a
            dd -= vb
        dr += fb
        return (ga - vb * h, sp + mb * h), (df, dh, dq, dr, dc, dd), vb
    else:
        ga0, ga1, s00, s10, s11 = adjoint
        a0, a1, p00, p10, p11 = state
        e0, e1, u00, u10, u11 = after
        f00, f01, f10, f11, h0, h1, _, _, _, _, _, _, _ = model
        m0, m1 = m
        df00, df01, df10, df11, dh0, dh1, dq00, dq10, dq11, dr, dc0, dc1, dd = sums
        dq00 += s00
        dq10 += s10
        dq11 += s11
        if ALL:
            dc0 += ga0
            dc1 += ga1
        d00, d01, d10, d11, s00, s10, s11 = _through(s00, s10, s11, u00, u10, u11, f00, f01, f10, f11)
        if ALL:
            df00 += ga0 * e0 + d00
            df01 += ga0 * e1 + d01
            df10 += ga1 * e0 + d10
            df11 += ga1 * e1 + d11
        new0 = f00 * ga0 + f10 * ga1
        ga1 = f01 * ga0 + f11 * ga1
        ga0 = new0
        sm0 = s00 * m0 + s10 * m1
        sm1 = s10 * m0 + s11 * m1
        ma = m0 * ga0 + m1 * ga1
        vb = g * (ma - lg * v)
        fb = g * (g * (m0 * sm0 + m1 * sm1 - v * ma) - 0.5 * lg * (1.0 - g * v * v))
        mb0 = g * (v * ga0 - 2.0 * sm0) + fb * h0
        mb1 = g * (v * ga1 - 2.0 * sm1) + fb * h1
        if ALL:
            dh0 += fb * m0 + p00 * mb0 + p10 * mb1 - vb * a0
            dh1 += fb * m1 + p10 * mb0 + p11 * mb1 - vb * a1
            dd -= vb
        dr += fb
        adjoint = ga0 - vb * h0, ga1 - vb * h1, s00 + mb0 * h0, s10 + 0.5 * (mb1 * h0 + mb0 * h1), s11 + mb1 * h1
        return adjoint, (df00, df01, df10, df11, dh0, dh1, dq00, dq10, dq11, dr, dc0, dc1, dd), vb


@triton.jit(do_not_specialize=["by_series", "B", "T"])
def _backward_kernel(
    y, F, H, Q, R, c, d, mean, covariance, diffuse, by_series, checkpoints, ends, grad, d_y, sums_out, B, T,
    N: tl.constexpr, ALL: tl.constexpr, DATA: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    series = tl.full((), 1, tl.int64) * B
    STATE: tl.constexpr = N * (N + 3) // 2
    model = s.load_model(F, H, Q, R, c, d, by_series, b, inside, N)
    lg = tl.load(grad + b, inside, 0.0)
    zero = tl.zeros((BLOCK,), y.dtype.element_ty)
    if N == 1:
        adjoint = (zero, zero)
        sums = (zero, zero, zero, zero, zero, zero)
    else:
        adjoint = (zero, zero, zero, zero, zero)
        sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    first = (tl.load(ends + tl.program_id(0)) + CHUNK - 1) // CHUNK
    chunks = (T + CHUNK - 1) // CHUNK
    for back in range(0, chunks - first):
        t0 = (chunks - 1 - back) * CHUNK
        state = s.restore(checkpoints + series * (t0 // CHUNK * STATE) + b, B, inside, STATE)
        xs = s.load_steps(y, row, t0, T, inside, CHUNK, ALIGNED, BLOCK)
        states = ()
        for k in tl.static_range(CHUNK):
            states = states + (state,)
            v, m, _, g = s.observe(xs[k], state, model, N)
            new = s.predict(s.condition(state, v, m, g, N), model, N)
            state = new if WHOLE else _where(t0 + k + 1 < T, new, state)
        d_ys = ()
        for k in tl.static_range(CHUNK - 1, -1, -1):
            adjoint, sums, vb = _back(xs[k], states[k], model, adjoint, sums, lg, N, ALL)
            d_ys = (vb,) + d_ys
        if DATA:
            s.store_steps(d_y, row, t0, T, inside, d_ys, ALIGNED, BLOCK)
    p = sums_out + b
    if N == 1:
        df, dh, dq, dr, dc, dd = sums
        sums2 = df, zero, zero, zero, dh, zero, dq, zero, zero, dr, dc, zero, dd
        adjoint2 = adjoint[0], zero, adjoint[1], zero, zero
    else:
        sums2 = sums
        adjoint2 = adjoint
    s.save(p, B, inside, sums2)
    s.save(p + 13 * series, B, inside, adjoint2)


@triton.jit
def _where(flag, new, old):
    values = ()
    for k in tl.static_range(len(new)):
        values = values + (tl.where(flag, new[k], old[k]),)
    return values


@triton.jit(do_not_specialize=["by_series", "B", "T"])
def _head_kernel(
    y, F, H, Q, R, c, d, mean, covariance, diffuse, by_series, checkpoints, heads, ends, grad, scratch, d_y, sums_out,
    B, T, N: tl.constexpr, DATA: tl.constexpr, CHUNK: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    row = b * T
    series = tl.full((), 1, tl.int64) * B
    STATE: tl.constexpr = N * (N + 3) // 2
    UNKNOWN: tl.constexpr = N * (N + 1) // 2 + 1
    narrow = s.load_model(F, H, Q, R, c, d, by_series, b, inside, N)
    _, _, tolerance = s.load_start(mean, covariance, diffuse, by_series, b, inside, N)
    model = s.widened_model(narrow, N)
    f00, f01, f10, f11, h0, h1, _, _, _, _, _, _, _ = model
    lg = tl.load(grad + b, inside, 0.0)
    p = sums_out + b
    df00, df01, df10, df11, dh0, dh1, dq00, dq10, dq11, dr, dc0, dc1, dd = s.restore(p, B, inside, 13)
    ga0, ga1, s00, s10, s11 = s.restore(p + 13 * series, B, inside, 5)
    z00 = ga0 * 0.0
    z10 = z00
    z11 = z00
    stop = tl.minimum((tl.load(ends + tl.program_id(0)) + CHUNK - 1) // CHUNK * CHUNK, T)
    parts = (stop + HEAD - 1) // HEAD * (HEAD // CHUNK)
    for back in range(0, parts):
        part = parts - 1 - back
        t0 = part * CHUNK
        begin = t0 // HEAD * HEAD
        t1 = tl.minimum(t0 + CHUNK, stop)
        state = s.restore(checkpoints + series * (begin // CHUNK * STATE) + b, B, inside, STATE)
        unknown = s.restore(heads + series * (begin // HEAD * UNKNOWN) + b, B, inside, UNKNOWN)
        for t in range(begin, t1):
            if t >= t0:
                kept, kept_unknown = s.widened(state, unknown, N)
                place = scratch + series * ((t - t0) * 9) + b
                s.save(place, B, inside, kept)
                s.save(place + 5 * series, B, inside, kept_unknown)
            x = tl.load(y + row + t, inside, float("nan"))
            v, m, f, n, _, g, g0, _ = s.observe_unknown(x, state, unknown, narrow, tolerance, N)
            state, unknown, _ = s.condition_unknown(state, unknown, v, m, f, n, g, g0, N)
            state = s.predict(state, narrow, N)
            unknown = s.predict_unknown(unknown, narrow, N)
        for step in range(0, t1 - t0):
            t = t1 - 1 - step
            place = scratch + series * ((t - t0) * 9) + b
            wide = s.restore(place, B, inside, 5)
            wide_unknown = s.restore(place + 5 * series, B, inside, 4)
            a0, a1, p00, p10, p11 = wide
            i00, i10, i11, _ = wide_unknown
            x = tl.load(y + row + t, inside, float("nan"))
            v, m, f, n, _, g, g0, _ = s.observe_unknown(x, wide, wide_unknown, model, tolerance, 2)
            after, after_unknown, keep = s.condition_unknown(wide, wide_unknown, v, m, f, n, g, g0, 2)
            e0, e1, u00, u10, u11 = after
            w00, w10, w11, _ = after_unknown
            m0, m1 = m
            n0, n1 = n
            # the prediction
            dc0 += ga0
            dc1 += ga1
            dq00 += s00
            dq10 += s10
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
            if DATA:
                tl.store(d_y + row + t, vb, inside)
    s.save(p, B, inside, (df00, df01, df10, df11, dh0, dh1, dq00, dq10, dq11, dr, dc0, dc1, dd))
    s.save(p + 13 * series, B, inside, (ga0, ga1, s00, s10, s11, z00, z10, z11))


def backward(
    inputs: Sequence[Tensor],
    by_series: int,
    checkpoints: Tensor,
    heads: Tensor,
    ends: Tensor,
    grad: Tensor,
    d_y: Tensor,
    rows: Tensor,
    matrices: bool,
) -> None:
    """Fill d_y (B, T), if it is not empty, and rows (ROWS, B) from the gradient (B,) of the log-likelihood.

    `matrices`: whether the rows of F, H, c and d are wanted. Of symmetric matrices the lower triangle of the symmetric
    gradient.
    """
    y, F = inputs[:2]
    B, T = y.shape
    N, data = F.shape[-1], d_y.numel() > 0
    grid, warps = (triton.cdiv(B, BLOCK),), BLOCK // 32
    _backward_kernel[grid](
        *inputs, by_series, checkpoints, ends, grad, d_y, rows, B, T,
        N, matrices, data, CHUNK, BLOCK, T % 4 == 0, T % CHUNK == 0, num_warps=warps,
    )  # fmt: skip
    scratch = torch.empty(min(CHUNK, T), 9, B, device=y.device, dtype=y.dtype)
    _head_kernel[grid](
        *inputs, by_series, checkpoints, heads, ends, grad, scratch, d_y, rows, B, T,
        N, data, CHUNK, HEAD, BLOCK, num_warps=warps,
    )  # fmt: skip
