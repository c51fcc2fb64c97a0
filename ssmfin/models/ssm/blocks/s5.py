"""Owns the S5 block: one state-space model for all channels, diagonal, run by a parallel scan.

    h_t = A_bar h_{t-1} + B_bar x_t,        y_t = 2 Re(C h_t) + skip x_t

with h (N / 2) complex, B (N / 2, D), C (D, N / 2), A = -exp(log_decay) + i frequency, a step size for each state, and
the zero-order hold or the bilinear rule; then g = gelu(y), gated by itself: g sigmoid(W g).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin.models.ssm.discretization import Rule, bilinear, hippo_legs, log_uniform, zero_order_hold
from ssmfin_kernels import linear_scan


class S5Block(SequenceBlock):
    """S5 (B, T, D) -> (B, T, D).

    A starts as `parts` copies of the diagonal part of HiPPO-LegS, Re A = -1/2; the time scale of a mode, 2 / dt steps,
    is log-uniform over `timescales` within each copy.

    Args:
        width: D.
        state: N, real numbers of state for all channels together; a multiple of 2 `parts`.
        parts: blocks of the initial state matrix.
        discretization: "zoh" or "bilinear".
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    Raises:
        InputError: `state` cannot be divided into conjugate pairs of that many parts.
    References:
        Smith, Warrington, Linderman (2023), Simplified state space layers for sequence modeling, sections 3 and 4.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "log_decay", "frequency", "input")
    step_sizes: ClassVar[tuple[str, ...]] = ("log_dt",)

    def __init__(
        self,
        width: int,
        *,
        state: int = 32,
        parts: int = 2,
        discretization: Rule = "zoh",
        timescales: tuple[float, float] = (1, 252),
    ) -> None:
        super().__init__()
        if state % (2 * parts):
            raise InputError(f"state is {state} with {parts} parts; give a multiple of {2 * parts}.")
        self.width, self.pairs, self.discretization = width, state // 2, discretization
        Lambda, _, _, V = hippo_legs(self.pairs // parts)
        V = torch.block_diag(*[V] * parts)  # type: ignore[no-untyped-call]  # (N, N / 2)
        self.log_dt = nn.Parameter(
            torch.cat([(2 / log_uniform(self.pairs // parts, *timescales)).log() for _ in range(parts)]).float()
        )
        self.log_decay = nn.Parameter((-Lambda.real).log().repeat(parts).float())
        self.frequency = nn.Parameter(Lambda.imag.repeat(parts).float())
        # real maps of the original basis, taken into the eigenbasis, as the paper does
        B = V.conj().T @ (torch.randn(state, width, dtype=torch.float64) / math.sqrt(width)).to(V.dtype)
        C = (torch.randn(width, state, dtype=torch.float64) / math.sqrt(state)).to(V.dtype) @ V
        self.input, self.output = (nn.Parameter(torch.view_as_real(x).float()) for x in (B, C))
        self.skip = nn.Parameter(torch.randn(width))
        self.gate = nn.Linear(width, width)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.pairs, 2),)

    def discrete(self) -> tuple[Tensor, ...]:
        """A_bar (n,), B_bar (n, D) and 2 C (D, n), complex."""
        A = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        rule = bilinear if self.discretization == "bilinear" else zero_order_hold
        A_bar, unit = (x[:, 0] for x in rule(A[:, None], self.log_dt.double().exp()))
        if self.discretization == "zoh":
            A_bar = A_bar.exp()
        kind = torch.promote_types(self.skip.dtype, torch.float32).to_complex()
        B = unit[:, None] * torch.view_as_complex(self.input.double())
        return A_bar.to(kind), B.to(kind), 2 * torch.view_as_complex(self.output).to(kind)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        u, alone = full_precision(x)
        with alone:
            (h,) = self.initial_state(len(x), device=x.device, dtype=u.dtype) if state is None else state
            A_bar, B, C = self.discrete()
            v = torch.complex(u @ B.real.T, u @ B.imag.T)  # (B, T, D) -> (B, T, n)
            before = torch.view_as_complex(h.contiguous())
            states, last = linear_scan(A_bar.expand_as(v), v, initial_state=before, reset=reset)
            y = states.real @ C.real.T - states.imag @ C.imag.T + self.skip * u  # (B, T, n) -> (B, T, D)
        return self._activate(y), (torch.view_as_real(last),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        u, alone = full_precision(x)
        with alone:
            A_bar, B, C = self.held()
            h = A_bar * torch.view_as_complex(state[0].contiguous()) + torch.complex(u @ B.real.T, u @ B.imag.T)
            y = h.real @ C.real.T - h.imag @ C.imag.T + self.skip * u
        return self._activate(y), (torch.view_as_real(h),)

    def spectrum(self) -> Tensor:
        """(1, N / 2): A_bar, one of each conjugate pair; all channels share the modes."""
        with torch.no_grad():
            return self.discrete()[0].cpu().to(torch.complex128)[None]

    def _activate(self, y: Tensor) -> Tensor:
        g = nn.functional.gelu(y)
        return g * torch.sigmoid(self.gate(g))
