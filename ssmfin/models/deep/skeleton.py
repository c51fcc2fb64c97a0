"""Owns the network that all deep forecasters share: embedding, blocks, norm, head. Imports torch.

    e_t = W x_t + b (+ weekday_t + month_t) (+ id)            z <- z + dropout(block(norm(z)))  for every block
    raw_t = limit tanh(head(dropout(norm(z_t))) / limit)      zero before training, never beyond its limits

Nothing mixes steps or sequences but the blocks, so the network inherits their contract (`block.py`): it can be cut
anywhere, carried on and streamed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssmfin.models.deep.block import SequenceBlock, State

NetworkState = tuple[State, ...]  # one for each block
WEEKDAYS, MONTHS = 7, 12


class Inputs(NamedTuple):
    """What is known at each step of B sequences of T steps (of B steps, without T, for `step`).

    Attributes:
        columns: (B, T, F) standardised features.
        calendar: (B, T, 2) int64, weekday 0 .. 6 from Monday and month 0 .. 11 of the row's own date.
        ids: (B, T) int64, 1 .. K for ids seen in training, 0 for others.
        reset: (B, T) bool, a new sequence starts there; None where none does.
    """

    columns: Tensor
    calendar: Tensor
    ids: Tensor
    reset: Tensor | None = None

    def to(self, device: torch.device) -> Inputs:
        return self._each(lambda part: part.to(device))

    def pick(self, which: Tensor) -> Inputs:
        """Some of the sequences, by their numbers."""
        return self._each(lambda part: part[which])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        reset = None if self.reset is None else change(self.reset)
        return Inputs(change(self.columns), change(self.calendar), change(self.ids), reset)


class Layer(nn.Module):
    """z + dropout(block(norm(z)))."""

    def __init__(self, block: SequenceBlock, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.block = block
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, state: State | None, reset: Tensor | None) -> tuple[Tensor, State]:
        update, after = self.block(self.norm(z), state, reset)
        return z + self.dropout(update), after

    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        update, after = self.block.step(self.norm(z), state)
        return z + update, after


class Network(nn.Module):
    """Inputs (B, T, ...) -> (B, T, H, P): P numbers for each horizon, whose meaning is the head's (`heads.py`).

    Args:
        features: F. horizons: H. limits: (P,) the largest size of each number.
        blocks: causal maps of `width` channels, in order.
        calendar: embed weekday and month. ids: K, the ids with an embedding of their own; 0 for none.
    """

    limits: Tensor

    def __init__(
        self,
        *,
        features: int,
        horizons: int,
        limits: Sequence[float],
        blocks: Sequence[SequenceBlock],
        width: int,
        dropout: float,
        calendar: bool,
        ids: int,
    ) -> None:
        super().__init__()
        self.horizons = horizons
        self.columns = nn.Linear(features, width)
        # zero at the start: a forecaster with calendar or ids starts where the same one without them does
        self.weekday = _zero_embedding(WEEKDAYS, width) if calendar else None
        self.month = _zero_embedding(MONTHS, width) if calendar else None
        self.identity = _zero_embedding(ids + 1, width) if ids else None
        self.layers = nn.ModuleList(Layer(block, width, dropout) for block in blocks)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, horizons * len(limits))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("limits", torch.tensor(limits, dtype=torch.get_default_dtype()))

    @property
    def blocks(self) -> list[SequenceBlock]:
        return [layer.block for layer in self.layers]  # type: ignore[misc]

    def forward(self, inputs: Inputs, state: NetworkState | None = None) -> tuple[Tensor, NetworkState]:
        z = self._embed(inputs)  # (B, T, F) -> (B, T, D)
        after = []
        for number, layer in enumerate(self.layers):
            z, left = layer(z, None if state is None else state[number], inputs.reset)
            after.append(left)
        return self._read(z), tuple(after)

    def step(self, inputs: Inputs, state: NetworkState) -> tuple[Tensor, NetworkState]:
        """One step of B sequences, (B, ...) -> (B, H, P), in constant time and memory. Resets are the caller's."""
        z = self._embed(inputs)
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            z, left = layer.step(z, before)  # type: ignore[operator]
            after.append(left)
        return self._read(z), tuple(after)

    def initial_state(self, batch: int) -> NetworkState:
        like = self.head.weight
        return tuple(block.initial_state(batch, device=like.device, dtype=like.dtype) for block in self.blocks)

    def _embed(self, inputs: Inputs) -> Tensor:
        # under autocast the map is in bfloat16; the sum over layers is not
        z: Tensor = self.columns(inputs.columns).to(self.limits.dtype)
        if self.weekday is not None and self.month is not None:
            z = z + self.weekday(inputs.calendar[..., 0]) + self.month(inputs.calendar[..., 1])
        if self.identity is not None:
            z = z + self.identity(inputs.ids)
        return z

    def _read(self, z: Tensor) -> Tensor:
        raw = self.head(self.dropout(self.norm(z))).unflatten(-1, (self.horizons, -1))
        # (..., D) -> (..., H, P); float32 at least: under autocast the head is in bfloat16
        limits = self.limits
        return limits * torch.tanh(raw.to(limits.dtype) / limits)


def _zero_embedding(count: int, width: int) -> nn.Embedding:
    made = nn.Embedding(count, width)
    nn.init.zeros_(made.weight)
    return made
