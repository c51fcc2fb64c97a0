"""Owns the Mamba-2 block: state-space duality with a scalar decay a head, heads at several time scales.

z, (u, B, C), dt = W_in x                                    (E, E + 2 N, H), E = H P
u, B, C = silu(convolution(u, B, C))
dt   = softplus(dt + b_dt)                                   (H)
S_t  = exp(dt_t A) S_{t-1} + dt_t u_t B_t^T,  A = -exp(log_A)         (H, P, N)
y    = W_out rms_norm((S_t C_t + skip u_t) silu(z_t))
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin.models.ssm.blocks.mamba import convolution_step, inverse_softplus
from ssmfin.models.ssm.discretization import log_uniform
from ssmfin_kernels import causal_convolution, chunk_scan


class Mamba2Block(SequenceBlock):
    """Mamba-2 (B, T, D) -> (B, T, D).

    A starts uniform in [1, 16], and dt such that the time scale of a head, 1 / (dt |A|) steps where the input selects
    nothing, is log-uniform over `timescales`. Head width and state are smaller than the paper's 64 and 128, which are
    for models 50 times as wide.

    Args:
        width: D.
        state: N.
        expand: E / D. head: P, a divisor of E.
        taps: steps of the short convolution.
        layers: of the network; the output starts smaller by its square root.
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    Raises:
        InputError: `head` does not divide expand * width.
    References:
        Dao, Gu (2024), Transformers are SSMs, section 7, figure 6.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_A", "dt_bias", "skip")
    step_sizes: ClassVar[tuple[str, ...]] = ("dt_bias",)

    def __init__(
        self,
        width: int,
        *,
        state: int = 32,
        expand: int = 2,
        head: int = 16,
        taps: int = 4,
        layers: int = 1,
        timescales: tuple[float, float] = (1, 252),
    ) -> None:
        super().__init__()
        inner = self.inner = expand * width
        if inner % head:
            raise InputError(f"head is {head}, which does not divide expand * width = {inner}; give a divisor of it.")
        self.states, self.head, self.heads = state, head, inner // head
        self.enter = nn.Linear(width, 2 * inner + 2 * state + self.heads, bias=False)
        bound = 1 / math.sqrt(taps)
        self.convolution = nn.Parameter(torch.empty(inner + 2 * state, taps).uniform_(-bound, bound))
        self.convolution_bias = nn.Parameter(torch.empty(inner + 2 * state).uniform_(-bound, bound))
        A = torch.empty(self.heads, dtype=torch.float64).uniform_(1, 16)
        self.log_A = nn.Parameter(A.log().float())
        self.dt_bias = nn.Parameter(inverse_softplus(1 / (A * log_uniform(self.heads, *timescales))).float())
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.leave = nn.Linear(inner, width, bias=False)
        with torch.no_grad():
            self.leave.weight /= math.sqrt(layers)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        taps = self.convolution.shape[1]
        return (taps - 1, self.inner + 2 * self.states), (self.heads, self.head, self.states)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        recent, h = (None, None) if state is None else state
        z, u, dt = self._enter(x)
        u, recent = causal_convolution(
            u, self.convolution, self.convolution_bias, activation="silu", initial_state=recent, reset=reset
        )
        u, B, C = self._parts(u)
        y, h = chunk_scan(
            u.reshape(*u.shape[:-1], self.heads, self.head),  # (B, T, E) -> (B, T, H, P)
            dt,
            -self.log_A.exp(),
            B[..., None, :],
            C[..., None, :],
            D=self.skip,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            initial_state=h,
            reset=reset,
        )
        return self._leave(y.flatten(-2), z), (recent, h)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        recent, h = state
        z, u, dt = self._enter(x)
        u, recent = convolution_step(u, recent, self.convolution, self.convolution_bias)
        u, alone = full_precision(u)
        with alone:
            u, B, C = self._parts(u)
            u = u.reshape(-1, self.heads, self.head)  # (B, E) -> (B, H, P)
            dt = nn.functional.softplus(dt.to(u.dtype) + self.dt_bias)  # (B, H)
            (A,) = self.held()
            inflow = (dt[..., None] * u)[..., None] * B[:, None, None]  # (B, H, P, N)
            h = torch.exp(dt * A)[..., None, None] * h + inflow
            y = (h @ C[:, None, :, None])[..., 0] + self.skip[:, None] * u
        return self._leave(y.flatten(-2), z), (recent, h)

    def discrete(self) -> tuple[Tensor, ...]:
        return (-self.log_A.exp(),)

    def spectrum(self) -> Tensor:
        """(H, 1): exp(dt A) at the step size that the bias alone gives."""
        return torch.exp(-1 / self.time_scales()).cpu().to(torch.complex128)

    def time_scales(self) -> Tensor:
        """(H, 1): 1 / (dt |A|) at the step size that the bias alone gives."""
        with torch.no_grad():
            return 1 / (nn.functional.softplus(self.dt_bias.double()) * self.log_A.double().exp())[:, None]

    def _enter(self, x: Tensor) -> tuple[Tensor, ...]:
        sizes = [self.inner, self.inner + 2 * self.states, self.heads]
        parts: tuple[Tensor, ...] = self.enter(x).split(sizes, dim=-1)
        return parts

    def _parts(self, u: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = u.split([self.inner, self.states, self.states], dim=-1)  # type: ignore[no-untyped-call]
        return parts

    def _leave(self, y: Tensor, z: Tensor) -> Tensor:
        left: Tensor = self.leave(self.norm(y * nn.functional.silu(z)))
        return left
