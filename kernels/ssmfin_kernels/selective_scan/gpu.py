"""Owns the forward pass of the selective scan on a GPU: memory, tiles, launches; and the operator.

What is kept for the backward pass: the state every 4 steps (N / 4 numbers a step and channel) and, with a gate, y
before it. A form that kept it every 32 steps, and ran forward through them once more, took .28 ms forwards instead of
.35, but 1.07 backwards instead of .87, at (B, D, T, N) = (8, 2048, 2048, 16).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ssmfin_kernels.selective_scan import gpu_backward, operators, triton_forward
from ssmfin_kernels.selective_scan.segments import KEPT, combine, kept_shape, segment_length

_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Tiles:
    """How the kernels are cut: R times 8 channels a warp, U steps a turn, at most `segments` pieces of time."""

    R: int
    U: int
    segments: int


def choose(batch: int, steps: int, channels: int, groups: int, states: int) -> Tiles:
    """Tiles for a size, from runs on one H200 (`kernels/benchmarks/selective_scan.py --sweep`).

    What counts is warps for each of the chip's 528 schedulers. With two of them one pass over time is best, broad ones
    if they are enough ((B, D, T, N) = (8, 2048, 2048, 16): .28 ms, narrow ones .34; (64, 128, 4096, 16): narrow .40,
    broad .42), since a split time computes every state twice (.45, .47). With less, time is split until there are 16,
    as far as segments stay long: (4, 256, 65536, 16) takes .89 ms, with eight .90, with two 1.05.
    """
    long_states = states > 16
    R = 2 if channels // groups > 8 else 1
    broad, narrow = (batch * groups * triton.cdiv(channels // groups, 8 * tiles) for tiles in (R, 1))
    if broad >= 1000:
        return Tiles(R, 4 if long_states else 8, 1)
    if narrow >= 1000:
        return Tiles(1, 8 if long_states else 16, 1)
    return Tiles(R, 4 if long_states else 8, max(1, min(triton.cdiv(8192, broad), 512, steps // 256)))


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
    tiles = choose(batch, steps, channels, groups, states)
    segment = segment_length(steps, tiles.segments)
    segments, blocks = triton.cdiv(steps, segment), groups * triton.cdiv(channels // groups, 8 * tiles.R)
    rate = A * _LOG2_E
    per_lane = min(4, triton.cdiv(states, 4))
    shape = {"R": tiles.R, "NL": per_lane, "S": triton.cdiv(states, 4 * per_lane), "V": max(1, tiles.U // 4)}
    # words of two numbers, where they are whole words
    shape["P"] = 2 if per_lane > 1 and states % 2 == 0 and _halves(B) and _halves(C) else 1
    shape["Q"] = 2 if channels % 2 == 0 and _halves(u) and _halves(delta) and _halves(z) else 1
    flags = {"BIAS": delta_bias is not None, "SOFTPLUS": delta_softplus, "RESET": reset is not None}
    sizes = {"D": channels, "G": groups, "N": states}
    absent = A  # never read
    bias = absent if delta_bias is None else delta_bias
    starts = absent if reset is None else reset.view(torch.uint8)
    grid = (blocks, segments, batch)

    y = torch.empty_like(u)
    ungated = u.new_empty(u.shape if keep and z is not None else (batch, steps, 0))
    chunks = triton.cdiv(steps, KEPT)
    kept = A.new_empty(kept_shape(batch, steps, channels, groups, states) if keep else (batch, 0, 0, 0))
    final = A.new_empty(batch, channels, states)
    start = A.new_zeros(batch, channels, states) if initial_state is None else initial_state
    if segments > 1:
        local, decay = A.new_empty(2, batch, segments, channels, states)
        triton_forward.summarize_forward[grid](
            u, delta, rate, B, bias, starts, local, decay, steps, segment, **sizes, **flags, **shape, num_warps=1
        )
        start = combine(local, decay, start, reverse=False)
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
        **sizes,
        SKIP=D is not None,
        Z=z is not None,
        KEEP=keep,
        K=KEPT,
        **flags,
        **shape,
        num_warps=1,
    )
    return y, final, ungated, kept


selective_scan_gpu = operators.register(
    "selective_scan_gpu",
    forward,
    gpu_backward.backward,
    kept_shape,
)
