"""Owns the linear scan on a CPU: numba loops, time outside, channels inside so that they fill vector registers.

Parallel over sequences and blocks of channels. Each channel is summed in the order of time whatever the number of
threads, so the bits do not depend on it. Half precision is widened to float32 before and narrowed after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.linear_scan import operators

_LINE = 64  # bytes of a cache line: blocks of channels are whole lines, so that no two threads write to the same
_BLOCK = 4096  # bytes of a channel block at most: the rows of five arrays stay in the first-level cache


@njit(cache=True, nogil=True)
def _step(a: Any, h: Any, b: Any, out: Any) -> None:
    for d in range(out.shape[0]):
        out[d] = a[d] * h[d] + b[d]


@njit(cache=True, nogil=True)
def _backward_step(a: Any, later: Any, grad: Any, before: Any, db: Any, da: Any) -> None:
    for d in range(db.shape[0]):
        g = np.conj(a[d]) * later[d] + grad[d]
        db[d] = g
        da[d] = np.conj(before[d]) * g


@njit(cache=True, nogil=True, parallel=True)
def _forward_loop(
    a: Any, b: Any, initial: Any, starts: Any, has_starts: bool, reverse: bool, width: int, h: Any
) -> None:
    B, T, D = a.shape
    blocks = (D + width - 1) // width
    back = 1 if reverse else -1
    for task in prange(B * blocks):
        i = task // blocks
        lo = (task % blocks) * width
        hi = min(lo + width, D)
        for step in range(T):
            t = T - 1 - step if reverse else step
            if has_starts and starts[i, step]:
                h[i, t, lo:hi] = b[i, t, lo:hi]
            elif step == 0:
                _step(a[i, t, lo:hi], initial[i, lo:hi], b[i, t, lo:hi], h[i, t, lo:hi])
            else:
                _step(a[i, t, lo:hi], h[i, t + back, lo:hi], b[i, t, lo:hi], h[i, t, lo:hi])


@njit(cache=True, nogil=True, parallel=True)
def _backward_loop(
    a: Any,
    h: Any,
    initial: Any,
    starts: Any,
    has_starts: bool,
    grad_h: Any,
    grad_final: Any,
    reverse: bool,
    width: int,
    da: Any,
    db: Any,
    d_initial: Any,
) -> None:
    B, T, D = a.shape
    blocks = (D + width - 1) // width
    back = 1 if reverse else -1
    for task in prange(B * blocks):
        i = task // blocks
        lo = (task % blocks) * width
        hi = min(lo + width, D)
        zero = np.zeros_like(initial[i, lo:hi])
        one = zero + initial.dtype.type(1)
        for step in range(T - 1, -1, -1):
            t = T - 1 - step if reverse else step
            cut_before = has_starts and starts[i, step]
            cut_after = has_starts and step < T - 1 and starts[i, step + 1]
            if cut_before:
                before = zero
            elif step == 0:
                before = initial[i, lo:hi]
            else:
                before = h[i, t + back, lo:hi]
            if step == T - 1:
                coefficient, later = one, grad_final[i, lo:hi]
            elif cut_after:
                coefficient, later = zero, zero
            else:
                coefficient, later = a[i, t - back, lo:hi], db[i, t - back, lo:hi]
            _backward_step(coefficient, later, grad_h[i, t, lo:hi], before, db[i, t, lo:hi], da[i, t, lo:hi])
        first = T - 1 if reverse else 0
        for d in range(lo, hi):
            d_initial[i, d] = 0 if has_starts and starts[i, 0] else np.conj(a[i, first, d]) * db[i, first, d]


@library.operator("linear_scan_cpu")
def linear_scan_cpu(
    a: Tensor, b: Tensor, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Contiguous (B, T, D), (B, T, D), (B, D) or None, (B, T) bool or None -> h (B, T, D), final state (B, D)."""
    dtype = b.dtype
    a, b, initial = _wide(a), _wide(b), _initial(initial_state, a)
    h = torch.empty_like(b)
    starts = _starts(reset, reverse)
    library.match_numba_threads()
    _forward_loop(
        a.numpy(), b.numpy(), initial.numpy(), starts.numpy(), reset is not None, reverse, _width(a), h.numpy()
    )
    return h.to(dtype), h[:, 0 if reverse else -1].to(dtype, copy=True)


@library.operator("linear_scan_cpu_backward")
def linear_scan_cpu_backward(
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    grad_h: Tensor,
    grad_final: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and the initial state; a, h, grad_h (B, T, D) and grad_final (B, D) or None contiguous."""
    dtype = a.dtype
    initial = _initial(initial_state, a)
    a, h, grad_h, ending = _wide(a), _wide(h), _wide(grad_h), _initial(grad_final, a)
    da, db, d_initial = torch.empty_like(a), torch.empty_like(a), torch.empty_like(initial)
    starts = _starts(reset, reverse)
    library.match_numba_threads()
    _backward_loop(
        a.numpy(),
        h.numpy(),
        initial.numpy(),
        starts.numpy(),
        reset is not None,
        grad_h.numpy(),
        ending.numpy(),
        reverse,
        _width(a),
        da.numpy(),
        db.numpy(),
        d_initial.numpy(),
    )
    return da.to(dtype), db.to(dtype), d_initial.to(dtype)


def _wide(x: Tensor) -> Tensor:
    # detach: numpy refuses a tensor that requires a gradient; conjugate views are made real copies
    return x.detach().resolve_conj().resolve_neg().to(library.state_dtype(x.dtype))


def _initial(initial_state: Tensor | None, a: Tensor) -> Tensor:
    wide = library.state_dtype(a.dtype)
    return a.new_zeros(a.shape[0], a.shape[2], dtype=wide) if initial_state is None else _wide(initial_state)


def _starts(reset: Tensor | None, reverse: bool) -> Tensor:
    """(B, T) in the order of the steps taken: true where a step takes nothing from the one before."""
    if reset is None:
        return torch.zeros(1, 1, dtype=torch.bool)
    if not reverse:
        return reset
    # the boundary before t is met between t and t - 1, so by the step to t - 1; the first step meets none
    return torch.cat([torch.zeros_like(reset[:, :1]), reset[:, 1:].flip(1)], dim=1)


def _width(a: Tensor) -> int:
    """Channels of a block: enough blocks for all threads, whole cache lines, few enough for the first-level cache."""
    B, _, D = a.shape
    line = max(1, _LINE // a.element_size())
    wanted = -(-torch.get_num_threads() // B)  # blocks a sequence has to be cut into
    width = -(-D // wanted)
    return min(-(-width // line) * line, _BLOCK // a.element_size())


operators.register(linear_scan_cpu, linear_scan_cpu_backward)
