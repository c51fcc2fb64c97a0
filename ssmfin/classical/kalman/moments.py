"""Owns sample moments of series with missing values, for starting values: the same bits whatever the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Moments(NamedTuple):
    """Of each series, (B,): number of observations, mean, variance, variance of first differences."""

    observed: Tensor
    mean: Tensor
    variance: Tensor
    difference_variance: Tensor


def row_sum(values: Tensor) -> Tensor:
    """(B, T) -> (B,). On the CPU by numpy, which sums every row in the same order; torch's order depends on B."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.add.reduce(np.ascontiguousarray(values.detach().numpy()), axis=1))
    return values.sum(1)


def sample_moments(y: Tensor) -> Moments:
    """Of y (B, T), NaN = missing; differences between neighbouring steps that are both observed."""
    seen = ~torch.isnan(y)
    count = row_sum(seen.double())
    many = torch.clamp(count, min=1.0)
    mean = row_sum(torch.where(seen, y, 0.0)) / many
    variance = row_sum(torch.where(seen, y - mean[:, None], 0.0) ** 2) / many
    change = y[:, 1:] - y[:, :-1]
    both = ~torch.isnan(change)
    pairs = torch.clamp(row_sum(both.double()), min=1.0)
    centre = row_sum(torch.where(both, change, 0.0)) / pairs
    spread = row_sum(torch.where(both, change - centre[:, None], 0.0) ** 2) / pairs
    floor = torch.clamp(variance, min=1e-12)
    return Moments(count, mean, floor, torch.clamp(spread, min=1e-4 * floor))


def residual_variance(y: Tensor, x: Tensor, intercept: bool) -> tuple[Tensor, Tensor]:
    """Of y (B, T) given x (B, T, J) by least squares, and the smallest share of a regressor the others leave.

    Modified Gram-Schmidt on the rows where all is observed.

    Returns:
        variance (B,), share (B, J): residual sum of squares of x_j given the intercept and x_1 .. x_{j-1}, over its
        own (uncentred) sum of squares; near zero where it is constant or collinear.
    """
    J = x.shape[2]
    seen = ~(torch.isnan(y) | torch.isnan(x).any(2))
    weight = seen.to(y.dtype)
    count = torch.clamp(row_sum(weight), min=1.0)
    basis: list[tuple[Tensor, Tensor]] = [(weight, count)] if intercept else []
    share = []
    for j in range(J):
        column = torch.where(seen, x[:, :, j], 0.0)
        total = row_sum(column * column)
        left, square = _rest(column, basis)
        share.append(square / torch.clamp(total, min=1e-300))
        basis.append((left, square))
    _, square = _rest(torch.where(seen, y, 0.0), basis)
    return torch.clamp(square / count, min=1e-12), torch.stack(share, 1)


def _rest(column: Tensor, basis: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What orthogonal directions leave of a column (B, T), and its sum of squares."""
    for _ in range(2):  # twice is enough: the second pass removes what rounding left
        for direction, square in basis:
            part = row_sum(direction * column) / torch.clamp(square, min=1e-300)
            column = column - part[:, None] * direction
    return column, row_sum(column * column)


def grid(*rows: list[Tensor]) -> Tensor:
    """S lists of K vectors (B,) -> (B, S, K)."""
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
