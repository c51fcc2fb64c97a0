"""Owns the Vandermonde kernel on the CPU: two tables of powers and one matrix product, in blocks of channels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ssmfin_kernels.long_convolution.vandermonde import register

_TABLE = 1 << 19  # complex numbers in the tables of one block: they stay in the cache


def _blocks(dtA: Tensor, length: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(channels, outer (d, N, length / columns), inner (d, N, columns)): powers whose products are all powers."""
    columns = 1 << ((length - 1).bit_length() + 1) // 2
    rows = -(-length // columns)
    channels = max(1, _TABLE // (max(1, dtA.shape[1]) * (rows + columns)))
    for start in range(0, dtA.shape[0], channels):
        part = slice(start, start + channels)
        # float64: the phase has an error of l roundings in float32
        exponent = torch.view_as_complex(dtA[part].double())[..., None]
        table = dtA.dtype.to_complex()
        inner = torch.exp(exponent * torch.arange(columns, device=dtA.device)).to(table)
        outer = torch.exp(exponent * (columns * torch.arange(rows, device=dtA.device))).to(table)
        yield part, outer, inner


def _forward(C: Tensor, dtA: Tensor, length: int, scale: float) -> Tensor:
    kernel = C.new_empty(C.shape[0], length)
    for part, outer, inner in _blocks(dtA, length):
        weighted = scale * torch.view_as_complex(C[part])[..., None] * outer
        left = torch.cat((weighted.real, -weighted.imag), dim=1)  # (d, 2 N, rows)
        right = torch.cat((inner.real, inner.imag), dim=1)  # (d, 2 N, columns)
        kernel[part] = (left.mT @ right).flatten(1)[:, :length]
    return kernel


def _backward(dkernel: Tensor, C: Tensor, dtA: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    length = dkernel.shape[1]
    dC, ddtA = torch.empty_like(C), torch.empty_like(dtA)
    for part, outer, inner in _blocks(dtA, length):
        rows, columns = outer.shape[2], inner.shape[2]
        upstream = torch.nn.functional.pad(dkernel[part], (0, rows * columns - length)).view(-1, rows, columns)
        powers = torch.arange(columns, dtype=dtA.dtype, device=dtA.device)
        right = torch.cat((inner.real, inner.imag, inner.real * powers, inner.imag * powers), dim=1)
        sums = (right @ upstream.mT).view(len(right), 4, -1, rows)  # (d, 4, N, rows)
        plain, weighted = torch.complex(sums[:, 0], sums[:, 1]), torch.complex(sums[:, 2], sums[:, 3])
        first = columns * torch.arange(rows, dtype=dtA.dtype, device=dtA.device)
        one = torch.view_as_complex(C[part]) * (outer * (first * plain + weighted)).sum(-1)
        dC[part] = torch.view_as_real((scale * (outer * plain).sum(-1)).conj().resolve_conj())
        ddtA[part] = torch.view_as_real((scale * one).conj().resolve_conj())
    return dC, ddtA


kernel = register("vandermonde_kernel_cpu", _forward, _backward)
