"""Owns how numbers lie in the memory that the linear scan's kernel reads and writes, and their two parts in registers.

A complex number is two words, its parts side by side: two accesses to every second word take three times as long, and
only a last dimension longer than the two parts gets the widest ones. Of a PAIR, two channels of half precision share a
word of 32 bits: as numbers of their own each would take a register of 32 bits while it waits in one.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.dispatch import interpreting
from ssmfin_kernels.linear_scan.triton_maps import COMPLEX, PAIR

INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def _unpack(word, STATE: tl.constexpr, HALF: tl.constexpr):
    if HALF == tl.bfloat16:  # noqa: SIM300 (a parameter); the upper half of a float32
        low, high = (word << 16).to(STATE, bitcast=True), (word & -65536).to(STATE, bitcast=True)
    else:
        low = (word & 0xFFFF).to(tl.int16).to(HALF, bitcast=True).to(STATE)
        high = (word >> 16).to(tl.int16).to(HALF, bitcast=True).to(STATE)
    return low, high


@triton.jit
def _pack(low, high, HALF: tl.constexpr):
    word = low.to(HALF).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    return word | (high.to(HALF).to(tl.int16, bitcast=True).to(tl.int32) << 16)


@triton.jit
def load(pointer, offset, mask, KIND: tl.constexpr, STATE: tl.constexpr, HALF: tl.constexpr):
    """A row of numbers in the type of the state, zero where masked."""
    if KIND == PAIR:
        re, im = _unpack(tl.load(pointer + offset, mask=mask, other=0), STATE, HALF)
    elif KIND == COMPLEX:
        re = tl.load(pointer + 2 * offset, mask=mask, other=0.0).to(STATE)
        im = tl.load(pointer + 2 * offset + 1, mask=mask, other=0.0).to(STATE)
    else:
        re = tl.load(pointer + offset, mask=mask, other=0.0).to(STATE)
        im = re
    return re, im


@triton.jit
def store(pointer, offset, re, im, mask, KIND: tl.constexpr, HALF: tl.constexpr):
    """Write what `load` reads."""
    if KIND == PAIR:
        tl.store(pointer + offset, _pack(re, im, HALF), mask=mask)
    elif KIND == COMPLEX:
        tl.store(pointer + 2 * offset, re.to(pointer.dtype.element_ty), mask=mask)
        tl.store(pointer + 2 * offset + 1, im.to(pointer.dtype.element_ty), mask=mask)
    else:
        tl.store(pointer + offset, re.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def fetch(pointer, line, column, D, keep, other, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """Words of the lines (SEGMENTS, 1) to keep, from `column` on; elsewhere `other`, a real number or a word."""
    if KIND == COMPLEX:
        word = tl.arange(0, 2 * BLOCK)[None, :]
        mask = keep & (2 * column + word < 2 * D)
        fill = tl.where(word % 2 == 0, other, 0.0)
        value = tl.load(pointer + (2 * (line * D + column) + word), mask=mask, other=fill)
    else:
        word = tl.arange(0, BLOCK)[None, :]
        value = tl.load(pointer + (line * D + column + word), mask=keep & (column + word < D), other=other)
    return value


@triton.jit
def parts(
    value, KIND: tl.constexpr, STATE: tl.constexpr, HALF: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr
):
    """The two parts of what `fetch` found, in the type of the state."""
    if KIND == PAIR:
        re, im = _unpack(value, STATE, HALF)
    elif KIND == COMPLEX:
        re, im = tl.split(tl.reshape(value, (SEGMENTS, BLOCK, 2)))
        re, im = re.to(STATE), im.to(STATE)
    else:
        re = value.to(STATE)
        im = re
    return re, im


@triton.jit
def again(value, KIND: tl.constexpr):
    """The same words, but of a PAIR the compiler must take them apart again instead of keeping what it had."""
    if KIND == PAIR and not INTERPRETED:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [value], tl.int32, is_pure=False, pack=1)
    else:
        return value


@triton.jit
def put(
    pointer,
    line,
    column,
    D,
    keep,
    re,
    im,
    KIND: tl.constexpr,
    HALF: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what `fetch` reads."""
    if KIND == COMPLEX:
        word = tl.arange(0, 2 * BLOCK)[None, :]
        value = tl.reshape(tl.join(re, im), (SEGMENTS, 2 * BLOCK)).to(pointer.dtype.element_ty)
        tl.store(pointer + (2 * (line * D + column) + word), value, mask=keep & (2 * column + word < 2 * D))
    else:
        word = tl.arange(0, BLOCK)[None, :]
        if KIND == PAIR:
            value = _pack(re, im, HALF)
        else:
            value = re.to(pointer.dtype.element_ty)
        tl.store(pointer + (line * D + column + word), value, mask=keep & (column + word < D))


@triton.jit
def prefetch(pointer, row, first, end, column, T, D, DOWN: tl.constexpr, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Ask the second-level cache for the lines that the steps from `first` to `end` of a block begin in, WORDS long.

    A hint: no result depends on it.
    """
    if not INTERPRETED:
        LINE: tl.constexpr = 1024 // pointer.dtype.element_ty.primitive_bitwidth
        q = first + tl.arange(0, ROWS)
        t = T - 1 - q if DOWN else q
        place = pointer + ((row + t) * D + column)
        for word in tl.static_range(0, WORDS, LINE):
            wanted = ((q < end) & (q < T) & (column + word < D)).to(tl.int32)
            tl.inline_asm_elementwise(
                "{ .reg .pred p; setp.ne.s32 p, $2, 0; @p prefetch.global.L2 [$1]; mov.u32 $0, 0; }",
                "=r,l,r",
                [place + word, wanted],
                dtype=tl.int32,
                is_pure=False,
                pack=1,
            )
