"""Owns what torch's recurrent layers lack for the block contract: sequences that start inside a row, and memory."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import State
from ssmfin.models.deep.training import whole_float32
from ssmfin.models.ssm.discretization import log_uniform


def run_recurrent(layer: nn.GRU | nn.LSTM, x: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """Run one layer over sequences, in one call between two steps at which any of them starts anew.

    Packing the pieces side by side would take fewer calls, but then the number of rows of a matrix product, and with it
    the last bits of a step, would depend on where resets lie in other sequences, later ones included.

    Args:
        layer: one layer, one direction, batch first.
        x: (B, T, D). state: each (B, D). reset: (B, T) bool or None.
    Returns:
        outputs (B, T, D), state after the last step.
    """
    T = x.shape[1]
    cuts = [] if reset is None else reset[:, 1:].any(dim=0).nonzero()[:, 0].add(1).tolist()
    outputs = []
    for begin, end in pairwise((0, *cuts, T)):
        if reset is not None:
            state = tuple(torch.where(reset[:, begin, None], 0.0, part) for part in state)
        with whole_float32(x.device):
            y, after = layer(x[:, begin:end], _as_torch(state))
        outputs.append(y)
        state = tuple(part[0] for part in ((after,) if isinstance(after, Tensor) else after))
    return torch.cat(outputs, dim=1) if cuts else outputs[0], state


def _as_torch(state: State) -> Tensor | State:
    """With torch's dimension of layers in front; the only state of a GRU without a tuple."""
    parts = tuple(part[None].contiguous() for part in state)
    return parts if len(parts) > 1 else parts[0]


def memory_bias(channels: int, timescales: tuple[float, float]) -> Tensor:
    """Biases b of a forget gate, (channels,), for time scales tau log-uniform over `timescales` while it gets zeros.

        sigmoid(b)^tau = 1/e,        b = -log(exp(1 / tau) - 1)

    References:
        Tallec, Ollivier (2018), Can recurrent neural networks warp time?, eq. 16 (with 1 - 1/tau for exp(-1/tau)).
    """
    return -torch.log(torch.expm1(1 / log_uniform(channels, *timescales)))


def gate_memory(bias: Tensor) -> Tensor:
    """Time scale tau in steps of a forget gate that gets zeros, `memory_bias` turned round: (channels,) -> (channels,).

    >>> gate_memory(memory_bias(2, (9, 9)))
    tensor([9.0000, 9.0000], dtype=torch.float64)
    """
    return 1 / nn.functional.softplus(-bias)
