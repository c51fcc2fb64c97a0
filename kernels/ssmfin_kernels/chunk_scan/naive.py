"""Owns the meaning of the Mamba-2 scan (SSD): a state-space model whose decay is one number a head and a step.

For every batch b and head h, with a state S of (P, N) and the group g = h // (H / G) of that head:

    dt'_t = softplus(dt_t + dt_bias)                                   softplus and dt_bias where given
    S_t   = exp(dt'_t A) S_{t-1} + dt'_t x_t B_t^T                     (P, N); S_{t-1} = 0 where reset_t
    y_t   = (S_t C_t + D x_t) silu(z_t)                                (P); D and z where given

Unrolled, y_t = sum_{s <= t} exp(sum_{s < r <= t} dt'_r A) (C_t . B_s) dt'_s x_s: a masked attention matrix without a
softmax. The fast implementations use both forms ("duality"): matrix products within chunks, the recurrence between.
Here, the recurrence step by step.

References:
    Dao, Gu (2024), Transformers are SSMs, eqs. 1, 6 and listing 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from ssmfin_kernels import library


def chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The scan as the module docstring states it, one step after the other.

    Args:
        x: (B, T, H, P).
        dt: (B, T, H).
        A: (H,).
        B: (B, T, G, N).
        C: (B, T, G, N).
        D: (H,) or (H, P).
        z: (B, T, H, P).
        dt_bias: (H,).
        dt_softplus: whether softplus is applied to dt + dt_bias.
        initial_state: (B, H, P, N).
        reset: (B, T) bool.
    Returns:
        y (B, T, H, P) in the type of x, final state (B, H, P, N) in float32 or wider.
    """
    dtype = library.state_dtype(library.common_dtype(x, B, C))
    dt = step_sizes(dt.to(dtype), dt_bias, dt_softplus)
    heads = x.shape[2] // B.shape[2]
    B, C = (tensor.to(dtype).repeat_interleave(heads, dim=2) for tensor in (B, C))  # (B, T, H, N)
    inputs = dt[..., None] * x.to(dtype)
    decay = torch.exp(dt * A.to(dtype))  # (B, T, H)
    if initial_state is None:
        state = inputs.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[3])
    else:
        state = initial_state.to(dtype)
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            state = torch.where(reset[:, t, None, None, None], torch.zeros_like(state), state)
        state = decay[:, t, :, None, None] * state + inputs[:, t, :, :, None] * B[:, t, :, None, :]  # (B, H, P, N)
        outputs.append((state * C[:, t, :, None, :]).sum(-1))  # (B, H, P)
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + (D if D.ndim == 2 else D[:, None]).to(dtype) * x.to(dtype)
    return gate(y, z).to(x.dtype), state


def step_sizes(dt: Tensor, dt_bias: Tensor | None, dt_softplus: bool) -> Tensor:
    """dt' of (B, T, H), in the type of dt."""
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    return softplus(dt) if dt_softplus else dt


def gate(y: Tensor, z: Tensor | None) -> Tensor:
    """y silu(z), or y."""
    return y if z is None else y * silu(z.to(library.state_dtype(z.dtype)))
