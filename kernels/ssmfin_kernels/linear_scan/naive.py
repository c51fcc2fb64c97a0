"""Owns the meaning of the linear scan: a first-order linear recurrence, its coefficients varying in time, per channel.

    h_t = a_t h_{t-1} + b_t,        h_{-1} = initial_state,        t = 0 .. T-1                                  (1)

elementwise over (B, D), real or complex. `reverse` runs time backwards, h_t = a_t h_{t+1} + b_t from h_T =
initial_state. A reset at step t says that a new sequence starts there: nothing flows between steps t-1 and t, in
either direction. Forward, h_t = b_t where reset_t; in reverse, h_{t-1} = b_{t-1} where reset_t. The boundary, not the
direction, belongs to the mask: one mask serves both directions of a bidirectional model.

Why it can be parallel: (1) is the map h -> a h + b, and maps compose, (a2, b2) o (a1, b1) = (a2 a1, a2 b1 + b2), an
associative product (Blelloch 1990, Prefix sums and their applications, section 1.4.1).

Gradient, with g_t the gradient of h_t as output and f that of the final state (for forward time, no reset):

    db_t = g_t + conj(a_{t+1}) db_{t+1},        db_{T-1} = g_{T-1} + f,
    da_t = conj(h_{t-1}) db_t,                  dh_{-1} = conj(a_0) db_0,

the same scan in the other direction (Martin and Cundy 2018, Parallelizing linear recurrent neural nets, section 2.2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(
    a: Tensor, b: Tensor, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """(B, T, D), (B, T, D), (B, D) or None, (B, T) bool or None -> (B, T, D), (B, D), one step at a time."""
    T = a.shape[1]
    h = torch.zeros_like(b[:, 0]) if initial_state is None else initial_state
    states: list[Tensor] = []
    # unbind, not a[:, t]: the gradient of a selection is as large as all of a, T times over
    coefficients, inputs = a.unbind(1), b.unbind(1)
    for step in range(T):
        t = T - 1 - step if reverse else step
        start = None  # (B,) where nothing comes in from the step before
        if reset is not None and not (reverse and step == 0):
            start = reset[:, t + 1] if reverse else reset[:, t]
        carried = coefficients[t] * h
        if start is not None:
            # where, not a product: an infinite or NaN state before the reset must not cross it
            carried = torch.where(start[:, None], 0, carried)
        h = carried + inputs[t]
        states.append(h)
    if reverse:
        states.reverse()
    return torch.stack(states, dim=1), h
