"""Owns the parts that the Triton kernels of the selective scan share, and how they cut the work up.

A program owns one sequence, a segment of time and a block of channels; `triton_quads.py` (forwards) and
`triton_lanes.py` (backwards) say which lane of a warp holds what. There are two forms: `triton_forward.py` and
`triton_backward.py`, a warp a program, take everything; the kernels named ring, four warps a program, take what
`segments.ring_fits` says (`triton_ring.py`), with the same layout of everything in memory.

Time runs in order inside a segment, several steps at a time whose rows are asked for well before they are used. Where
sequences x channels cannot fill the chip, time is split: `summarize_*` runs each segment from zero, `combine` chains
the segments, and the main kernels start from the chained states. A segment's decay is exp(A sum of dt), one
exponential for all of it.

Rates are A log2(e), so that the decay is one exp2. All offsets are 64 bits wide.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.dispatch import interpreting

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def exp2(x):
    if INTERPRETED:
        return tl.exp2(x)
    else:
        # ftz: without it every exponential takes three more instructions, for results below 1e-38
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def reciprocal(x):
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
def softplus(x):
    # max(x, 0) + log(1 + e), e <= 1: log(1 + e) / e as a minimax polynomial, within 2e-7 of it. log2(1 + e) would lose
    # the digits of small steps
    e = exp2(-tl.abs(x) * LOG2_E)
    p = 0.0052326880395412445
    p = p * e - 0.029505213722586632
    p = p * e + 0.07822591066360474
    p = p * e - 0.13663242757320404
    p = p * e + 0.19106005132198334
    p = p * e - 0.2484298199415207
    p = p * e + 0.3331909775733948
    p = p * e - 0.4999949336051941
    p = p * e + 0.9999999403953552
    return tl.maximum(x, 0.0) + e * p


@triton.jit
def sigmoid(x):
    return reciprocal(1.0 + exp2(-x * LOG2_E))


@triton.jit
def wide(t):
    # not t.to(): in the interpreter the variable of a loop is a plain int
    return tl.cast(t, tl.int64)


@triton.jit
def step_size(delta, bias, inside, SOFTPLUS: tl.constexpr):
    """dt of a row; zero outside of the sequence, where a step then changes nothing."""
    dt = delta + bias
    if SOFTPLUS:
        dt = softplus(dt)
    return tl.where(inside, dt, 0.0)


@triton.jit
def place(task, D, G, DL: tl.constexpr, R: tl.constexpr):
    """Group, first channel, and end of the channels of a task among the blocks of channels."""
    per_group = D // G
    blocks = tl.cdiv(per_group, DL * R)
    group = task // blocks
    first = group * per_group + (task % blocks) * (DL * R)
    return group, first, (group + 1) * per_group


@triton.jit
def starts(reset, t, stop, RESET: tl.constexpr):
    """Whether step t starts a new sequence."""
    if RESET:
        return tl.load(reset + t, mask=t < stop, other=0) != 0
    else:
        return False


@triton.jit
def prefetch(at):
    """Bring what the lanes point at to the L2 cache, without waiting. A load instead would hold a register."""
    if not INTERPRETED:
        tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [at], tl.int32, False, 1)


@triton.jit
def prefetch_rows(
    ptr, start, stop, first, end, STRIDE: tl.constexpr, WIDTH: tl.constexpr, COUNT: tl.constexpr, W: tl.constexpr = 1
):
    """Prefetch COUNT rows from `start` on, columns first .. first + WIDTH - 1; one lane asks for 32 bytes."""
    lane = tl.arange(0, 32 * W)
    SECTORS: tl.constexpr = (WIDTH * ptr.dtype.element_ty.primitive_bitwidth + 255) // 256
    column = tl.minimum(first + lane % SECTORS * (WIDTH // SECTORS), end - 1)
    for r in tl.static_range((COUNT * SECTORS + 32 * W - 1) // (32 * W)):
        row = tl.minimum(start + (r * 32 * W + lane) // SECTORS, stop - 1)
        prefetch(ptr + (wide(row) * STRIDE + column))
