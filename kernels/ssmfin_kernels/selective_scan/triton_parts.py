"""Owns the parts that the Triton kernels of the selective scan share, and how they cut the work up.

A program owns one sequence, a segment of time and R tiles of DL channels (one warp as a rule). A tile of states is
(N, DL): Triton spreads DL channels, and what remains of the warp over N, across lanes, the rest of N over registers.
R tiles share each row of B and C, and their sums over channels are taken in registers before any lane is asked.

Time runs in order inside a segment, U steps at a time whose rows are read while the U before are computed. Where
sequences x channels cannot fill the chip, time is split: `summarize_*` runs each segment from zero, `combine` chains
the segments, and the main kernels start from the chained states. A segment's decay is exp(A sum of dt), one
exponential for all of it.

`unit` is 1, which the compiler must not know: it would lay the tiles out as suits their loads, four channels a lane,
and convert every row of the loop.

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
    # log(1 + e) = 2 artanh(e / (2 + e)) keeps the digits of small steps, which log2(1 + e) loses
    e = exp2(-tl.abs(x) * LOG2_E)
    s = e * reciprocal(2.0 + e)
    q = s * s
    p = 2.0 / 15.0
    p = p * q + 2.0 / 13.0
    p = p * q + 2.0 / 11.0
    p = p * q + 2.0 / 9.0
    p = p * q + 2.0 / 7.0
    p = p * q + 2.0 / 5.0
    p = p * q + 2.0 / 3.0
    p = p * q + 2.0
    return tl.maximum(x, 0.0) + s * p


@triton.jit
def sigmoid(x):
    return reciprocal(1.0 + exp2(-x * LOG2_E))


@triton.jit
def wide(t):
    # not t.to(): in the interpreter the variable of a loop is a plain int
    return tl.cast(t, tl.int64)


@triton.jit
def row(ptr, at, inside):
    """One row of channels or states in float32; outside counts as zero."""
    return tl.load(ptr + at, mask=inside, other=0.0).to(tl.float32)


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
def tile(ptr, first, end, rows, N, stride_n, stride_d, unit, DL: tl.constexpr, R: tl.constexpr):
    """R tiles (BN, DL) of a matrix of states."""
    tiles = ()
    for r in tl.static_range(R):
        d = first + r * DL + tl.arange(0, DL)
        inside = (rows < N)[:, None] & (d < end)[None, :]
        tiles = tiles + (
            tl.load(ptr + rows[:, None] * stride_n + d[None, :] * stride_d * unit, mask=inside, other=0.0),
        )
    return tiles


@triton.jit
def store_tile(ptr, tiles, first, end, rows, N, stride_n, stride_d, unit, DL: tl.constexpr, R: tl.constexpr):
    for r in tl.static_range(R):
        d = first + r * DL + tl.arange(0, DL)
        inside = (rows < N)[:, None] & (d < end)[None, :]
        tl.store(ptr + rows[:, None] * stride_n + d[None, :] * stride_d * unit, tiles[r], mask=inside)


@triton.jit
def channels(ptr, first, end, GIVEN: tl.constexpr, DL: tl.constexpr, R: tl.constexpr):
    """R rows (DL,) of a vector of channels, zero where there is none."""
    rows = ()
    for r in tl.static_range(R):
        d = first + r * DL + tl.arange(0, DL)
        if GIVEN:
            rows = rows + (tl.load(ptr + d, mask=d < end, other=0.0),)
        else:
            rows = rows + (tl.zeros([DL], tl.float32),)
    return rows


@triton.jit
def read(
    u,
    delta,
    z,
    B,
    C,
    t,
    stop,
    first,
    end,
    n,
    N: tl.constexpr,
    D: tl.constexpr,
    GN: tl.constexpr,
    Z: tl.constexpr,
    OUT: tl.constexpr,
    DL: tl.constexpr,
    R: tl.constexpr,
    U: tl.constexpr,
):
    """Rows of U steps from t on as a flat tuple, 3 R + 2 a step: u, delta and z of each tile, then B and C.

    Without OUT neither C nor z are read; without Z, z is not. Steps from `stop` on count as zero.
    """
    rows = ()
    d = first + tl.arange(0, DL)
    at = wide(t) * D + d
    at_n = wide(t) * GN + n
    for s in tl.static_range(U):
        for r in tl.static_range(R):
            inside = (d + r * DL < end) & (t + s < stop)
            rows = rows + (row(u, at + (s * D + r * DL), inside), row(delta, at + (s * D + r * DL), inside))
            if Z and OUT:
                rows = rows + (row(z, at + (s * D + r * DL), inside),)
            else:
                rows = rows + (tl.zeros([DL], tl.float32),)
        inside = (n < N) & (t + s < stop)
        rows = rows + (row(B, at_n + s * GN, inside),)
        if OUT:
            rows = rows + (row(C, at_n + s * GN, inside),)
        else:
            rows = rows + (tl.zeros_like(n).to(tl.float32),)
    return rows


@triton.jit
def starts(reset, t, stop, RESET: tl.constexpr):
    """Whether step t starts a new sequence."""
    if RESET:
        return tl.load(reset + t, mask=t < stop, other=0) != 0
    else:
        return False
