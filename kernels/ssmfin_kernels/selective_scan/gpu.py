"""Owns the forward pass of the selective scan on a GPU: memory, tiles, launches; and the operator.

What is kept for the backward pass: the state every 4 steps (N / 4 numbers a step and channel) and, with a gate, y
before it. A form that kept it every 32 steps, and ran forward through them once more, took .28 ms forwards instead of
.35, but 1.07 backwards instead of .87, at (B, D, T, N) = (8, 2048, 2048, 16), before there was the ring: .30 and .62.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels.selective_scan import (
    gpu_backward,
    operators,
    triton_forward,
    triton_forward_ring,
    triton_summary_ring,
)
from ssmfin_kernels.selective_scan.segments import (
    KEPT,
    ceil_div,
    combine,
    kept_shape,
    ring_fits,
    segment_length,
    states_a_lane,
)


@dataclass(frozen=True)
class Tiles:
    """How the kernels are cut: R times 8 channels a warp, U steps a turn, at most `segments` pieces of time."""

    R: int
    U: int
    segments: int


def choose(batch: int, steps: int, channels: int, groups: int, states: int, ring: bool = False) -> Tiles:
    """Tiles for a size, from runs on one H200 (`kernels/benchmarks/selective_scan.py --sweep`).

    What counts is warps for each of the chip's 528 schedulers. With two of them one pass over time is best, broad ones
    if they are enough, since a split time computes every state twice. With less, time is split: until there are 16, as
    far as segments stay long; with the ring, whose programs fill the chip evenly, into few waves of them.
    """
    long_states = states > 16
    R = 2 if channels // groups > 8 else 1
    broad, narrow = (batch * groups * ceil_div(channels // groups, 8 * tiles) for tiles in (R, 1))
    if ring and (broad >= 1000 or narrow >= 1000):
        return Tiles(1 if long_states or broad < 1000 else 2, 4 if long_states else 8, 1)
    if ring:
        # twice as many programs as the chip holds at once, five for each of 132 multiprocessors; as many where that
        # would make the chain of segments long. (4, 256, 65536, 16): .78 ms, with half of the segments .80
        programs = batch * groups * ceil_div(channels // groups, 64)
        segments = 1320 // programs if 1320 // programs <= 512 else 660 // programs
        return Tiles(2, 4 if long_states else 8, max(1, min(segments, steps // 256)))
    if broad >= 1000:
        return Tiles(R, 4 if long_states else 8, 1)
    if narrow >= 1000:
        return Tiles(1, 8 if long_states else 16, 1)
    return Tiles(R, 4 if long_states else 8, max(1, min(ceil_div(8192, broad), 512, steps // 256)))


def _registers(R: int, states: int) -> int | None:
    """Most registers of a thread of the ring's kernels: none is spilled, and five (four) programs share a processor."""
    if R == 1:
        return 128
    return 96 if states <= 16 else None


def _halves(tensor: Tensor | None) -> bool:
    return tensor is None or (tensor.element_size() == 2 and tensor.data_ptr() % 4 == 0)


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
    """See `operators.register`; `kept` is as `kept_shape` says."""
    batch, steps, channels = u.shape
    groups, states = B.shape[2:]
    ring = ring_fits((u, delta) if z is None else (u, delta, z), (B, C), channels // groups, states)
    tiles = choose(batch, steps, channels, groups, states, ring)
    segment = segment_length(steps, tiles.segments)
    segments = ceil_div(steps, segment)
    how: dict[str, Any]
    if ring:
        grid = (groups * ceil_div(channels // groups, 32 * tiles.R), segments, batch)
        summarize, run = triton_summary_ring.summarize_ring[grid], triton_forward_ring.forward_ring[grid]
        how = {"R": tiles.R, "V": tiles.U // 4, "num_warps": 4, "maxnreg": _registers(tiles.R, states)}
    else:
        grid = (groups * ceil_div(channels // groups, 8 * tiles.R), segments, batch)
        summarize, run = triton_forward.summarize_forward[grid], triton_forward.forward[grid]
        per_lane = states_a_lane(states)
        how = {
            "R": tiles.R,
            "NL": per_lane,
            "S": ceil_div(states, 4 * per_lane),
            "V": max(1, tiles.U // 4),
            "num_warps": 1,
        }
        # words of two numbers, where they are whole words
        how["P"] = 2 if per_lane > 1 and states % 2 == 0 and _halves(B) and _halves(C) else 1
        how["Q"] = 2 if channels % 2 == 0 and _halves(u) and _halves(delta) and _halves(z) else 1
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    sizes = {"D": channels, "G": groups, "N": states}
    absent = A  # never read
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)

    y = torch.empty_like(u)
    ungated = u.new_empty(u.shape if keep and z is not None else (batch, steps, 0))
    chunks = ceil_div(steps, KEPT)
    kept = A.new_empty(kept_shape(batch, steps, channels, groups, states) if keep else (batch, 0, 0, 0))
    final = A.new_empty(batch, channels, states)
    start = initial_state
    if segments > 1:
        local, decay = A.new_empty(2, batch, segments, channels, states)
        summarize(u, delta, A, B, bias, starts, local, decay, steps, segment, **sizes, **flags, **how)
        start = combine(local, decay, start, reverse=False)
    run(
        u,
        delta,
        A,
        B,
        C,
        absent if D is None else D,
        absent if z is None else z,
        bias,
        absent if start is None else start,
        starts,
        y,
        ungated,
        kept,
        final,
        steps,
        segment,
        chunks,
        **sizes,
        START=start is not None,
        SKIP=D is not None,
        Z=z is not None,
        KEEP=keep,
        **({} if ring else {"K": KEPT}),
        **flags,
        **how,
    )
    return y, final, ungated, kept


selective_scan_gpu, call = operators.register(
    "selective_scan_gpu",
    forward,
    gpu_backward.backward,
    kept_shape,
)
