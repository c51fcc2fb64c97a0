"""Owns the Triton kernels of the selective scan forwards, and the chain of segments; `triton_quads.py` explains."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import swap
from ssmfin_kernels.selective_scan.triton_parts import exp2, place, wide
from ssmfin_kernels.selective_scan.triton_quads import (
    advance,
    finish,
    keep,
    prefetch_quads,
    rates,
    read,
    states,
    store_quads,
    store_states,
    vector,
    words,
    zeros,
)


@triton.jit(do_not_specialize=["segment", "chunks"])
def forward(
    u,
    delta,
    A,
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
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    START: tl.constexpr,
    SKIP: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    KEEP: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    NL: tl.constexpr,
    V: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
):
    """Grid (blocks of channels, segments, B). start (B, segments, D, N), final (B, D, N), `segments.kept_shape`."""
    # kept states of a group at one time: as many tiles as programs of any width write
    ROW: tl.constexpr = (D // G + 15) // 16 * 2 * S * NL * 32
    AHEAD: tl.constexpr = 32 if V <= 2 else 64
    group, first, end = place(tl.program_id(0), D, G, 8, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    rows_at = (i * T * G + group) * (N // P)
    memory = (
        u + i * T * D,
        delta + i * T * D,
        z + i * T * D,
        reset + i * T,
        B,
        C,
        words(B, P) + rows_at,
        words(C, P) + rows_at,
    )
    y += i * T * D
    ungated += i * T * D
    kept += (i * chunks * G + group) * ROW + tl.program_id(0) % (tl.num_programs(0) // G) * (R * S * NL * 32)
    rate = rates(A, first, end, N, R, S, NL)
    if START:
        h = states(start + (i * tl.num_programs(1) + part) * D * N, first, end, N, R, S, NL)
    else:
        h = zeros(R * S * NL)
    shift = vector(bias, first, end, BIAS, R)
    weight = vector(skip, first, end, SKIP, R)

    prefetch_quads(memory, first, end, t0, stop, D, G, N, Z, True, R, P, AHEAD)
    # the rows of two turns of the loop are under way while those of a third are used
    rows = ()
    ahead = ()
    for v in tl.static_range(V):
        rows = rows + (read(memory, first, end, t0, v, stop, D, G, N, Z, True, RESET, R, S, NL, P, Q, True),)
        ahead = ahead + (read(memory, first, end, t0, V + v, stop, D, G, N, Z, True, RESET, R, S, NL, P, Q, True),)
    whole = t0 + (stop - t0) // (4 * V) * (4 * V)
    for t in range(t0, whole, 4 * V):
        if t % 32 == 0:
            prefetch_quads(memory, first, end, t + AHEAD, stop, D, G, N, Z, True, R, P, 32)
        next_t = tl.minimum(t + 8 * V, whole - 4 * V)  # the last rows once more: no mask
        later = ()
        for v in tl.static_range(V):
            later = later + (read(memory, first, end, next_t, v, stop, D, G, N, Z, True, RESET, R, S, NL, P, Q, False),)
        for v in tl.static_range(V):
            if KEEP:
                keep(kept + wide(t // K + 4 * v // K) * (G * ROW), h, R * S * NL)
            h, _, outs = advance(
                h, rate, shift, rows[v], memory, first, end, t, v, stop, SOFTPLUS, True, RESET, R, S, NL, P, Q, False
            )
            plain, gated = finish(outs, rows[v], memory, weight, first, end, SKIP, Z, R, Q)
            if KEEP and Z:
                store_quads(ungated, plain, first, end, t, v, stop, D, R, False)
            store_quads(y, gated, first, end, t, v, stop, D, R, False)
        rows = ahead
        ahead = later
    for t in range(whole, stop, 4):
        if KEEP:
            keep(kept + wide(t // K) * (G * ROW), h, R * S * NL)
        last = read(memory, first, end, t, 0, stop, D, G, N, Z, True, RESET, R, S, NL, P, Q, True)
        h, _, outs = advance(
            h, rate, shift, last, memory, first, end, t, 0, stop, SOFTPLUS, True, RESET, R, S, NL, P, Q, True
        )
        plain, gated = finish(outs, last, memory, weight, first, end, SKIP, Z, R, Q)
        if KEEP and Z:
            store_quads(ungated, plain, first, end, t, 0, stop, D, R, True)
        store_quads(y, gated, first, end, t, 0, stop, D, R, True)
    if stop == T:
        store_states(final + i * D * N, h, first, end, N, 1, N, R, S, NL)


@triton.jit(do_not_specialize=["segment"])
def summarize_forward(
    u,
    delta,
    A,
    B,
    bias,
    reset,
    local,
    decay,
    T,
    segment,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    R: tl.constexpr,
    S: tl.constexpr,
    NL: tl.constexpr,
    V: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
):
    """Each segment from zero: its last state, and the decay across it; both (B, segments, D, N)."""
    AHEAD: tl.constexpr = 32 if V <= 2 else 64
    group, first, end = place(tl.program_id(0), D, G, 8, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    rows_B = words(B, P) + (i * T * G + group) * (N // P)
    memory = (u + i * T * D, delta + i * T * D, u, reset + i * T, B, B, rows_B, rows_B)
    rate = rates(A, first, end, N, R, S, NL)
    shift = vector(bias, first, end, BIAS, R)
    h = zeros(R * S * NL)
    total = zeros(R)
    broken = tl.zeros([32], tl.int32)

    prefetch_quads(memory, first, end, t0, stop, D, G, N, False, False, R, P, AHEAD)
    rows = ()
    ahead = ()
    for v in tl.static_range(V):
        rows = rows + (read(memory, first, end, t0, v, stop, D, G, N, False, False, RESET, R, S, NL, P, Q, True),)
        ahead = ahead + (read(memory, first, end, t0, V + v, stop, D, G, N, False, False, RESET, R, S, NL, P, Q, True),)
    whole = t0 + (stop - t0) // (4 * V) * (4 * V)
    for t in range(t0, whole, 4 * V):
        if t % 32 == 0:
            prefetch_quads(memory, first, end, t + AHEAD, stop, D, G, N, False, False, R, P, 32)
        next_t = tl.minimum(t + 8 * V, whole - 4 * V)
        later = ()
        for v in tl.static_range(V):
            later = later + (
                read(memory, first, end, next_t, v, stop, D, G, N, False, False, RESET, R, S, NL, P, Q, False),
            )
        for v in tl.static_range(V):
            h, sizes, _ = advance(
                h, rate, shift, rows[v], memory, first, end, t, v, stop, SOFTPLUS, False, RESET, R, S, NL, P, Q, False
            )
            total = add(total, sizes, R)
            if RESET:
                broken |= rows[v][3][0]
        rows = ahead
        ahead = later
    for t in range(whole, stop, 4):
        last = read(memory, first, end, t, 0, stop, D, G, N, False, False, RESET, R, S, NL, P, Q, True)
        h, sizes, _ = advance(
            h, rate, shift, last, memory, first, end, t, 0, stop, SOFTPLUS, False, RESET, R, S, NL, P, Q, True
        )
        total = add(total, sizes, R)
        if RESET:
            broken |= last[3][0]
    lane = tl.arange(0, 32)
    broken |= tl.gather(broken, lane ^ 1, 0)
    broken |= tl.gather(broken, lane ^ 2, 0)
    across = ()
    for r in tl.static_range(R):
        length = total[r] + swap(total[r], 1)
        length += swap(length, 2)
        for k in tl.static_range(S * NL):
            across = across + (tl.where(broken != 0, 0.0, exp2(length * rate[r * S * NL + k])),)
    at = (i * tl.num_programs(1) + part) * D * N
    store_states(local + at, h, first, end, N, 1, N, R, S, NL)
    store_states(decay + at, across, first, end, N, 1, N, R, S, NL)


@triton.jit
def add(totals, more, R: tl.constexpr):
    sums = ()
    for r in tl.static_range(R):
        sums = sums + (totals[r] + more[r],)
    return sums


@triton.jit
def combine(
    local,
    decay,
    edge,
    carry,
    segments,
    size,
    EDGE: tl.constexpr,
    REVERSE: tl.constexpr,
    BLOCK: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """carry, (B, segments, size): what enters each segment, from `edge` (B, size) or zero on; in reverse the last."""
    i = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = x < size
    value = tl.zeros([BLOCK], tl.float32)
    if EDGE:
        value = tl.load(edge + i * size + x, mask=inside, other=0.0)
    for step in range(0, segments, AT_ONCE):
        factors = ()
        terms = ()
        for j in tl.static_range(AT_ONCE):
            at = (i * segments + tl.minimum(step + j, segments - 1)) * size + x
            if REVERSE:
                at = (i * segments + tl.maximum(segments - 1 - step - j, 0)) * size + x
            factors = factors + (tl.load(decay + at, mask=inside, other=0.0),)
            terms = terms + (tl.load(local + at, mask=inside, other=0.0),)
        for j in tl.static_range(AT_ONCE):
            at = (i * segments + step + j) * size + x
            if REVERSE:
                at = (i * segments + segments - 1 - step - j) * size + x
            tl.store(carry + at, value, mask=inside & (step + j < segments))
            value = factors[j] * value + terms[j]
