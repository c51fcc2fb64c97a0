"""Owns the layers of the deep SSM: the S4D convolution, the residual block around it, the zero-initialised head.

Imports torch, so it is itself imported only by code that is about to fit. Shape letters as in `ssmfin_kernels`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ssmfin.models.ssm.discretization import diagonal_frequencies, zero_order_hold
from ssmfin_kernels import fft_convolution, vandermonde_kernel


class DiagonalConvolution(nn.Module):
    """S4D: every channel a diagonal state-space model, applied as a causal convolution of `taps` steps.

        y = kernel * u + skip u,   kernel_l = 2 Re sum_n C_n B_bar_n exp(dt A_n l),   A = -exp(log_decay) + i frequency

    The step dt starts log-uniform between `dt_range`; C is complex normal and B is one (a diagonal model only has
    their product). The kernel stops after `taps` steps, so that an output depends on that many inputs and no more.

    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "log_decay", "frequency", "output")

    def __init__(
        self, channels: int, states: int, taps: int, spectrum: Literal["lin", "inv"], dt_range: tuple[float, float]
    ) -> None:
        super().__init__()
        pairs = states // 2
        low, high = map(math.log, dt_range)
        self.taps = taps
        self.log_dt = nn.Parameter(low + (high - low) * torch.rand(channels))
        self.log_decay = nn.Parameter(torch.full((channels, pairs), math.log(0.5)))
        self.frequency = nn.Parameter(diagonal_frequencies(pairs, spectrum).float().repeat(channels, 1))
        # E|C|^2 = 1; real and imaginary part side by side, because checkpoints and casts know no complex numbers
        self.output = nn.Parameter(torch.randn(channels, pairs, 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(channels))

    def kernel(self) -> Tensor:
        """(D, taps)."""
        A = torch.complex(-self.log_decay.exp(), self.frequency)
        dtA, B_bar = zero_order_hold(A, self.log_dt.exp())
        return vandermonde_kernel(torch.view_as_complex(self.output) * B_bar, dtA, self.taps)

    def forward(self, u: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return fft_convolution(u, self.kernel()) + self.skip * u


class Block(nn.Module):
    """x + dropout(mix(gelu(ssm(norm(x))))), the steps that are not there kept out of the convolution."""

    def __init__(self, ssm: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.ssm = ssm
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """x (B, T, D), present (B, T, 1) -> (B, T, D)."""
        # after the norm, whose bias would otherwise turn an absent step into an input
        u = self.norm(x) * present
        update: Tensor = self.dropout(self.mix(nn.functional.gelu(self.ssm(u))))
        return x + update


class ResidualForecaster(nn.Module):
    """Correction of a baseline at every step and horizon: exactly zero before training, never beyond +-bound.

    g = bound tanh(head(norm(blocks(projection(x)))) / bound)
    """

    def __init__(
        self, features: int, horizons: int, blocks: list[Block], width: int, dropout: float, bound: float
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(features, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, horizons)
        self.bound = bound
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """x (B, T, F) with zeros where absent, present (B, T) of 0 and 1 -> (B, T, H)."""
        present = present[..., None]
        x = self.projection(x)  # (B, T, F) -> (B, T, D)
        for block in self.blocks:
            x = block(x, present)
        correction: Tensor = self.head(self.dropout(self.norm(x)))  # (B, T, D) -> (B, T, H)
        return self.bound * torch.tanh(correction / self.bound)


def split_context(context: int, layers: int) -> list[int]:
    """Taps of each layer, such that `layers` causal convolutions in a row see exactly `context` steps.

    >>> split_context(128, 2)
    [65, 64]
    """
    each, rest = divmod(context - 1, layers)
    return [1 + each + (layer < rest) for layer in range(layers)]


def s4d_network(
    features: int,
    horizons: int,
    *,
    width: int,
    layers: int,
    state: int,
    context: int,
    spectrum: Literal["lin", "inv"],
    dt_range: tuple[float, float],
    dropout: float,
    bound: float,
) -> ResidualForecaster:
    """The network of `kind: s4d`. Its start is drawn from torch's global generator: seed it outside."""
    blocks = [
        Block(DiagonalConvolution(width, state, taps, spectrum, dt_range), width, dropout)
        for taps in split_context(context, layers)
    ]
    return ResidualForecaster(features, horizons, blocks, width, dropout, bound)
