"""Owns loads and stores of one number a lane, as instructions of their own.

For each load or store that Triton knows, its compiler walks through all that depends on it, to choose who loads what.
Here that is settled, and in loops unrolled as these the walk took 97 % of the time of compilation: 30 seconds for 64
states, now under two. Loads are of memory that no program of the launch writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_parts import INTERPRETED


@triton.jit
def fetch(at, inside):
    """What the lanes point at, for `number`; zero where not `inside`."""
    if INTERPRETED:
        return tl.load(at, mask=inside, other=0)
    elif at.dtype.element_ty.primitive_bitwidth == 8:
        return tl.inline_asm_elementwise(
            """{
            .reg .pred p;
            setp.ne.b32 p, $2, 0;
            mov.b32 $0, 0;
            @p ld.global.nc.u8 $0, [$1];
            }""",
            "=r,l,r",
            [at, inside.to(tl.int32)],
            tl.int32,
            False,
            1,
        )
    elif at.dtype.element_ty.primitive_bitwidth == 16:
        return tl.inline_asm_elementwise(
            """{
            .reg .pred p;
            setp.ne.b32 p, $2, 0;
            mov.b32 $0, 0;
            @p ld.global.nc.u16 $0, [$1];
            }""",
            "=r,l,r",
            [at, inside.to(tl.int32)],
            tl.int32,
            False,
            1,
        )
    else:
        word = tl.inline_asm_elementwise(
            """{
            .reg .pred p;
            setp.ne.b32 p, $2, 0;
            mov.b32 $0, 0;
            @p ld.global.nc.b32 $0, [$1];
            }""",
            "=r,l,r",
            [at, inside.to(tl.int32)],
            tl.int32,
            False,
            1,
        )
        return word.to(at.dtype.element_ty, bitcast=True)


@triton.jit
def fetch_all(at):
    """What the lanes point at, for `number`."""
    if INTERPRETED:
        return tl.load(at)
    elif at.dtype.element_ty.primitive_bitwidth == 16:
        return tl.inline_asm_elementwise("ld.global.nc.u16 $0, [$1];", "=r,l", [at], tl.int32, False, 1)
    else:
        word = tl.inline_asm_elementwise("ld.global.nc.b32 $0, [$1];", "=r,l", [at], tl.int32, False, 1)
        return word.to(at.dtype.element_ty, bitcast=True)


@triton.jit
def number(word, half, like):
    """Number `half` of a word, in float32; `like` points to such numbers."""
    if word.dtype == tl.int32:
        if like.dtype.element_ty == tl.bfloat16:
            return ((word << (16 - 16 * half)) & -65536).to(tl.float32, bitcast=True)
        else:
            return (word >> (16 * half)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return word.to(tl.float32)


@triton.jit
def numbers(words, like, COUNT: tl.constexpr):
    """COUNT words of one number each."""
    values = ()
    for r in tl.static_range(COUNT):
        values = values + (number(words[r], 0, like),)
    return values


@triton.jit
def put(at, value, inside):
    """Store where `inside`."""
    if INTERPRETED:
        tl.store(at, value.to(at.dtype.element_ty), mask=inside)
    elif at.dtype.element_ty.primitive_bitwidth == 16:
        tl.inline_asm_elementwise(
            """{
            .reg .pred p;
            setp.ne.b32 p, $3, 0;
            @p st.global.u16 [$1], $2;
            mov.b32 $0, 0;
            }""",
            "=r,l,r,r",
            [at, value.to(at.dtype.element_ty).to(tl.int16, bitcast=True).to(tl.int32), inside.to(tl.int32)],
            tl.int32,
            False,
            1,
        )
    else:
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.b32 p, $3, 0; @p st.global.b32 [$1], $2; mov.b32 $0, 0; }",
            "=r,l,r,r",
            [at, value.to(tl.int32, bitcast=True), inside.to(tl.int32)],
            tl.int32,
            False,
            1,
        )


@triton.jit
def put_all(at, value):
    """Store 32 bits."""
    if INTERPRETED:
        tl.store(at, value)
    else:
        tl.inline_asm_elementwise(
            "st.global.b32 [$1], $2; mov.b32 $0, 0;",
            "=r,l,r",
            [at, value.to(tl.int32, bitcast=True)],
            tl.int32,
            False,
            1,
        )
