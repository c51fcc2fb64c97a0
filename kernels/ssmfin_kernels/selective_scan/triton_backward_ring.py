"""Owns the Triton kernel of the selective scan backwards in its fast form, with copies ahead to shared memory.

`backward_ring` does what `triton_backward.backward` does, with four warps a program, of 8 CR channels each, which go
back through time together, four steps a turn. What a turn needs is in shared memory (`triton_ring.py`,
`triton_exchange.py`), kept states too: no register waits for memory. dB and dC are added over the four warps there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_exchange import (
    ask_kept,
    begin_exchange,
    exchange,
    rows_at,
    shared,
    staged,
)
from ssmfin_kernels.selective_scan.triton_lanes import (
    channel_slots,
    held,
    lane_rates,
    lane_tile,
    over_channels,
    over_states,
    over_steps,
    own_channel,
    state_of,
    store_lane_tile,
    swap,
)
from ssmfin_kernels.selective_scan.triton_memory import fetch, put
from ssmfin_kernels.selective_scan.triton_parts import LN_2, place, sigmoid, wide
from ssmfin_kernels.selective_scan.triton_ring import ask, asked, come, copies_of, number_at
from ssmfin_kernels.selective_scan.triton_steps import advance, decays_of, first_states, retreat, sizes_of_steps, times


@triton.jit(do_not_specialize=["segment", "chunks", "n0"])
def backward_ring(
    dy,
    edge,
    u,
    delta,
    A,
    B,
    C,
    skip,
    z,
    bias,
    reset,
    ungated,
    kept,
    du,
    ddelta,
    sum_du,
    sum_ddelta,
    over_time,
    sums,
    dz,
    dstart,
    T,
    n0,
    segment,
    chunks,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    EDGE: tl.constexpr,
    START: tl.constexpr,
    SKIP: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    CR: tl.constexpr,
):
    W: tl.constexpr = 4
    NR: tl.constexpr = 4
    U: tl.constexpr = 4
    SB: tl.constexpr = 4 // CR
    E: tl.constexpr = NR * CR
    GN: tl.constexpr = G * N
    US: tl.constexpr = U // SB
    S: tl.constexpr = (N + 15) // 16
    ROW: tl.constexpr = (D // G + 15) // 16 * 2 * S * 128
    group, first, end = place(tl.program_id(0), D, G, 8 * CR, W)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    du += i * T * D
    ddelta += i * T * D
    sum_du += i * T * D
    sum_ddelta += i * T * D
    dz += i * T * D
    reset += i * T
    B += i * T * GN + group * N
    C += i * T * GN + group * N
    kept += (i * chunks * G + group) * ROW
    blocks = tl.num_programs(0) // G
    here = i * tl.num_programs(1) + part
    thread = tl.arange(0, 32 * W)
    lane = thread % 32
    warp = thread // 32
    own_first = first + 8 * CR * warp
    rate = lane_rates(A, own_first, end, n0, N, NR, CR, W)
    if EDGE:
        grad = lane_tile(edge + here * N * D, own_first, end, n0, N, NR, CR, W)
    else:
        grad = ()
        for _ in tl.static_range(E):
            grad = grad + (tl.zeros([32 * W], tl.float32),)
    own, ahead = own_channel(CR, W)
    mine = own_first + own
    shift = tl.zeros([32 * W], tl.float32)
    weight = tl.zeros([32 * W], tl.float32)
    if BIAS:
        shift = fetch(bias + mine, mine < end)
    if SKIP:
        weight = fetch(skip + mine, mine < end)
    weight_grad = tl.zeros([32 * W], tl.float32)
    shift_grad = tl.zeros([32 * W], tl.float32)
    rate_grad = ()
    for _ in tl.static_range(E):
        rate_grad = rate_grad + (tl.zeros([32 * W], tl.float32),)
    limit = tl.where(mine < end, stop - ahead, 0)
    # the lane's sum over channels, of step `warp`
    k = lane // CR % 8
    n_out = n0 + state_of(0, NR, CR, W)
    which = k // NR % 2 * tl.num_programs(2).to(tl.int64) + i
    sums += (which * blocks + tl.program_id(0) % blocks) * T * GN + (group * N + n_out) + warp * GN
    limit_sums = tl.where((n_out < N) & (k < 2 * NR), stop, 0) - warp
    # shared memory: rows of B and C of two turns, sums of two turns, then the ring
    ROWS: tl.constexpr = 2560
    TOTALS: tl.constexpr = 2048
    memory = shared(lane)
    total_address = memory + 2 * ROWS + (warp * 32 + lane) * 4
    own_total = memory + 2 * ROWS + (warp * 128 + lane) * 4
    spot = warp % 2 * 2 + lane // 16
    row_address = memory + (warp // 2 * 320 + spot * 80 + lane % 16 // 4 * 20 + lane % 4) * 4
    read_address = memory + ((lane % CR + CR * (lane // (8 * CR))) * 20 + lane // CR % 4 * 4) * 4
    # the ring: rows of u, delta, dy, z, y before its gate; of B and C; kept states, 512 bytes for 8 channels
    SIZE: tl.constexpr = u.dtype.element_ty.primitive_bitwidth // 8
    TENSORS: tl.constexpr = 5 if Z else 3
    PITCH: tl.constexpr = 40 * CR * SIZE
    RAW: tl.constexpr = TENSORS * 4 * PITCH
    KEPT: tl.constexpr = RAW + 128 * SIZE
    SLOT: tl.constexpr = KEPT + 2048 * CR
    tl.static_assert(2 * (ROWS + TOTALS) + 4 * SLOT <= 40960)
    ring = memory + 2 * (ROWS + TOTALS)
    tensors = (u + i * T * D, delta + i * T * D, dy + i * T * D)
    if Z:
        tensors = tensors + (z + i * T * D, ungated + i * T * D)
    copies = copies_of(tensors, (B, C), ring, first, end, n0, D, GN, N, 32 * CR, 16, U, PITCH)
    begin = group * (D // G)
    tile = tl.minimum((first - begin) // 8 + CR * warp, (end - 1 - begin) // 8)
    kept_source = kept.to(tl.int64) + ((tile * S + n0 // 16) * 128 + lane * 4) * 4
    # a warp of two eights may have but the first
    further = tl.where(tile + 1 <= (end - 1 - begin) // 8, S * 512, 0)
    kept_target = ring + KEPT + warp * (512 * CR) + lane * 16
    row_place = ring + ahead * PITCH + (own + 8 * CR * warp) * SIZE
    raw_place = ring + RAW + (warp // 2 * 64 + spot * 16 + lane % 16) * SIZE
    kept_place = ring + KEPT + warp * (512 * CR)
    count = tl.cdiv(stop - t0, U)
    last = t0 + (count - 1) * U
    for turn in tl.static_range(3):
        ask(copies, turn * SLOT, last - turn * U, t0, stop)
        ask_kept(kept_source, further, kept_target + turn * SLOT, last - turn * U, t0, G * ROW, CR)
        asked()
    come()
    begin_exchange(row_address, number_at(raw_place, B))
    for turn in range(count):
        t = last - turn * U
        flip = turn % 2
        slot = turn % 4 * SLOT
        ask(copies, (turn + 3) % 4 * SLOT, t - 3 * U, t0, stop)
        ask_kept(kept_source, further, kept_target + (turn + 3) % 4 * SLOT, t - 3 * U, t0, G * ROW, CR)
        asked()
        at = wide(t) * D + (mine + ahead * D)
        if not FIRST:
            before_du = held(sum_du, at, t, limit, US, SB, D)
            before_ddelta = held(sum_ddelta, at, t, limit, US, SB, D)
        now_u = rows_at(row_place + slot + 0 * PITCH, u, US, SB, PITCH)
        now_delta = rows_at(row_place + slot + 4 * PITCH, delta, US, SB, PITCH)
        now_dy = rows_at(row_place + slot + 8 * PITCH, dy, US, SB, PITCH)
        if Z:
            now_z = rows_at(row_place + slot + 12 * PITCH, z, US, SB, PITCH)
            now_y = rows_at(row_place + slot + 16 * PITCH, ungated, US, SB, PITCH)
        h = ()
        for n in tl.static_range(NR):
            for j in tl.static_range(CR):
                state = state_of(n, NR, CR, W)
                d = own ^ j
                h = h + (
                    number_at(kept_place + slot + (d // 8 * 128 + state % 4 * 32 + d % 8 * 4 + state // 4) * 4, kept),
                )
        dt = sizes_of_steps(now_delta, shift, t, limit, SOFTPLUS, US, SB)
        x = times(dt, now_u, US)
        states = ()
        decays = ()
        slots_dt = ()
        slots_x = ()
        slots_B = ()
        for s in tl.static_range(U):
            states = states + (h,)
            h = first_states(h, reset, t + s, stop, RESET, E)
            slots_dt = slots_dt + (channel_slots(dt, s, CR, W),)
            slots_x = slots_x + (channel_slots(x, s, CR, W),)
            slots_B = slots_B + (staged(read_address + flip * ROWS, s, 0),)
            decays = decays + (decays_of(rate, slots_dt[s], NR, CR),)
            h = advance(h, decays[s], slots_x[s], slots_B[s], NR, CR)
        slopes = ()
        rises = ()
        for r in tl.static_range(US):
            if Z:
                rises = rises + (sigmoid(now_z[r]),)
                slopes = slopes + (now_dy[r] * now_z[r] * rises[r],)
            else:
                slopes = slopes + (now_dy[r],)
        totals = ()
        for r in tl.static_range(US - 1, -1, -1):
            sums_input = ()
            sums_decay = ()
            for s in tl.static_range(r * SB + SB - 1, r * SB - 1, -1):
                slots_slope = channel_slots(slopes, s, CR, W)
                slots_C = staged(read_address + flip * ROWS, s, 1)
                start = first_states(states[s], reset, t + s, stop, RESET, E)
                carried, rate_grad, by_input, by_decay, parts_B, parts_C = retreat(
                    grad,
                    rate_grad,
                    rate,
                    decays[s],
                    start,
                    h,
                    slots_slope,
                    slots_C,
                    slots_x[s],
                    slots_B[s],
                    slots_dt[s],
                    NR,
                    CR,
                    W,
                )
                grad = first_states(carried, reset, t + s, stop, RESET, E)
                h = states[s]
                sums_input = (over_states(by_input, CR),) + sums_input
                sums_decay = (over_states(by_decay, CR),) + sums_decay
                totals = (over_channels(parts_B, parts_C, NR, CR, W),) + totals
            inside = t + r * SB < limit
            grad_x = over_steps(sums_input, CR, W)
            grad_u = grad_x * dt[r]
            grad_dt = grad_x * now_u[r] + over_steps(sums_decay, CR, W) * LN_2
            if not FIRST:
                grad_u += before_du[r]
                grad_dt += before_ddelta[r]
            if LAST:
                if SKIP:
                    grad_u += weight * slopes[r]
                if SOFTPLUS:
                    grad_dt *= sigmoid(now_delta[r] + shift)
                grad_dt = tl.where(inside, grad_dt, 0.0)
                put(du + at + r * SB * D, grad_u, inside)
                put(ddelta + at + r * SB * D, grad_dt, inside)
                weight_grad += now_u[r] * slopes[r]
                shift_grad += grad_dt
                if Z:
                    grad_z = now_dy[r] * now_y[r] * (rises[r] * (1.0 + now_z[r] * (1.0 - rises[r])))
                    put(dz + at + r * SB * D, grad_z, inside)
            else:
                put(sum_du + at + r * SB * D, grad_u, inside)
                put(sum_ddelta + at + r * SB * D, grad_dt, inside)
        next_row = number_at(raw_place + (turn + 1) % 4 * SLOT, B)
        total = exchange(
            total_address + flip * TOTALS, totals, own_total + flip * TOTALS, row_address + (1 - flip) * ROWS, next_row
        )
        put(sums + wide(t) * GN, total, t < limit_sums)
    # a row of parts: dA (D, N), then those of skip and bias
    over_time += here * (N * D + 2 * D)
    store_lane_tile(over_time, rate_grad, own_first, end, n0, N, NR, CR, W)
    if START:  # noqa: SIM102 - known when compiled, unlike part
        if part == 0:
            store_lane_tile(dstart + i * N * D, grad, own_first, end, n0, N, NR, CR, W)
    if LAST:
        if CR == 1:
            weight_grad += swap(weight_grad, 16)
            shift_grad += swap(shift_grad, 16)
        if CR < 4:
            weight_grad += swap(weight_grad, 8 * CR)
            shift_grad += swap(shift_grad, 8 * CR)
        if SKIP:
            put(over_time + N * D + mine, weight_grad, (mine < end) & (ahead == 0))
        if BIAS:
            put(over_time + N * D + D + mine, shift_grad, (mine < end) & (ahead == 0))
