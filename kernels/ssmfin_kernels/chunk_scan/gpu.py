"""Owns the chunked scan in Triton: the equations of `cpu.py`, a program for each chunk, head by head.

Five kernels, and no atomics:

    decay_kernel    running sums of the log decays within each chunk of Q = 64 steps
    state_kernel    walks the chunks of one head, a tile of (P, N) in registers, and stores the state before each;
                     with REVERSE the gradient of the state after each
    output_kernel   y of one chunk and head
    output_gradient_kernel, input_gradient_kernel
                     gradients of one chunk and the heads of a group, which share B and C: dB and dC are summed over
                     heads in registers. Two, because all gradients at once do not fit into registers

Stored states are B H (T / Q) P N, in bfloat16 for bfloat16 arguments: N / Q times the size of x, kept for backward.
Matrix products accumulate in float32; their operands are bfloat16 for bfloat16 arguments, tf32 for float16 (its digits,
without its range, which a state would leave), and three tf32 products for float32: one where
torch.set_float32_matmul_precision("high") asks for it.

Running sums are kept as the sum of two floats, from a sum in float64: exp(cs_t - cs_s) of single floats loses a digit
for every decade of cs. No transposed accumulator enters a product (wrong results were seen on Hopper): what is needed
both ways round is computed both ways round.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ssmfin_kernels.chunk_scan import triton_kernels
from ssmfin_kernels.chunk_scan.operators import Grads, register

_STEPS = 64  # Q
_STATES = 128  # N of one launch: more does not fit into shared memory in float32
_UNDERFLOW = -104.0  # exp of less is zero in float32: such a decay is a reset
_HEADS = 8  # whose decays are summed by one program


class _Plan:
    """Sizes and block shapes of one call, and the running sums that forward and backward share."""

    def __init__(self, x: Tensor, dt: Tensor, a: Tensor, B: Tensor, reset: Tensor | None):
        self.batch, self.T, self.H, self.P = x.shape
        self.G, self.N = B.shape[2:]
        self.Q = _STEPS
        self.chunks = triton.cdiv(self.T, self.Q)
        # tiles of 16 gave an illegal memory access on an H200 (triton 3.6, three tf32 products)
        self.block_p = min(64, max(32, triton.next_power_of_2(self.P)))
        self.block_n = max(32, triton.next_power_of_2(self.N))
        self.tiles = triton.cdiv(self.P, self.block_p)
        exact = x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
        self.precision = "tf32x3" if exact else "tf32"
        shape = (self.batch, self.H, self.chunks * self.Q)
        self.high, self.low, self.step = (torch.empty(shape, dtype=torch.float32, device=x.device) for _ in range(3))
        self.sequence = torch.empty(shape, dtype=torch.int32, device=x.device)
        triton_kernels.decay_kernel[(self.batch * self.chunks, triton.cdiv(self.H, _HEADS))](
            a, dt, a if reset is None else reset.view(torch.uint8), self.high, self.low, self.sequence, self.step,
            self.T, self.H, self.chunks,
            HAS_RESET=reset is not None, UNDERFLOW=_UNDERFLOW, Q=self.Q, BLOCK_H=_HEADS,
        )  # fmt: skip

    def walk(self, x: Tensor, B: Tensor, first: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """States before each chunk (B, chunks, H, P, N) and the last one.

        With the states `before` given, backwards: gradients of the states after each chunk, that of the first state,
        and e_Q <dS', S> (tiles of P, tiles of N, B, H, chunks).
        """
        states = _states_like(x, first, 0)
        last = torch.empty_like(first)
        block_n = self.block_n if states.dtype == torch.bfloat16 else min(self.block_n, 64)
        n_tiles = triton.cdiv(self.N, block_n)
        through = first.new_empty(() if before is None else (self.tiles, n_tiles, self.batch, self.H, self.chunks))
        triton_kernels.state_kernel[(self.batch * self.H, self.tiles, n_tiles)](
            x, B, self.step, self.high, self.low, self.sequence, first, states, last,
            states if before is None else before, through,
            self.batch, self.T, self.H, self.P, self.N, self.G, self.chunks,
            REVERSE=before is not None, PRECISION=self.precision, Q=self.Q, BLOCK_P=self.block_p, BLOCK_N=block_n,
            num_warps=4, num_stages=3,
        )  # fmt: skip
        return states, last, through

    def by_step(self, parts: Tensor) -> Tensor:
        """(tiles, B, H, chunks Q) -> (B, T, H)."""
        return _total(parts)[..., : self.T].transpose(1, 2).contiguous()

    def splits(self) -> int:
        """Into how many shares the heads of a group go, so that programs fill the chip: a divisor of H / G."""
        heads, programs = self.H // self.G, self.batch * self.chunks * self.G
        return next(s for s in range(1, heads + 1) if heads % s == 0 and (s == heads or programs * s >= 512))


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
    states, final, _ = plan.walk(x, B, initial_state)
    y = torch.empty_like(x)
    triton_kernels.output_kernel[(plan.batch * plan.chunks * plan.H * plan.tiles,)](
        x, B, C, D, plan.step, plan.high, plan.low, plan.sequence, states, y,
        plan.T, plan.H, plan.P, plan.N, plan.G, plan.chunks,
        PRECISION=plan.precision, Q=plan.Q, BLOCK_P=plan.block_p, BLOCK_N=plan.block_n, num_warps=4,
    )  # fmt: skip
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
    dstates, dinitial, through = plan.walk(dy, C, dfinal, states)
    splits = plan.splits()
    dx = torch.empty_like(x)
    following, ddt, da = (torch.empty((plan.tiles, *plan.step.shape), device=x.device) for _ in range(3))
    partial = B.dtype if splits == 1 else torch.float32
    dB, dC = (torch.empty((splits, *B.shape), dtype=partial, device=x.device) for _ in range(2))
    dD = torch.empty((plan.batch * plan.chunks, *D.shape), dtype=D.dtype, device=x.device)
    grid = (plan.batch * plan.chunks * plan.G * splits,)
    half = states.dtype == torch.bfloat16  # measured: the faster choices differ
    sizes = (plan.batch, plan.T, plan.H, plan.P, plan.N, plan.G, plan.chunks, splits)
    blocks = {"PRECISION": plan.precision, "Q": plan.Q, "BLOCK_P": plan.block_p, "BLOCK_N": plan.block_n}
    triton_kernels.output_gradient_kernel[grid](
        dy, x, B, C, plan.step, plan.high, plan.low, plan.sequence, states, dC, following, *sizes,
        **blocks, num_warps=4, num_stages=2 if half else 1,
    )  # fmt: skip
    triton_kernels.input_gradient_kernel[grid](
        dy, x, B, C, D, plan.step, plan.high, plan.low, plan.sequence, dstates, following, through,
        dx, ddt, da, dB, dD, *sizes,
        N_TILES=through.shape[1], **blocks, num_warps=4, num_stages=1,
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
