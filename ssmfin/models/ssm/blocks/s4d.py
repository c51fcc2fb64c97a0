"""Owns the S4D block: a diagonal state-space model a channel, then GELU and a gated mixing of channels.

    h_t = A_bar h_{t-1} + x_t,    y_t = scale Re sum_n C_n B_bar_n h_{t,n}         scale 2 for conjugate pairs

with A = -exp(log_decay) + i frequency, which no training makes unstable. B is one: a diagonal model only has C B.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssmfin.models.ssm.blocks import linear_system
from ssmfin.models.ssm.blocks.channelwise import ChannelwiseBlock
from ssmfin.models.ssm.discretization import (
    Rule,
    Spectrum,
    bilinear,
    diagonal_frequencies,
    log_uniform,
    zero_order_hold,
)
from ssmfin_kernels import linear_scan


class S4DBlock(ChannelwiseBlock):
    """S4D (B, T, D) -> (B, T, D).

    The time scale of a mode is 1 / (dt |Re A|) steps. Re A starts at -1/2 in every mode, so a channel has one,
    2 / dt, log-uniform over `timescales` between channels; with the real spectrum Re A = -(n + 1), and it is the
    slowest mode whose time scale, 1 / dt, is log-uniform. Frequencies with dt |Im A| > pi are beyond what steps can
    show and appear as lower ones, as in the paper: a channel of a short time scale has fewer modes that differ.

    Args:
        width: D.
        state: N, real numbers of state a channel; even but for the real spectrum.
        spectrum: where A starts: "lin", "inv", "legs" (N / 2 conjugate pairs) or "real" (N real modes).
        discretization: "zoh" or "bilinear".
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "log_decay", "frequency", "output")
    step_sizes: ClassVar[tuple[str, ...]] = ("log_dt",)

    def __init__(
        self,
        width: int,
        *,
        state: int = 16,
        spectrum: Spectrum = "lin",
        discretization: Rule = "zoh",
        timescales: tuple[float, float] = (1, 252),
    ) -> None:
        super().__init__(width, state)
        self.discretization = discretization
        memory = log_uniform(width, *timescales)
        if spectrum == "real":
            self.log_dt = nn.Parameter((1 / memory).log().float())
            self.log_decay = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(width, 1))
            self.register_parameter("frequency", None)
            self.output = nn.Parameter(torch.randn(width, state))
        else:
            pairs = state // 2
            self.log_dt = nn.Parameter((2 / memory).log().float())
            self.log_decay = nn.Parameter(torch.full((width, pairs), math.log(0.5)))
            self.frequency = nn.Parameter(diagonal_frequencies(pairs, spectrum).float().repeat(width, 1))
            # E|C|^2 = 1; real and imaginary part side by side, because checkpoints and casts know no complex numbers
            self.output = nn.Parameter(torch.randn(width, pairs, 2) * math.sqrt(0.5))
        self.add_exit()

    def transition(self) -> tuple[Tensor, Tensor]:
        """A_bar and scale C B_bar, (D, modes) each, real or complex, in float64: the powers of A_bar are many."""
        A = -self.log_decay.double().exp()
        weight = self.output.double()
        if self.frequency is not None:
            A = torch.complex(A, self.frequency.double())
            weight = 2 * torch.view_as_complex(weight)
        dt = self.log_dt.double().exp()
        if self.discretization == "bilinear":
            A_bar, B_bar = bilinear(A, dt)
            return A_bar, weight * B_bar
        dtA, B_bar = zero_order_hold(A, dt)
        return dtA.exp(), weight * B_bar

    def discrete(self) -> tuple[Tensor, ...]:
        kind = torch.promote_types(self.skip.dtype, torch.float32)
        return tuple(x.to(kind.to_complex() if x.is_complex() else kind) for x in self.transition())

    def chunks(self, steps: int, last: int) -> linear_system.Chunks:
        A_bar, weight = self.transition()
        kind = torch.promote_types(self.skip.dtype, torch.float32)
        table = linear_system.powers(
            linear_system.squares(A_bar, steps), torch.ones_like(A_bar), steps + 1
        )  # (D, modes, Q + 1)
        taps = (weight[..., None] * table[..., :-1]).sum(1)
        leave = weight[..., None] * table[..., 1:]
        jump, onward = _narrow(table[..., steps], kind), _narrow(table[..., last], kind)

        def across(v: Tensor, state: Tensor, cut: Tensor | None) -> Tensor:
            B, n = v.shape[:2]
            h, _ = linear_scan(
                jump.flatten().expand(B, n, -1),
                self._modes(v).flatten(2),
                initial_state=self._modes(state).flatten(1),
                reset=cut,
            )
            return self._reals(h.view(B, n, *jump.shape))

        return linear_system.Chunks(
            taps=(taps.real if taps.is_complex() else taps).to(kind),
            # (D, modes, Q) -> (D, N, Q) and (D, Q, N): Re(w h) = Re w Re h - Im w Im h
            enter=self._reals(table[..., :-1].flip(-1).mT).mT.to(kind),
            leave=self._reals(leave.conj().mT).to(kind),
            across=across,
            onward=lambda state: self._reals(onward * self._modes(state)),
        )

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        A_bar, weight = self.held()
        h = A_bar * self._modes(state) + u[..., None]
        y = (weight * h).sum(-1)
        return y.real if y.is_complex() else y, self._reals(h)

    def spectrum(self) -> Tensor:
        """(D, modes): A_bar; of conjugate pairs, one each."""
        with torch.no_grad():
            return self.transition()[0].cpu().to(torch.complex128)

    def _modes(self, reals: Tensor) -> Tensor:
        """(..., N) real numbers of the state -> (..., modes)."""
        if self.frequency is None:
            return reals
        return torch.view_as_complex(reals.reshape(*reals.shape[:-1], -1, 2).contiguous())

    def _reals(self, modes: Tensor) -> Tensor:
        """The reverse of `_modes`."""
        return modes if self.frequency is None else torch.view_as_real(modes.resolve_conj()).flatten(-2)


def _narrow(x: Tensor, kind: torch.dtype) -> Tensor:
    return x.to(kind.to_complex() if x.is_complex() else kind)
