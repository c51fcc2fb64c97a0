"""Owns the meaning of the selective scan (Mamba-1) in plain torch: a loop over time, and the single step it repeats.

A selective state-space model is diagonal, and its step and its input and output weights are functions of the input.
For each channel d with state n, after the discretisation of Mamba (zero-order hold for A, Euler for B),

    dt_t   = softplus(delta_t + delta_bias)                            (or delta_t + delta_bias without the softplus)
    h_t    = exp(dt_t A) h_{t-1} + dt_t B_t u_t                        h_{-1} = initial_state, or zero
    y_t    = (sum_n C_{t,n} h_{t,n} + D u_t) silu(z_t)                 D and z are optional

A step with reset_t starts a new sequence: h_{t-1} counts as zero there, and no gradient passes it.

The gradients that the fast twins compute by hand, with a_t = exp(dt_t A) and g_t the derivative of the loss by h_t:

    g_t     = dy_t C_t + a_{t+1} g_{t+1}           g_{T-1} also takes the derivative by the final state
    dC_t    = sum_d dy_t h_t                        dB_t = sum_d g_t dt_t u_t
    du_t    = dt_t sum_n g_t B_t + D dy_t           dA   = sum_t g_t a_t h_{t-1} dt_t
    ddt_t   = u_t sum_n g_t B_t + sum_n g_t a_t h_{t-1} A

References:
    Gu, Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, algorithm 2 and section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loop over time that every faster version has to agree with; gradients by autograd, which keeps (B, T, D, N).

    Args:
        u, delta, z: (B, T, D). A: (D, N). B, C: (B, T, G, N), channel d reads group d // (D / G).
        D, delta_bias: (D,). initial_state: (B, D, N). reset: (B, T) bool.
    Returns:
        y (B, T, D) in the dtype of u, final_state (B, D, N) in the working precision.
    """
    work = working_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
    batch, steps, channels = u.shape
    repeat = channels // B.shape[2]
    state = u.new_zeros(batch, channels, A.shape[1], dtype=work) if initial_state is None else initial_state.to(work)
    outputs = []
    for t in range(steps):
        if reset is not None:
            state = torch.where(reset[:, t, None, None], 0.0, state)
        y, state = step(
            state,
            u[:, t].to(work),
            delta[:, t].to(work),
            A.to(work),
            B[:, t].to(work).repeat_interleave(repeat, dim=1),  # (B, G, N) -> (B, D, N)
            C[:, t].to(work).repeat_interleave(repeat, dim=1),
            None if D is None else D.to(work),
            None if z is None else z[:, t].to(work),
            None if delta_bias is None else delta_bias.to(work),
            delta_softplus,
        )
        outputs.append(y)
    return torch.stack(outputs, dim=1).to(u.dtype), state


def step(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """One step in one precision: state (B, D, N); u, delta, z (B, D); B, C (B, D, N) or, shared, (B, 1, N)."""
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = softplus(delta)
    state = torch.exp(delta[:, :, None] * A) * state + (delta * u)[:, :, None] * B  # (B, D, N)
    y = (state * C).sum(dim=2)  # (B, D, N) -> (B, D)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * silu(z)
    return y, state


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 where any argument has it, else float32: half precision never carries the state."""
    doubles = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if doubles else torch.float32
