"""Owns the numba loops of the gated recurrent unit on a CPU, forward and backward, and their place in autograd.

torch runs a GRU on a CPU as a dozen small operations a step, each recorded for the gradient; its LSTM has a fused
loop. Here a sequence is one loop, whose inner loops over channels LLVM turns into vector instructions. The product with
the inputs and the sums for the gradients of the weights are torch's, over all steps at once. Sequences run one after
the other, so that none depends on the others of its batch. Compiled at the first use on a machine (some seconds).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
# numba compiles the loops for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssmfin_kernels.selective_scan.vector_math import exp2, sigmoid

_TWO_LOG2_E = 2 * math.log2(math.e)
_loop = njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")


@_loop
def _forward(gx, U, c, h0, reset, y, before, gates, inner):
    """gx (B, T, 3 D) of the inputs, U (D, 3 D), c (3 D), h0 (B, D) -> y, before, inner (B, T, D), gates (B, T, 3 D)."""
    B, T, D = y.shape
    h, v = np.empty(D, y.dtype), np.empty(3 * D, y.dtype)
    scale = y.dtype.type(-_TWO_LOG2_E)
    one = y.dtype.type(1)
    for b in range(B):
        for j in range(D):
            h[j] = h0[b, j]
        for t in range(T):
            if reset.shape[1] and reset[b, t]:
                for j in range(D):
                    h[j] = 0
            for j in range(D):
                before[b, t, j] = h[j]
            for j in range(3 * D):
                v[j] = c[j]
            for i in range(D):
                x = h[i]
                for j in range(3 * D):
                    v[j] += x * U[i, j]
            for j in range(2 * D):
                gates[b, t, j] = sigmoid(gx[b, t, j] + v[j])
            for j in range(D):
                inner[b, t, j] = v[2 * D + j]
                n = gx[b, t, 2 * D + j] + gates[b, t, j] * v[2 * D + j]
                e = exp2(scale * abs(n))
                size = (one - e) / (one + e)  # tanh |n|
                n = size if n >= 0 else -size
                gates[b, t, 2 * D + j] = n
                h[j] = n + gates[b, t, D + j] * (h[j] - n)
                y[b, t, j] = h[j]


@_loop
def _backward(grad, U, reset, before, gates, inner, of_inputs, of_states, carry):
    """Gradients by gx and by U h + c, (B, T, 3 D), U (3 D, D); carry (B, D) becomes the gradient by h0."""
    B, T, D = grad.shape
    dh = np.empty(D, grad.dtype)
    one = grad.dtype.type(1)
    for b in range(B):
        for t in range(T - 1, -1, -1):
            for j in range(D):
                r, z, n = gates[b, t, j], gates[b, t, D + j], gates[b, t, 2 * D + j]
                d = grad[b, t, j] + carry[b, j]
                by_n = d * (one - z) * (one - n * n)
                by_r = by_n * inner[b, t, j] * r * (one - r)
                by_z = d * (before[b, t, j] - n) * z * (one - z)
                of_inputs[b, t, j] = by_r
                of_inputs[b, t, D + j] = by_z
                of_inputs[b, t, 2 * D + j] = by_n
                of_states[b, t, j] = by_r
                of_states[b, t, D + j] = by_z
                of_states[b, t, 2 * D + j] = by_n * r
                dh[j] = d * z
            for i in range(3 * D):
                x = of_states[b, t, i]
                for j in range(D):
                    dh[j] += x * U[i, j]
            cut = reset.shape[1] and reset[b, t]
            for j in range(D):
                carry[b, j] = 0 if cut else dh[j]


class _GatedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gx: Tensor, U: Tensor, c: Tensor, h0: Tensor, reset: Tensor) -> Tensor:
        gx, U, c, h0, reset = (part.detach().contiguous() for part in (gx, U, c, h0, reset))
        B, T, G = gx.shape
        y, before, inner = (gx.new_empty(B, T, G // 3) for _ in range(3))
        gates = torch.empty_like(gx)
        _forward(*(part.numpy() for part in (gx, U.T.contiguous(), c, h0, reset, y, before, gates, inner)))
        ctx.save_for_backward(U, reset, before, gates, inner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        U, reset, before, gates, inner = ctx.saved_tensors
        of_inputs, of_states = torch.empty_like(gates), torch.empty_like(gates)
        carry = torch.zeros_like(before[:, 0])
        parts = (grad.contiguous(), U, reset, before, gates, inner, of_inputs, of_states, carry)
        _backward(*(part.numpy() for part in parts))
        rows = of_states.flatten(0, 1)
        return of_inputs, rows.T @ before.flatten(0, 1), rows.sum(0), carry, None


def gated_recurrence(gx: Tensor, U: Tensor, c: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
    """The states of a GRU after each step, on the CPU.

        r, z = sigmoid(gx_rz + U_rz h + c_rz)          n = tanh(gx_n + r (U_n h + c_n))          h <- (1 - z) n + z h

    Args:
        gx: (B, T, 3 D) what the inputs add to the gates r, z, n; float32 or float64.
        U: (3 D, D). c: (3 D). h0: (B, D), of the same type.
        reset: (B, T) bool, the state is zero before that step; None where none is.
    Returns:
        (B, T, D). It has a gradient, and no second one.
    """
    if reset is None:
        reset = torch.zeros(len(gx), 0, dtype=torch.bool)
    y: Tensor = _GatedRecurrence.apply(gx, U, c, h0, reset)
    return y
