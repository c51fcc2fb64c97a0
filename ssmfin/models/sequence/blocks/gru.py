"""Owns the GRU block: torch's own gated recurrent unit (on a CPU in one loop), started over stated time scales.

r, z = sigmoid(W x_t + U h_{t-1} + b)             n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + c_n))
h_t  = (1 - z) n + z h_{t-1}                      y_t = h_t
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin.models.sequence.blocks.recurrent import gate_memory, memory_bias, run_recurrent


class GRUBlock(SequenceBlock):
    """Gated recurrent unit (B, T, D) -> (B, T, D).

    The update gate's bias starts such that a channel's time scale, while the gate gets zeros, is log-uniform over
    `timescales`; torch's own start is one of 1.4 steps for all. Runs in float32 under autocast, because errors of
    half precision would add up along the sequence.

    Args:
        width: D.
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    References:
        Cho et al. (2014), Learning phrase representations using RNN encoder-decoder, section 2.3.
    """

    def __init__(self, width: int, *, timescales: tuple[float, float] = (1, 252)) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.GRU(width, width, batch_first=True)
        x_bias, h_bias = self._update_bias()
        x_bias.copy_(memory_bias(width, timescales))
        h_bias.zero_()

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.width,),)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        wide, alone = full_precision(x)
        if state is None:
            state = self.initial_state(len(x), device=x.device, dtype=x.dtype)
        with alone:
            if x.device.type != "cpu":
                y, after = run_recurrent(self.cell, wide, state, reset)
            else:
                from ssmfin.models.sequence.blocks.gru_loops import gated_recurrence

                W, U, b, c = self.cell.all_weights[0]
                y = gated_recurrence(nn.functional.linear(wide, W, b), U, c, state[0].to(wide.dtype), reset)
                after = (y[:, -1],)
        return y.to(x.dtype), after

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        wide, alone = full_precision(x)
        with alone:
            h = torch.gru_cell(wide, state[0], *self.cell.all_weights[0])
        return h.to(x.dtype), (h,)

    def time_scales(self) -> Tensor:
        """(D, 1): of the update gate while it gets zeros."""
        x_bias, h_bias = self._update_bias()
        return gate_memory(x_bias + h_bias)[:, None]

    def _update_bias(self) -> tuple[Tensor, Tensor]:
        """Of the input and of the state, without gradients; torch's order: reset, update, new."""
        _, _, x_bias, h_bias = self.cell.all_weights[0]
        return x_bias.detach().chunk(3)[1], h_bias.detach().chunk(3)[1]
