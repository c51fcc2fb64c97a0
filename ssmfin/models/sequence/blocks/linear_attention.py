"""Owns the linear attention block: attention without a softmax, the special case of state-space duality it is.

    S_t = gamma_h S_{t-1} + v_t phi(k_t)^T            z_t = gamma_h z_{t-1} + phi(k_t)          per head h
    y_t = W_out S_t phi(q_t) / (z_t . phi(q_t))

which is Mamba-2's scan with dt = 1 and a fixed A = log gamma_h: zero (linear attention: every past step counts alike)
or negative (RetNet: a memory a head). z is one more channel of the scan, whose input is 1. Where phi is the identity,
z . q has no sign, and the outputs of a head are divided by their root mean square instead, as in RetNet.

Unrolled, y_t = sum_{s <= t} gamma^{t-s} (phi(q_t) . phi(k_s)) v_s / the same with v = 1. Without decay a forecast
knows which steps there were and not their order, and float32 sums lose digits slowly: at a million steps the newest
has four left.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State, full_precision
from ssmfin_kernels import chunk_scan

_LEAST = 1e-6  # added to z . phi(q), as in the paper's code


class LinearAttentionBlock(SequenceBlock):
    """Linear attention (B, T, D) -> (B, T, D).

    Args:
        width: D.
        heads: a divisor of it.
        feature_map: phi; "elu": elu + 1, positive, normalised by z; "identity": normalised by the root mean square.
        memory: (shortest, longest) time scale of the heads in steps, log-spaced; None: no decay.
        layers: of the network; the output starts smaller by its square root.
    Raises:
        InputError: `heads` does not divide `width`, or a memory that is no range of steps.
    References:
        Katharopoulos, Vyas, Pappas, Fleuret (2020), Transformers are RNNs, eqs. 7, 18-20 (elu + 1).
        Sun et al. (2023), Retentive network, eqs. 5, 8 (decay, normalisation); Dao, Gu (2024), section 4 (as SSD).
    """

    log_decay: Tensor

    def __init__(
        self,
        width: int,
        *,
        heads: int = 4,
        feature_map: Literal["elu", "identity"] = "elu",
        memory: tuple[float, float] | None = None,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"heads is {heads}, which does not divide the width {width}; give a divisor of it.")
        if memory is not None and not 0 < memory[0] <= memory[1]:
            raise InputError(f"memory is {memory}; give two numbers of steps, the shorter first.")
        self.heads, self.head, self.feature_map = heads, width // heads, feature_map
        self.enter = nn.Linear(width, 3 * width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.leave.weight /= math.sqrt(layers)
        decay = torch.zeros(heads) if memory is None else -1 / log_spaced(heads, *memory)
        self.register_buffer("log_decay", decay, persistent=False)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """S, and z as its last row where there is one."""
        return ((self.heads, self.head + (self.feature_map == "elu"), self.head),)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        q, k, v = self._enter(x)
        y, S = chunk_scan(
            v,
            v.new_ones(()).expand(v.shape[:3]),
            self.log_decay,
            k,
            q,
            initial_state=None if state is None else state[0],
            reset=reset,
        )
        return self._leave(y), (S,)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        q, k, v = self._enter(x)  # (B, H, P)
        v, alone = full_precision(v)
        with alone:
            S = state[0] * torch.exp(self.log_decay)[:, None, None] + v[..., None] * k[..., None, :].to(v.dtype)
            y = (S @ q[..., None].to(v.dtype))[..., 0]
        return self._leave(y), (S,)

    def time_scales(self) -> Tensor | None:
        """(H, 1); None without decay."""
        return None if not self.log_decay.any() else -1 / self.log_decay[:, None]

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., D) -> phi(q), phi(k) (..., H, P) and v (..., H, P or P + 1)."""
        q, k, v = self.enter(x).unflatten(-1, (3, self.heads, self.head)).unbind(-3)
        if self.feature_map == "identity":
            return q, k / math.sqrt(self.head), v
        return nn.functional.elu(q) + 1, nn.functional.elu(k) + 1, nn.functional.pad(v, (0, 1), value=1.0)

    def _leave(self, y: Tensor) -> Tensor:
        if self.feature_map == "identity":
            y = nn.functional.rms_norm(y, (self.head,), eps=1e-5)
        else:
            y = y[..., :-1] / (y[..., -1:] + _LEAST)
        out: Tensor = self.leave(y.flatten(-2).to(self.leave.weight.dtype))
        return out


def log_spaced(count: int, low: float, high: float) -> Tensor:
    """(count,) from low to high in equal ratios, float32.

    >>> log_spaced(3, 1, 100)
    tensor([  1.,  10., 100.])
    """
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).float()
