"""Owns the block of a temporal convolutional network: two dilated causal convolutions with GELU between them.

    u_t = gelu(b_1 + sum_j W_1j x_{t - j d})          y_t = b_2 + sum_j W_2j u_{t - j d}          j = 0 .. taps - 1

x and u are zero before a sequence starts. Each convolution is one matrix product over rows of `taps` steps side by
side: algorithms of convolution libraries (Winograd, FFT) mix neighbouring outputs, so that a step's last bits would
depend on later steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State
from ssmfin_kernels.causal_convolution.naive import reach
from ssmfin_kernels.library import state_dtype


class TCNBlock(SequenceBlock):
    """Residual branch of a temporal convolutional network (B, T, D) -> (B, T, D).

    A network doubles the dilation from block to block: `layers` blocks of dilation 1, 2, 4, ... see
    1 + 2 (taps - 1) (2^layers - 1) steps. The weight norm and ReLU of the paper are left out for the network's own norm
    and GELU.

    Args:
        width: D.
        taps: steps that a convolution weighs.
        dilation: d, steps between them.
        layers: of the network; the output starts smaller by its square root.
    Raises:
        InputError: no tap, or a dilation below 1.
    References:
        Bai, Kolter, Koltun (2018), An empirical evaluation of generic convolutional and recurrent networks, section 3.
    """

    def __init__(self, width: int, *, taps: int = 3, dilation: int = 1, layers: int = 1) -> None:
        super().__init__()
        for name, value in (("taps", taps), ("dilation", dilation)):
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1.")
        self.width, self.taps, self.dilation = width, taps, dilation
        self.receptive_field = 1 + 2 * (taps - 1) * dilation
        self.enter = nn.Linear(taps * width, width)
        self.leave = nn.Linear(taps * width, width)
        with torch.no_grad():
            self.leave.weight /= math.sqrt(layers)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The last inputs of both convolutions, oldest first."""
        rows = (self.taps - 1) * self.dilation
        return (rows, self.width), (rows, self.width)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        B, T, _ = x.shape
        if state is None:
            state = self.initial_state(B, device=x.device, dtype=x.dtype)
        rows = (self.taps - 1) * self.dilation
        reaches = None if reset is None else reach(reset, B, T, rows + 1, x.device)
        u, inputs = self._convolve(self.enter, x, state[0], reaches)
        y, activations = self._convolve(self.leave, nn.functional.gelu(u), state[1], reaches)
        return y, (inputs, activations)

    def _convolve(self, layer: nn.Linear, x: Tensor, before: Tensor, reaches: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, D), the rows before it, how far back (B, T) each step may look -> y (B, T, D), the last rows."""
        T = x.shape[1]
        line = torch.cat((before.to(x.dtype), x), dim=1)
        after = line[:, T:].to(state_dtype(x.dtype))
        seen = [line[:, j * self.dilation :][:, :T] for j in range(self.taps)]  # oldest first
        if reaches is not None:
            lags = [(self.taps - 1 - j) * self.dilation for j in range(self.taps)]
            seen = [torch.where((reaches >= lag)[..., None], part, 0.0) for lag, part in zip(lags, seen, strict=True)]
            age = torch.arange(after.shape[1] - 1, -1, -1, device=x.device)
            after = torch.where((age <= reaches[:, -1:])[..., None], after, 0.0)
        y: Tensor = layer(torch.cat(seen, dim=-1))  # (B, T, taps D) -> (B, T, D)
        return y, after
