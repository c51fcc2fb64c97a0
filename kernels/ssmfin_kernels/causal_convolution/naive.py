"""Owns the meaning of the short causal convolution: each channel with its own K taps, then a bias and an activation.

    y_t = act(bias + sum_{j=0}^{K-1} weight[:, K-1-j] x_{t-j}),        act(v) = v or v sigmoid(v) (SiLU)

The last tap weighs the present, as in a convolution of deep-learning libraries padded on the left. x_{-1} .. x_{-(K-1)}
are `initial_state`, oldest first, zero where none is given. A reset at step r starts a new sequence: x_s reaches y_t
only if no reset lies in s+1 .. t, the initial state included. With r(t) the steps since the last reset (K-1 at most,
and K-1 before the first reset), lag j counts exactly if j <= r(t).

The final state is what the next call needs: the last K-1 inputs, zero where a reset has cut them off.

Gradient, with e_t the gradient before the activation: dx_s = sum_j [j <= r(s+j)] weight[:, K-1-j] e_{s+j},
dweight[:, K-1-j] = sum_t [j <= r(t)] e_t x_{t-j}, dbias = sum_t e_t.

Reference: Gu and Dao (2023), Mamba, section 3.4 (the convolution before the selective scan).
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """(B, T, D), (D, K), (D,), (B, K-1, D), (B, T) bool -> y (B, T, D), final state (B, K-1, D)."""
    B, T, D = x.shape
    K = weight.shape[1]
    before = x.new_zeros(B, K - 1, D) if initial_state is None else initial_state
    padded = torch.cat([before, x], dim=1)  # (B, K - 1 + T, D)
    reaches = reach(reset, B, T, K, x.device)
    y = torch.zeros_like(x)
    for lag in range(K):
        seen = padded[:, K - 1 - lag : K - 1 - lag + T]
        # where, not a product: a NaN before a reset must not cross it
        y = y + weight[:, K - 1 - lag] * torch.where((reaches >= lag)[:, :, None], seen, 0)
    if bias is not None:
        y = y + bias
    if silu:
        y = y * torch.sigmoid(y)
    lags = torch.arange(K - 2, -1, -1, device=x.device)  # of the last K - 1 inputs, seen from the last step
    kept = lags <= reaches[:, -1:]  # (B, K - 1)
    return y, torch.where(kept[:, :, None], padded[:, T:], 0)


def reach(reset: Tensor | None, B: int, T: int, K: int, device: torch.device) -> Tensor:
    """(B, T) int32: how many steps back from t the sequence of t goes, K - 1 at most."""
    if reset is None:
        return torch.full((B, T), K - 1, dtype=torch.int32, device=device)
    steps = torch.arange(T, device=device)
    latest = torch.where(reset, steps, -K).cummax(dim=1).values  # the step of the last reset up to t
    return (steps - latest).clamp(max=K - 1).to(torch.int32)
