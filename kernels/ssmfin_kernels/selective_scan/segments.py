"""Owns how time is cut on a GPU: steps between kept states, and segments that run side by side."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ssmfin_kernels.selective_scan import triton_forward

CHUNK = 32  # steps; segments are whole chunks
KEPT = 4  # steps between the states kept for the backward pass


def segment_length(steps: int, segments: int) -> int:
    """Steps of a segment, whole chunks, so that there are at most `segments`."""
    return CHUNK * triton.cdiv(triton.cdiv(steps, CHUNK), segments)


def combine(local: Tensor, decay: Tensor, edge: Tensor, reverse: bool) -> Tensor:
    """What enters each segment, (B, segments, N, D), given what enters the first (in reverse the last)."""
    batch, segments, states, channels = local.shape
    carry = torch.empty_like(local)
    size = states * channels
    triton_forward.combine[(triton.cdiv(size, 64), batch)](
        local, decay, edge, carry, segments, size, REVERSE=reverse, BLOCK=64, AT_ONCE=8, num_warps=2
    )
    return carry


def kept_shape(batch: int, steps: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Of the kept states: sequence, time, group, eights of its channels (an even number), states / 4, 32 lanes."""
    per_lane = min(4, triton.cdiv(states, 4))
    tiles = triton.cdiv(states, 4 * per_lane) * per_lane
    return batch, triton.cdiv(steps, KEPT), groups, 2 * triton.cdiv(channels // groups, 16), tiles, 32
