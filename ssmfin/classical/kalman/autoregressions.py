"""Owns stationary models: AR(1) plus noise, sums of AR(1)s, stochastic volatility by quasi-maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssmfin.classical.kalman.model import (
    Apart,
    Output,
    Parameter,
    Specification,
    State,
    Unit,
    check_count,
    columns,
    constant,
    diagonal,
    stationary_variance,
    unit_weights,
)
from ssmfin.classical.kalman.moments import grid, sample_moments
from ssmfin_kernels import StateSpace

_Y, _Y2 = Unit(y=1), Unit(y=2)
LOG_CHI2_MEAN = -1.2703628454614782  # E log z^2, z ~ N(0, 1): digamma(1/2) + log 2
LOG_CHI2_VARIANCE = math.pi**2 / 2


@dataclass(frozen=True)
class AR1PlusNoise(Specification):
    """A stationary level under noise: a spread that reverts to its mean, log variance of short memory.

        y_t = mean + a_t + eps_t,     a_{t+1} = phi a_t + eta_t,     |phi| < 1

    References:
        Harvey (1989), section 2.3.
    """

    kind: ClassVar[str] = "ar1_plus_noise"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", "real", _Y, location=True),
            Parameter("variance_irregular", "positive", _Y2),
            Parameter("persistence", "stationary"),
            Parameter("variance_state", "positive", _Y2),
        )

    @property
    def states(self) -> tuple[State, ...]:
        return (State("deviation", _Y),)

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        sample = sample_moments(y[:, :, 0])
        rows = []
        for phi, share in ((0.3, 0.7), (0.8, 0.7), (0.95, 0.3), (0.95, 0.8), (0.99, 0.5), (-0.5, 0.7)):
            total = share * sample.variance
            rows.append(
                [sample.mean, sample.variance - total, torch.full_like(total, phi), total * (1 - phi * phi)],
            )
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        mean, irregular, phi, variance = columns(natural)
        return StateSpace(
            diagonal(phi),
            constant([[1.0]], natural),
            diagonal(variance),
            diagonal(irregular),
            stationary_variance(variance, phi)[:, None, None],
            observation_intercept=mean[:, None, None],
        )

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return {"level": Output(torch.ones_like(natural[0, :1]), natural[:, 0])}


@dataclass(frozen=True)
class SumOfAR1(Specification):
    """Two or three AR(1)s under noise: long memory by components of a day, a week and a month; for log variance.

        y_t = mean + a_1t + a_2t (+ a_3t) + eps_t,     a_{j,t+1} = phi_j a_jt + eta_jt,     1 > phi_1 > phi_2 > .. > 0

    Components are ordered by persistence, phi_j = phi_{j-1} u_j with u_j in (0, 1), so that they keep their identity
    from fit to fit.

    Attributes:
        terms: 2 or 3.
    References:
        Granger (1980), Journal of Econometrics 14, 227-238; Gallant, Hsu, Tauchen (1999), Rev. Econ. Stat. 81.
    """

    terms: int = 2
    kind: ClassVar[str] = "sum_of_ar1"

    def __post_init__(self) -> None:
        check_count("sum_of_ar1.terms", self.terms, 2, 3)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        each = range(1, self.terms + 1)
        return (
            Parameter("mean", "real", _Y, location=True),
            Parameter("variance_irregular", "positive", _Y2),
            *(Parameter(f"persistence_{j}", "unit") for j in each),
            *(Parameter(f"variance_{j}", "positive", _Y2) for j in each),
        )

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(State(f"component_{j}", _Y) for j in range(1, self.terms + 1))

    def natural(self, theta: Tensor) -> Tensor:
        found = super().natural(theta)
        n = self.terms
        ordered = [found[:, 2]]
        for j in range(1, n):
            ordered.append(ordered[-1] * found[:, 2 + j])
        return torch.cat([found[:, :2], torch.stack(ordered, 1), found[:, 2 + n :]], 1)

    def free(self, natural: Tensor) -> Tensor:
        n = self.terms
        phi = natural[:, 2 : 2 + n]
        shares = torch.cat([phi[:, :1], phi[:, 1:] / torch.clamp(phi[:, :-1], min=1e-300)], 1)
        return super().free(torch.cat([natural[:, :2], shares, natural[:, 2 + n :]], 1))

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        sample = sample_moments(y[:, :, 0])
        variants: list[tuple[list[float], list[float]]]  # persistence, shares of the variance
        if self.terms == 2:
            variants = [([0.99, 0.7], [0.4, 0.3]), ([0.97, 0.4], [0.5, 0.3]), ([0.995, 0.9], [0.3, 0.4])]
        else:
            variants = [
                ([0.99, 0.85, 0.4], [0.4, 0.2, 0.2]),
                ([0.995, 0.95, 0.6], [0.3, 0.3, 0.2]),
                ([0.98, 0.7, 0.2], [0.4, 0.3, 0.1]),
            ]
        rows = []
        for persistence, shares in variants:
            v = sample.variance
            phis = [torch.full_like(v, phi) for phi in persistence]
            shocks = [v * (share * (1 - phi * phi)) for phi, share in zip(persistence, shares, strict=True)]
            rows.append([sample.mean, v * (1 - sum(shares)), *phis, *shocks])
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        mean, irregular, *rest = columns(natural)
        phis, variances = rest[: self.terms], rest[self.terms :]
        start = [stationary_variance(v, phi) for v, phi in zip(variances, phis, strict=True)]
        return StateSpace(
            diagonal(*phis),
            constant([[1.0] * self.terms], natural),
            diagonal(*variances),
            diagonal(irregular),
            diagonal(*start)[:, 0],
            observation_intercept=mean[:, None, None],
        )

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        level = Output(torch.ones_like(natural[0, : self.terms]), natural[:, 0])
        return {"level": level} | unit_weights(self.state_names, natural)


@dataclass(frozen=True)
class StochasticVolatility(Specification):
    """Log variance of returns as an AR(1), by quasi-maximum likelihood on log squared returns.

        r_t = exp(h_t / 2) z_t,   h_{t+1} = mean + phi (h_t - mean) + eta_t
        log r_t^2 = -1.27 + h_t + xi_t,     Var xi = pi^2 / 2, taken for Gaussian

    y are returns of mean zero: subtract a mean of the training window first. A return of exactly zero has no
    logarithm and counts as missing. `log_variance` is h_t, so that exp(h_t / 2) is the volatility of a step.

    References:
        Harvey, Ruiz, Shephard (1994), Review of Economic Studies 61, eq. 5-7.
    """

    kind: ClassVar[str] = "stochastic_volatility"

    @property
    def scaling(self) -> Apart:
        return "none"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", "real", _Y, location=True),
            Parameter("persistence", "stationary"),
            Parameter("variance_log_variance", "positive", _Y2),
        )

    @property
    def states(self) -> tuple[State, ...]:
        return (State("deviation", _Y),)

    def observe(self, y: Tensor) -> Tensor:
        return torch.where(y == 0, torch.nan, 2 * torch.log(y.abs()))

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        sample = sample_moments(y[:, :, 0])
        signal = torch.clamp(sample.variance - LOG_CHI2_VARIANCE, min=0.1)
        rows = []
        for phi in (-0.5, 0.3, 0.8, 0.95, 0.98, 0.995):
            for share in (1.0, 0.2):
                shock = signal * (share * (1 - phi * phi))
                rows.append([sample.mean - LOG_CHI2_MEAN, torch.full_like(signal, phi), shock])
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        mean, phi, variance = columns(natural)
        return StateSpace(
            diagonal(phi),
            constant([[1.0]], natural),
            diagonal(variance),
            constant([[LOG_CHI2_VARIANCE]], natural),
            stationary_variance(variance, phi)[:, None, None],
            observation_intercept=(mean + LOG_CHI2_MEAN)[:, None, None],
        )

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return {"log_variance": Output(torch.ones_like(natural[0, :1]), natural[:, 0])}
