"""Owns the S4 block: a state-space model a channel, diagonal plus low rank, started at HiPPO-LegS.

    x' = A h + B x,    y = C h + skip x,    A = diag(Lambda) - P P^*,    Re Lambda = -exp(log_decay)

discretised by the bilinear rule, then GELU and a gated mixing of channels (`channelwise.py`).
A + A^* = 2 Re Lambda - 2 P P^* is negative, so A_bar shrinks every state, whatever is learned: P and Q of the general
form are tied for that.

Half of the conjugate pairs is kept. For z = (Re h, Im h) the rank-one part is symmetric, P P^* h + conj = p p^T z with
p = sqrt(2) (Re P, Im P), so that the recurrence is real:

    A_z = [[Re Lambda, -Im Lambda], [Im Lambda, Re Lambda]] - p p^T         y = 2 (Re C, -Im C) z

Sequences run in chunks (`linear_system.py`) with taps from powers of A_bar by doubling, which any start and end state
need in any case; the Cauchy kernel (`kernel()`, `ssmfin_kernels.dplr_kernel`) is the second derivation, for long
kernels at once and for the tests.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssmfin.models.ssm.blocks import linear_system
from ssmfin.models.ssm.blocks.channelwise import ChannelwiseBlock
from ssmfin.models.ssm.discretization import hippo_legs, log_uniform
from ssmfin_kernels import dplr_kernel


class S4Block(ChannelwiseBlock):
    """S4 (B, T, D) -> (B, T, D).

    A starts with the eigenvalues -1 .. -N of HiPPO-LegS: the slowest mode of a channel has a time scale of 1 / dt
    steps, log-uniform over `timescales` between channels.

    Args:
        width: D.
        state: N, real numbers of state a channel, even.
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    References:
        Gu, Goel, Re (2022), Efficiently modeling long sequences with structured state spaces.
        Goel, Gu, Donahue, Re (2022), It's raw! Audio generation with state-space models, section 4.2 (tied P).
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "log_decay", "frequency", "low_rank", "input", "output")
    step_sizes: ClassVar[tuple[str, ...]] = ("log_dt",)

    def __init__(self, width: int, *, state: int = 16, timescales: tuple[float, float] = (1, 252)) -> None:
        super().__init__(width, state)
        Lambda, P, B, _ = hippo_legs(state // 2)

        def each(vector: Tensor) -> nn.Parameter:
            return nn.Parameter(torch.view_as_real(vector).float().repeat(width, 1, 1))

        self.log_dt = nn.Parameter((1 / log_uniform(width, *timescales)).log().float())
        self.log_decay = nn.Parameter((-Lambda.real).log().float().repeat(width, 1))
        self.frequency = nn.Parameter(Lambda.imag.float().repeat(width, 1))
        self.low_rank, self.input = each(P), each(B)
        self.output = nn.Parameter(torch.randn(width, state // 2, 2) * math.sqrt(0.5))
        self.add_exit()

    def transition(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar (D, N, N), B_bar (D, N), C (D, N), real, float64: rounding in A_bar is taken to the power T."""
        decay, frequency = -self.log_decay.double().exp(), self.frequency.double()
        p, B, C = (_side_by_side(x.double()) for x in (self.low_rank, self.input, self.output))
        # the sign of Im C: Re(C h) = Re C Re h - Im C Im h; both states of a pair: twice that
        C = 2 * C * _signs(C)
        real, turn = torch.diag_embed(decay), torch.diag_embed(frequency)
        A = torch.cat((torch.cat((real, -turn), -1), torch.cat((turn, real), -1)), -2) - 2 * p[:, :, None] * p[:, None]
        dt = self.log_dt.double().exp()[:, None, None]
        eye = torch.eye(self.state, dtype=A.dtype, device=A.device)
        right = torch.cat((eye + dt / 2 * A, dt * B[..., None]), -1)
        solved = torch.linalg.solve(eye - dt / 2 * A, right)
        return solved[..., :-1], solved[..., -1], C

    def discrete(self) -> tuple[Tensor, ...]:
        kind = torch.promote_types(self.skip.dtype, torch.float32)
        return tuple(x.to(kind) for x in self.transition())

    def kernel(self, length: int) -> Tensor:
        """(D, L): the response to one unit input, skip not included, by the Cauchy kernel."""
        parts = (self.low_rank, self.input, self.output)
        P, B, C = (torch.view_as_complex(x) for x in parts)
        Lambda = torch.complex(-self.log_decay.exp(), self.frequency)
        return dplr_kernel(Lambda, P, B, C, self.log_dt.exp(), length)

    def chunks(self, steps: int, last: int) -> linear_system.Chunks:
        A_bar, B_bar, C = self.transition()
        kind = torch.promote_types(self.skip.dtype, torch.float32)
        squares = linear_system.squares(A_bar, steps)
        states = linear_system.powers(squares, B_bar, steps)  # (D, N, Q): A_bar^l B_bar
        transposed = [square.mT for square in squares]
        leave = linear_system.powers(transposed, (A_bar.mT @ C[..., None])[..., 0], steps).mT  # (D, Q, N)
        jump = linear_system.power(squares, steps)
        onward = jump.to(kind) if last == steps else linear_system.power(squares, last).to(kind)
        return linear_system.Chunks(
            taps=(C[:, None] @ states)[:, 0].to(kind),
            enter=states.flip(-1).to(kind),
            leave=leave.to(kind),
            across=lambda v, state, cut: _scan(jump, v, state, cut),
            onward=lambda state: _apply(onward, state),
        )

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        A_bar, B_bar, C = self.held()
        h = _apply(A_bar, state) + B_bar * u[..., None]
        return (C * h).sum(-1), h

    def spectrum(self) -> Tensor:
        """(D, N): of A_bar, in no order."""
        with torch.no_grad():
            eigenvalues: Tensor = torch.linalg.eigvals(self.transition()[0].cpu())
        return eigenvalues

    def time_scales(self) -> Tensor:
        """(D, N), the slowest first; both modes of a pair have the same."""
        scales: Tensor = (-1 / self.spectrum().abs().log()).sort(dim=-1, descending=True).values
        return scales


def _side_by_side(pairs: Tensor) -> Tensor:
    return torch.cat(pairs.unbind(-1), dim=-1)  # (D, N / 2, 2) -> (D, N): real parts, then imaginary parts


def _signs(like: Tensor) -> Tensor:
    half = like.shape[-1] // 2
    return torch.cat((like.new_ones(half), -like.new_ones(half)))


def _apply(matrices: Tensor, state: Tensor) -> Tensor:
    """(D, N, N), (..., D, N) -> (..., D, N)."""
    flat = state.reshape(-1, *state.shape[-2:])
    applied: Tensor = (matrices @ flat.permute(1, 2, 0)).permute(2, 0, 1)  # (D, N, rows) -> (rows, D, N)
    return applied.reshape(state.shape)


def _scan(matrix: Tensor, v: Tensor, state: Tensor, cut: Tensor | None) -> Tensor:
    """S_c = matrix S_{c-1} + v_c along dim 1, by doubling: log2(n) rounds. Nothing passes into a chunk that is cut."""
    first = v[:, 0] + _cut(_apply(matrix.to(v.dtype), state), None if cut is None else cut[:, 0])
    h = torch.cat((first[:, None], v[:, 1:]), dim=1)
    reach = 1
    while reach < v.shape[1]:
        carried = _cut(_apply(matrix.to(v.dtype), h[:, :-reach]), None if cut is None else cut[:, reach:])
        h = torch.cat((h[:, :reach], h[:, reach:] + carried), dim=1)
        if cut is not None:
            cut = torch.cat((cut[:, :reach], cut[:, reach:] | cut[:, :-reach]), dim=1)
        matrix = matrix @ matrix
        reach *= 2
    return h


def _cut(carried: Tensor, cut: Tensor | None) -> Tensor:
    return carried if cut is None else torch.where(cut[..., None, None], 0.0, carried)
