"""Owns the meaning of the diagonal scan: its recurrence, step by step, in plain torch.

    h_t = exp(dtA) h_{t-1} + u_t, from a zero state where t is a reset        y_t = scale Re sum_n C_n h_{t,n}

scale is 2 where one state of each conjugate pair is given, else 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def diagonal_scan(
    u: Tensor, C: Tensor, dtA: Tensor, initial_state: Tensor, reset: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """u (B, T, D), C and dtA (D, N), initial_state (B, D, N), reset (B, T) -> y (B, T, D), final state (B, D, N)."""
    complex_ = C.is_complex() or dtA.is_complex()
    kind = dtype.to_complex() if complex_ else dtype
    C, A_bar, state = C.to(kind), torch.exp(dtA.to(kind)), initial_state.to(kind)
    ys = []
    for t in range(u.shape[1]):
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        state = A_bar * state + u[:, t, :, None].to(kind)
        y = (C * state).sum(-1)
        ys.append(2 * y.real if complex_ else y)
    return torch.stack(ys, dim=1).to(u.dtype), state
