"""Owns the meaning of the associative scan: y_t = y_{t-1} * x_t for any product *, one step at a time.

    y_0 = x_0,        y_t = combine(y_{t-1}, x_t)

The product need not be associative here; where it is, every bracketing gives the same result, and `parallel.py` uses
another. Differentiable any number of times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]
Combine = Callable[[Elements, Elements], Elements]


def associative_scan(combine: Combine, elements: Elements) -> Elements:
    """Prefix products along the first dimension of every tensor."""
    total = tuple(x[:1] for x in elements)
    totals = [total]
    for t in range(1, elements[0].shape[0]):
        total = combine(total, tuple(x[t : t + 1] for x in elements))
        totals.append(total)
    return tuple(torch.cat(column) for column in zip(*totals, strict=True))
