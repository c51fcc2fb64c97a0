"""Owns how time is cut on a GPU: steps between kept states, and segments that run side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.dispatch import interpreting
from ssmfin_kernels.selective_scan import triton_forward

CHUNK = 32  # steps; segments are whole chunks
KEPT = 4  # steps between the states kept for the backward pass


def ceil_div(size: int, part: int) -> int:
    """Without triton.cdiv, which takes Python 3 microseconds."""
    return -(-size // part)


def segment_length(steps: int, segments: int) -> int:
    """Steps of a segment, whole chunks, so that there are at most `segments`."""
    return CHUNK * ceil_div(ceil_div(steps, CHUNK), segments)


def combine(local: Tensor, decay: Tensor, edge: Tensor | None, reverse: bool) -> Tensor:
    """What enters each segment, (B, segments, D, N), given what enters the first (in reverse the last); None: zero."""
    batch, segments, channels, states = local.shape
    carry = torch.empty_like(local)
    size = states * channels
    triton_forward.combine[(ceil_div(size, 64), batch)](
        local,
        decay,
        carry if edge is None else edge,
        carry,
        segments,
        size,
        EDGE=edge is not None,
        REVERSE=reverse,
        BLOCK=64,
        AT_ONCE=8,
        num_warps=2,
    )
    return carry


def states_a_lane(states: int) -> int:
    """Of a block of states, one or two or four: what a lane holds must divide the 32 words of a block of rows."""
    return 1 if states <= 4 else 2 if states <= 8 else 4


def kept_shape(batch: int, steps: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Of the kept states: sequence, time, group, eights of its channels (an even number), states / 4, 32 lanes."""
    per_lane = states_a_lane(states)
    tiles = ceil_div(states, 4 * per_lane) * per_lane
    return batch, ceil_div(steps, KEPT), groups, 2 * ceil_div(channels // groups, 16), tiles, 32


def ring_fits(tensors: tuple[Tensor, ...], rows: tuple[Tensor, ...], channels: int, states: int) -> bool:
    """Whether rows of tensors (..., D) and of B and C can be copied in pieces of 16 bytes, as `triton_ring.py` does.

    `channels` are those of a group. A program has 32 of them: with few, most of it would have nothing to do.
    """
    size = tensors[0].element_size()
    return (
        not interpreting()
        and 8 < states <= 128
        and channels > 16
        and channels * size % 16 == 0
        and states * size % 16 == 0
        and all(tensor.dtype == tensors[0].dtype and tensor.data_ptr() % 16 == 0 for tensor in (*tensors, *rows))
    )
