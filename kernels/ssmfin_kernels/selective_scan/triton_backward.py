"""Owns the Triton kernels of the selective scan backwards; `triton_parts.py` explains how the work is cut up.

`backward` goes through the checkpoints of the forward pass (every K steps) from the last. It runs through the K steps
once, leaving marks of the state every U steps in a small memory of its own that stays in the cache, then goes back
through them, rebuilding the states of U steps in registers. dB and dC are sums over channels: each program writes its
own part. Long states are taken BN at a time, in launches that follow each other and add to du and ddelta. No atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_parts import (
    LN_2,
    channels,
    exp2,
    place,
    read,
    row,
    sigmoid,
    starts,
    step_size,
    store_tile,
    tile,
    wide,
)


@triton.jit(do_not_specialize=["unit", "segment"])
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
    segment,
    unit,
    D: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    Z: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    RESET: tl.constexpr,
    BN: tl.constexpr,
    DL: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
):
    """Each segment from its end, nothing entering there: a g as it leaves at the start, and the decay across it."""
    group, first, end = place(tl.program_id(0), D, G, DL, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    n = tl.arange(0, BN)
    t0 = part * segment
    stop = tl.minimum(t0 + segment, T)
    dy += i * T * D
    delta += i * T * D
    z += i * T * D
    reset += i * T
    C += i * T * G * N + group * N
    rate = tile(A2, first, end, n, N, 1, N, unit, DL, R)
    shift = channels(bias, first, end, BIAS, DL, R)
    grad = ()
    total = ()
    for _ in tl.static_range(R):
        grad = grad + (tl.zeros([BN, DL], tl.float32),)
        total = total + (tl.zeros([DL], tl.float32),)
    unbroken = 1.0
    count = tl.cdiv(stop - t0, U)
    rows = read(dy, delta, z, C, C, t0 + (count - 1) * U, stop, first, end, n, N, D, G * N, Z, True, DL, R, U)
    for step in range(count):
        t = t0 + (count - 1 - step) * U
        before = tl.maximum(t - U, t0)
        ahead = read(dy, delta, z, C, C, before, stop, first, end, n, N, D, G * N, Z, True, DL, R, U)
        for s in tl.static_range(U - 1, -1, -1):
            row_C = rows[s * (3 * R + 2) + 3 * R]
            fresh = starts(reset, t + s, stop, RESET)
            if RESET:
                unbroken = tl.where(fresh, 0.0, unbroken)
            carried = ()
            sums = ()
            for r in tl.static_range(R):
                d = first + r * DL + tl.arange(0, DL)
                slope = rows[s * (3 * R + 2) + 3 * r]
                if Z:
                    row_z = rows[s * (3 * R + 2) + 3 * r + 2]
                    slope *= row_z * sigmoid(row_z)
                dt = step_size(rows[s * (3 * R + 2) + 3 * r + 1], shift[r], (d < end) & (t + s < stop), SOFTPLUS)
                g = exp2(dt[None, :] * rate[r]) * (grad[r] + slope[None, :] * row_C[:, None])
                if RESET:
                    g = tl.where(fresh, 0.0, g)
                carried = carried + (g,)
                sums = sums + (total[r] + dt,)
            grad = carried
            total = sums
        rows = ahead
    across = ()
    for r in tl.static_range(R):
        across = across + (tl.where(unbroken > 0.0, exp2(total[r][None, :] * rate[r]), 0.0),)
    at = (i * tl.num_programs(1) + part) * N * D
    store_tile(local + at, grad, first, end, n, N, D, 1, unit, DL, R)
    store_tile(decay + at, across, first, end, n, N, D, 1, unit, DL, R)


@triton.jit(do_not_specialize=["unit", "segment", "chunks"])
def backward(
    dy,
    edge,
    u,
    delta,
    A2,
    B,
    C,
    skip,
    z,
    bias,
    reset,
    ungated,
    kept,
    marks,
    du,
    ddelta,
    sum_du,
    sum_ddelta,
    dA,
    dB,
    dC,
    dskip,
    dz,
    dbias,
    dstart,
    T,
    n0,
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
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    BN: tl.constexpr,
    DL: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
    K: tl.constexpr,
):
    """Grid (blocks of channels, segments, B), states n0 .. n0 + BN - 1.

    edge (B, segments, N, D) is the gradient that enters at the end of each segment. dA (B, segments, N, D), dskip and
    dbias (B, segments, D), dB and dC (B, blocks of a group, T, G, N) are parts of sums. du and ddelta are written in
    the LAST launch; until then their sums over states are kept in sum_du and sum_ddelta (B, T, D). marks: K / U tiles
    a program.
    """
    group, first, end = place(tl.program_id(0), D, G, DL, R)
    part = tl.program_id(1)
    i = tl.program_id(2).to(tl.int64)
    n = n0 + tl.arange(0, BN)
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
    B += i * T * G * N + group * N
    C += i * T * G * N + group * N
    kept += i * chunks * N * D
    blocks = tl.num_programs(0) // G
    dB += (i * blocks + tl.program_id(0) % blocks) * T * G * N + group * N
    dC += (i * blocks + tl.program_id(0) % blocks) * T * G * N + group * N
    here = i * tl.num_programs(1) + part
    rate = tile(A2, first, end, n, N, 1, N, unit, DL, R)
    grad = tile(edge + here * N * D, first, end, n, N, D, 1, unit, DL, R)
    shift = channels(bias, first, end, BIAS, DL, R)
    weight = channels(skip, first, end, SKIP, DL, R)
    rate_grad = ()
    weight_grad = ()
    shift_grad = ()
    for _ in tl.static_range(R):
        rate_grad = rate_grad + (tl.zeros([BN, DL], tl.float32),)
        weight_grad = weight_grad + (tl.zeros([DL], tl.float32),)
        shift_grad = shift_grad + (tl.zeros([DL], tl.float32),)
    marks += (here * tl.num_programs(0) + tl.program_id(0)) * (K // U * BN * DL * R)
    mine = tl.arange(0, BN)
    dt_zero = tl.zeros([DL], tl.float32)
    count = tl.cdiv(stop - t0, K)
    for step in range(count):
        base = t0 + (count - 1 - step) * K
        parts = tl.cdiv(tl.minimum(stop - base, K), U)
        h = tile(kept + wide(base // K) * N * D, first, end, n, N, D, 1, unit, DL, R)
        rows = read(u, delta, u, B, B, base, stop, first, end, n, N, D, G * N, False, False, DL, R, U)
        for m in range(parts - 1):
            t = base + m * U
            ahead = read(u, delta, u, B, B, t + U, stop, first, end, n, N, D, G * N, False, False, DL, R, U)
            store_tile(marks + m * (BN * DL * R), h, 0, DL * R, mine, BN, DL * R, 1, unit, DL, R)
            for s in tl.static_range(U):
                fresh = starts(reset, t + s, stop, RESET)
                row_B = rows[s * (3 * R + 2) + 3 * R]
                after = ()
                for r in tl.static_range(R):
                    d = first + r * DL + tl.arange(0, DL)
                    row_u = rows[s * (3 * R + 2) + 3 * r]
                    dt = step_size(rows[s * (3 * R + 2) + 3 * r + 1], shift[r], (d < end) & (t + s < stop), SOFTPLUS)
                    state = h[r]
                    if RESET:
                        state = tl.where(fresh, 0.0, state)
                    after = after + (exp2(dt[None, :] * rate[r]) * state + (dt * row_u)[None, :] * row_B[:, None],)
                h = after
            rows = ahead
        store_tile(marks + (parts - 1) * (BN * DL * R), h, 0, DL * R, mine, BN, DL * R, 1, unit, DL, R)
        tl.debug_barrier()  # what one lane wrote, another may read
        for m_back in range(parts):
            m = parts - 1 - m_back
            t = base + m * U
            rows = read(u, delta, u, B, C, t, stop, first, end, n, N, D, G * N, False, True, DL, R, U)
            h = tile(marks + m * (BN * DL * R), 0, DL * R, mine, BN, DL * R, 1, unit, DL, R)
            # every row of the U steps before the first store: loads do not move ahead of stores
            gates = ()
            for s in tl.static_range(U):
                for r in tl.static_range(R):
                    d = first + r * DL + tl.arange(0, DL)
                    inside = (d < end) & (t + s < stop)
                    at = wide(t) * D + first + tl.arange(0, DL) + (s * D + r * DL)
                    gates = gates + (row(dy, at, inside),)
                    if Z:
                        gates = gates + (row(z, at, inside), row(ungated, at, inside))
                    else:
                        gates = gates + (dt_zero, dt_zero)
            states = h
            decays = ()
            steps = ()
            for s in tl.static_range(U):
                fresh = starts(reset, t + s, stop, RESET)
                row_B = rows[s * (3 * R + 2) + 3 * R]
                after = ()
                for r in tl.static_range(R):
                    d = first + r * DL + tl.arange(0, DL)
                    row_u = rows[s * (3 * R + 2) + 3 * r]
                    dt = step_size(rows[s * (3 * R + 2) + 3 * r + 1], shift[r], (d < end) & (t + s < stop), SOFTPLUS)
                    state = h[r]
                    if RESET:
                        state = tl.where(fresh, 0.0, state)
                    a = exp2(dt[None, :] * rate[r])
                    after = after + (a * state + (dt * row_u)[None, :] * row_B[:, None],)
                    decays = decays + (a,)
                    steps = steps + (dt,)
                h = after
                states = states + h
            for s in tl.static_range(U - 1, -1, -1):
                fresh = starts(reset, t + s, stop, RESET)
                row_B = rows[s * (3 * R + 2) + 3 * R]
                row_C = rows[s * (3 * R + 2) + 3 * R + 1]
                part_B = tl.zeros([BN, DL], tl.float32)
                part_C = tl.zeros([BN, DL], tl.float32)
                carried = ()
                new_rate_grad = ()
                new_weight_grad = ()
                new_shift_grad = ()
                for r in tl.static_range(R):
                    d = first + r * DL + tl.arange(0, DL)
                    inside = (d < end) & (t + s < stop)
                    at = wide(t) * D + first + tl.arange(0, DL) + (s * D + r * DL)
                    dt = steps[s * R + r]
                    row_u = rows[s * (3 * R + 2) + 3 * r]
                    row_dy = gates[(s * R + r) * 3]
                    row_z = gates[(s * R + r) * 3 + 1]
                    slope = row_dy
                    if Z:
                        rise = sigmoid(row_z)
                        slope = row_dy * row_z * rise
                    state = states[s * R + r]
                    if RESET:
                        state = tl.where(fresh, 0.0, state)
                    g = grad[r] + slope[None, :] * row_C[:, None]
                    part_C += slope[None, :] * states[(s + 1) * R + r]
                    part_B += g * (dt * row_u)[None, :]
                    by_input = tl.sum(g * row_B[:, None], axis=0)
                    g *= decays[s * R + r]
                    if RESET:
                        carried = carried + (tl.where(fresh, 0.0, g),)
                    else:
                        carried = carried + (g,)
                    g *= state
                    by_decay = tl.sum(g * rate[r], axis=0)
                    new_rate_grad = new_rate_grad + (rate_grad[r] + g * dt[None, :],)
                    grad_u = by_input * dt
                    grad_dt = by_input * row_u + by_decay * LN_2
                    if not FIRST:
                        grad_u += tl.load(sum_du + at, mask=inside, other=0.0)
                        grad_dt += tl.load(sum_ddelta + at, mask=inside, other=0.0)
                    if LAST:
                        if SKIP:
                            grad_u += weight[r] * slope
                        if SOFTPLUS:
                            grad_dt *= sigmoid(rows[s * (3 * R + 2) + 3 * r + 1] + shift[r])
                        grad_dt = tl.where(inside, grad_dt, 0.0)
                        tl.store(du + at, grad_u.to(du.dtype.element_ty), mask=inside)
                        tl.store(ddelta + at, grad_dt.to(ddelta.dtype.element_ty), mask=inside)
                        new_weight_grad = new_weight_grad + (weight_grad[r] + row_u * slope,)
                        new_shift_grad = new_shift_grad + (shift_grad[r] + grad_dt,)
                        if Z:
                            grad_z = row_dy * gates[(s * R + r) * 3 + 2]
                            grad_z *= rise * (1.0 + row_z * (1.0 - rise))
                            tl.store(dz + at, grad_z.to(dz.dtype.element_ty), mask=inside)
                    else:
                        tl.store(sum_du + at, grad_u, mask=inside)
                        tl.store(sum_ddelta + at, grad_dt, mask=inside)
                        new_weight_grad = new_weight_grad + (weight_grad[r],)
                        new_shift_grad = new_shift_grad + (shift_grad[r],)
                grad = carried
                rate_grad = new_rate_grad
                weight_grad = new_weight_grad
                shift_grad = new_shift_grad
                at = wide(t) * (G * N) + n + s * (G * N)
                tl.store(dB + at, tl.sum(part_B, axis=1), mask=(n < N) & (t + s < stop))
                tl.store(dC + at, tl.sum(part_C, axis=1), mask=(n < N) & (t + s < stop))
        tl.debug_barrier()  # before the next chunk writes its marks over these
    store_tile(dA + here * N * D, rate_grad, first, end, n, N, D, 1, unit, DL, R)
    if part == 0:
        store_tile(dstart + i * N * D, grad, first, end, n, N, D, 1, unit, DL, R)
    if LAST:
        for r in tl.static_range(R):
            d = first + r * DL + tl.arange(0, DL)
            if SKIP:
                tl.store(dskip + here * D + d, weight_grad[r], mask=d < end)
            if BIAS:
                tl.store(dbias + here * D + d, shift_grad[r], mask=d < end)
