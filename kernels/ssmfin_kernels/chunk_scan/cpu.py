"""Owns the chunked scan in plain torch: batched matrix products within a chunk, the state carried between chunks.

Within a chunk of Q steps, with cs the running sum of a (the log decays) and everything zero across a reset,

    L_ts = exp(cs_t - cs_s), t >= s        e_t = exp(cs_t)        w_s = exp(cs_Q - cs_s)
    y_t  = sum_s L_ts (C_t . B_s) dt_s x_s + e_t S C_t + D x_t                  S: state before the chunk
    S'   = e_Q S + sum_s w_s dt_s x_s B_s^T

Backward, with dS' the gradient of the state after the chunk, g_ts = dy_t . x_s and K = L * g * dt_s:

    dx_s = dt_s (sum_t L_ts (C_t . B_s) dy_t + w_s dS' B_s) + D dy_s           ddt_s = x_s . (the parenthesis)
    dB_s = sum_t K_ts C_t + w_s dt_s dS'^T x_s        dC_t = sum_s K_ts B_s + e_t S^T dy_t
    dS   = e_Q dS' + sum_t e_t dy_t C_t^T
    da_u = sum_{s < u <= t} K_ts (C_t . B_s)  +  sum_{t >= u} e_t dy_t . S C_t  +  sum_{s < u} w_s dt_s x_s . dS' B_s
           + e_Q <dS', S>

da sums what passes over step u and nothing else. The shorter form, a running sum of (C . dC - B . dB), cancels what
does not, and its rounding grows with T. Memory: one chunk, and one state a chunk for backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.chunk_scan.operators import Grads, register

_STEPS = 64  # measured: 32 to 128 are within a tenth of each other, 256 takes half as long again


def _decays(a: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """L (B, H, Q, Q), e (B, H, Q) and w (B, H, Q) of a chunk, from a (B, Q, H) and reset (B, Q)."""
    # a decay that underflows is a reset: left in the sum, a = -1e6 would cost every later difference its digits
    cut = torch.exp(a) == 0
    if reset is not None:
        cut = cut | reset[:, :, None]
    cut = cut.transpose(1, 2)
    # float64: differences of running sums lose digits, and these are the smallest arrays of the scan
    total = a.transpose(1, 2).double().masked_fill(cut, 0.0).cumsum(-1)  # (B, H, Q)
    sequence = cut.cumsum(-1)
    Q = a.shape[1]
    earlier = torch.ones(Q, Q, dtype=torch.bool, device=a.device).tril()
    same = (sequence[..., :, None] == sequence[..., None, :]) & earlier
    L = (total[..., :, None] - total[..., None, :]).to(a.dtype).masked_fill(~same, -torch.inf).exp()
    e = total.to(a.dtype).masked_fill(sequence > 0, -torch.inf).exp()
    w = (total[..., -1:] - total).to(a.dtype).masked_fill(sequence != sequence[..., -1:], -torch.inf).exp()
    return L, e, w


class _Chunk:
    """The arrays of one chunk in the type of the state, heads beside their groups: (B, G, R, Q, ...), R = H / G."""

    def __init__(self, x: Tensor, dt: Tensor, a: Tensor, B: Tensor, C: Tensor, reset: Tensor | None, part: slice):
        self.groups = groups = B.shape[2]
        self.x = self.by_head(x[:, part].to(dt.dtype))  # (B, G, R, Q, P)
        self.dt = self.by_head(dt[:, part])  # (B, G, R, Q)
        self.B, self.C = (tensor[:, part].to(dt.dtype).transpose(1, 2)[:, :, None] for tensor in (B, C))
        decays = _decays(a[:, part], None if reset is None else reset[:, part])
        self.L, self.e, self.w = (_split(decay, groups) for decay in decays)
        self.end = self.e[..., -1, None, None]  # decay of the whole chunk

    def by_head(self, tensor: Tensor) -> Tensor:
        return _split(tensor.transpose(1, 2), self.groups)  # (B, Q, H, ...) -> (B, G, R, Q, ...)

    def advance(self, state: Tensor) -> Tensor:
        """S' of S, both (B, G, R, P, N)."""
        advanced: Tensor = self.end * state + (self.x * (self.w * self.dt)[..., None]).mT @ self.B
        return advanced


def _split(tensor: Tensor, groups: int) -> Tensor:
    return tensor.reshape(tensor.shape[0], groups, -1, *tensor.shape[2:])  # (B, H, ...) -> (B, G, R, ...)


def _by_step(tensor: Tensor) -> Tensor:
    return tensor.flatten(1, 2).transpose(1, 2)  # (B, G, R, Q, ...) -> (B, Q, H, ...)


def _parts(T: int, chunk_size: int) -> list[slice]:
    steps = min(chunk_size, _STEPS)
    return [slice(start, min(start + steps, T)) for start in range(0, T, steps)]


def _states_like(x: Tensor, state: Tensor, chunk_size: int) -> Tensor:
    """Empty, for the states before each chunk: (chunks, B, H, P, N)."""
    return state.new_empty(-(-x.shape[1] // min(chunk_size, _STEPS)), *state.shape)


def _forward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    y, states = torch.empty_like(x), _states_like(x, initial_state, chunk_size)
    state = _split(initial_state, B.shape[2])  # (B, G, R, P, N)
    for i, part in enumerate(_parts(x.shape[1], chunk_size)):
        states[i] = state.flatten(1, 2)
        chunk = _Chunk(x, dt, a, B, C, reset, part)
        scores = chunk.L * (chunk.C @ chunk.B.mT) * chunk.dt[..., None, :]  # (B, G, R, Q, Q)
        within = scores @ chunk.x + chunk.e[..., None] * (chunk.C @ state.mT)
        y[:, part] = _by_step(within) + D * x[:, part]
        state = chunk.advance(state)
    return y, state.flatten(1, 2).clone(), states


def _backward(
    dy: Tensor,
    dfinal: Tensor,
    states: Tensor,
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None,
    chunk_size: int,
) -> Grads:
    dx, ddt, da, dB, dC = (torch.empty_like(tensor) for tensor in (x, dt, a, B, C))
    dD = torch.zeros_like(D)
    dstate = _split(dfinal, B.shape[2])  # (B, G, R, P, N)
    for i, part in reversed(list(enumerate(_parts(x.shape[1], chunk_size)))):
        chunk, state = _Chunk(x, dt, a, B, C, reset, part), _split(states[i], B.shape[2])
        upstream = chunk.by_head(dy[:, part].to(dt.dtype))  # (B, G, R, Q, P)
        arriving = chunk.e[..., None] * (upstream @ state)  # (B, G, R, Q, N): of C, through the state before
        leaving = (chunk.w * chunk.dt)[..., None] * (chunk.x @ dstate)  # (B, G, R, Q, N): of B, through the one after
        products = chunk.C @ chunk.B.mT
        within = chunk.L * (upstream @ chunk.x.mT) * chunk.dt[..., None, :]  # K: (B, G, R, Q, Q)
        dinput = (chunk.L * products).mT @ upstream + chunk.w[..., None] * (chunk.B @ dstate.mT)
        dx[:, part] = _by_step(chunk.dt[..., None] * dinput) + D * dy[:, part]
        ddt[:, part] = _by_step((chunk.x * dinput).sum(-1))
        dB[:, part] = (within.mT @ chunk.C + leaving).sum(2).transpose(1, 2)
        dC[:, part] = (within @ chunk.B + arriving).sum(2).transpose(1, 2)
        # rows t >= u of the sums over s < u, and q over t >= u
        before = torch.nn.functional.pad(within * products, (1, -1)).cumsum(-1)  # (.., t, u): over s < u
        over = (before + (chunk.C * arriving).sum(-1)[..., None]).tril().sum(-2)
        past = torch.nn.functional.pad((chunk.B * leaving).sum(-1), (1, -1)).cumsum(-1)
        through = chunk.end[..., 0] * (dstate * state).sum((-2, -1))[..., None]
        da[:, part] = _by_step(over + past + through)
        dD += (dy[:, part].to(dt.dtype) * x[:, part]).sum((0, 1))
        dstate = chunk.end * dstate + (upstream * chunk.e[..., None]).mT @ chunk.C
    return dx, ddt, da, dB, dC, dD, dstate.flatten(1, 2).clone()


_scan = register("chunk_scan_cpu", _forward, _backward, _states_like)


def scan(*arguments: Tensor | int | None) -> tuple[Tensor, Tensor]:
    """y and the final state; arguments as `register` has them."""
    y, final, _ = _scan(*arguments)
    return y, final
