"""Owns causal attention over a sliding window, the other half of a hybrid: exact recall of the last `window` steps.

    y_t = W_out sum_s softmax_s(q_t . k_s / sqrt(P) - slope_h (t - s)) v_s        t - window < s <= t

Only distances enter (ALiBi), so nothing depends on the absolute step and a stream may run forever. A sequence is taken
in chunks of one window, each of which sees itself and the one before: O(T window), not O(T^2). The state is the keys
and values of the last window - 1 steps, and which of them are there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.deep.block import SequenceBlock, State, full_precision


class WindowedAttention(SequenceBlock):
    """Causal sliding-window attention (B, T, D) -> (B, T, D).

    Args:
        width: D. heads: a divisor of it.
        window: steps that are seen, the present one included.
        layers: of the network; the output starts smaller by its square root.
    Raises:
        InputError: `heads` does not divide `width`, a window of no step.
    References:
        Press, Smith, Lewis (2022), Train short, test long: attention with linear biases, section 3.
        Beltagy, Peters, Cohan (2020), Longformer, section 3.1 (sliding window).
    """

    def __init__(self, width: int, *, heads: int = 4, window: int = 64, layers: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"heads is {heads}, which does not divide the width {width}; give a divisor of it.")
        if window < 1:
            raise InputError(f"window is {window}; give at least 1 step.")
        self.width, self.heads, self.window = width, heads, window
        self.receptive_field = window
        self.enter = nn.Linear(width, 3 * width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            self.leave.weight /= math.sqrt(layers)

    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Keys, values, and 1 for a step that is there, 0 for one before the start."""
        rows = self.window - 1
        return (rows, self.width), (rows, self.width), (rows,)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        q, k, v, state, alone = self._enter(x, state)
        B, T, D = q.shape
        W, P = self.window, D // self.heads
        n = -(-T // W)
        with alone:
            # -1: before the start or of an older sequence; a carried step belongs to sequence 0 until a reset
            number = x.new_zeros(B, T, dtype=torch.long) if reset is None else reset.cumsum(1)
            number = torch.cat((state[2].long() - 1, number), dim=1)
            keys, values = (
                torch.cat((old, new), dim=1) for old, new in ((state[0], k), (state[1], v))
            )  # (B, W-1+T, D)
            present = number[:, T:] == number[:, -1:]
            after = tuple(part[:, T:].masked_fill(~present[..., None], 0.0) for part in (keys, values))
            # queries in chunks of W; the keys of chunk c are rows c W .. c W + 2 W - 2 of `keys`
            pad = n * W - T
            q = nn.functional.pad(q, (0, 0, 0, pad)).view(B, n, W, self.heads, P).transpose(2, 3)  # (B, n, H, W, P)
            keys, values = (
                nn.functional.pad(part, (0, 0, 0, pad)).unfold(1, 2 * W - 1, W).reshape(B, n, self.heads, P, -1)
                for part in (keys, values)
            )  # (B, n, H, P, 2 W - 1)
            numbers = nn.functional.pad(number, (0, pad), value=-2).unfold(1, 2 * W - 1, W)  # (B, n, 2 W - 1)
            row = torch.arange(W, device=x.device)[:, None]
            distance = row + (W - 1) - torch.arange(2 * W - 1, device=x.device)  # (W, 2 W - 1)
            seen = (distance >= 0) & (distance < W)
            same = numbers[:, :, None] == numbers[:, :, W - 1 :, None]  # (B, n, W, 2 W - 1)
            scores = q @ keys / math.sqrt(P) + self._bias(distance)
            scores = scores.masked_fill(~(seen & same)[:, :, None], -torch.inf)
            y = torch.softmax(scores, dim=-1) @ values.mT  # (B, n, H, W, P)
            y = y.transpose(2, 3).reshape(B, n * W, D)[:, :T]
        return self.leave(y), (*after, present.to(after[0].dtype))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        q, k, v, (keys, values, present), alone = self._enter(x[:, None], state)
        P = self.width // self.heads
        with alone:
            keys, values = torch.cat((keys, k), dim=1), torch.cat((values, v), dim=1)  # (B, W, D)
            present = torch.cat((present, present.new_ones(len(x), 1)), dim=1)
            q, all_keys, all_values = (part.reshape(len(x), -1, self.heads, P) for part in (q, keys, values))
            scores = torch.einsum("bhp,bshp->bhs", q[:, 0], all_keys)
            distance = torch.arange(self.window - 1, -1, -1, device=x.device)
            scores = scores / math.sqrt(P) + self._bias(distance[None])[:, 0]
            weights = torch.softmax(scores.masked_fill(present[:, None] == 0, -torch.inf), dim=-1)
            y = torch.einsum("bhs,bshp->bhp", weights, all_values).flatten(1)
        return self.leave(y), (keys[:, 1:], values[:, 1:], present[:, 1:])

    def _enter(
        self, x: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor], torch.autocast]:
        rows, alone = full_precision(self.enter(x))
        q, k, v = rows.chunk(3, dim=-1)
        before = self.initial_state(len(x), device=x.device, dtype=rows.dtype) if state is None else state
        return q, k, v, (before[0], before[1], before[2]), alone

    def _bias(self, distance: Tensor) -> Tensor:
        """(rows, columns) -> (H, rows, columns). The first head looks over the window, the last at the nearest."""
        # the paper's 2^-8 suits 1,024 tokens; the flattest head here falls by 1/e over half a window
        exponents = torch.linspace(math.log2(max(self.window, 4)) - 1, 1, self.heads, device=distance.device)
        return -torch.exp2(-exponents)[:, None, None] * distance
