"""Owns the Triton kernels that run segments of a split time on their own, in the fast form of `triton_ring.py`.

    summarize_ring             forwards from zero: its last state
    summarize_backward_ring    backwards from its end, nothing entering there: a g as it leaves at the start

Both give the decay across the segment too; all (B, segments, D, N). Grid (blocks of 32 R channels, segments, B).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import swap
from ssmfin_kernels.selective_scan.triton_parts import exp2, place
from ssmfin_kernels.selective_scan.triton_quads import rates, store_states, vector, zeros
from ssmfin_kernels.selective_scan.triton_ring import ask, asked, come, copies_of
from ssmfin_kernels.selective_scan.triton_stage import (
    advance,
    quads_at,
    retreat,
    shared_forward,
    starts_at,
    step_sizes,
    widen,
)


@triton.jit(do_not_specialize=["segment"])
def summarize_ring(
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
    V: tl.constexpr,
):
    S: tl.constexpr = (N + 15) // 16
    U: tl.constexpr = 4 * V
    SIZE: tl.constexpr = u.dtype.element_ty.primitive_bitwidth // 8
    PITCH: tl.constexpr = (32 * R + 8) * SIZE
    RAW: tl.constexpr = 2 * U * PITCH
    SLOT: tl.constexpr = RAW + U * 16 * S * SIZE
    ROWS: tl.constexpr = U * 128 * S
    tl.static_assert(2 * ROWS <= 8192)
    group, first, end = place(tl.program_id(0), D, G, 8, R * 4)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    lane = tl.arange(0, 128) % 32
    warp = tl.arange(0, 128) // 32
    mine = first + warp * (8 * R)
    rows = shared_forward(12288 + 4 * SLOT)
    pairs = rows + 8192
    ring = rows + 12288
    B += (i * T * G + group) * N
    tensors = (u + i * T * D, delta + i * T * D)
    copies = copies_of(tensors, (B,), ring, first, end, 0, D, G * N, N, 32 * R, 16 * S, U, PITCH)
    own = ring + lane % 4 * PITCH + (warp * (8 * R) + lane // 4) * SIZE
    reset += i * T
    for turn in tl.static_range(3):
        ask(copies, turn * SLOT, t0 + turn * U, t0, stop)
        asked()
    rate = rates(A, mine, end, N, R, S, 4, 4)
    shift = vector(bias, mine, end, BIAS, R, 4)
    h = zeros(R * S * 4, 4)
    total = zeros(R, 4)
    broken = tl.zeros([128], tl.int32)
    come()
    widen(rows, ring + RAW, B, 1, S, V)
    come()
    for turn in range(tl.cdiv(stop - t0, U)):
        t = t0 + turn * U
        ask(copies, (turn + 3) % 4 * SLOT, t + 3 * U, t0, stop)
        asked()
        widen(rows + (1 - turn % 2) * ROWS, ring + (turn + 1) % 4 * SLOT + RAW, B, 1, S, V)
        here = own + turn % 4 * SLOT
        for v in tl.static_range(V):
            now_u = quads_at(here + 4 * v * PITCH, u, R)
            now_delta = quads_at(here + (U + 4 * v) * PITCH, delta, R)
            fresh = starts_at(reset, t, v, stop, RESET)
            sizes = step_sizes(now_delta, shift, t, v, stop, SOFTPLUS, R)
            h, _ = advance(h, rate, sizes, now_u, fresh, rows + turn % 2 * ROWS, pairs, v, False, RESET, R, S)
            total = longer(total, sizes, R)
            if RESET:
                broken |= fresh[0]
        come()
    at = (i * tl.num_programs(1) + part) * D * N
    store_states(local + at, h, mine, end, N, 1, N, R, S, 4, 4)
    store_states(decay + at, across(total, broken, rate, RESET, R, S), mine, end, N, 1, N, R, S, 4, 4)


@triton.jit(do_not_specialize=["segment"])
def summarize_backward_ring(
    dy,
    delta,
    A,
    C,
    z,
    bias,
    reset,
    local,
    decay,
    T,
    segment,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    R: tl.constexpr,
    V: tl.constexpr,
):
    S: tl.constexpr = (N + 15) // 16
    U: tl.constexpr = 4 * V
    SIZE: tl.constexpr = dy.dtype.element_ty.primitive_bitwidth // 8
    PITCH: tl.constexpr = (32 * R + 8) * SIZE
    RAW: tl.constexpr = (3 if Z else 2) * U * PITCH
    SLOT: tl.constexpr = RAW + U * 16 * S * SIZE
    ROWS: tl.constexpr = U * 128 * S
    tl.static_assert(2 * ROWS <= 8192)
    group, first, end = place(tl.program_id(0), D, G, 8, R * 4)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    lane = tl.arange(0, 128) % 32
    warp = tl.arange(0, 128) // 32
    mine = first + warp * (8 * R)
    rows = shared_forward(12288 + 4 * SLOT)
    pairs = rows + 8192
    ring = rows + 12288
    C += (i * T * G + group) * N
    tensors = (dy + i * T * D, delta + i * T * D)
    if Z:
        tensors = tensors + (z + i * T * D,)
    copies = copies_of(tensors, (C,), ring, first, end, 0, D, G * N, N, 32 * R, 16 * S, U, PITCH)
    own = ring + lane % 4 * PITCH + (warp * (8 * R) + lane // 4) * SIZE
    reset += i * T
    turns = tl.cdiv(stop - t0, U)
    last = t0 + (turns - 1) * U
    for turn in tl.static_range(3):
        ask(copies, turn * SLOT, last - turn * U, t0, stop)
        asked()
    rate = rates(A, mine, end, N, R, S, 4, 4)
    shift = vector(bias, mine, end, BIAS, R, 4)
    grad = zeros(R * S * 4, 4)
    total = zeros(R, 4)
    broken = tl.zeros([128], tl.int32)
    come()
    widen(rows, ring + RAW, C, 1, S, V)
    come()
    for turn in range(turns):
        t = last - turn * U
        ask(copies, (turn + 3) % 4 * SLOT, t - 3 * U, t0, stop)
        asked()
        widen(rows + (1 - turn % 2) * ROWS, ring + (turn + 1) % 4 * SLOT + RAW, C, 1, S, V)
        here = own + turn % 4 * SLOT
        for v in tl.static_range(V - 1, -1, -1):
            now_dy = quads_at(here + 4 * v * PITCH, dy, R)
            now_delta = quads_at(here + (U + 4 * v) * PITCH, delta, R)
            now_z = ()
            if Z:
                now_z = quads_at(here + (2 * U + 4 * v) * PITCH, z, R)
            fresh = starts_at(reset, t, v, stop, RESET)
            sizes = step_sizes(now_delta, shift, t, v, stop, SOFTPLUS, R)
            grad = retreat(grad, rate, sizes, now_dy, now_z, fresh, rows + turn % 2 * ROWS, pairs, v, Z, RESET, R, S)
            total = longer(total, sizes, R)
            if RESET:
                broken |= fresh[0]
        come()
    at = (i * tl.num_programs(1) + part) * D * N
    store_states(local + at, grad, mine, end, N, 1, N, R, S, 4, 4)
    store_states(decay + at, across(total, broken, rate, RESET, R, S), mine, end, N, 1, N, R, S, 4, 4)


@triton.jit
def longer(total, sizes, R: tl.constexpr):
    sums = ()
    for r in tl.static_range(R):
        sums = sums + (total[r] + sizes[r],)
    return sums


@triton.jit
def across(total, broken, rate, RESET: tl.constexpr, R: tl.constexpr, S: tl.constexpr):
    """The decay across a segment, given what each lane has of its length, and of its resets."""
    if RESET:
        resets = broken.to(tl.float32)
        resets += swap(resets, 1)
        resets += swap(resets, 2)
    tiles = ()
    for r in tl.static_range(R):
        length = total[r] + swap(total[r], 1)
        length += swap(length, 2)
        for k in tl.static_range(S * 4):
            value = exp2(length * rate[r * S * 4 + k])
            if RESET:
                value = tl.where(resets > 0, 0.0, value)
            tiles = tiles + (value,)
    return tiles
