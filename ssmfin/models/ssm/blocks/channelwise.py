"""Owns what S4 and S4D share: a linear system a channel, run chunk by chunk, a skip, GELU and a gated mixing.

    y = W_out GLU-wise of gelu(ssm(x)):    y = (W_1 g + b_1) sigmoid(W_2 g + b_2),    g = gelu(ssm(x) + skip x)

How the system is parametrised and discretised is the block's own affair: it gives its chunks and its step.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin.models.ssm.blocks import linear_system


class ChannelwiseBlock(SequenceBlock):
    """(B, T, D) -> (B, T, D) by D systems of N real numbers of state. A subclass ends its __init__ with `add_exit`.

    Args:
        width: D. state: N.
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.width, self.state = width, state

    def add_exit(self) -> None:
        """The parameters behind the system; drawn last, after those of the system."""
        self.skip = nn.Parameter(torch.randn(self.width))
        self.mix = nn.Linear(self.width, 2 * self.width)

    @abstractmethod
    def chunks(self, steps: int, last: int) -> linear_system.Chunks:
        """The system over chunks of `steps`, the last one of `last`."""

    @abstractmethod
    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the system, u (B, D), state (B, D, N) -> (B, D), without the skip, and the state after it."""

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.width, self.state),)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        u, alone = full_precision(x)
        with alone:
            (h,) = self.initial_state(len(x), device=x.device, dtype=u.dtype) if state is None else state
            steps, last = linear_system.chunk_length(x.shape[1])
            y, h = linear_system.run(u, self.chunks(steps, last), last, h, reset)
            y = y + self.skip * u
        return self._leave(y), (h,)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        u, alone = full_precision(x)
        with alone:
            y, h = self.advance(u, state[0])
            y = y + self.skip * u
        return self._leave(y), (h,)

    def _leave(self, y: Tensor) -> Tensor:
        return nn.functional.glu(self.mix(nn.functional.gelu(y)), dim=-1)
