"""Owns what the fast implementations share at the edges: the final state and the way of its gradient.

They are K - 1 rows a sequence, so plain torch on any device serves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.causal_convolution.naive import reach


def final_state(x: Tensor, initial_state: Tensor | None, reset: Tensor | None, K: int) -> Tensor:
    """(B, T, D), (B, K-1, D), (B, T) -> (B, K-1, D): the last K - 1 inputs, zero where a reset cut them off."""
    B, T, D = x.shape
    rows = x[:, max(0, T - (K - 1)) :] if K > 1 else x[:, :0]
    if T < K - 1:
        before = x.new_zeros(B, K - 1, D) if initial_state is None else initial_state
        rows = torch.cat([before[:, T:], rows], dim=1)
    # never a view of x: an operator must not return its argument
    return rows.clone() if reset is None else _cut(rows, reset)


def _cut(rows: Tensor, reset: Tensor) -> Tensor:
    """Rows of the final state (B, K-1, D), zero where the last step cannot see them."""
    B, K = rows.shape[0], rows.shape[1] + 1
    tail = reset[:, -K:]  # a reset further back cuts nothing off
    reaches = reach(tail, B, tail.shape[1], K, rows.device)[:, -1:]
    kept = torch.arange(K - 2, -1, -1, device=rows.device) <= reaches  # (B, K - 1)
    return torch.where(kept[:, :, None], rows, 0)


def add_final_gradient(dx: Tensor, d_initial: Tensor, grad_final: Tensor | None, reset: Tensor | None) -> None:
    """Add the gradient that arrives at the final state to those of the inputs and of the initial state, in place."""
    if grad_final is None or grad_final.shape[1] == 0:
        return
    T, K = dx.shape[1], grad_final.shape[1] + 1
    grad = grad_final.to(dx.dtype) if reset is None else _cut(grad_final.to(dx.dtype), reset)
    rows = min(T, K - 1)
    dx[:, T - rows :] += grad[:, K - 1 - rows :]
    if rows < K - 1:
        d_initial[:, T:] += grad[:, : K - 1 - rows]
