"""Owns the Triton kernels before and after `backward`: segments of a split time on their own; sums of its parts."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import (
    channel_slots,
    held,
    lane_tile,
    own_channel,
    state_slots,
    store_lane_tile,
    swap,
)
from ssmfin_kernels.selective_scan.triton_parts import exp2, place, sigmoid, starts, wide
from ssmfin_kernels.selective_scan.triton_steps import decays_of, first_states, sizes_of_steps


@triton.jit(do_not_specialize=["segment", "n0"])
def summarize_backward(
    dy,
    delta,
    A2,
    C,
    z,
    bias,
    reset,
    local,
    decay,
    T,
    n0,
    segment,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    NR: tl.constexpr,
    CR: tl.constexpr,
    SN: tl.constexpr,
    U: tl.constexpr,
):
    """Each segment from its end, nothing entering there: a g as it leaves at the start, and the decay across it.

    Grid (blocks of 8 CR channels, segments, B), states n0 .. n0 + 4 NR - 1; local and decay (B, segments, N, D).
    """
    SB: tl.constexpr = 4 // CR
    E: tl.constexpr = NR * CR
    GN: tl.constexpr = G * N
    US: tl.constexpr = U // SB
    group, first, end = place(tl.program_id(0), D, G, 8 * CR, 1)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    dy += i * T * D
    delta += i * T * D
    z += i * T * D
    reset += i * T
    C += i * T * GN + group * N
    rate = lane_tile(A2, first, end, n0, N, 1, N, NR, CR)
    lane = tl.arange(0, 32)
    own, ahead = own_channel(CR)
    mine = first + own
    shift = tl.zeros([32], tl.float32)
    if BIAS:
        shift = tl.load(bias + mine, mask=mine < end, other=0.0)
    place_in_row = mine + ahead * D
    limit = tl.where(mine < end, stop - ahead, 0)
    n_in = n0 + lane % (4 * NR)
    place_in_states = n_in + lane // (4 * NR) % SN * GN
    limit_states = tl.where(n_in < N, stop - lane // (4 * NR) % SN, 0)
    total = tl.zeros([32], tl.float32)
    grad = ()
    for _ in tl.static_range(E):
        grad = grad + (tl.zeros([32], tl.float32),)
    unbroken = 1.0
    count = tl.cdiv(stop - t0, U)
    t = t0 + (count - 1) * U
    at = wide(t) * D + place_in_row
    row_delta = held(delta, at, t, limit, US, SB, D)
    row_dy = held(dy, at, t, limit, US, SB, D)
    row_z = row_dy
    if Z:
        row_z = held(z, at, t, limit, US, SB, D)
    row_C = held(C, wide(t) * GN + place_in_states, t, limit_states, U // SN, SN, GN)
    for step in range(count):
        t = t0 + (count - 1 - step) * U
        before = tl.maximum(t - U, t0)
        at = wide(before) * D + place_in_row
        next_delta = held(delta, at, before, limit, US, SB, D)
        next_dy = held(dy, at, before, limit, US, SB, D)
        next_z = next_dy
        if Z:
            next_z = held(z, at, before, limit, US, SB, D)
        next_C = held(C, wide(before) * GN + place_in_states, before, limit_states, U // SN, SN, GN)
        dt = sizes_of_steps(row_delta, shift, t, limit, SOFTPLUS, US, SB)
        slopes = ()
        for r in tl.static_range(US):
            total += dt[r]
            if Z:
                slopes = slopes + (row_dy[r] * row_z[r] * sigmoid(row_z[r]),)
            else:
                slopes = slopes + (row_dy[r],)
        for s in tl.static_range(U - 1, -1, -1):
            if RESET:
                unbroken = tl.where(starts(reset, t + s, stop, RESET), 0.0, unbroken)
            slots_slope = channel_slots(slopes, s, CR)
            slots_C = state_slots(row_C, s, SN, NR, CR)
            decays = decays_of(rate, channel_slots(dt, s, CR), NR, CR)
            carried = ()
            for n in tl.static_range(NR):
                for j in tl.static_range(CR):
                    carried = carried + (decays[n * CR + j] * (grad[n * CR + j] + slots_slope[j] * slots_C[n]),)
            grad = first_states(carried, reset, t + s, stop, RESET, E)
        row_delta = next_delta
        row_dy = next_dy
        row_z = next_z
        row_C = next_C
    if CR == 1:
        total += swap(total, 16)
    if CR < 4:
        total += swap(total, 8 * CR)
    all_steps = channel_slots((total, total, total, total), 0, CR)
    across = ()
    for n in tl.static_range(NR):
        for j in tl.static_range(CR):
            across = across + (tl.where(unbroken > 0.0, exp2(all_steps[j] * rate[n * CR + j]), 0.0),)
    here = (i * tl.num_programs(1) + part) * N * D
    store_lane_tile(local + here, grad, first, end, n0, N, D, NR, CR)
    store_lane_tile(decay + here, across, first, end, n0, N, D, NR, CR)


@triton.jit
def add_parts(parts, dB, dC, blocks, size, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr):
    """parts (2, B, blocks, size) to dB and dC (B, size), added in order. Grid (blocks of `size`, B, 2)."""
    i = tl.program_id(1).to(tl.int64)
    which = tl.program_id(2)
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    parts += (which * tl.num_programs(1).to(tl.int64) + i) * blocks * size
    total = tl.zeros([BLOCK], tl.float32)
    for block in range(0, blocks, AT_ONCE):
        some = ()
        for j in tl.static_range(AT_ONCE):
            inside = (x < size) & (block + j < blocks)
            some = some + (tl.load(parts + wide(block + j) * size + x, mask=inside, other=0.0),)
        for j in tl.static_range(AT_ONCE):
            total += some[j]
    at = i * size + x
    if which == 0:
        tl.store(dB + at, total.to(dB.dtype.element_ty), mask=x < size)
    else:
        tl.store(dC + at, total.to(dC.dtype.element_ty), mask=x < size)
