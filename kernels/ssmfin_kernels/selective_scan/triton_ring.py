"""Owns the ring: rows copied to shared memory turns before they are used, by threads that do not wait for them.

A program is four warps that go through time together, U steps a turn. A ring of four slots holds what turns need: rows
of (T, D) tensors, PITCH bytes apart so that lanes of one warp meet in no bank, and raw rows of B and C. In each turn
every thread copies some pieces of 16 bytes for the turn three ahead. A register that waits for a load is held all the
while, and the compiler, short of them, moves the loads back to where they are used: that cost a quarter of the time.

At the end of turn k everything of turns up to k + 2 has come: rows of B and C are read a turn early, to be widened.
Sizes are in bytes. Memory lies where the loop of a kernel says; steps past `stop`, channels past `end` are zero.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_memory import number


@triton.jit
def copy(target, source, bytes, active):
    """16 bytes in the background, zeros past `bytes`; nothing where not `active`."""
    tl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.b32 p, $4, 0; @p cp.async.cg.shared.global [$1], [$2], 16, $3; mov.u32 $0, 0; }",
        "=r,r,l,r,r",
        [target, source, bytes, active],
        tl.int32,
        False,
        1,
    )


@triton.jit
def copies_of(
    tensors,
    rows,
    ring,
    first,
    end,
    n0,
    D: tl.constexpr,
    GN: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    STATES: tl.constexpr,
    U: tl.constexpr,
    PITCH: tl.constexpr,
):
    """What a thread copies in a turn: five things a piece, for `ask`.

    `tensors` point at (T, D), `rows` at (T, GN), all of one type, at the program's sequence (and group); WIDTH channels
    from `first` and STATES states from n0 are wanted. Rows of B and C lie behind those of the tensors.
    """
    SIZE: tl.constexpr = tensors[0].dtype.element_ty.primitive_bitwidth // 8
    PIECES: tl.constexpr = WIDTH * SIZE // 16
    ROW_PIECES: tl.constexpr = STATES * SIZE // 16
    MANY: tl.constexpr = len(tensors) * U * PIECES
    FEW: tl.constexpr = len(rows) * U * ROW_PIECES
    copies = ()
    for c in tl.static_range((MANY + FEW + 127) // 128):
        task = tl.arange(0, 128) + 128 * c
        tensor = task // (U * PIECES)
        step = task // PIECES % U
        piece = task % PIECES
        source = tensors[0].to(tl.int64)
        for j in tl.static_range(1, len(tensors)):
            source = tl.where(tensor == j, tensors[j].to(tl.int64), source)
        source += first * SIZE + piece * 16
        target = ring + (tensor * U + step) * PITCH + piece * 16
        wanted = first + piece * (16 // SIZE) < end
        stride = tl.full([128], D * SIZE, tl.int32)
        if 128 * c + 128 > MANY:
            rest = task - MANY
            which = rest // (U * ROW_PIECES)
            row_piece = rest % ROW_PIECES
            row_source = rows[0].to(tl.int64)
            for j in tl.static_range(1, len(rows)):
                row_source = tl.where(which == j, rows[j].to(tl.int64), row_source)
            of_row = rest >= 0
            step = tl.where(of_row, rest // ROW_PIECES % U, step)
            source = tl.where(of_row, row_source + n0 * SIZE + row_piece * 16, source)
            target = tl.where(
                of_row,
                ring + len(tensors) * U * PITCH + (which * U + step) * (STATES * SIZE) + row_piece * 16,
                target,
            )
            wanted = tl.where(of_row, n0 + row_piece * (16 // SIZE) < N, wanted)
            stride = tl.where(of_row, GN * SIZE, stride)
        # a step that never comes, for what lies past the end of a row
        step_wanted = tl.where(wanted, step, 1 << 30)
        copies = copies + (
            source + step.to(tl.int64) * stride,
            stride,
            target,
            step_wanted,
            (task < MANY + FEW).to(tl.int32),
        )
    return copies


@triton.jit
def ask(copies, slot, t, t0, stop):
    """Copy what the turn at t needs to a slot; zeros where t is not in t0 .. stop - 1."""
    there = tl.minimum(tl.maximum(t, t0), stop - 1).to(tl.int64)
    for c in tl.static_range(len(copies) // 5):
        bytes = tl.where((copies[5 * c + 3] < stop - t) & (t >= t0), 16, 0)
        copy(copies[5 * c + 2] + slot, copies[5 * c] + there * copies[5 * c + 1], bytes, copies[5 * c + 4])


@triton.jit
def asked():
    """What was copied since the last call belongs to one turn."""
    tl.inline_asm_elementwise("cp.async.commit_group; mov.u32 $0, 0;", "=r,r", [tl.program_id(0)], tl.int32, False, 1)


@triton.jit
def come():
    """Wait until all copies but those of the last turn asked for are there, and visible to all warps."""
    tl.inline_asm_elementwise(
        "cp.async.wait_group 1; bar.sync 0; mov.u32 $0, 0;", "=r,r", [tl.program_id(0)], tl.int32, False, 1
    )


@triton.jit
def number_at(address, like):
    """The number at an address of shared memory, in float32; `like` points to such numbers."""
    if like.dtype.element_ty.primitive_bitwidth == 16:
        word = tl.inline_asm_elementwise("ld.shared.u16 $0, [$1];", "=r,r", [address], tl.int32, False, 1)
        return number(word, 0, like)
    else:
        return tl.inline_asm_elementwise("ld.shared.f32 $0, [$1];", "=f,r", [address], tl.float32, False, 1)
