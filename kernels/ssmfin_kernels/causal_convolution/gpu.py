"""Owns the causal convolution on a GPU: tiles, launches and operators of the kernels in `triton_kernels.py`.

A kernel compiles in two to five seconds when first used with a set of types and options; Triton keeps it on disk.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.causal_convolution import operators
from ssmfin_kernels.causal_convolution.naive import reach
from ssmfin_kernels.causal_convolution.states import add_final_gradient, final_state
from ssmfin_kernels.causal_convolution.triton_kernels import backward_kernel, forward_kernel, sum_kernel


class Tile(NamedTuple):
    """SEGMENTS strips of at most `strip` steps, STEPS at a time, of BLOCK channels.

    At most `registers` a thread; `stages` chunks of STEPS through shared memory, or none, but registers.
    """

    segments: int
    steps: int
    block: int
    warps: int
    strip: int
    registers: int | None = None
    stages: int = 0


# By (half precision, backward); measured on an H200. Forward, short strips: many programs, at many stages of their
# life. Backward, what is spent once a program (the K - 1 steps beyond each strip, the sums over strips) asks for longer
# ones, and a cap on registers buys another program on a multiprocessor for a few values spilled
_TILES = {
    (False, False): Tile(4, 4, 128, 4, 8),
    (False, True): Tile(8, 4, 64, 4, 64, 128, 3),
    (True, False): Tile(4, 3, 128, 4, 12),
    (True, True): Tile(8, 4, 64, 4, 512, 128),
}
_PROGRAMS = 512  # shorter strips where there would be fewer, some four a multiprocessor, or half of them empty


def _plan(x: Tensor, backward: bool) -> tuple[Tile, int, int]:
    """Tile, steps of a strip, and tiles of a sequence."""
    B, T, D = x.shape
    tile = _TILES[x.element_size() == 2, backward]
    strip = tile.strip
    while strip > 2 * tile.steps:
        tiles = triton.cdiv(T, tile.segments * strip)
        if tile.segments * strip < 2 * T and B * triton.cdiv(D, tile.block) * tiles >= _PROGRAMS:
            break
        strip //= 2
    return tile, strip, triton.cdiv(T, tile.segments * strip)


def _options(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, reset: Tensor | None, silu: bool, tile: Tile
) -> dict[str, Any]:
    return {
        "K": weight.shape[1],
        "SILU": silu,
        "HAS_BIAS": bias is not None,
        "HAS_INITIAL": initial is not None,
        "HAS_RESET": reset is not None,
        "STATE": _state(x),
        "SEGMENTS": tile.segments,
        "STEPS": tile.steps,
        "BLOCK": tile.block,
        "num_warps": tile.warps,
        # a cap that spares a few values would spill hundreds of doubles, or of what a reset needs beside
        "maxnreg": tile.registers if reset is None and x.dtype != torch.float64 else None,
    }


def _state(x: Tensor) -> Any:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


@library.operator("causal_convolution_gpu")
def causal_convolution_gpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Contiguous x (B, T, D), weight (D, K), bias (D,), initial_state (B, K-1, D), reset (B, T) -> y, final state."""
    B, T, D = x.shape
    K = weight.shape[1]
    tile, strip, tiles = _plan(x, False)
    y, final = torch.empty_like(x), x.new_empty(B, K - 1, D)
    simple = reset is None and T >= K - 1
    kernel: Any = forward_kernel[(B * tiles * triton.cdiv(D, tile.block),)]
    kernel(
        x,
        weight,
        bias,
        initial_state,
        None if reset is None else reach(reset, B, T, K, x.device),
        y,
        final,
        T,
        D,
        strip,
        FINAL=simple,
        **_options(x, weight, bias, initial_state, reset, silu, tile),
    )
    return y, final if simple else final_state(x, initial_state, reset, K)


@library.operator("causal_convolution_gpu_backward")
def causal_convolution_gpu_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    grad_y: Tensor,
    grad_final: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and the initial state; the value before the activation is computed again."""
    B, T, D = x.shape
    K = weight.shape[1]
    tile, strip, tiles = _plan(x, True)
    dx, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), weight.new_empty(D)
    # without an initial state its gradient is nobody's; with few steps it is added to all the same
    d_initial = x.new_empty(B, K - 1, D)
    if initial_state is None and T < K - 1:
        d_initial.zero_()
    sums = torch.empty(B * tiles, K + 1, D, dtype=library.state_dtype(x.dtype), device=x.device)
    kernel: Any = backward_kernel[(B * tiles * triton.cdiv(D, tile.block),)]
    kernel(
        x,
        weight,
        bias,
        initial_state,
        None if reset is None else reach(reset, B, T, K, x.device),
        grad_y,
        dx,
        d_initial,
        sums,
        T,
        D,
        strip,
        STAGES=0 if x.dtype == torch.float64 else tile.stages,
        **_options(x, weight, bias, initial_state, reset, silu, tile),
    )
    summing: Any = sum_kernel[(triton.cdiv(D, 32), K + 1)]
    summing(sums, d_weight, d_bias, B * tiles, D, K=K, STATE=_state(x), ROWS=256, BLOCK=32, num_warps=8)
    add_final_gradient(dx, d_initial, grad_final, reset)
    return dx, d_weight, d_bias, d_initial


operators.register(causal_convolution_gpu, causal_convolution_gpu_backward)
