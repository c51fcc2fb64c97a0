"""Owns four steps of the selective scan forwards for four warps: rows of B and C, dt and x lie in shared memory.

Lanes hold what `triton_quads.py` says, four warps side by side: tensors are (128,), channels are counted from each
warp's own first. A lane reads its four numbers of a row at once, and dt and x of two steps at once, which one of the
four lanes of a channel computed; a row is widened once for all warps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_memory import fetch
from ssmfin_kernels.selective_scan.triton_parts import exp2, sigmoid, softplus
from ssmfin_kernels.selective_scan.triton_quads import fold, spread
from ssmfin_kernels.selective_scan.triton_ring import number_at


@triton.jit
def shared_forward(ROOM: tl.constexpr):
    """The address of ROOM bytes of shared memory: 8 K for rows of B and C, 4 K for dt and x of warps, then the ring."""
    lane = tl.arange(0, 128)
    tl.static_assert(ROOM <= 45056)
    if ROOM <= 28672:
        return tl.inline_asm_elementwise(
            "{ .shared .align 128 .b8 room[28672]; mov.u32 $0, room; }", "=r,r", [lane], tl.int32, False, 1
        )
    else:
        return tl.inline_asm_elementwise(
            "{ .shared .align 128 .b8 room[45056]; mov.u32 $0, room; }", "=r,r", [lane], tl.int32, False, 1
        )


@triton.jit
def quads_at(address, like, R: tl.constexpr):
    """R quads of a tensor's rows, in float32."""
    SIZE: tl.constexpr = like.dtype.element_ty.primitive_bitwidth // 8
    quads = ()
    for r in tl.static_range(R):
        quads = quads + (number_at(address + 8 * r * SIZE, like),)
    return quads


@triton.jit
def starts_at(reset, t, v, stop, RESET: tl.constexpr):
    """A quad of whether a step starts a sequence; none unless RESET."""
    quads = ()
    if RESET:
        step = t + 4 * v + tl.arange(0, 128) % 4
        quads = (fetch(reset + step, step < stop),)
    return quads


@triton.jit
def widen(spots, raw, like, COUNT: tl.constexpr, S: tl.constexpr, V: tl.constexpr):
    """COUNT (B, or B and C) rows of 4 V steps, as they came, to float32: (step, B or C, state)."""
    SIZE: tl.constexpr = like.dtype.element_ty.primitive_bitwidth // 8
    thread = tl.arange(0, 128)
    which = thread // 64
    for v in tl.static_range(V):
        step = 4 * v + thread // 16 % 4
        for q in tl.static_range(S):
            n = thread % 16 + 16 * q
            value = number_at(raw + ((which % COUNT * (4 * V) + step) * (16 * S) + n) * SIZE, like)
            tl.inline_asm_elementwise(
                "st.shared.f32 [$1], $2; mov.u32 $0, 0;",
                "=r,r,f",
                [spots + ((step * 2 + which) * (16 * S) + n) * 4, value],
                tl.int32,
                False,
                1,
            )


@triton.jit
def staged(where, step: tl.constexpr, q: tl.constexpr, which: tl.constexpr, S: tl.constexpr):
    """The lane's four numbers of a row."""
    lane = tl.arange(0, where.shape[0])
    return tl.inline_asm_elementwise(
        "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];",
        "=f,=f,=f,=f,r",
        [where + ((step * 2 + which) * (16 * S) + 16 * q) * 4 + lane % 4 * 16],
        (tl.float32, tl.float32, tl.float32, tl.float32),
        False,
        1,
    )


@triton.jit
def put_pair(pairs, r: tl.constexpr, first, second):
    lane = tl.arange(0, pairs.shape[0])
    tl.inline_asm_elementwise(
        "bar.warp.sync 0xffffffff; st.shared.v2.f32 [$1], {$2, $3}; bar.warp.sync 0xffffffff; mov.u32 $0, 0;",
        "=r,r,f,f",
        [pairs + lane // 32 * 1024 + r * 256 + lane % 32 * 8, first, second],
        tl.int32,
        False,
        1,
    )


@triton.jit
def pair(pairs, r: tl.constexpr, half: tl.constexpr):
    """dt and x of two steps."""
    lane = tl.arange(0, pairs.shape[0])
    return tl.inline_asm_elementwise(
        "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];",
        "=f,=f,=f,=f,r",
        [pairs + lane // 32 * 1024 + r * 256 + lane % 32 // 4 * 32 + half * 16],
        (tl.float32, tl.float32, tl.float32, tl.float32),
        False,
        1,
    )


@triton.jit
def step_sizes(delta, shift, t, v, stop, SOFTPLUS: tl.constexpr, R: tl.constexpr):
    """R quads of dt, zero past the end."""
    sizes = ()
    for r in tl.static_range(R):
        dt = delta[r] + shift[r]
        if SOFTPLUS:
            dt = softplus(dt)
        sizes = sizes + (tl.where(t + 4 * v + tl.arange(0, 128) % 4 < stop, dt, 0.0),)
    return sizes


@triton.jit
def advance(
    h, rate, sizes, u, fresh, spots, pairs, v, OUT: tl.constexpr, RESET: tl.constexpr, R: tl.constexpr, S: tl.constexpr
):
    """The states four steps later and, with OUT, R quads of sum_n C h."""
    for r in tl.static_range(R):
        put_pair(pairs, r, sizes[r], sizes[r] * u[r])
    parts = ()
    for s in tl.static_range(4):
        b = ()
        c = ()
        for q in tl.static_range(S):
            b = b + staged(spots, 4 * v + s, q, 0, S)
            if OUT:
                c = c + staged(spots, 4 * v + s, q, 1, S)
        if s % 2 == 0:
            couples = ()
            for r in tl.static_range(R):
                couples = couples + pair(pairs, r, s // 2)
        after = ()
        for r in tl.static_range(R):
            dt = couples[4 * r + 2 * (s % 2)]
            x = couples[4 * r + 2 * (s % 2) + 1]
            if RESET:
                goes_on = spread(fresh[0], s) == 0
            for k in tl.static_range(S * 4):
                value = h[r * S * 4 + k]
                if RESET:
                    value = tl.where(goes_on, value, 0.0)
                value = exp2(dt * rate[r * S * 4 + k]) * value + x * b[k]
                after = after + (value,)
                if OUT:
                    if k == 0:
                        total = value * c[k]
                    else:
                        total += value * c[k]
            if OUT:
                parts = parts + (total,)
        h = after
    outs = ()
    if OUT:
        for r in tl.static_range(R):
            outs = outs + (fold(parts[r], parts[R + r], parts[2 * R + r], parts[3 * R + r]),)
    return h, outs


@triton.jit
def retreat(
    h,
    rate,
    sizes,
    dy,
    z,
    fresh,
    spots,
    pairs,
    v,
    Z: tl.constexpr,
    RESET: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
):
    """The gradient of the states four steps before, given what comes from later ones."""
    for r in tl.static_range(R):
        slope = dy[r]
        if Z:
            slope *= z[r] * sigmoid(z[r])
        put_pair(pairs, r, sizes[r], slope)
    for s in tl.static_range(3, -1, -1):
        c = ()
        for q in tl.static_range(S):
            c = c + staged(spots, 4 * v + s, q, 0, S)
        if s % 2 == 1:
            couples = ()
            for r in tl.static_range(R):
                couples = couples + pair(pairs, r, s // 2)
        before = ()
        for r in tl.static_range(R):
            dt = couples[4 * r + 2 * (s % 2)]
            x = couples[4 * r + 2 * (s % 2) + 1]
            if RESET:
                goes_on = spread(fresh[0], s) == 0
            for k in tl.static_range(S * 4):
                value = exp2(dt * rate[r * S * 4 + k]) * (h[r * S * 4 + k] + x * c[k])
                if RESET:
                    value = tl.where(goes_on, value, 0.0)
                before = before + (value,)
        h = before
    return h
