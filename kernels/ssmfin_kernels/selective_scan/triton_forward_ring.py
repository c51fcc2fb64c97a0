"""Owns the Triton kernel of the selective scan forwards in its fast form: `triton_ring.py`, `triton_stage.py`."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_memory import put, put_all
from ssmfin_kernels.selective_scan.triton_parts import place, wide
from ssmfin_kernels.selective_scan.triton_quads import finish, rates, states, store_quads, store_states, vector, zeros
from ssmfin_kernels.selective_scan.triton_ring import ask, asked, come, copies_of
from ssmfin_kernels.selective_scan.triton_stage import (
    advance,
    quads_at,
    shared_forward,
    starts_at,
    step_sizes,
    widen,
)


@triton.jit(do_not_specialize=["segment", "chunks"])
def forward_ring(
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
    V: tl.constexpr,
):
    """Grid (blocks of 32 R channels, segments, B); arguments as those of `triton_forward.forward`."""
    S: tl.constexpr = (N + 15) // 16
    U: tl.constexpr = 4 * V
    ROW: tl.constexpr = (D // G + 15) // 16 * 2 * S * 128
    SIZE: tl.constexpr = u.dtype.element_ty.primitive_bitwidth // 8
    PITCH: tl.constexpr = (32 * R + 8) * SIZE
    RAW: tl.constexpr = (3 if Z else 2) * U * PITCH
    SLOT: tl.constexpr = RAW + 2 * U * 16 * S * SIZE
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
    C += (i * T * G + group) * N
    tensors = (u + i * T * D, delta + i * T * D)
    if Z:
        tensors = tensors + (z + i * T * D,)
    copies = copies_of(tensors, (B, C), ring, first, end, 0, D, G * N, N, 32 * R, 16 * S, U, PITCH)
    own = ring + lane % 4 * PITCH + (warp * (8 * R) + lane // 4) * SIZE
    memory = (u, delta, z)
    y += i * T * D
    ungated += i * T * D
    reset += i * T
    eight = tl.program_id(0) % (tl.num_programs(0) // G) * (4 * R) + warp * R
    kept += (i * chunks * G + group) * ROW + eight * (S * 128) + lane
    for turn in tl.static_range(3):
        ask(copies, turn * SLOT, t0 + turn * U, t0, stop)
        asked()
    rate = rates(A, mine, end, N, R, S, 4, 4)
    if START:
        h = states(start + (i * tl.num_programs(1) + part) * D * N, mine, end, N, R, S, 4, 4)
    else:
        h = zeros(R * S * 4, 4)
    shift = vector(bias, mine, end, BIAS, R, 4)
    weight = vector(skip, mine, end, SKIP, R, 4)
    come()
    widen(rows, ring + RAW, B, 2, S, V)
    come()
    for turn in range(tl.cdiv(stop - t0, U)):
        t = t0 + turn * U
        ask(copies, (turn + 3) % 4 * SLOT, t + 3 * U, t0, stop)
        asked()
        widen(rows + (1 - turn % 2) * ROWS, ring + (turn + 1) % 4 * SLOT + RAW, B, 2, S, V)
        here = own + turn % 4 * SLOT
        for v in tl.static_range(V):
            if KEEP:  # noqa: SIM102 - known when compiled, unlike t
                if t + 4 * v < stop:
                    keep(kept + wide(t // 4 + v) * (G * ROW), h, mine, end, R, S, (D // G) % (32 * R) == 0)
            now_u = quads_at(here + 4 * v * PITCH, u, R)
            now_delta = quads_at(here + (U + 4 * v) * PITCH, delta, R)
            now_z = ()
            if Z:
                now_z = quads_at(here + (2 * U + 4 * v) * PITCH, z, R)
            fresh = starts_at(reset, t, v, stop, RESET)
            sizes = step_sizes(now_delta, shift, t, v, stop, SOFTPLUS, R)
            h, outs = advance(h, rate, sizes, now_u, fresh, rows + turn % 2 * ROWS, pairs, v, True, RESET, R, S)
            plain, gated = finish(outs, (now_u, now_delta, now_z), memory, weight, mine, end, SKIP, Z, R, 1, 4)
            if KEEP and Z:
                store_quads(ungated, plain, mine, end, t, v, stop, D, R, True, 4)
            store_quads(y, gated, mine, end, t, v, stop, D, R, True, 4)
        come()
    if stop == T:
        store_states(final + i * D * N, h, mine, end, N, 1, N, R, S, 4, 4)


@triton.jit
def keep(at, tiles, mine, end, R: tl.constexpr, S: tl.constexpr, WHOLE: tl.constexpr):
    """`triton_quads.keep` of four warps; no further eight than those that hold a channel, if not all are WHOLE."""
    for e in tl.static_range(R * S * 4):
        if WHOLE:
            put_all(at + e * 32, tiles[e])
        else:
            put(at + e * 32, tiles[e], mine + 8 * (e // (S * 4)) < end)
