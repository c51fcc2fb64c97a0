"""Owns the diagonal scan on a GPU: its products and copies in Triton; wide states and float64 multiply in cuBLAS.

Products of float32 are three tf32 products each: one where torch.set_float32_matmul_precision("high") asks for it.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ssmfin_kernels.diagonal_scan import chunked, triton_kernels

_LANES = 128
_ROWS = 64  # of a tile of a product
_WIDEST = 64  # columns of a factor, beyond which cuBLAS takes over
_TILES = 8  # of rows a program: it makes the tf32 parts of its factor once


class _Products(chunked.Products):
    def factors(self, C: Tensor, dtA: Tensor, scale: float, last: int) -> chunked.Factors:
        if C.dtype != torch.float32:
            return super().factors(C, dtA, scale, last)
        (D, N, _), Q = C.shape, chunked.STEPS
        shapes = ((D, Q), (D, Q, Q), (D, Q, 2 * N), (D, 2 * N, Q), (D, 2 * N), (D, 2 * N))
        taps, *factors = (C.new_empty(shape) for shape in shapes)
        triton_kernels.factor_kernel[(D,)](C, dtA, taps, *factors, N, last, scale, Q=Q, BLOCK_N=16, num_warps=4)
        return chunked.Factors(*factors)

    def gradients(
        self, C: Tensor, dtA: Tensor, scale: float, last: int, dfactors: chunked.Factors
    ) -> tuple[Tensor, Tensor]:
        if C.dtype != torch.float32:
            return super().gradients(C, dtA, scale, last, dfactors)
        D, N, _ = C.shape
        dC, ddtA = torch.empty_like(C), torch.empty_like(dtA)
        triton_kernels.factor_gradient_kernel[(D, triton.cdiv(N, 16))](
            C, dtA, *(tensor.contiguous() for tensor in dfactors), dC, ddtA, N, last, scale,
            Q=chunked.STEPS, BLOCK_N=16, num_warps=4,
        )  # fmt: skip
        return dC, ddtA

    def by_channel(self, u: Tensor, n: int, kind: torch.dtype) -> Tensor:
        B, T, D = u.shape
        x = torch.empty(D, B, n, chunked.STEPS, dtype=kind, device=u.device)
        steps = n * chunked.STEPS
        _transpose(u, x, T, steps, u.stride(), (steps, 1, B * steps))
        return x

    def by_step(self, x: Tensor, like: Tensor) -> Tensor:
        y = torch.empty_like(like, memory_format=torch.contiguous_format)
        B, T, D = like.shape
        steps = x.shape[2] * x.shape[3]
        _transpose(x, y, T, T, (steps, 1, B * steps), (T * D, D, 1))
        return y

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        if not _small(x, matrix.shape[2]):
            return super().product(x, matrix)
        return _multiply(x, matrix, x, matrix, False)

    def two_products(self, x: Tensor, matrix: Tensor, y: Tensor, other: Tensor) -> Tensor:
        if not _small(x, matrix.shape[2], other.shape[1]):
            return super().two_products(x, matrix, y, other)
        return _multiply(x, matrix, y, other, True)

    def gram(self, x: Tensor, y: Tensor) -> Tensor:
        if not _small(x, y.shape[2]):
            return super().gram(x, y)
        D, rows, K = x.shape
        W = y.shape[2]
        tiles = min(2 * _TILES, triton.cdiv(rows, _ROWS))
        shares = triton.cdiv(rows, _ROWS * tiles)
        out = torch.empty(shares, D, K, W, device=x.device)
        triton_kernels.gram_kernel[(shares * D,)](
            x, y, out, rows, K, W, tiles,
            PRECISION=_precision(), ROWS=_ROWS, BLOCK_K=_block(K), BLOCK_W=_block(W), STAGES=3, num_warps=4,
        )  # fmt: skip
        return out[0] if shares == 1 else out.sum(0)

    def carry(self, added: Tensor, jump: Tensor, initial: Tensor, cut: Tensor | None) -> tuple[Tensor, Tensor]:
        return _carry(added, jump, initial, cut, None)[:2]

    def carry_back(
        self, dbefore: Tensor, jump: Tensor, dlast: Tensor, cut: Tensor | None, before: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        after, dfirst, djump = _carry(dbefore, jump, dlast, cut, before)
        return after, dfirst, djump.sum(1)


def _precision() -> str:
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _block(size: int) -> int:
    return max(32, triton.next_power_of_2(size))


def _small(x: Tensor, *widths: int) -> bool:
    return x.dtype == torch.float32 and max(x.shape[2], *widths) <= _WIDEST


def _multiply(x: Tensor, matrix: Tensor, y: Tensor, other: Tensor, two: bool) -> Tensor:
    (D, rows, K), W = x.shape, matrix.shape[2]
    tiles = min(_TILES, triton.cdiv(rows, _ROWS))
    out = torch.empty(D, rows, W, device=x.device)
    triton_kernels.product_kernel[(triton.cdiv(rows, _ROWS * tiles) * D,)](
        x, matrix, y, other, out, rows, K, y.shape[2], W, *matrix.stride()[1:], *other.stride()[1:], tiles,
        TWO=two, PRECISION=_precision(), ROWS=_ROWS, BLOCK_K=_block(K), BLOCK_K2=_block(y.shape[2]),
        BLOCK_W=_block(W), STAGES=2, num_warps=4,
    )  # fmt: skip
    return out


def _transpose(
    source: Tensor, target: Tensor, T: int, steps: int, source_strides: tuple[int, ...], target_strides: tuple[int, ...]
) -> None:
    """(b, t, d) strides of both; B and D are those of the (B, T, D) one."""
    D = source.shape[2] if source.ndim == 3 else target.shape[2]
    B = source.shape[0] if source.ndim == 3 else target.shape[0]
    triton_kernels.transpose_kernel[(B * triton.cdiv(steps, 64), triton.cdiv(D, 32))](
        source, target, T, D, *source_strides, *target_strides, steps,
        BLOCK_T=64, BLOCK_D=32, num_warps=4,
    )  # fmt: skip


def _carry(
    added: Tensor, jump: Tensor, first: Tensor, cut: Tensor | None, before: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    D, B, chunks, width = added.shape
    first = first.contiguous()
    states, last = torch.empty_like(added), torch.empty_like(first)
    djump = added if before is None else added.new_empty(D, B, width)
    lanes = D * B * width // 2
    triton_kernels.carry_kernel[(triton.cdiv(lanes, _LANES),)](
        added, jump, first, added if cut is None else cut.contiguous().view(torch.uint8), states,
        added if before is None else before, last, djump, lanes, B, D, width // 2, chunks,
        REVERSE=before is not None, HAS_CUT=cut is not None, BLOCK=_LANES, num_warps=4,
    )  # fmt: skip
    return states, last, djump


scan = chunked.register("diagonal_scan_gpu", _Products())
