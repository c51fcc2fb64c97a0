"""Owns how time is cut on a GPU: chunks between kept states, and segments that run side by side."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ssmfin_kernels.selective_scan import triton_forward

CHUNK = 32  # steps between kept states


def segment_length(steps: int, segments: int) -> int:
    """Steps of a segment, whole chunks, so that there are at most `segments`."""
    return CHUNK * triton.cdiv(triton.cdiv(steps, CHUNK), segments)


def combine(local: Tensor, decay: Tensor, edge: Tensor, reverse: bool) -> Tensor:
    """What enters each segment, (B, segments, N, D), given what enters the first (in reverse the last)."""
    batch, segments, states, channels = local.shape
    carry = torch.empty_like(local)
    size = states * channels
    triton_forward.combine[(triton.cdiv(size, 128), batch)](
        local, decay, edge, carry, segments, size, REVERSE=reverse, BLOCK=128, num_warps=4
    )
    return carry
