"""Owns the backward pass of the selective scan on a GPU: memory, tiles, launches.

Beside the gradients it needs for a while parts of dB and dC, 2 N / (32 CR) numbers a step and channel (2 N / (8 CR)
without the ring), added in order afterwards, so that gradients are the same bits in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels.selective_scan import (
    triton_backward,
    triton_backward_ring,
    triton_backward_summary,
    triton_summary_ring,
)
from ssmfin_kernels.selective_scan.segments import CHUNK, KEPT, ceil_div, combine, ring_fits, segment_length


@dataclass(frozen=True)
class Tiles:
    """How the kernels are cut: 8 CR channels a warp, U steps at once, at most `segments` pieces of time."""

    CR: int
    U: int
    segments: int


def choose(batch: int, steps: int, channels: int, groups: int, states: int, size: int, ring: bool = False) -> Tiles:
    """Tiles for a size (`size` bytes a number), from runs on one H200 (`kernels/benchmarks/selective_scan.py --sweep`).

    As forwards: broad warps where there are two for each of the chip's 528 schedulers, else narrow ones where those
    are two, else time is split until there are 16, as far as segments stay long. U is a multiple of `segments.KEPT`.
    """
    CR = 2 if channels // groups > 8 else 1
    broad, narrow = (batch * groups * ceil_div(channels // groups, 8 * tiles) for tiles in (CR, 1))
    if ring and (size > 2 or states > 16 or broad < 1000 <= narrow):
        CR, broad = 1, narrow
    if broad >= 1000:
        return Tiles(CR, 4, 1)
    if narrow >= 1000:
        return Tiles(1, 8, 1)
    return Tiles(CR, 4, max(1, min(ceil_div(8192, broad), 512, steps // 256)))


def backward(
    dy: Tensor,
    dfinal: Tensor | None,
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
    rows = (u, delta, dy, ungated) if z is None else (u, delta, dy, ungated, z)
    ring = ring_fits(rows, (B, C), channels // groups, states)
    tiles = choose(batch, steps, channels, groups, states, u.element_size(), ring)
    segment = segment_length(steps, tiles.segments)
    segments = ceil_div(steps, segment)
    blocks = ceil_div(channels // groups, (32 if ring else 8) * tiles.CR)
    grid = (groups * blocks, segments, batch)
    NR = 1 if states <= 4 else 2 if states <= 8 else 4
    shape = {"NR": NR, "CR": tiles.CR, "SN": min(8 // NR, tiles.U), "U": tiles.U}
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    flags["Z"] = z is not None
    sizes = {"D": channels, "G": groups, "N": states}
    absent = A  # never read
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)
    gate = absent if z is None else z

    edge = dfinal
    if segments > 1:
        local, decay = A.new_empty(2, batch, segments, channels, states)
        summary = (dy, delta, A, C, gate, bias, starts, local, decay, steps)
        if ring:
            R = 2 if channels // groups > 32 else 1
            triton_summary_ring.summarize_backward_ring[
                (groups * ceil_div(channels // groups, 32 * R), segments, batch)
            ](
                *summary,
                segment,
                **sizes,
                **flags,
                R=R,
                V=2 if states <= 16 else 1,
                num_warps=4,
                maxnreg=128 if states <= 16 else None,
            )
        else:
            for n0 in range(0, states, 4 * NR):
                triton_backward_summary.summarize_backward[grid](
                    *summary, n0, segment, **sizes, **flags, **shape | {"U": 8}, num_warps=1
                )
        edge = combine(local, decay, edge, reverse=True)

    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = u.new_empty((batch, steps, 0)) if z is None else torch.empty_like(z)
    over_states = u.new_empty((2, *u.shape) if states > 4 * NR else (2, 0), dtype=A.dtype)
    over_time = A.new_empty(batch * segments, channels * (states + 2))
    over_channels = A.new_empty(2, batch, blocks, steps, groups, states)
    dstart = A.new_empty(0 if initial_state is None else (batch, channels, states))
    how: dict[str, Any]
    if ring:
        launch = triton_backward_ring.backward_ring[grid]
        # four warps a scheduler; a broad one needs all registers
        how = {"CR": tiles.CR, "num_warps": 4, "maxnreg": 128 if tiles.CR == 1 else None}
    else:
        launch = triton_backward.backward[grid]
        how = shape | {"K": CHUNK, "EVERY": KEPT, "num_warps": 1}
    for n0 in range(0, states, 4 * NR):
        launch(
            dy,
            absent if edge is None else edge,
            u,
            delta,
            A,
            B,
            C,
            absent if D is None else D,
            gate,
            bias,
            starts,
            ungated,
            kept,
            du,
            ddelta,
            over_states[0],
            over_states[1],
            over_time,
            over_channels,
            dz,
            dstart,
            steps,
            n0,
            segment,
            kept.shape[1],
            **sizes,
            EDGE=edge is not None,
            START=initial_state is not None,
            SKIP=D is not None,
            FIRST=n0 == 0,
            LAST=n0 + 4 * NR >= states,
            **flags,
            **how,
        )
    dA, dB, dC = torch.empty_like(A), torch.empty_like(B), torch.empty_like(C)
    dD = A.new_empty(0 if D is None else channels)
    dbias = A.new_empty(0 if delta_bias is None else channels)
    row = steps * groups * states
    programs = ceil_div(channels * (states + 2), 128) + 2 * batch * ceil_div(row, 512)
    triton_backward_summary.add_parts[(programs,)](
        over_channels,
        over_time,
        dB,
        dC,
        dA,
        dD,
        dbias,
        blocks,
        row,
        batch,
        batch * segments,
        D=channels,
        N=states,
        SKIP=D is not None,
        BIAS=delta_bias is not None,
        BLOCK=512,
        NARROW=128,
        AT_ONCE=8,
        num_warps=4,
    )
    return du, ddelta, dA, dB, dC, dD, dz, dbias, dstart
