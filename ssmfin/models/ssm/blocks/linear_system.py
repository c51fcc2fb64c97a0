"""Owns how a linear time-invariant system, one a channel, runs over a sequence: chunk by chunk, by matrix products.

    h_t = A h_{t-1} + B x_t,        y_t = C h_t                                    h (N), A (N, N), real, a channel each

Over a chunk of Q steps, with S the state before it and S' after it,

    y_t = sum_{s <= t} (C A^{t-s} B) x_s + C A^{t+1} S         S' = A^Q S + sum_s A^{Q-1-s} B x_s

all of which are matrix products whose factors depend on the parameters alone; only S' = A^Q S + v remains sequential,
over T / Q chunks, and is a scan. So a sequence costs O(T (Q + N)) a channel, can start from any state, ends with the
state that a stream needs, and gives a step no bit of a later one, which an FFT over the sequence would. On a CPU it
takes about the time of the FFT convolution at 512 steps, which has no final state, and less from 4,096 steps on: S4D
1.2 to 1.4 times, S4 3 to 6 times (tests/benchmarks/bench_blocks.py).

Resets are exact: what a chunk adds to the state is masked, and a chunk that is cut inside is computed a second time, by
itself, with its own mask on the taps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 64  # measured on a CPU at (8, 512, 32), N = 16: 32 is alike, 128 takes twice as long


class Chunks(NamedTuple):
    """What a chunk of Q steps needs of a system. `last` is the length of the last chunk of the sequence, 1 .. Q.

    Attributes:
        taps: (D, Q) C A^l B.
        enter: (D, N, Q) A^{Q-1-s} B.
        leave: (D, Q, N) C A^{t+1}.
        across: (v (B, n, D, N), S (B, D, N), cut (B, n) bool or None) -> states after each of n chunks, (B, n, D, N).
        onward: (B, D, N) -> A^last of it.
    """

    taps: Tensor
    enter: Tensor
    leave: Tensor
    across: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    onward: Callable[[Tensor], Tensor]


def chunk_length(steps: int) -> tuple[int, int]:
    """Q, and the length of the last chunk."""
    Q = min(steps, CHUNK)
    return Q, steps - (steps - 1) // Q * Q


def run(x: Tensor, chunks: Chunks, last: int, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs and the state after the last step.

    Args:
        x: (B, T, D) in the type of the state. chunks, last: for this T. state: (B, D, N). reset: (B, T) bool or None.
    Returns:
        y (B, T, D), final state (B, D, N).
    """
    B, T, D = x.shape
    Q = chunks.taps.shape[1]
    n = -(-T // Q)
    x = torch.nn.functional.pad(x, (0, 0, 0, n * Q - T)).view(B, n, Q, D)
    if reset is None:
        # one product for both: rows of outputs, then rows of states
        rows = _each_chunk(torch.cat((toeplitz(chunks.taps), chunks.enter), dim=1), x)  # (B, n, Q + N, D)
        y, after = torch.split(rows, [Q, rows.shape[2] - Q], dim=2)  # type: ignore[no-untyped-call]
        before, final = _states(after.transpose(2, 3), chunks, last, x, state, None)
        y = y + _each_chunk(chunks.leave, before.transpose(2, 3))
    else:
        # (B, n, Q): how often the chunk was cut up to and including a step
        cuts = torch.nn.functional.pad(reset, (0, n * Q - T)).view(B, n, Q).cumsum(-1)
        kept = x.masked_fill((cuts != cuts[..., -1:])[..., None], 0.0)  # what the state after the chunk still holds
        after = _each_chunk(chunks.enter, kept).transpose(2, 3)
        before, final = _states(after, chunks, last, kept, state, cuts[..., -1] > 0)
        carried = _each_chunk(chunks.leave, before.transpose(2, 3)).masked_fill((cuts > 0)[..., None], 0.0)
        y = _within(x, chunks.taps, cuts) + carried
    return y.reshape(B, n * Q, D)[:, :T], final


def _each_chunk(matrix: Tensor, x: Tensor) -> Tensor:
    """(D, M, Q), (B, n, Q, D) -> (B, n, M, D)."""
    B, n, Q, D = x.shape
    rows = matrix @ x.permute(3, 2, 0, 1).reshape(D, Q, B * n)
    if rows.requires_grad:
        # strided gradients would be multiplied one channel after the other
        rows.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
    return rows.view(D, -1, B, n).permute(2, 3, 1, 0)


def _within(x: Tensor, taps: Tensor, cuts: Tensor) -> Tensor:
    """What the steps of a chunk add to its outputs, nothing across a cut: (B, n, Q, D) -> (B, n, Q, D)."""
    matrix = toeplitz(taps)
    y = _each_chunk(matrix, x)
    # a cut before the first step of a chunk is no cut inside it
    cut = torch.nonzero(cuts[..., -1] > cuts[..., 0], as_tuple=True)
    inside = cuts[cut]  # (k, Q)
    mask = (inside[:, None, :, None] == inside[:, None, None, :]) * 1.0  # (k, 1, Q, Q)
    # product and sum, not a matrix product: a chunk must not depend on how many others are cut
    again = (matrix * mask.to(x.dtype) * x[cut].transpose(1, 2)[:, :, None]).sum(-1)  # (k, D, Q)
    # steps before the first cut keep their bits, as if the cut were not known yet
    return y.index_put(cut, torch.where((inside == inside[:, :1])[..., None], y[cut], again.transpose(1, 2)))


def _states(
    after: Tensor, chunks: Chunks, last: int, x: Tensor, state: Tensor, cut: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States before each chunk (B, n, D, N) and after the last step (B, D, N)."""
    n, Q = after.shape[1], x.shape[2]
    if n > 1:
        whole = chunks.across(after[:, :-1], state, None if cut is None else cut[:, :-1])
        before = torch.cat((state[:, None], whole), dim=1)
    else:
        before = state[:, None]
    carried = chunks.onward(before[:, -1])
    if cut is not None:
        carried = torch.where(cut[:, -1, None, None], 0.0, carried)
    added = torch.einsum("dms,bsd->bdm", chunks.enter[:, :, Q - last :], x[:, -1, :last])
    return before, carried + added


def toeplitz(taps: Tensor) -> Tensor:
    """(D, Q) -> (D, Q, Q): lower triangular, taps[t - s] at row t, column s."""
    Q = taps.shape[1]
    line = torch.nn.functional.pad(taps.flip(1), (0, Q - 1))  # taps_{Q-1} .. taps_0, 0 .. 0
    # row t is the stretch of Q that has taps_0 at place t
    return line.unfold(1, Q, 1).flip(1)


def squares(A: Tensor, largest: int) -> list[Tensor]:
    """[A, A^2, A^4, ...] up to the exponent `largest`: of a diagonal A (D, N), or of A (D, N, N)."""
    made = [A]
    while 2 ** len(made) <= largest:
        made.append(_product(made[-1], made[-1]))
    return made


def power(squares: list[Tensor], exponent: int) -> Tensor:
    """A^exponent, exponent >= 1."""
    factors = [square for bit, square in enumerate(squares) if exponent >> bit & 1]
    return functools.reduce(_product, factors)


def powers(squares: list[Tensor], first: Tensor, count: int) -> Tensor:
    """first, A first, A^2 first, ...: first (D, N) -> (D, N, count).

    By doubling, from no logarithm, so that A = 0 and its gradient are no special case.
    """
    made = first[..., None]
    for jump in squares:
        if made.shape[-1] >= count:
            break
        made = torch.cat((made, jump @ made if jump.ndim == 3 else jump[..., None] * made), dim=-1)
    return made[..., :count]


def _product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right if left.ndim == 3 else left * right
