"""Owns what the warps of a program of the backward kernel hand each other through shared memory.

Rows of B and C, widened, for all four warps: each row four times, its states in the order that a lane's slots want, so
that a lane reads its four numbers at once. Sums over the channels of a warp, to be added to those of the others.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_ring import copy, number_at


@triton.jit
def shared(lane):
    """The address of 40,960 bytes of shared memory."""
    return tl.inline_asm_elementwise(
        "{ .shared .align 512 .b8 between_warps[40960]; mov.u32 $0, between_warps; }",
        "=r,r",
        [lane],
        tl.int32,
        False,
        1,
    )


@triton.jit
def begin_exchange(address, value):
    tl.inline_asm_elementwise(
        """{
        .reg .b32 x;
        st.shared.f32 [$1], $2;
        xor.b32 x, $1, 4;
        st.shared.f32 [x+16], $2;
        xor.b32 x, $1, 8;
        st.shared.f32 [x+32], $2;
        xor.b32 x, $1, 12;
        st.shared.f32 [x+48], $2;
        bar.sync 0;
        mov.u32 $0, 0;
        }""",
        "=r,r,f",
        [address, value],
        tl.int32,
        False,
        1,
    )


@triton.jit
def exchange(total_address, totals, own_total, address, value):
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 x;
        .reg .f32 a, b, c, d;
        st.shared.f32 [$1], $2;
        st.shared.f32 [$1+512], $3;
        st.shared.f32 [$1+1024], $4;
        st.shared.f32 [$1+1536], $5;
        st.shared.f32 [$7], $8;
        xor.b32 x, $7, 4;
        st.shared.f32 [x+16], $8;
        xor.b32 x, $7, 8;
        st.shared.f32 [x+32], $8;
        xor.b32 x, $7, 12;
        st.shared.f32 [x+48], $8;
        cp.async.wait_group 1;
        bar.sync 0;
        ld.shared.f32 a, [$6];
        ld.shared.f32 b, [$6+128];
        ld.shared.f32 c, [$6+256];
        ld.shared.f32 d, [$6+384];
        add.f32 a, a, b;
        add.f32 c, c, d;
        add.f32 $0, a, c;
        }""",
        "=f,r,f,f,f,f,r,r,f",
        [total_address, totals[0], totals[1], totals[2], totals[3], own_total, address, value],
        tl.float32,
        False,
        1,
    )


@triton.jit
def staged(address, s: tl.constexpr, which: tl.constexpr):
    """The row of B (C) of step s for four slots."""
    return tl.inline_asm_elementwise(
        "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];",
        "=f,=f,=f,=f,r",
        [address + (which * 320 + s * 80) * 4],
        (tl.float32, tl.float32, tl.float32, tl.float32),
        False,
        1,
    )


@triton.jit
def ask_kept(source, further, target, t, t0, STRIDE: tl.constexpr, CR: tl.constexpr):
    """Copy the state kept at t to a slot of the ring: CR times 8 channels of each warp."""
    there = tl.maximum(t, t0).to(tl.int64) // 4 * (STRIDE * 4)
    bytes = tl.where(t >= t0, 16, 0) + target * 0
    copy(target, source + there, bytes, bytes * 0 + 1)
    if CR == 2:
        copy(target + 512, source + further + there, bytes, bytes * 0 + 1)


@triton.jit
def rows_at(address, like, COUNT: tl.constexpr, SPAN: tl.constexpr, PITCH: tl.constexpr):
    """COUNT registers of SPAN steps each of a tensor's rows."""
    values = ()
    for r in tl.static_range(COUNT):
        values = values + (number_at(address + r * SPAN * PITCH, like),)
    return values
