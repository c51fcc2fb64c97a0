"""Owns the prefix combination in logarithmic depth by which the parallel-in-time forms run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]


def prefix(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """All prefixes x_1, x_1 x_2, x_1 x_2 x_3, ... of an associative operation, along dimension 1.

    Odd-even reduction (Brent & Kung 1982): pairs are combined, their prefixes found by the same rule, and the places
    between filled in: 2 T combinations in 2 log2 T rounds, for any T.

    Args:
        combine: (earlier, later) -> combined, on tuples of tensors (B, any number of steps, ...).
        elements: tensors (B, T, ...).
    """
    T = elements[0].shape[1]
    if T == 1:
        return elements
    pairs = combine(tuple(e[:, 0 : T - 1 : 2] for e in elements), tuple(e[:, 1:T:2] for e in elements))
    odd = prefix(combine, pairs)  # prefixes at 1, 3, 5, ...
    if T == 2:
        return tuple(torch.cat([e[:, :1], o], 1) for e, o in zip(elements, odd, strict=True))
    between = combine(tuple(o[:, : (T - 1) // 2] for o in odd), tuple(e[:, 2::2] for e in elements))
    result = []
    for e, o, b in zip(elements, odd, between, strict=True):
        even = torch.cat([e[:, :1], b], 1)  # at 0, 2, 4, ...
        both = torch.stack([even[:, : o.shape[1]], o], 2).flatten(1, 2)
        result.append(both if T % 2 == 0 else torch.cat([both, even[:, -1:]], 1))
    return tuple(result)
