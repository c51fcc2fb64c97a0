"""Owns the backward pass of the selective scan on a GPU: memory, tiles, launches.

Beside the gradients it needs for a while parts of dB and dC, 2 N / (8 CR) numbers a step and channel, added in order
afterwards, so that gradients are the same bits in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ssmfin_kernels.selective_scan import triton_backward, triton_backward_summary
from ssmfin_kernels.selective_scan.segments import CHUNK, KEPT, combine, segment_length

_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Tiles:
    """How the kernels are cut: 8 CR channels a program, U steps at once, at most `segments` pieces of time."""

    CR: int
    U: int
    segments: int


def choose(batch: int, steps: int, channels: int, groups: int) -> Tiles:
    """Tiles for a size, from runs on one H200 (`kernels/benchmarks/selective_scan.py --sweep`).

    As forwards: broad programs where there are two for each of the chip's 528 schedulers, else narrow ones where those
    are two, else time is split until there are 16, as far as segments stay long. U is a multiple of `segments.KEPT`.
    """
    CR = 2 if channels // groups > 8 else 1
    broad, narrow = (batch * groups * triton.cdiv(channels // groups, 8 * tiles) for tiles in (CR, 1))
    if broad >= 1000:
        return Tiles(CR, 4, 1)
    if narrow >= 1000:
        return Tiles(1, 8, 1)
    return Tiles(CR, 4, max(1, min(triton.cdiv(8192, broad), 512, steps // 256)))


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
    tiles = choose(batch, steps, channels, groups)
    segment = segment_length(steps, tiles.segments)
    segments, blocks = triton.cdiv(steps, segment), triton.cdiv(channels // groups, 8 * tiles.CR)
    grid = (groups * blocks, segments, batch)
    NR = max(1, min(4, triton.next_power_of_2(states) // 4))
    shape = {"NR": NR, "CR": tiles.CR, "SN": min(8 // NR, tiles.U), "U": tiles.U}
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    flags["Z"] = z is not None
    sizes = {"D": channels, "G": groups, "N": states}
    rate = A * _LOG2_E
    absent = A  # never read
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)
    gate = absent if z is None else z

    edge = dfinal.transpose(1, 2).contiguous()
    if segments > 1:
        local, decay = A.new_empty(2, batch, segments, states, channels)
        for n0 in range(0, states, 4 * NR):
            triton_backward_summary.summarize_backward[grid](
                dy,
                delta,
                rate,
                C,
                gate,
                bias,
                starts,
                local,
                decay,
                steps,
                n0,
                segment,
                **sizes,
                **flags,
                **shape | {"U": 8},
                num_warps=1,
            )
        edge = combine(local, decay, edge, reverse=True)

    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = u.new_empty((batch, steps, 0)) if z is None else torch.empty_like(z)
    over_states = u.new_empty((2, *u.shape) if states > 4 * NR else (2, 0), dtype=A.dtype)
    dA = A.new_empty(batch, segments, states, channels)
    over_channels = A.new_empty(2, batch, blocks, steps, groups, states)
    dD = A.new_empty(batch, segments, 0 if D is None else channels)
    dbias = A.new_empty(batch, segments, 0 if delta_bias is None else channels)
    dstart = A.new_empty(batch, states, channels)
    for n0 in range(0, states, 4 * NR):
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
            du,
            ddelta,
            over_states[0],
            over_states[1],
            dA,
            over_channels,
            dD,
            dz,
            dbias,
            dstart,
            steps,
            n0,
            segment,
            kept.shape[1],
            **sizes,
            SKIP=D is not None,
            FIRST=n0 == 0,
            LAST=n0 + 4 * NR >= states,
            K=CHUNK,
            EVERY=KEPT,
            **flags,
            **shape,
            num_warps=1,
        )
    dB, dC = torch.empty_like(B), torch.empty_like(C)
    row = steps * groups * states
    triton_backward_summary.add_parts[(triton.cdiv(row, 512), batch, 2)](
        over_channels, dB, dC, blocks, row, BLOCK=512, AT_ONCE=8, num_warps=4
    )
    return (
        du,
        ddelta,
        dA.sum(dim=(0, 1)).T.contiguous(),
        dB,
        dC,
        dD.sum(dim=(0, 1)),
        dz,
        dbias.sum(dim=(0, 1)),
        A.new_empty(0) if initial_state is None else dstart.transpose(1, 2).contiguous(),
    )
