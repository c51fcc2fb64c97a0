"""Owns the Triton kernel of the selective scan backwards; `triton_lanes.py` says which lane holds what.

`backward` goes through the states that the forward pass kept from the last, U steps at a time, whose states and decays
it rebuilds in registers. What the K steps before need is brought to the cache K steps ahead. dB and dC are sums over
channels: each program writes its own part. Long states are taken 4 NR at a time, in launches that follow each other and
add to du and ddelta. No atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_lanes import (
    channel_slots,
    held,
    lane_rates,
    lane_states,
    lane_tile,
    over_channels,
    over_states,
    over_steps,
    own_channel,
    state_of,
    state_slots,
    store_lane_tile,
    swap,
)
from ssmfin_kernels.selective_scan.triton_memory import fetch, numbers, put
from ssmfin_kernels.selective_scan.triton_parts import LN_2, place, prefetch, prefetch_rows, sigmoid, wide
from ssmfin_kernels.selective_scan.triton_steps import advance, decays_of, first_states, retreat, sizes_of_steps, times


@triton.jit(do_not_specialize=["segment", "chunks", "n0"])
def backward(
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
    NR: tl.constexpr,
    CR: tl.constexpr,
    SN: tl.constexpr,
    U: tl.constexpr,
    K: tl.constexpr,
    EVERY: tl.constexpr,
):
    """Grid (blocks of 8 CR channels, segments, B), states n0 .. n0 + 4 NR - 1.

    edge (B, segments, D, N) is the gradient that enters at the end of each segment, if there is one. Parts of sums are
    over_time (B segments, D N + 2 D) for dA, dskip, dbias, and sums (2, B, blocks a group, T, G, N) for dB, dC; du and
    ddelta are written in the LAST launch; until then their sums over states are kept in sum_du and sum_ddelta
    (B, T, D). kept: `segments.kept_shape`, a state every EVERY steps. SN steps of a row of B share a register.
    """
    SB: tl.constexpr = 4 // CR
    E: tl.constexpr = NR * CR
    GN: tl.constexpr = G * N
    US: tl.constexpr = U // SB
    # kept states of a group at one time, as `triton_forward.forward` has them
    NL: tl.constexpr = 4 if N > 8 else (N + 3) // 4
    S: tl.constexpr = (N + 4 * NL - 1) // (4 * NL)
    ROW: tl.constexpr = (D // G + 15) // 16 * 2 * S * NL * 32
    group, first, end = place(tl.program_id(0), D, G, 8 * CR, 1)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    u += i * T * D
    delta += i * T * D
    dy += i * T * D
    z += i * T * D
    ungated += i * T * D
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
    rate = lane_rates(A, first, end, n0, N, NR, CR)
    if EDGE:
        grad = lane_tile(edge + here * N * D, first, end, n0, N, NR, CR)
    else:
        grad = ()
        for _ in tl.static_range(E):
            grad = grad + (tl.zeros([32], tl.float32),)
    lane = tl.arange(0, 32)
    own, ahead = own_channel(CR)
    mine = first + own
    shift = tl.zeros([32], tl.float32)
    weight = tl.zeros([32], tl.float32)
    if BIAS:
        shift = fetch(bias + mine, mine < end)
    if SKIP:
        weight = fetch(skip + mine, mine < end)
    weight_grad = tl.zeros([32], tl.float32)
    shift_grad = tl.zeros([32], tl.float32)
    rate_grad = ()
    for _ in tl.static_range(E):
        rate_grad = rate_grad + (tl.zeros([32], tl.float32),)
    place_in_row = mine + ahead * D
    limit = tl.where(mine < end, stop - ahead, 0)
    n_in = n0 + lane % (4 * NR)
    place_in_states = n_in + lane // (4 * NR) % SN * GN
    limit_states = tl.where(n_in < N, stop - lane // (4 * NR) % SN, 0)
    # where the lane stores its sum over channels, if it has one that no other lane has
    k = lane // CR % 8
    n_out = n0 + state_of(0, NR, CR)
    which = k // NR % 2 * tl.num_programs(2).to(tl.int64) + i
    sums += (which * blocks + tl.program_id(0) % blocks) * T * GN + (group * N + n_out)
    limit_sums = tl.where((n_out < N) & (k < 2 * NR), stop, 0)
    begin = group * (D // G)
    tile = tl.minimum((first - begin) // 8 + lane // (4 * NL) % CR, (end - 1 - begin) // 8)
    place_in_kept = (tile * S + n0 // (4 * NL)) * (NL * 32) + lane % (4 * NL) * 8
    count = tl.cdiv(stop - t0, K)
    t = t0 + (count - 1) * K + (tl.cdiv(stop - t0 - (count - 1) * K, U) - 1) * U
    at = wide(t) * D + place_in_row
    at_states = wide(t) * GN + place_in_states
    row_u = held(u, at, t, limit, US, SB, D)
    row_delta = held(delta, at, t, limit, US, SB, D)
    row_dy = held(dy, at, t, limit, US, SB, D)
    row_z = row_dy
    row_y = row_dy
    if Z:
        row_z = held(z, at, t, limit, US, SB, D)
        row_y = held(ungated, at, t, limit, US, SB, D)
    row_B = held(B, at_states, t, limit_states, U // SN, SN, GN)
    row_C = held(C, at_states, t, limit_states, U // SN, SN, GN)
    h = lane_states(kept + wide(t // EVERY) * (G * ROW), first, end, begin, n0, N, NL, S, NR, CR)
    for step in range(count):
        base = t0 + (count - 1 - step) * K
        parts = tl.cdiv(tl.minimum(stop - base, K), U)
        soon = tl.maximum(base - K, t0)
        prefetch_rows(u, soon, stop, first, end, D, 8 * CR, K)
        prefetch_rows(delta, soon, stop, first, end, D, 8 * CR, K)
        prefetch_rows(dy, soon, stop, first, end, D, 8 * CR, K)
        if Z:
            prefetch_rows(z, soon, stop, first, end, D, 8 * CR, K)
            prefetch_rows(ungated, soon, stop, first, end, D, 8 * CR, K)
        if not FIRST:
            prefetch_rows(sum_du, soon, stop, first, end, D, 8 * CR, K)
            prefetch_rows(sum_ddelta, soon, stop, first, end, D, 8 * CR, K)
        prefetch_rows(B, soon, stop, n0, N, GN, 4 * NR, K)
        prefetch_rows(C, soon, stop, n0, N, GN, 4 * NR, K)
        for piece in tl.static_range(K // U):
            row = tl.minimum(soon + piece * U, stop - 1) // EVERY
            prefetch(kept + (wide(row) * (G * ROW) + place_in_kept))
        for m_back in range(parts):
            m = parts - 1 - m_back
            t = base + m * U
            # what the U steps before need, asked for before the first store: loads do not move ahead of stores
            before = tl.maximum(t - U, t0)
            next_at = at - wide(t - before) * D
            next_at_states = at_states - wide(t - before) * GN
            next_u = held(u, next_at, before, limit, US, SB, D)
            next_delta = held(delta, next_at, before, limit, US, SB, D)
            next_dy = held(dy, next_at, before, limit, US, SB, D)
            next_z = next_dy
            next_y = next_dy
            if Z:
                next_z = held(z, next_at, before, limit, US, SB, D)
                next_y = held(ungated, next_at, before, limit, US, SB, D)
            next_B = held(B, next_at_states, before, limit_states, U // SN, SN, GN)
            next_C = held(C, next_at_states, before, limit_states, U // SN, SN, GN)
            next_h = lane_states(kept + wide(before // EVERY) * (G * ROW), first, end, begin, n0, N, NL, S, NR, CR)
            if not FIRST:
                before_du = held(sum_du, at, t, limit, US, SB, D)
                before_ddelta = held(sum_ddelta, at, t, limit, US, SB, D)
            now_u = numbers(row_u, u, US)
            now_delta = numbers(row_delta, delta, US)
            now_dy = numbers(row_dy, dy, US)
            if Z:
                now_z = numbers(row_z, z, US)
                now_y = numbers(row_y, ungated, US)
            now_B = numbers(row_B, B, U // SN)
            now_C = numbers(row_C, C, U // SN)
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
                slots_dt = slots_dt + (channel_slots(dt, s, CR),)
                slots_x = slots_x + (channel_slots(x, s, CR),)
                slots_B = slots_B + (state_slots(now_B, s, SN, NR, CR),)
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
            for r in tl.static_range(US - 1, -1, -1):
                sums_input = ()
                sums_decay = ()
                for s in tl.static_range(r * SB + SB - 1, r * SB - 1, -1):
                    slots_slope = channel_slots(slopes, s, CR)
                    slots_C = state_slots(now_C, s, SN, NR, CR)
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
                    )
                    grad = first_states(carried, reset, t + s, stop, RESET, E)
                    h = states[s]
                    sums_input = (over_states(by_input, CR),) + sums_input
                    sums_decay = (over_states(by_decay, CR),) + sums_decay
                    total = over_channels(parts_B, parts_C, NR, CR)
                    put(sums + wide(t) * GN + s * GN, total, t + s < limit_sums)
                inside = t + r * SB < limit
                grad_x = over_steps(sums_input, CR)
                grad_u = grad_x * dt[r]
                grad_dt = grad_x * now_u[r] + over_steps(sums_decay, CR) * LN_2
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
            at = next_at
            at_states = next_at_states
            h = next_h
            row_u = next_u
            row_delta = next_delta
            row_dy = next_dy
            row_z = next_z
            row_y = next_y
            row_B = next_B
            row_C = next_C
    # a row of parts: dA (D, N), then those of skip and bias
    over_time += here * (N * D + 2 * D)
    store_lane_tile(over_time, rate_grad, first, end, n0, N, NR, CR)
    if START:  # noqa: SIM102 - known when compiled, unlike part
        if part == 0:
            store_lane_tile(dstart + i * N * D, grad, first, end, n0, N, NR, CR)
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
