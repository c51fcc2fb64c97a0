"""Owns the chunked scan in Triton: the equations of `cpu.py`, a program for each chunk, head by head.

Six kernels, and no atomics:

    decay_kernel    sums of the log decays within each chunk of Q = 64 steps, decays from its start and to its end
    state_kernel    walks the chunks of one head, a tile of (P, N) in registers, and stores the state before each;
                    with REVERSE the gradient of the state after each
    output_kernel   y of one chunk and the heads of a group, which share B and C
    pair_kernel     pairs of steps s <= t of one chunk: K, summed over the heads of a group, and their part of da
    input_gradient_kernel
                    dx, ddt, dD of one chunk and the heads of a group
    side_kernel     dB or dC of one chunk: products with states, summed over heads, and one with the sum of K

Small kernels, so that each fits into registers: shared memory leaves a multiprocessor little cache for what does not,
and kernels that did more at once, and read less, were slower. Stored states are B H (T / Q) P N, in bfloat16 for
bfloat16 arguments: N / Q times the size of x, kept for backward. Matrix products accumulate in float32; their operands
are bfloat16 for bfloat16 arguments, tf32 for float16 (its digits, without its range, which a state would leave), and
three tf32 products for float32: one where torch.set_float32_matmul_precision("high") asks for it.

Running sums are kept as the sum of two floats, from a sum in float64: exp(cs_t - cs_s) of single floats loses a digit
for every decade of cs. No transposed accumulator enters a product (wrong results were seen on Hopper): what is needed
both ways round is computed both ways round, or passes through memory.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ssmfin_kernels.chunk_scan import triton_backward, triton_forward
from ssmfin_kernels.chunk_scan.operators import Grads, register

_STEPS = 64  # Q
_STATES = 128  # N of one launch: more does not fit into shared memory in float32
_UNDERFLOW = -104.0  # exp of less is zero in float32: such a decay is a reset
_HEADS = 8  # whose decays are summed by one program
_PROGRAMS = 512  # at least, where there are heads enough: they fill the chip


class _Plan:
    """Sizes and block shapes of one call, and the decays that forward and backward share."""

    def __init__(self, x: Tensor, dt: Tensor, a: Tensor, B: Tensor, reset: Tensor | None):
        self.batch, self.T, self.H, self.P = x.shape
        self.G, self.N = B.shape[2:]
        self.Q = _STEPS
        self.half = x.dtype == torch.bfloat16
        self.chunks = triton.cdiv(self.T, self.Q)
        # tiles of 16 gave an illegal memory access on an H200 (triton 3.6, three tf32 products)
        self.block_p = min(64, max(32, triton.next_power_of_2(self.P)))
        self.block_n = max(32, triton.next_power_of_2(self.N))
        self.tiles = triton.cdiv(self.P, self.block_p)
        exact = x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
        self.precision = "tf32x3" if exact else "tf32"
        shape = (self.batch, self.H, self.chunks * self.Q)
        self.high, self.low, self.step, self.from_start, self.to_end = (
            torch.empty(shape, dtype=torch.float32, device=x.device) for _ in range(5)
        )
        self.sequence = torch.empty(shape, dtype=torch.int32, device=x.device)
        triton_forward.decay_kernel[(self.batch * self.chunks, triton.cdiv(self.H, _HEADS))](
            a, dt, a if reset is None else reset.view(torch.uint8), self.high, self.low, self.sequence, self.step,
            self.from_start, self.to_end, self.T, self.H, self.chunks,
            HAS_RESET=reset is not None, UNDERFLOW=_UNDERFLOW, Q=self.Q, BLOCK_H=_HEADS,
        )  # fmt: skip
        # into how many shares the heads of a group go: a divisor of H / G
        heads, programs = self.H // self.G, self.batch * self.chunks * self.G
        self.splits = next(
            s for s in range(1, heads + 1) if heads % s == 0 and (s == heads or programs * s >= _PROGRAMS)
        )
        self.programs = programs * self.splits
        self.pairs = (self.step, self.high, self.low, self.sequence)
        self.decays = (self.step, self.from_start, self.to_end)
        self.sizes = (self.batch, self.T, self.H, self.P, self.N, self.G, self.chunks)

    def blocks(self) -> dict[str, Any]:
        """Options of the kernels that take a chunk and a share of the heads of a group."""
        # three stages measured best; of wide float32 states they would leave no cache
        stages = 3 if self.half or self.block_n <= 64 else 1
        return {
            "PRECISION": self.precision, "Q": self.Q, "BLOCK_P": self.block_p, "BLOCK_N": self.block_n,
            "TILES": self.tiles, "STAGES": stages, "num_warps": 4,
        }  # fmt: skip

    def walk(self, reverse: bool) -> tuple[tuple[int, int, int], dict[str, Any]]:
        """Grid and options of the kernel that walks the chunks of one head."""
        # measured: what is faster differs with the size of an operand
        block_n = self.block_n if self.half else min(self.block_n, 64)
        stages = 4 if self.half else 2 if reverse else 3
        grid = (self.batch * self.H, self.tiles, triton.cdiv(self.N, block_n))
        return grid, {
            "REVERSE": reverse, "PRECISION": self.precision, "Q": self.Q, "BLOCK_P": self.block_p, "BLOCK_N": block_n,
            "STAGES": stages, "num_warps": 4,
        }  # fmt: skip

    def by_step(self, parts: Tensor) -> Tensor:
        """(tiles, B, H, chunks Q) -> (B, T, H)."""
        return _total(parts)[..., : self.T].transpose(1, 2).contiguous()


def _states_like(x: Tensor, state: Tensor, chunk_size: int) -> Tensor:
    """Empty, for the states before each chunk: (B, chunks, H, P, N)."""
    dtype = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    chunks = -(-x.shape[1] // _STEPS)
    return torch.empty((state.shape[0], chunks, *state.shape[1:]), dtype=dtype, device=x.device)


def _forward(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = _Plan(x, dt, a, B, reset)
    y, final, states = torch.empty_like(x), torch.empty_like(initial_state), _states_like(x, initial_state, chunk_size)
    grid, options = plan.walk(reverse=False)
    triton_forward.state_kernel[grid](
        x, B, *plan.decays, states, initial_state, states, final, states, *plan.sizes, **options
    )
    triton_forward.output_kernel[(plan.programs,)](
        x, B, C, D, *plan.pairs, plan.from_start, states, y, *plan.sizes, plan.splits, **plan.blocks()
    )
    return y, final, states


def _backward(
    dy: Tensor,
    dfinal: Tensor,
    states: Tensor,
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None,
    chunk_size: int,
) -> Grads:
    plan = _Plan(x, dt, a, B, reset)
    sizes = (*plan.sizes, plan.splits)
    dstates, dinitial = torch.empty_like(states), torch.empty_like(dfinal)
    grid, options = plan.walk(reverse=True)
    # e_Q <dS', S> of every tile: the part of da that passes a chunk whole
    through = dfinal.new_empty(plan.tiles, grid[2], plan.batch, plan.H, plan.chunks)
    triton_forward.state_kernel[grid](
        dy, C, *plan.decays, states, dfinal, dstates, dinitial, through, *plan.sizes, **options
    )
    past, ddt, da = (torch.empty((plan.tiles, *plan.step.shape), device=x.device) for _ in range(3))
    dx, K = torch.empty_like(x), torch.empty((plan.programs, plan.Q, plan.Q), device=x.device)
    dD = torch.empty((plan.batch * plan.chunks, *D.shape), dtype=D.dtype, device=x.device)
    partial = B.dtype if plan.splits == 1 else torch.float32
    dB, dC = (torch.empty((plan.splits, *B.shape), dtype=partial, device=x.device) for _ in range(2))
    blocks = plan.blocks()
    triton_backward.pair_kernel[(plan.programs,)](dy, x, B, C, *plan.pairs, states, da, K, *sizes, **blocks)
    triton_backward.input_gradient_kernel[(plan.programs,)](
        dy, x, B, C, D, *plan.pairs, plan.to_end, dstates, dx, ddt, past, dD, *sizes, **blocks
    )
    for x_side, other, decay, of, out in ((dy, B, plan.from_start, states, dC), (x, C, plan.to_end, dstates, dB)):
        triton_backward.side_kernel[(plan.programs,)](
            x_side, other, C, decay, plan.step, of, K, past, through, da, out, *sizes,
            OUTPUT=out is dC, N_TILES=grid[2], **blocks,
        )  # fmt: skip
    return dx, plan.by_step(ddt), plan.by_step(da), _total(dB).to(B.dtype), _total(dC).to(C.dtype), dD.sum(0), dinitial


def _total(parts: Tensor) -> Tensor:
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


_scan = register("chunk_scan_gpu", _forward, _backward, _states_like)


def scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor,
    reset: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """The operator; wide states in parts, which do not interact: y is the sum over parts."""
    ys, finals = [], []
    for first in range(0, B.shape[3], _STATES):
        part = slice(first, first + _STATES)
        y, final, _ = _scan(
            x,
            dt,
            a,
            B[..., part].contiguous(),
            C[..., part].contiguous(),
            torch.zeros_like(D) if first else D,
            initial_state[..., part].contiguous(),
            reset,
            chunk_size,
        )
        ys.append(y)
        finals.append(final)
    if len(ys) == 1:
        return ys[0], finals[0]
    return torch.stack(ys).sum(0), torch.cat(finals, dim=-1)
