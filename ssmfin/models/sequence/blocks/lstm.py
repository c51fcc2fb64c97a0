"""Owns the LSTM block: torch's own long short-term memory, started over stated time scales.

i, f, o = sigmoid(W x_t + U h_{t-1} + b)          g = tanh(W_g x_t + U_g h_{t-1} + b_g)
c_t = f c_{t-1} + i g                             y_t = h_t = o tanh(c_t)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin.models.sequence.blocks.recurrent import gate_memory, memory_bias, run_recurrent


class LSTMBlock(SequenceBlock):
    """Long short-term memory (B, T, D) -> (B, T, D).

    The forget gate's bias starts such that a channel's time scale, while the gate gets zeros, is log-uniform over
    `timescales`, the input gate's at its negative, so that a cell of a long one takes in little a step. Runs in
    float32 under autocast, because errors of half precision would add up along the sequence.

    Args:
        width: D.
        timescales: (shortest, longest) time scale in steps at the start (`time_scales`).
    References:
        Hochreiter, Schmidhuber (1997), Long short-term memory; Gers, Schmidhuber, Cummins (2000) for the forget gate.
        Tallec, Ollivier (2018), Can recurrent neural networks warp time?, eq. 16.
    """

    def __init__(self, width: int, *, timescales: tuple[float, float] = (1, 252)) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.LSTM(width, width, batch_first=True)
        start = memory_bias(width, timescales)
        x_gates, h_gates = self._gate_biases()
        x_gates[0].copy_(-start)
        x_gates[1].copy_(start)
        h_gates[:2].zero_()

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """h, c."""
        return (self.width,), (self.width,)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        wide, alone = full_precision(x)
        if state is None:
            state = self.initial_state(len(x), device=x.device, dtype=x.dtype)
        with alone:
            y, after = run_recurrent(self.cell, wide, state, reset)
        return y.to(x.dtype), after

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        wide, alone = full_precision(x)
        with alone:
            h, c = torch.lstm_cell(wide, state, *self.cell.all_weights[0])
        return h.to(x.dtype), (h, c)

    def time_scales(self) -> Tensor:
        """(D, 1): of the forget gate while it gets zeros."""
        x_gates, h_gates = self._gate_biases()
        return gate_memory(x_gates[1] + h_gates[1])[:, None]

    def _gate_biases(self) -> tuple[Tensor, Tensor]:
        """Of the input and of the state, (4, D) each, without gradients; torch's order: input, forget, new, output."""
        _, _, x_bias, h_bias = self.cell.all_weights[0]
        return x_bias.detach().view(4, -1), h_bias.detach().view(4, -1)
