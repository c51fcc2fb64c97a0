"""Owns the Mamba block: a selective state-space model between a short convolution and a gate.

u, z = W_in x                            (E each, E = expand D)
u    = silu(convolution(u))              causal, `taps` steps
r, B, C = W_select u                     (rank, N, N)
dt   = softplus(W_dt r + b_dt)           (E)
h_t  = exp(dt_t A) h_{t-1} + dt_t B_t u_t,     A = -exp(log_A)      (E, N)
y    = W_out ((C_t h_t + skip u_t) silu(z_t))
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import SequenceBlock, State
from ssmfin.models.ssm.discretization import log_uniform
from ssmfin_kernels import causal_convolution, selective_scan, selective_state_update


class MambaBlock(SequenceBlock):
    """Mamba (B, T, D) -> (B, T, D).

    A starts at -(1 .. N): the slowest mode of a channel has, where the input selects nothing, a time scale of 1 / dt
    steps, log-uniform over `timescales` between channels (mode n: 1 / (n dt)).

    Args:
        width: D.
        state: N, states a channel.
        expand: E / D.
        taps: steps of the short convolution, the present one included.
        layers: of the network; the output starts smaller by its square root, so that depth does not add variance.
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    References:
        Gu, Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, algorithm 2, section 3.6.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_A", "dt_weight", "dt_bias", "skip")
    step_sizes: ClassVar[tuple[str, ...]] = ("dt_weight", "dt_bias")

    def __init__(
        self,
        width: int,
        *,
        state: int = 16,
        expand: int = 2,
        taps: int = 4,
        layers: int = 1,
        timescales: tuple[float, float] = (1, 252),
    ) -> None:
        super().__init__()
        inner = self.inner = expand * width
        self.states, self.rank = state, math.ceil(width / 16)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        bound = 1 / math.sqrt(taps)
        self.convolution = nn.Parameter(torch.empty(inner, taps).uniform_(-bound, bound))
        self.convolution_bias = nn.Parameter(torch.empty(inner).uniform_(-bound, bound))
        self.select = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_weight = nn.Parameter(torch.empty(inner, self.rank).uniform_(-1, 1) / math.sqrt(self.rank))
        self.dt_bias = nn.Parameter(inverse_softplus(1 / log_uniform(inner, *timescales)).float())
        self.log_A = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)
        with torch.no_grad():
            self.leave.weight /= math.sqrt(layers)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.convolution.shape[1] - 1, self.inner), (self.inner, self.states)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        recent, h = (None, None) if state is None else state
        u, z = self.enter(x).chunk(2, dim=-1)  # (B, T, D) -> (B, T, E) each
        u, recent = causal_convolution(
            u, self.convolution, self.convolution_bias, activation="silu", initial_state=recent, reset=reset
        )
        r, B, C = self._selected(u)
        dt = nn.functional.linear(r, self.dt_weight)
        A = -self.log_A.exp()
        y, h = selective_scan(u, dt, A, B, C, self.skip, z, self.dt_bias, True, initial_state=h, reset=reset)
        return self.leave(y), (recent, h)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        recent, h = state
        u, z = self.enter(x).chunk(2, dim=-1)
        u, recent = convolution_step(u, recent, self.convolution, self.convolution_bias)
        r, B, C = self._selected(u)
        dt = nn.functional.linear(r, self.dt_weight)
        (A,) = self.held()
        y, h = selective_state_update(h, u, dt, A, B, C, self.skip, z, self.dt_bias, True)
        return self.leave(y), (recent, h)

    def discrete(self) -> tuple[Tensor, ...]:
        return (-self.log_A.exp(),)

    def spectrum(self) -> Tensor:
        """(E, N): exp(dt A) at the step size that the bias alone gives."""
        return torch.exp(-1 / self.time_scales()).cpu().to(torch.complex128)

    def time_scales(self) -> Tensor:
        """(E, N): 1 / (dt |A|) at the step size that the bias alone gives."""
        with torch.no_grad():
            return 1 / (nn.functional.softplus(self.dt_bias.double())[:, None] * self.log_A.double().exp())

    def _selected(self, u: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = self.select(u).split([self.rank, self.states, self.states], dim=-1)
        return parts


def inverse_softplus(y: Tensor) -> Tensor:
    """x with log(1 + exp(x)) = y."""
    return y + torch.log(-torch.expm1(-y))


def convolution_step(x: Tensor, recent: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One step of `causal_convolution` with SiLU: x (B, D), recent (B, K - 1, D) -> y (B, D), recent one step later."""
    window = torch.cat((recent, x[:, None].to(recent.dtype)), dim=1)  # (B, K, D)
    return nn.functional.silu((window * weight.T).sum(1) + bias), window[:, 1:]
