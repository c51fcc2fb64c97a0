"""Owns the associative scan in a logarithm of steps, each a batched product: torch on any device.

Pairs of neighbours are combined, the half as long sequence is scanned by the same rule, and its results, which are the
results at every second place, are combined with the elements between them. T products of depth 2 log2 T in all, in
an order that depends on T alone (Blelloch 1990, section 1.4; Ladner and Fischer 1980).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.associative_scan.naive import Combine, Elements


def associative_scan(combine: Combine, elements: Elements) -> Elements:
    """Prefix products along the first dimension of every tensor."""
    T = elements[0].shape[0]
    if T < 2:
        return elements
    pairs = combine(tuple(x[: T - 1 : 2] for x in elements), tuple(x[1::2] for x in elements))
    odd = associative_scan(combine, pairs)  # results at 1, 3, 5, ...
    if T == 2:
        return tuple(torch.cat([x[:1], y]) for x, y in zip(elements, odd, strict=True))
    before = odd if T % 2 else tuple(y[:-1] for y in odd)
    even = combine(before, tuple(x[2::2] for x in elements))  # results at 2, 4, 6, ...
    return tuple(_interleave(torch.cat([x[:1], y]), z) for x, y, z in zip(elements, even, odd, strict=True))


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """even[0], odd[0], even[1], ...; even may be one longer."""
    n = odd.shape[0]
    mixed = torch.stack([even[:n], odd], dim=1).flatten(0, 1)  # (n, 2, ...) -> (2 n, ...)
    return mixed if even.shape[0] == n else torch.cat([mixed, even[n:]])
