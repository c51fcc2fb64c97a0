"""Owns what the network's numbers mean: the mean forecast, its distribution where there is one, and the loss of both.

A head reads P numbers for each horizon, `raw`, zero before training. The first is g, the correction of the mean of a
base forecast b, in every head:

    log target:   mean = b exp(g),     r = log(y / b)            no transform:   mean = b + s g,     r = (y - b) / s

so that untrained, each head forecasts the base to the last bit. What else a head has starts at what the base's own
errors in the training window say (`calibrated`). Losses are torch, answers numpy, whose bits do not depend on how many
rows are asked for. Imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.special import expit, log_ndtr, ndtri
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin.models.deep.focal_loss import focal_loss
from ssmfin.models.interface import FloatArray

WIDER = 4.0  # numbers beside the mean may move this many times further than the mean's bound


class HeadOptions(NamedTuple):
    """What a user chooses: the loss of `point`, the levels of `quantiles`, the event of `event`."""

    loss: str
    levels: tuple[float, ...]
    event_quantile: float
    focal: float


class Targets(NamedTuple):
    """What was right, (..., H) each: the residual r of the base, and the residual at which the event begins."""

    residual: Tensor
    threshold: Tensor


@dataclass(frozen=True)
class Head(ABC):
    """One way to read the network's numbers.

    Attributes:
        log: the target is in logs. extra: numbers beside the mean's.
    """

    log: bool

    @property
    @abstractmethod
    def extra(self) -> int: ...

    def limits(self, bound: float) -> tuple[float, ...]:
        """(P,) the largest size of each number."""
        return (bound, *[WIDER * bound] * self.extra)

    @classmethod
    @abstractmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        """The head whose start fits the base's errors, one array of residuals r for each horizon."""

    @abstractmethod
    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        """(..., H, P) -> (..., H), least in expectation where the forecast distribution is right."""

    def mean(self, raw: FloatArray) -> FloatArray:
        """g, (..., H, P) -> (..., H): the correction of the base's mean."""
        return raw[..., 0]

    def quantiles(self, raw: FloatArray, levels: FloatArray) -> FloatArray | None:
        """(..., H, P) -> (..., H, Q), increasing in the level: multiples of b in logs, else (q - b) / s; or None."""
        return None

    def event_probability(self, raw: FloatArray, threshold: FloatArray) -> FloatArray | None:
        """(..., H, P) and the residual at which the event begins, (..., H) -> (..., H): its probability; or None."""
        return None

    def constants(self) -> dict[str, Any]:
        """The fields, to be stored and given back to the class."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def mean_loss(log: bool, residual: Tensor, g: Tensor) -> Tensor:
    """QLIKE of b exp(g) in logs, exp(r - g) - (r - g) - 1; else (r - g)^2. Both are least at the mean."""
    error = residual - g
    return torch.exp(error) - error - 1 if log else torch.square(error)


@dataclass(frozen=True)
class Point(Head):
    """The mean alone.

    By QLIKE, or by the squared error of the log, which estimates E log y: the mean is then that plus a constant,
    -`offset`, the same as for the base, whose forecast is unbiased as the base says it is.

    Attributes:
        offset: (H,) mean of r in the training window; zero with QLIKE and without a log.
    """

    squared: bool
    offset: FloatArray

    @property
    def extra(self) -> int:
        return 0

    @classmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        squared = not log or options.loss == "squared_log"
        offset = [values.mean() if log and squared else 0.0 for values in residuals]
        return cls(log, squared, np.array(offset))

    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        g = raw[..., 0]
        return mean_loss(self.log and not self.squared, targets.residual - _as(self.offset, g), g)


@dataclass(frozen=True)
class LogNormal(Head):
    """log y ~ N(log b + g - sigma^2 / 2, sigma^2), sigma = `scale` exp(raw_1), by maximum likelihood.

    Attributes:
        scale: (H,) standard deviation of r in the training window.
    """

    scale: FloatArray

    @property
    def extra(self) -> int:
        return 1

    @classmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        if not log:
            raise InputError("head is 'lognormal', but target.transform is 'none'; use gaussian, or transform: log.")
        return cls(log, _deviations(residuals))

    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        sigma = _as(self.scale, raw) * raw[..., 1].exp()
        error = (targets.residual - raw[..., 0]) / sigma + 0.5 * sigma
        return 0.5 * error.square() + sigma.log()

    def quantiles(self, raw: FloatArray, levels: FloatArray) -> FloatArray:
        sigma = (self.scale * np.exp(raw[..., 1]))[..., None]
        return np.asarray(np.exp(raw[..., :1] - 0.5 * sigma**2 + sigma * ndtri(levels)))


@dataclass(frozen=True)
class Gaussian(Head):
    """y ~ N(mean, variance), by maximum likelihood: y / b ~ N(exp(g), tau^2) in logs, else r ~ N(g, tau^2).

    tau = `scale` exp(raw_1). Quantiles of a target in logs end at zero.

    Attributes:
        scale: (H,) standard deviation of y / b, or of r, in the training window.
    """

    scale: FloatArray

    @property
    def extra(self) -> int:
        return 1

    @classmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        return cls(log, _deviations([np.exp(values) for values in residuals] if log else residuals))

    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        tau = _as(self.scale, raw) * raw[..., 1].exp()
        g, r = raw[..., 0], targets.residual
        error = (r.exp() - g.exp() if self.log else r - g) / tau
        return 0.5 * error.square() + tau.log()

    def quantiles(self, raw: FloatArray, levels: FloatArray) -> FloatArray:
        tau = (self.scale * np.exp(raw[..., 1]))[..., None]
        centre = np.exp(raw[..., :1]) if self.log else raw[..., :1]
        found = centre + tau * ndtri(levels)
        return np.asarray(np.maximum(found, 0.0) if self.log else found)


@dataclass(frozen=True)
class Quantiles(Head):
    """The mean by its own loss, and quantiles of r that cannot cross, by the pinball loss.

        q_1 = start_1 + scale raw_1,      q_k = q_{k-1} + softplus(start_k + raw_k)

    Before training the quantiles are those of the base's errors. Other levels lie on straight lines between these,
    drawn over the normal score of the level. (Measured: letting them move with g, the mean's correction, changes the
    interval score by 1 % for the worse.)

    Attributes:
        levels: (K,) increasing. start: (H, K). scale: (H,) standard deviation of r in the training window.
    References:
        Koenker, Bassett (1978), Econometrica 46, eq. 1.4.
    """

    levels: FloatArray
    start: FloatArray
    scale: FloatArray

    @property
    def extra(self) -> int:
        return len(self.levels)

    @classmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        levels, scale = np.array(options.levels), _deviations(residuals)
        found = np.stack([np.quantile(values, levels) for values in residuals])  # (H, K)
        gaps = np.maximum(np.diff(found, axis=1), 1e-3 * scale[:, None])
        inverse_softplus = gaps + np.log(-np.expm1(-gaps))
        return cls(log, levels, np.concatenate((found[:, :1], inverse_softplus), axis=1), scale)

    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        start, scale = _as(self.start, raw), _as(self.scale, raw)
        first = start[..., :1] + scale[..., None] * raw[..., 1:2]
        gaps = torch.nn.functional.softplus(start[..., 1:] + raw[..., 2:])
        q = torch.cat((first, gaps), dim=-1).cumsum(-1)
        error = targets.residual[..., None] - q
        levels = _as(self.levels, raw)
        pinball = torch.maximum(levels * error, (levels - 1) * error).mean(-1) / scale
        return mean_loss(self.log, targets.residual, raw[..., 0]) + pinball

    def quantiles(self, raw: FloatArray, levels: FloatArray) -> FloatArray:
        first = self.start[:, :1] + self.scale[:, None] * raw[..., 1:2]
        gaps = np.logaddexp(0.0, self.start[:, 1:] + raw[..., 2:])
        q = np.cumsum(np.concatenate((first, gaps), axis=-1), axis=-1)  # (..., H, K)
        scores, asked = ndtri(self.levels), ndtri(np.asarray(levels))
        left = np.clip(np.searchsorted(scores, asked, side="right") - 1, 0, len(scores) - 2)
        part = (asked - scores[left]) / (scores[left + 1] - scores[left])
        found = q[..., left] + part * (q[..., left + 1] - q[..., left])
        return np.asarray(np.exp(found) if self.log else found)


@dataclass(frozen=True)
class Event(Head):
    """The mean by its own loss, and the probability of a spike by the focal loss.

        p = sigmoid(logit P(r > threshold) + raw_1),   r ~ N(mean + g, scale^2)

    The event: the label exceeds a quantile of the id's labels in the training window. Before training p is what the
    base and the law of its errors say. `focal_loss` is least where p is the true probability, whatever `focal` is.

    Attributes:
        mean_error, scale: (H,) mean and standard deviation of r in the training window. focal: exponent, 0 for cross
            entropy.
    """

    mean_error: FloatArray
    scale: FloatArray
    focal: float

    @property
    def extra(self) -> int:
        return 1

    def limits(self, bound: float) -> tuple[float, ...]:
        return (bound, max(8.0, WIDER * bound))  # a probability of 1 - 1e-3 must be within reach

    @classmethod
    def calibrated(cls, residuals: list[FloatArray], log: bool, options: HeadOptions) -> Self:
        return cls(log, np.array([values.mean() for values in residuals]), _deviations(residuals), options.focal)

    def loss(self, raw: Tensor, targets: Targets) -> Tensor:
        g = raw[..., 0]
        above = (_as(self.mean_error, raw) + g.detach() - targets.threshold) / _as(self.scale, raw)
        log_odds = torch.special.log_ndtr(above) - torch.special.log_ndtr(-above) + raw[..., 1]
        spike = targets.residual > targets.threshold
        return mean_loss(self.log, targets.residual, g) + focal_loss(log_odds, spike, self.focal)

    def event_probability(self, raw: FloatArray, threshold: FloatArray) -> FloatArray:
        above = (self.mean_error + raw[..., 0] - threshold) / self.scale
        return np.asarray(expit(log_ndtr(above) - log_ndtr(-above) + raw[..., 1]))


HEADS: dict[str, type[Head]] = {
    "point": Point,
    "lognormal": LogNormal,
    "gaussian": Gaussian,
    "quantiles": Quantiles,
    "event": Event,
}


def _as(values: FloatArray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def _deviations(residuals: list[FloatArray]) -> FloatArray:
    found = np.array([values.std() for values in residuals])
    return np.where(found > 0, found, 1.0)
