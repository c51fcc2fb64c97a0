"""Owns the Triton kernels before and after `backward`: segments of a split time on their own; sums of its parts."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import (
    channel_slots,
    held,
    lane_rates,
    own_channel,
    state_slots,
    store_lane_tile,
    swap,
)
from ssmfin_kernels.selective_scan.triton_memory import fetch, numbers
from ssmfin_kernels.selective_scan.triton_parts import exp2, place, sigmoid, starts, wide
from ssmfin_kernels.selective_scan.triton_steps import decays_of, first_states, sizes_of_steps


@triton.jit(do_not_specialize=["segment", "n0"])
def summarize_backward(
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

    Grid (blocks of 8 CR channels, segments, B), states n0 .. n0 + 4 NR - 1; local and decay (B, segments, D, N).
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
    rate = lane_rates(A, first, end, n0, N, NR, CR)
    lane = tl.arange(0, 32)
    own, ahead = own_channel(CR)
    mine = first + own
    shift = tl.zeros([32], tl.float32)
    if BIAS:
        shift = fetch(bias + mine, mine < end)
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
        now_delta = numbers(row_delta, delta, US)
        now_dy = numbers(row_dy, dy, US)
        if Z:
            now_z = numbers(row_z, z, US)
        now_C = numbers(row_C, C, U // SN)
        dt = sizes_of_steps(now_delta, shift, t, limit, SOFTPLUS, US, SB)
        slopes = ()
        for r in tl.static_range(US):
            total += dt[r]
            if Z:
                slopes = slopes + (now_dy[r] * now_z[r] * sigmoid(now_z[r]),)
            else:
                slopes = slopes + (now_dy[r],)
        for s in tl.static_range(U - 1, -1, -1):
            if RESET:
                unbroken = tl.where(starts(reset, t + s, stop, RESET), 0.0, unbroken)
            slots_slope = channel_slots(slopes, s, CR)
            slots_C = state_slots(now_C, s, SN, NR, CR)
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
    store_lane_tile(local + here, grad, first, end, n0, N, NR, CR)
    store_lane_tile(decay + here, across, first, end, n0, N, NR, CR)


@triton.jit(do_not_specialize=["blocks", "batch", "count"])
def add_parts(
    sums,
    over_time,
    dB,
    dC,
    dA,
    dskip,
    dbias,
    blocks,
    size,
    batch,
    count,
    D: tl.constexpr,
    N: tl.constexpr,
    SKIP: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    NARROW: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Parts to gradients, added in order: over_time (count, D N + 2 D), and sums (2, batch, blocks, size).

    Grid: as many programs as the former has blocks of NARROW columns, then as many as dB and dC have of BLOCK.
    """
    WIDTH: tl.constexpr = D * N + 2 * D
    few: tl.constexpr = (WIDTH + NARROW - 1) // NARROW
    if tl.program_id(0) < few:
        column = tl.program_id(0) * NARROW + tl.arange(0, NARROW)
        column_sum = added(over_time, column, count, WIDTH, NARROW, AT_ONCE)
        tl.store(dA + column, column_sum, mask=column < D * N)
        if SKIP:
            tl.store(dskip + column - D * N, column_sum, mask=(column >= D * N) & (column < D * N + D))
        if BIAS:
            tl.store(dbias + column - D * N - D, column_sum, mask=(column >= D * N + D) & (column < WIDTH))
    else:
        each = tl.cdiv(size, BLOCK)
        task = tl.program_id(0) - few
        i = (task // each).to(tl.int64)
        x = task % each * BLOCK + tl.arange(0, BLOCK)
        total = added(sums + i * blocks * size, x, blocks, size, BLOCK, AT_ONCE)
        if i < batch:
            tl.store(dB + i * size + x, total.to(dB.dtype.element_ty), mask=x < size)
        else:
            tl.store(dC + (i - batch) * size + x, total.to(dC.dtype.element_ty), mask=x < size)


@triton.jit
def added(parts, x, count, width, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr):
    """The sum over `count` rows, at columns x below `width`."""
    total = tl.zeros([BLOCK], tl.float32)
    for row in range(0, count, AT_ONCE):
        some = ()
        for j in tl.static_range(AT_ONCE):
            inside = (x < width) & (row + j < count)
            some = some + (tl.load(parts + wide(row + j) * width + x, mask=inside, other=0.0),)
        for j in tl.static_range(AT_ONCE):
            total += some[j]
    return total
