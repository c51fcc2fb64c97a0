"""Owns the selective scan on a GPU: memory, the choice of tiles, the launches of the kernels beside this file.

What the backward pass keeps: the state every 32 steps (N / 32 numbers a step and channel) and, with a gate, y before
it. What it needs for a while: parts of dB and dC, 2 N / (R DL) numbers a step and channel, added in order afterwards,
so that gradients are the same bits in every run; and states every U steps of the chunks in work, of which no more
than one chunk a program exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ssmfin_kernels.selective_scan import operators, triton_backward, triton_forward

CHUNK = 32  # steps between kept states
_LOG2_E = 1.4426950408889634
_STATES_AT_ONCE = 16  # in the backward pass: more would not fit in registers with the states of several steps


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut: R tiles of DL channels, U steps at once, at most `segments` pieces of time."""

    DL: int
    R: int
    U: int
    segments: int

    def blocks(self, per_group: int) -> int:
        return triton.cdiv(per_group, self.DL * self.R)


def segment_length(steps: int, segments: int) -> int:
    """Steps of a segment, whole chunks, so that there are at most `segments`."""
    return CHUNK * triton.cdiv(triton.cdiv(steps, CHUNK), segments)


def choose(batch: int, steps: int, channels: int, groups: int, states: int, backward: bool) -> Tiles:
    """Tiles for a size, from a sweep on one H200 (`kernels/benchmarks/selective_scan.py --sweep`).

    One pass over time where there are about two warps for each of the chip's 528 schedulers; otherwise time is split
    until there are eight, as far as segments stay long.
    """
    per_group = triton.next_power_of_2(channels // groups)
    if backward:
        DL, R, U = 8, 1 if per_group <= 8 else 2, 4
    elif states <= 16:
        DL, R, U = min(32, max(4, per_group)), 1, 4
    else:
        DL, R, U = 8, 1, 2 if states <= 64 else 1
    programs = batch * groups * triton.cdiv(channels // groups, DL * R)
    segments = 1 if programs >= 1000 else triton.cdiv(4096, programs)
    return Tiles(DL, R, U, max(1, min(segments, 256, steps // 256)))


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `operators.register`; `kept` is (B, chunks, N, D)."""
    batch, steps, channels = u.shape
    groups, states = B.shape[2:]
    tiles = choose(batch, steps, channels, groups, states, False)
    segment = segment_length(steps, tiles.segments)
    segments, blocks = triton.cdiv(steps, segment), groups * tiles.blocks(channels // groups)
    rate = A * _LOG2_E
    shape = {"BN": triton.next_power_of_2(states), "DL": tiles.DL, "R": tiles.R, "U": tiles.U}
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    sizes = {"D": channels, "G": groups, "N": states}
    absent = A  # never read
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)
    grid = (blocks, segments, batch)

    y = torch.empty_like(u)
    ungated = u.new_empty(u.shape if keep and z is not None else (batch, steps, 0))
    chunks = triton.cdiv(steps, CHUNK)
    kept = A.new_empty((batch, chunks, states, channels) if keep else (batch, 0, 0, 0))
    final = A.new_empty(batch, states, channels)
    if initial_state is None:
        start = A.new_zeros(batch, 1, states, channels)
    else:
        start = initial_state.transpose(1, 2).contiguous()
    if segments > 1:
        local, decay = A.new_empty(2, batch, segments, states, channels)
        triton_forward.summarize_forward[grid](
            u, delta, rate, B, bias, starts, local, decay, steps, segment, 1, **sizes, **flags, **shape, num_warps=1
        )
        start = _combine(local, decay, start, reverse=False)
    triton_forward.forward[grid](
        u,
        delta,
        rate,
        B,
        C,
        absent if D is None else D,
        absent if z is None else z,
        bias,
        start,
        starts,
        y,
        ungated,
        kept,
        final,
        steps,
        segment,
        chunks,
        1,
        **sizes,
        SKIP=D is not None,
        Z=z is not None,
        KEEP=keep,
        K=CHUNK,
        **flags,
        **shape,
        num_warps=1,
    )
    return y, final.transpose(1, 2).contiguous(), ungated, kept


def backward(
    dy: Tensor,
    dfinal: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    ungated: Tensor,
    kept: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `operators.register`."""
    batch, steps, channels = u.shape
    groups, states = B.shape[2:]
    tiles = choose(batch, steps, channels, groups, states, True)
    segment = segment_length(steps, tiles.segments)
    segments, blocks = triton.cdiv(steps, segment), tiles.blocks(channels // groups)
    rate = A * _LOG2_E
    shape = {"DL": tiles.DL, "R": tiles.R, "U": tiles.U}
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    flags["Z"] = z is not None
    sizes = {"D": channels, "G": groups, "N": states}
    absent = A
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)
    gate = absent if z is None else z
    grid = (groups * blocks, segments, batch)

    edge = dfinal.transpose(1, 2).contiguous()
    if segments > 1:
        whole = triton.next_power_of_2(states)
        local, decay = A.new_empty(2, batch, segments, states, channels)
        summary = {"BN": whole, **shape, "num_warps": 1}
        triton_backward.summarize_backward[grid](
            dy, delta, rate, C, gate, bias, starts, local, decay, steps, segment, 1, **sizes, **flags, **summary
        )
        edge = _combine(local, decay, edge, reverse=True)

    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = u.new_empty((batch, steps, 0)) if z is None else torch.empty_like(z)
    width = min(_STATES_AT_ONCE, triton.next_power_of_2(states))
    sums = u.new_empty((2, *u.shape) if states > width else (2, 0), dtype=A.dtype)
    dA = A.new_empty(batch, segments, states, channels)
    dB, dC = A.new_empty(2, batch, blocks, steps, groups, states)
    dD = A.new_empty(batch, segments, 0 if D is None else channels)
    dbias = A.new_empty(batch, segments, 0 if delta_bias is None else channels)
    dstart = A.new_empty(batch, states, channels)
    programs = groups * blocks * segments * batch
    marks = A.new_empty(programs * (CHUNK // tiles.U) * width * tiles.DL * tiles.R)
    for n0 in range(0, states, width):
        triton_backward.backward[grid](
            dy,
            edge,
            u,
            delta,
            rate,
            B,
            C,
            absent if D is None else D,
            gate,
            bias,
            starts,
            ungated,
            kept,
            marks,
            du,
            ddelta,
            sums[0],
            sums[1],
            dA,
            dB,
            dC,
            dD,
            dz,
            dbias,
            dstart,
            steps,
            n0,
            segment,
            kept.shape[1],
            1,
            **sizes,
            SKIP=D is not None,
            FIRST=n0 == 0,
            LAST=n0 + width >= states,
            BN=width,
            K=CHUNK,
            **flags,
            **shape,
            num_warps=1,
        )
    return (
        du,
        ddelta,
        dA.sum(dim=(0, 1)).T.contiguous(),
        dB.sum(dim=1).to(B.dtype),
        dC.sum(dim=1).to(C.dtype),
        dD.sum(dim=(0, 1)),
        dz,
        dbias.sum(dim=(0, 1)),
        A.new_empty(0) if initial_state is None else dstart.transpose(1, 2).contiguous(),
    )


def _combine(local: Tensor, decay: Tensor, edge: Tensor, reverse: bool) -> Tensor:
    """What enters each segment, (B, segments, N, D), given what enters the first (in reverse the last)."""
    batch, segments, states, channels = local.shape
    carry = torch.empty_like(local)
    size = states * channels
    triton_forward.combine[(triton.cdiv(size, 128), batch)](
        local, decay, edge, carry, segments, size, REVERSE=reverse, BLOCK=128, num_warps=4
    )
    return carry


selective_scan_gpu = operators.register(
    "selective_scan_gpu",
    forward,
    backward,
    lambda batch, steps, channels, states: (batch, -(-steps // CHUNK), states, channels),
)
