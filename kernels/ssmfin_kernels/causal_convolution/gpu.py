"""Owns the causal convolution on a GPU, fused with bias and SiLU: every input read once, every output written once.

A program owns SEGMENTS x STEPS consecutive steps of BLOCK channels of one sequence. A thread walks STEPS consecutive
steps with the K - 1 inputs before them in registers, so only those overlap between threads, and come from the cache.

Backward, the value before the activation is computed again, K - 1 steps further than the thread's own, because x_s
reaches y_s .. y_{s+K-1}. Gradients of weight and bias are summed over a tile, then over tiles by torch, always in the
same order: no atomics.
"""

# Triton has no types, and its kernels are a language of their own: tuples grow while a loop is unrolled
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, assignment, misc"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.causal_convolution import operators
from ssmfin_kernels.causal_convolution.naive import reach
from ssmfin_kernels.causal_convolution.states import add_final_gradient, final_state

# (SEGMENTS, STEPS, BLOCK, warps) forward and backward; measured on an H200
_TILES = {False: (16, 8, 32, 4), True: (16, 16, 32, 8)}


@triton.jit
def _sigmoid(value):
    # 1 / v as rsqrt(v)^2: one instruction and a product, where a division takes eight; v >= 1, so nothing underflows
    root = tl.rsqrt(1.0 + tl.exp(-value))
    return root * root


@triton.jit
def _row(x_ptr, initial_ptr, i, t, d, inside, T, D, K: tl.constexpr, HAS_INITIAL: tl.constexpr, STATE: tl.constexpr):
    """Inputs of step t, those before the first step taken from the initial state."""
    row = (i * T + t) * D + d
    value = tl.load(x_ptr + row, mask=(t >= 0) & (t < T) & inside, other=0.0).to(STATE)
    if HAS_INITIAL:
        earlier = (i * (K - 1) + (K - 1 + t)) * D + d
        before = tl.load(initial_ptr + earlier, mask=(t < 0) & inside, other=0.0).to(STATE)
        value = tl.where(t < 0, before, value)
    return value


@triton.jit
def _forward_kernel(
    x_ptr,
    taps_ptr,  # (K, D)
    bias_ptr,
    initial_ptr,
    reach_ptr,
    y_ptr,
    T,
    D,
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    columns = tl.cdiv(D, BLOCK)
    tiles = tl.cdiv(T, SEGMENTS * STEPS)
    column = tl.program_id(0) % columns
    tile = (tl.program_id(0) // columns) % tiles
    i = (tl.program_id(0) // (columns * tiles)).to(tl.int64)
    d = column * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = d < D
    first = tile * (SEGMENTS * STEPS) + tl.arange(0, SEGMENTS)[:, None] * STEPS
    taps = ()
    for j in tl.static_range(K):  # by lag
        taps = taps + (tl.load(taps_ptr + (K - 1 - j) * D + d, mask=inside, other=0.0).to(STATE),)
    shift = tl.zeros((1, BLOCK), STATE)
    if HAS_BIAS:
        shift = tl.load(bias_ptr + d, mask=inside, other=0.0).to(STATE)
    xs = ()
    for r in tl.static_range(STEPS + K - 1):
        t = first + (r - (K - 1))
        xs = xs + (_row(x_ptr, initial_ptr, i, t, d, inside, T, D, K, HAS_INITIAL, STATE),)
    for r in tl.static_range(STEPS):
        t = first + r
        value = shift + taps[0] * xs[r + K - 1]
        if HAS_RESET:
            far = tl.load(reach_ptr + i * T + t, mask=t < T, other=0)
        for j in tl.static_range(1, K):
            if HAS_RESET:
                value += tl.where(far >= j, taps[j] * xs[r + K - 1 - j], 0.0)
            else:
                value += taps[j] * xs[r + K - 1 - j]
        if SILU:
            value *= _sigmoid(value)
        tl.store(y_ptr + (i * T + t) * D + d, value.to(y_ptr.dtype.element_ty), mask=(t < T) & inside)


@triton.jit
def _backward_kernel(
    x_ptr,
    taps_ptr,  # (K, D)
    bias_ptr,
    initial_ptr,
    reach_ptr,
    grad_ptr,
    dx_ptr,
    d_initial_ptr,
    sums_ptr,  # (B * tiles, K + 1, D): gradients of the taps by lag, then of the bias
    T,
    D,
    K: tl.constexpr,
    SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    HAS_RESET: tl.constexpr,
    STATE: tl.constexpr,
    SEGMENTS: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    columns = tl.cdiv(D, BLOCK)
    tiles = tl.cdiv(T, SEGMENTS * STEPS)
    column = tl.program_id(0) % columns
    tile = (tl.program_id(0) // columns) % tiles
    i = (tl.program_id(0) // (columns * tiles)).to(tl.int64)
    d = column * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = d < D
    first = tile * (SEGMENTS * STEPS) + tl.arange(0, SEGMENTS)[:, None] * STEPS
    taps = ()
    sums = ()
    for j in tl.static_range(K):
        taps = taps + (tl.load(taps_ptr + (K - 1 - j) * D + d, mask=inside, other=0.0).to(STATE),)
        sums = sums + (tl.zeros((SEGMENTS, BLOCK), STATE),)
    shift = tl.zeros((1, BLOCK), STATE)
    if HAS_BIAS:
        shift = tl.load(bias_ptr + d, mask=inside, other=0.0).to(STATE)
    total = tl.zeros((SEGMENTS, BLOCK), STATE)
    # the K latest inputs and the K unfinished gradients dx, as a window that moves one step at a time
    window = ()
    for j in tl.static_range(K - 1):
        t = first + (j - (K - 1))
        window = window + (_row(x_ptr, initial_ptr, i, t, d, inside, T, D, K, HAS_INITIAL, STATE),)
    pending = ()
    for _j in tl.static_range(K):
        pending = pending + (tl.zeros((SEGMENTS, BLOCK), STATE),)
    for r in tl.static_range(STEPS + K - 1):
        t = first + r
        mask = (t < T) & inside
        window = window + (_row(x_ptr, initial_ptr, i, t, d, inside, T, D, K, HAS_INITIAL, STATE),)
        e = tl.load(grad_ptr + (i * T + t) * D + d, mask=mask, other=0.0).to(STATE)
        if HAS_RESET:
            far = tl.load(reach_ptr + i * T + t, mask=t < T, other=0)
        if SILU:
            value = shift + taps[0] * window[r + K - 1]
            for j in tl.static_range(1, K):
                if HAS_RESET:
                    value += tl.where(far >= j, taps[j] * window[r + K - 1 - j], 0.0)
                else:
                    value += taps[j] * window[r + K - 1 - j]
            s = _sigmoid(value)
            e = e * s * (1.0 + value * (1.0 - s))
        grown = ()
        for j in tl.static_range(K):  # pending[j] belongs to step t - j
            part = taps[j] * e
            share = e * window[r + K - 1 - j]
            if HAS_RESET:
                part = tl.where(far >= j, part, 0.0)
                share = tl.where(far >= j, share, 0.0)
            grown = grown + (pending[j] + part,)
            if r < STEPS:
                # sums is a tuple: rebuild it with its j-th element replaced
                sums = sums[1:] + (sums[0] + share,)
        if r < STEPS:
            total += e
        if r >= K - 1:  # dx of step t - (K - 1) is complete
            out = t - (K - 1)
            tl.store(dx_ptr + (i * T + out) * D + d, grown[K - 1].to(dx_ptr.dtype.element_ty), mask=(out < T) & inside)
        pending = (tl.zeros((SEGMENTS, BLOCK), STATE),) + grown[: K - 1]
        if HAS_INITIAL and r < K - 1:
            # the steps before the first are reached from the first K - 1 steps alone: segment 0 of tile 0 finishes them
            early = r - (K - 1)
            tl.store(
                d_initial_ptr + (i * (K - 1) + (K - 1 + early)) * D + d + 0 * first,
                grown[K - 1].to(d_initial_ptr.dtype.element_ty),
                mask=(first == 0) & inside,
            )
    base = (i * tiles + tile) * (K + 1) * D + d
    for j in tl.static_range(K):
        tl.store(sums_ptr + base + j * D, tl.sum(sums[j], 0)[None, :], mask=inside)
    tl.store(sums_ptr + base + K * D, tl.sum(total, 0)[None, :], mask=inside)


def _options(x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None, silu: bool) -> dict[str, Any]:
    return {
        "K": weight.shape[1],
        "SILU": silu,
        "HAS_BIAS": bias is not None,
        "HAS_INITIAL": initial is not None,
        "STATE": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


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
    segments, steps, block, warps = _TILES[False]
    y = torch.empty_like(x)
    kernel: Any = _forward_kernel[(B * triton.cdiv(T, segments * steps) * triton.cdiv(D, block),)]
    kernel(
        x,
        weight.t().contiguous(),
        bias,
        initial_state,
        None if reset is None else reach(reset, B, T, weight.shape[1], x.device),
        y,
        T,
        D,
        HAS_RESET=reset is not None,
        SEGMENTS=segments,
        STEPS=steps,
        BLOCK=block,
        num_warps=warps,
        **_options(x, weight, bias, initial_state, silu),
    )
    return y, final_state(x, initial_state, reset, weight.shape[1])


@library.operator("causal_convolution_gpu_backward")
def causal_convolution_gpu_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    grad_y: Tensor,
    grad_final: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and the initial state; the value before the activation is computed again."""
    B, T, D = x.shape
    K = weight.shape[1]
    segments, steps, block, warps = _TILES[True]
    tiles = triton.cdiv(T, segments * steps)
    dx = torch.empty_like(x)
    d_initial = torch.empty_like(grad_final) if initial_state is not None else torch.zeros_like(grad_final)
    sums = torch.empty(B * tiles, K + 1, D, dtype=library.state_dtype(x.dtype), device=x.device)
    kernel: Any = _backward_kernel[(B * tiles * triton.cdiv(D, block),)]
    kernel(
        x,
        weight.t().contiguous(),
        bias,
        initial_state,
        None if reset is None else reach(reset, B, T, K, x.device),
        grad_y,
        dx,
        d_initial,
        sums,
        T,
        D,
        HAS_RESET=reset is not None,
        SEGMENTS=segments,
        STEPS=steps,
        BLOCK=block,
        num_warps=warps,
        **_options(x, weight, bias, initial_state, silu),
    )
    add_final_gradient(dx, d_initial, grad_final, reset)
    total = sums.sum(0)  # (B * tiles, K + 1, D) -> (K + 1, D)
    d_weight = total[:K].flip(0).t().contiguous()
    return dx, d_weight.to(x.dtype), total[K].to(x.dtype, copy=True), d_initial


operators.register(causal_convolution_gpu, causal_convolution_gpu_backward)
