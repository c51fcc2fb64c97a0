"""Owns the DLinear block: two linear maps of the last `context` steps, one of their trend, one of what is left.

    w = (x_{t-L+1}, .., x_t)        trend = M w        y_t = a . trend + b . (w - trend) + c        L = context

each channel by itself. M is a moving average centred within the window, which repeats the window's ends to have
neighbours there, so it uses nothing after t. Since M is fixed, y is a causal convolution with L taps b + M^T (a - b),
and runs as a product with a banded matrix, chunk by chunk: an FFT would give every step a few bits of later ones.

x is zero before a sequence starts. A reset puts L - 1 such zeros between two sequences of a row and takes their
outputs away again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State
from ssmfin_kernels.library import state_dtype

_CHUNK = 64  # measured on a CPU at (8, 512, 32), 252 taps


class DLinearBlock(SequenceBlock):
    """Decomposed linear map of a window, channel by channel, (B, T, D) -> (B, T, D).

    Args:
        width: D.
        context: L, steps of the window.
        average: steps of the moving average that is the trend; odd.
    Raises:
        InputError: an empty window, an even or empty average.
    References:
        Zeng, Chen, Zhang, Xu (2023), Are transformers effective for time series forecasting?, section 4.
    """

    def __init__(self, width: int, *, context: int = 252, average: int = 25) -> None:
        super().__init__()
        if context < 1:
            raise InputError(f"context is {context}; give at least 1 step.")
        if average < 1 or average % 2 == 0:
            raise InputError(f"average is {average}; give an odd number of steps, at least 1.")
        self.width, self.context, self.average = width, context, average
        self.receptive_field = context
        bound = 1 / math.sqrt(context)
        self.trend = nn.Parameter(torch.empty(width, context).uniform_(-bound, bound))
        self.remainder = nn.Parameter(torch.empty(width, context).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The last inputs, oldest first."""
        return ((self.context - 1, self.width),)

    def discrete(self) -> tuple[Tensor, ...]:
        """Taps (D, L), oldest first."""
        return (self.remainder + averaged_weights(self.trend - self.remainder, self.average),)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        B, T, D = x.shape
        if state is None:
            state = self.initial_state(B, device=x.device, dtype=x.dtype)
        (taps,) = self.discrete()
        line = torch.cat((state[0].to(x.dtype), x), dim=1)
        past = self.context - 1
        if reset is None:
            return banded_product(line, taps, min(T, _CHUNK)) + self.bias, (line[:, T:].to(state_dtype(x.dtype)),)
        sequence = reset.cumsum(1)
        place = torch.arange(T, device=x.device) + past * (sequence + 1)  # (B, T)
        spread = line.new_zeros(B, past + T + past * int(sequence[:, -1].max()), D)
        spread = torch.cat((line[:, :past], spread[:, past:]), dim=1).scatter(1, _rows(place, D), x)
        y = banded_product(spread, taps, min(T, _CHUNK)).gather(1, _rows(place - past, D)) + self.bias
        after = spread.gather(1, _rows(place[:, -1:] + torch.arange(1 - past, 1, device=x.device), D))
        return y, (after.to(state_dtype(x.dtype)),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        (taps,) = self.held()
        window = torch.cat((state[0], x[:, None].to(state[0].dtype)), dim=1)  # (B, L, D)
        y = (window * taps.T).sum(1) + self.bias
        return y.to(x.dtype), (window[:, 1:],)


def averaged_weights(weights: Tensor, average: int) -> Tensor:
    """M^T w: what weights of a window's trend weigh in the window itself.

    M is the centred moving average of `average` steps, the window's ends repeated; w (D, L) -> (D, L).

    >>> averaged_weights(torch.tensor([[9.0, 0, 0, 0], [0, 0, 9.0, 0]]), 3)
    tensor([[6., 3., 0., 0.],
            [0., 3., 3., 3.]])
    """
    L, half = weights.shape[1], average // 2
    if L == 1:
        return weights
    # on the window with `half` steps more at both ends, which are the ends repeated
    spread = nn.functional.avg_pool1d(nn.functional.pad(weights, (2 * half, 2 * half)), average, stride=1)
    first, middle, last = torch.split(spread, [half + 1, L - 2, half + 1], dim=1)
    return torch.cat((first.sum(1, keepdim=True), middle, last.sum(1, keepdim=True)), dim=1)


def banded_product(line: Tensor, taps: Tensor, Q: int) -> Tensor:
    """Causal convolution y_t = sum_i taps_i line_{t+i} of each channel, as matrix products of chunks.

    Args:
        line: (B, L - 1 + T, D), the L - 1 steps before the first output included.
        taps: (D, L), oldest first.
        Q: outputs of a chunk.
    Returns:
        (B, T, D).
    """
    B, rows, D = line.shape
    L = taps.shape[1]
    T = rows - L + 1
    n = -(-T // Q)
    # row q of the band holds the taps at columns q .. q + L - 1
    band = nn.functional.pad(taps, (Q - 1, Q - 1)).unfold(1, Q + L - 1, 1).flip(1)  # (D, Q, Q + L - 1)
    windows = nn.functional.pad(line, (0, 0, 0, n * Q - T)).unfold(1, Q + L - 1, Q)  # (B, n, D, Q + L - 1)
    columns = windows.permute(2, 3, 0, 1).reshape(D, Q + L - 1, B * n)
    y = (band @ columns).view(D, Q, B, n).permute(2, 3, 1, 0)  # (B, n, Q, D)
    return y.reshape(B, n * Q, D)[:, :T]


def _rows(index: Tensor, channels: int) -> Tensor:
    """(B, T) row numbers for gather and scatter along time, (B, T, D)."""
    return index[..., None].expand(*index.shape, channels)
