"""Owns the Triton kernels of the selective scan forwards, and the chain of segments; `triton_parts.py` explains."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_parts import (
    channels,
    exp2,
    place,
    read,
    sigmoid,
    starts,
    step_size,
    store_tile,
    tile,
    wide,
)


@triton.jit(do_not_specialize=["unit", "segment", "chunks"])
def forward(
    u,
    delta,
    A2,
    B,
    C,
    skip,
    z,
    bias,
    start,
    reset,
    y,
    ungated,
    kept,
    final,
    T,
    segment,
    chunks,
    unit,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    SKIP: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    KEEP: tl.constexpr,
    BN: tl.constexpr,
    DL: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
    K: tl.constexpr,
):
    """Grid (blocks of channels, segments, B). start (B, segments, N, D); kept (B, chunks, N, D); final (B, N, D)."""
    group, first, end = place(tl.program_id(0), D, G, DL, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    n = tl.arange(0, BN)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    u += i * T * D
    delta += i * T * D
    z += i * T * D
    y += i * T * D
    ungated += i * T * D
    reset += i * T
    B += i * T * G * N + group * N
    C += i * T * G * N + group * N
    kept += i * chunks * N * D
    rate = tile(A2, first, end, n, N, 1, N, unit, DL, R)
    h = tile(start + (i * tl.num_programs(1) + part) * N * D, first, end, n, N, D, 1, unit, DL, R)
    shift = channels(bias, first, end, BIAS, DL, R)
    weight = channels(skip, first, end, SKIP, DL, R)
    rows = read(u, delta, z, B, C, t0, stop, first, end, n, N, D, G * N, Z, True, DL, R, U)
    for t in range(t0, stop, U):
        ahead = read(u, delta, z, B, C, t + U, stop, first, end, n, N, D, G * N, Z, True, DL, R, U)
        if KEEP:  # noqa: SIM102 (KEEP is known when compiling, t is not)
            if t % K == 0:
                store_tile(kept + wide(t // K) * N * D, h, first, end, n, N, D, 1, unit, DL, R)
        for s in tl.static_range(U):
            fresh = starts(reset, t + s, stop, RESET)
            row_B = rows[s * (3 * R + 2) + 3 * R]
            row_C = rows[s * (3 * R + 2) + 3 * R + 1]
            after = ()
            for r in tl.static_range(R):
                d = first + r * DL + tl.arange(0, DL)
                inside = (d < end) & (t + s < stop)
                row_u = rows[s * (3 * R + 2) + 3 * r]
                dt = step_size(rows[s * (3 * R + 2) + 3 * r + 1], shift[r], inside, SOFTPLUS)
                state = h[r]
                if RESET:
                    state = tl.where(fresh, 0.0, state)
                state = exp2(dt[None, :] * rate[r]) * state + (dt * row_u)[None, :] * row_B[:, None]
                after = after + (state,)
                out = tl.sum(state * row_C[:, None], axis=0)
                if SKIP:
                    out += weight[r] * row_u
                at = wide(t) * D + first + tl.arange(0, DL) + (s * D + r * DL)
                if Z:
                    if KEEP:
                        tl.store(ungated + at, out.to(ungated.dtype.element_ty), mask=inside)
                    row_z = rows[s * (3 * R + 2) + 3 * r + 2]
                    out *= row_z * sigmoid(row_z)
                tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
            h = after
        rows = ahead
    if stop == T:
        store_tile(final + i * N * D, h, first, end, n, N, D, 1, unit, DL, R)


@triton.jit(do_not_specialize=["unit", "segment"])
def summarize_forward(
    u,
    delta,
    A2,
    B,
    bias,
    reset,
    local,
    decay,
    T,
    segment,
    unit,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    BN: tl.constexpr,
    DL: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
):
    """Each segment from zero: its last state, and the decay across it; both (B, segments, N, D)."""
    group, first, end = place(tl.program_id(0), D, G, DL, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    n = tl.arange(0, BN)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    u += i * T * D
    delta += i * T * D
    reset += i * T
    B += i * T * G * N + group * N
    rate = tile(A2, first, end, n, N, 1, N, unit, DL, R)
    shift = channels(bias, first, end, BIAS, DL, R)
    h = ()
    total = ()
    for _ in tl.static_range(R):
        h = h + (tl.zeros([BN, DL], tl.float32),)
        total = total + (tl.zeros([DL], tl.float32),)
    unbroken = 1.0
    rows = read(u, delta, u, B, B, t0, stop, first, end, n, N, D, G * N, False, False, DL, R, U)
    for t in range(t0, stop, U):
        ahead = read(u, delta, u, B, B, t + U, stop, first, end, n, N, D, G * N, False, False, DL, R, U)
        for s in tl.static_range(U):
            row_B = rows[s * (3 * R + 2) + 3 * R]
            after = ()
            sums = ()
            fresh = starts(reset, t + s, stop, RESET)
            if RESET:
                unbroken = tl.where(fresh, 0.0, unbroken)
            for r in tl.static_range(R):
                d = first + r * DL + tl.arange(0, DL)
                row_u = rows[s * (3 * R + 2) + 3 * r]
                dt = step_size(rows[s * (3 * R + 2) + 3 * r + 1], shift[r], (d < end) & (t + s < stop), SOFTPLUS)
                state = h[r]
                if RESET:
                    state = tl.where(fresh, 0.0, state)
                after = after + (exp2(dt[None, :] * rate[r]) * state + (dt * row_u)[None, :] * row_B[:, None],)
                sums = sums + (total[r] + dt,)
            h = after
            total = sums
        rows = ahead
    across = ()
    for r in tl.static_range(R):
        across = across + (tl.where(unbroken > 0.0, exp2(total[r][None, :] * rate[r]), 0.0),)
    at = (i * tl.num_programs(1) + part) * N * D
    store_tile(local + at, h, first, end, n, N, D, 1, unit, DL, R)
    store_tile(decay + at, across, first, end, n, N, D, 1, unit, DL, R)


@triton.jit
def combine(local, decay, edge, carry, segments, size, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """carry, (B, segments, size): what enters each segment, from `edge` (B, size) on; in reverse from the last."""
    i = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = x < size
    value = tl.load(edge + i * size + x, mask=inside, other=0.0)
    for step in range(segments):
        part = step
        if REVERSE:
            part = segments - 1 - step
        at = (i * segments + part) * size + x
        tl.store(carry + at, value, mask=inside)
        value = tl.load(decay + at, mask=inside, other=0.0) * value + tl.load(local + at, mask=inside, other=0.0)
