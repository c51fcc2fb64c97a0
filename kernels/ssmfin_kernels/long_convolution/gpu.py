"""Owns the Vandermonde kernel in Triton: powers are made in registers and multiplied by the tensor cores.

A program makes ROWS x COLUMNS taps of one channel from (ROWS + COLUMNS) N powers; nothing but C, dtA and the kernel
touches memory. Phases are reduced to one turn in float64, products are three tf32 products each: float32 to its last
digits. Backward sums both gradients of a channel over a share of the taps; shares are added afterwards, in order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels.long_convolution.vandermonde import register

_ROWS, _COLUMNS = 32, 64


@triton.jit
def phasor(decay, turns, lag):
    """Real and imaginary part of exp((decay + 2 pi i turns) lag), any shape; turns and lag in float64."""
    phase = turns * lag
    # the fraction of a turn, in (-1/2, 1/2]: float32 has its digits only near zero
    fraction = (phase - tl.floor(phase + 0.5)).to(tl.float32) * 6.283185307179586
    size = tl.exp(decay * lag.to(tl.float32))
    return size * tl.cos(fraction), size * tl.sin(fraction)


@triton.jit
def _kernel_kernel(
    C_ptr, dtA_ptr, kernel_ptr, N, L, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(L, ROWS * COLUMNS)
    d, first = tile // tiles, tile % tiles * (ROWS * COLUMNS)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    outer_l = (first + rows * COLUMNS).to(tl.float64)
    inner_l = columns.to(tl.float64)
    taps = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        at, inside = 2 * (d * N + n), n < N
        decay = tl.load(dtA_ptr + at, mask=inside, other=0.0)
        turns = tl.load(dtA_ptr + at + 1, mask=inside, other=0.0).to(tl.float64) * 0.15915494309189535
        C_real = scale * tl.load(C_ptr + at, mask=inside, other=0.0)
        C_imag = scale * tl.load(C_ptr + at + 1, mask=inside, other=0.0)
        real, imag = phasor(decay[None, :], turns[None, :], outer_l[:, None])  # (ROWS, N)
        inner_real, inner_imag = phasor(decay[:, None], turns[:, None], inner_l[None, :])  # (N, COLUMNS)
        left = C_real[None, :] * real - C_imag[None, :] * imag
        taps = tl.dot(left, inner_real, taps, input_precision="tf32x3")
        left = -(C_real[None, :] * imag + C_imag[None, :] * real)
        taps = tl.dot(left, inner_imag, taps, input_precision="tf32x3")
    lag = first + rows[:, None] * COLUMNS + columns[None, :]
    tl.store(kernel_ptr + d * L + lag, taps, mask=lag < L)


@triton.jit
def _gradient_kernel(
    dkernel_ptr, C_ptr, dtA_ptr, dC_ptr, ddtA_ptr, D, N, L, shares, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    d, share = pid // shares, pid % shares
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    at, inside = 2 * (d * N + n), n < N
    decay = tl.load(dtA_ptr + at, mask=inside, other=0.0)[None, :]
    turns = tl.load(dtA_ptr + at + 1, mask=inside, other=0.0).to(tl.float64)[None, :] * 0.15915494309189535
    inner_real, inner_imag = phasor(decay, turns, columns[:, None].to(tl.float64))  # (COLUMNS, N)
    power = columns[:, None].to(tl.float32)
    zero_real = tl.zeros((BLOCK_N,), tl.float32)
    zero_imag = tl.zeros((BLOCK_N,), tl.float32)
    one_real = tl.zeros((BLOCK_N,), tl.float32)
    one_imag = tl.zeros((BLOCK_N,), tl.float32)
    tiles = tl.cdiv(L, ROWS * COLUMNS)
    for tile in range(share, tiles, shares):
        row_l = tile * (ROWS * COLUMNS) + rows * COLUMNS
        lag = row_l[:, None] + columns[None, :]
        upstream = tl.load(dkernel_ptr + d * L + lag, mask=lag < L, other=0.0)  # (ROWS, COLUMNS)
        real, imag = phasor(decay, turns, row_l[:, None].to(tl.float64))  # (ROWS, N)
        # rows that begin beyond the last tap: their powers may overflow, and are multiplied by zero
        real = tl.where(row_l[:, None] < L, real, 0.0)
        imag = tl.where(row_l[:, None] < L, imag, 0.0)
        sum_real = tl.dot(upstream, inner_real, input_precision="tf32x3")  # (ROWS, N)
        sum_imag = tl.dot(upstream, inner_imag, input_precision="tf32x3")
        zero_real += tl.sum(real * sum_real - imag * sum_imag, 0)
        zero_imag += tl.sum(real * sum_imag + imag * sum_real, 0)
        first = row_l[:, None].to(tl.float32)
        sum_real = first * sum_real + tl.dot(upstream, power * inner_real, input_precision="tf32x3")
        sum_imag = first * sum_imag + tl.dot(upstream, power * inner_imag, input_precision="tf32x3")
        one_real += tl.sum(real * sum_real - imag * sum_imag, 0)
        one_imag += tl.sum(real * sum_imag + imag * sum_real, 0)
    C_real = scale * tl.load(C_ptr + at, mask=inside, other=0.0)
    C_imag = scale * tl.load(C_ptr + at + 1, mask=inside, other=0.0)
    at += share * D * N * 2  # (shares, D, N, 2)
    tl.store(dC_ptr + at, scale * zero_real, mask=inside)
    tl.store(dC_ptr + at + 1, -scale * zero_imag, mask=inside)
    tl.store(ddtA_ptr + at, C_real * one_real - C_imag * one_imag, mask=inside)
    tl.store(ddtA_ptr + at + 1, -(C_real * one_imag + C_imag * one_real), mask=inside)


def _block(N: int) -> int:
    return 32 if N > 16 else 16


def _forward(C: Tensor, dtA: Tensor, length: int, scale: float) -> Tensor:
    D, N, _ = C.shape
    kernel = C.new_empty(D, length)
    _kernel_kernel[(D * triton.cdiv(length, _ROWS * _COLUMNS),)](
        C, dtA, kernel, N, length, scale, ROWS=_ROWS, COLUMNS=_COLUMNS, BLOCK_N=_block(N), num_warps=4,
    )  # fmt: skip
    return kernel


def _backward(dkernel: Tensor, C: Tensor, dtA: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    D, N, _ = C.shape
    length = dkernel.shape[1]
    # four tiles or more a program: making the inner powers costs about one
    shares = min(triton.cdiv(triton.cdiv(length, _ROWS * _COLUMNS), 4), triton.cdiv(1024, D))
    dC, ddtA = C.new_empty(shares, D, N, 2), C.new_empty(shares, D, N, 2)
    _gradient_kernel[(D * shares, triton.cdiv(N, _block(N)))](
        dkernel, C, dtA, dC, ddtA, D, N, length, shares, scale,
        ROWS=_ROWS, COLUMNS=_COLUMNS, BLOCK_N=_block(N), num_warps=4,
    )  # fmt: skip
    return (dC[0], ddtA[0]) if shares == 1 else (dC.sum(0), ddtA.sum(0))


kernel = register("vandermonde_kernel_gpu", _forward, _backward)
