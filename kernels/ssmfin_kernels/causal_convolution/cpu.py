"""Owns the causal convolution on a CPU: numba loops for the taps, channels inside; torch's own SiLU after them.

Parallel over sequences and blocks of channels; every sum runs in the order of time, so the bits do not depend on the
number of threads. Half precision is widened to float32 before and narrowed after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.causal_convolution import operators
from ssmfin_kernels.causal_convolution.naive import reach
from ssmfin_kernels.causal_convolution.states import add_final_gradient, final_state

_BLOCK = 1024  # channels: the rows that a step touches stay in the first-level cache


@njit(cache=True, nogil=True)
def _add_product(out: Any, x: Any, y: Any) -> None:
    for d in range(out.shape[0]):
        out[d] += x[d] * y[d]


@njit(cache=True, nogil=True)
def _four_taps(out: Any, x0: Any, x1: Any, x2: Any, x3: Any, taps: Any, bias: Any) -> None:
    for d in range(out.shape[0]):
        out[d] = bias[d] + taps[0, d] * x0[d] + taps[1, d] * x1[d] + taps[2, d] * x2[d] + taps[3, d] * x3[d]


@njit(cache=True, nogil=True, parallel=True)
def _forward_loop(x: Any, taps: Any, bias: Any, initial: Any, reaches: Any, width: int, y: Any) -> None:
    """taps (K, D) by lag, 0 the present; initial (B, K-1, D)."""
    B, T, D = x.shape
    K = taps.shape[0]
    blocks = (D + width - 1) // width
    for task in prange(B * blocks):
        i = task // blocks
        lo = (task % blocks) * width
        hi = min(lo + width, D)
        for t in range(T):
            out = y[i, t, lo:hi]
            if K == 4 and t >= 3 and reaches[i, t] == 3:
                _four_taps(
                    out,
                    x[i, t, lo:hi],
                    x[i, t - 1, lo:hi],
                    x[i, t - 2, lo:hi],
                    x[i, t - 3, lo:hi],
                    taps[:, lo:hi],
                    bias[lo:hi],
                )
                continue
            out[:] = bias[lo:hi]
            for lag in range(reaches[i, t] + 1):
                if lag <= t:
                    _add_product(out, taps[lag, lo:hi], x[i, t - lag, lo:hi])
                else:
                    _add_product(out, taps[lag, lo:hi], initial[i, K - 1 + t - lag, lo:hi])


@njit(cache=True, nogil=True, parallel=True)
def _backward_loop(
    x: Any, taps: Any, initial: Any, reaches: Any, e: Any, width: int, dx: Any, d_initial: Any, d_taps: Any
) -> None:
    """e (B, T, D) the gradient before the activation; d_taps (B, K+1, D) by sequence, the bias last."""
    B, T, D = x.shape
    K = taps.shape[0]
    blocks = (D + width - 1) // width
    for task in prange(B * blocks):
        i = task // blocks
        lo = (task % blocks) * width
        hi = min(lo + width, D)
        d_taps[i, :, lo:hi] = 0
        d_initial[i, :, lo:hi] = 0
        one = np.ones_like(taps[0, lo:hi])
        for t in range(T):
            dx[i, t, lo:hi] = 0
            _add_product(d_taps[i, K, lo:hi], e[i, t, lo:hi], one)
            for lag in range(reaches[i, t] + 1):
                if lag <= t:
                    _add_product(d_taps[i, lag, lo:hi], e[i, t, lo:hi], x[i, t - lag, lo:hi])
                    _add_product(dx[i, t - lag, lo:hi], e[i, t, lo:hi], taps[lag, lo:hi])
                else:
                    row = K - 1 + t - lag
                    _add_product(d_taps[i, lag, lo:hi], e[i, t, lo:hi], initial[i, row, lo:hi])
                    _add_product(d_initial[i, row, lo:hi], e[i, t, lo:hi], taps[lag, lo:hi])


def _before_activation(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution with its bias, the taps (K, D) by lag, and the reach (B, T); everything wide."""
    B, T, D = x.shape
    K = weight.shape[1]
    taps = weight.flip(1).t().contiguous()
    shift = x.new_zeros(D) if bias is None else bias
    reaches = reach(reset, B, T, K, x.device)
    y = torch.empty_like(x)
    library.match_numba_threads()
    _forward_loop(x.numpy(), taps.numpy(), shift.numpy(), initial.numpy(), reaches.numpy(), _width(B, D), y.numpy())
    return y, taps, reaches


@library.operator("causal_convolution_cpu")
def causal_convolution_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Contiguous x (B, T, D), weight (D, K), bias (D,), initial_state (B, K-1, D), reset (B, T) -> y, final state."""
    initial = _initial(x, weight, initial_state)
    wide_bias = None if bias is None else _wide(bias)
    y, _, _ = _before_activation(_wide(x), _wide(weight), wide_bias, initial, reset)
    if silu:
        torch.nn.functional.silu(y, inplace=True)
    return y.to(x.dtype), final_state(x, initial_state, reset, weight.shape[1])


@library.operator("causal_convolution_cpu_backward")
def causal_convolution_cpu_backward(
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
    dtype = x.dtype
    initial = _initial(x, weight, initial_state)
    x, weight, e = _wide(x), _wide(weight), _wide(grad_y)
    B, T, D = x.shape
    K = weight.shape[1]
    if silu:
        value, taps, reaches = _before_activation(x, weight, None if bias is None else _wide(bias), initial, reset)
        e = torch.ops.aten.silu_backward(e, value)
    else:
        taps, reaches = weight.flip(1).t().contiguous(), reach(reset, B, T, K, x.device)
    dx, d_initial, d_taps = torch.empty_like(x), torch.empty_like(initial), x.new_empty(B, K + 1, D)
    library.match_numba_threads()
    _backward_loop(
        x.numpy(),
        taps.numpy(),
        initial.numpy(),
        reaches.numpy(),
        e.numpy(),
        _width(B, D),
        dx.numpy(),
        d_initial.numpy(),
        d_taps.numpy(),
    )
    add_final_gradient(dx, d_initial, grad_final, reset)
    total = d_taps.sum(0)  # (B, K + 1, D) -> (K + 1, D)
    d_weight = total[:K].flip(0).t().contiguous()
    return dx.to(dtype), d_weight.to(dtype), total[K].to(dtype, copy=True), d_initial.to(dtype)


def _wide(x: Tensor) -> Tensor:
    return x.detach().resolve_neg().to(library.state_dtype(x.dtype))


def _initial(x: Tensor, weight: Tensor, initial_state: Tensor | None) -> Tensor:
    B, _, D = x.shape
    wide = library.state_dtype(x.dtype)
    return x.new_zeros(B, weight.shape[1] - 1, D, dtype=wide) if initial_state is None else _wide(initial_state)


def _width(B: int, D: int) -> int:
    """Channels of a block: enough blocks for all threads, whole cache lines."""
    width = -(-D // -(-torch.get_num_threads() // B))
    return min(-(-width // 16) * 16, _BLOCK)


operators.register(causal_convolution_cpu, causal_convolution_cpu_backward)
