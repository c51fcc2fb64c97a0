"""Owns the focal loss of a probability that is right where the loss is least, whatever its exponent. Imports torch.

    loss = -(1 - v_true)^focal log v_true,         p = link(v)

The focal loss is least not at the true probability p but at a v nearer to 1/2; `focal_link` is how the two are related.

References:
    Lin, Goyal, Girshick, He, Dollar (2017), Focal loss for dense object detection, eq. 4.
    Charoenphakdee, Vongkulbhisal, Chairatanakul, Sugiyama (2021), On focal loss for class-posterior probability
    estimation, eq. 8.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from ssmfin.models.interface import FloatArray


def focal_loss(log_odds: Tensor, happened: Tensor, focal: float) -> Tensor:
    """The loss of p, given as log(p / (1 - p)).

    Args:
        log_odds: any shape. happened: bool, the same shape. focal: exponent, 0 for cross entropy.
    """
    odds, v = (torch.as_tensor(x, dtype=log_odds.dtype, device=log_odds.device) for x in focal_link(focal))
    focused = _interpolated(log_odds, odds, v)
    right = torch.where(happened, focused, -focused)  # log odds of the truth
    return -torch.sigmoid(-right).pow(focal) * torch.nn.functional.logsigmoid(right)


@functools.cache
def focal_link(focal: float) -> tuple[FloatArray, FloatArray]:
    """Log odds of the true probability p, increasing, and of the v that minimises the focal loss there.

    p = A(1 - v) / (A(v) + A(1 - v)),    A(v) = (1 - v)^(focal - 1) ((1 - v) / v - focal log v)
    """
    v = np.linspace(-40.0, 40.0, 1601)  # log odds
    with np.errstate(divide="ignore"):
        weight = np.log(np.float64(focal))

    def log_a(odds: FloatArray) -> FloatArray:
        log_v = -np.logaddexp(0.0, -odds)
        return np.asarray((1 - focal) * np.logaddexp(0.0, odds) + np.logaddexp(-odds, weight + np.log(-log_v)))

    return np.asarray(log_a(-v) - log_a(v)), v


def _interpolated(x: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Straight lines through (at, values), going on beyond them; differentiable in x."""
    left = torch.searchsorted(at, x.detach().contiguous()).sub(1).clamp(0, len(at) - 2)
    part = (x - at[left]) / (at[left + 1] - at[left])
    return values[left] + part * (values[left + 1] - values[left])
