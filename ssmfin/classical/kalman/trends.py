"""Owns models of a trend: local level, local linear trend (also smooth or damped), level plus seasonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssmfin.classical.kalman.model import (
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
# a panel holds quiet and noisy series: signal-to-noise ratios two decades apart leave no basin out
RATIOS = (1e-3, 0.03, 0.3, 3.0, 30.0)


def level_and_noise(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs (irregular, level) of variances with Var(dy) = level + 2 irregular, one for each of RATIOS."""
    spread = sample_moments(y).difference_variance
    return [(spread / (2 + ratio), spread * (ratio / (2 + ratio))) for ratio in RATIOS]


@dataclass(frozen=True)
class LocalLevel(Specification):
    """Random walk plus noise; exponential smoothing with an estimated weight.

        y_t = level_t + eps_t,     level_{t+1} = level_t + eta_t,     level_1 diffuse

    References:
        Durbin & Koopman (2012), section 2.1; Harvey (1989), section 2.3.1.
    """

    kind: ClassVar[str] = "local_level"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return Parameter("variance_irregular", "positive", _Y2), Parameter("variance_level", "positive", _Y2)

    @property
    def states(self) -> tuple[State, ...]:
        return (State("level", _Y),)

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        return grid(*([irregular, level] for irregular, level in level_and_noise(y[:, :, 0])))

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        irregular, level = columns(natural)
        one = constant([[1.0]], natural)
        return StateSpace(one, one, diagonal(level), diagonal(irregular), 0.0 * one, initial_diffuse=one)

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(self.state_names, natural)


@dataclass(frozen=True)
class LocalLinearTrend(Specification):
    """A level with a slope of its own.

        y_t = level_t + eps_t,   level_{t+1} = level_t + slope_t + eta_t,   slope_{t+1} = phi slope_t + zeta_t

    Attributes:
        smooth: no eta: an integrated random walk (the Hodrick-Prescott filter where phi = 1).
        damped: 0 < phi < 1 is estimated and the slope is stationary; else phi = 1 and the slope starts diffuse.
    References:
        Durbin & Koopman (2012), section 3.2.1; Harvey (1989), section 2.3.2.
    """

    smooth: bool = False
    damped: bool = False
    kind: ClassVar[str] = "local_linear_trend"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        found = [Parameter("variance_irregular", "positive", _Y2)]
        if not self.smooth:
            found.append(Parameter("variance_level", "positive", _Y2))
        found.append(Parameter("variance_slope", "positive", _Y2))
        if self.damped:
            found.append(Parameter("damping", "unit"))
        return tuple(found)

    @property
    def states(self) -> tuple[State, ...]:
        return State("level", _Y), State("slope", _Y)

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        rows = []
        for irregular, level in level_and_noise(y[:, :, 0]):
            for share in (1e-4, 0.03):
                spread = torch.full_like(level, 0.8)
                rows.append([irregular, *([] if self.smooth else [level]), (level + irregular) * share])
                if self.damped:
                    rows[-1].append(spread)
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        found = dict(zip(self.parameter_names, columns(natural), strict=True))
        slope = found["variance_slope"]
        zero, one = torch.zeros_like(slope), torch.ones_like(slope)
        H = constant([[1.0, 0.0]], natural)
        Q, R = diagonal(found.get("variance_level", zero), slope), diagonal(found["variance_irregular"])
        if not self.damped:
            F = constant([[1.0, 1.0], [0.0, 1.0]], natural)
            return StateSpace(F, H, Q, R, torch.zeros_like(F), initial_diffuse=torch.eye(2).to(F))
        phi = found["damping"]
        F = torch.stack([torch.stack([one, one], -1), torch.stack([zero, phi], -1)], -2)[:, None]
        start = diagonal(zero, stationary_variance(slope, phi))[:, 0]
        return StateSpace(F, H, Q, R, start, initial_diffuse=constant([[1.0, 0.0], [0.0, 0.0]], natural))

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(self.state_names, natural)


@dataclass(frozen=True)
class Seasonal(Specification):
    """A random walk plus a seasonal pattern that may change slowly, plus noise.

        y_t = level_t + season_t + eps_t,     season_{t+1} = -(season_t + ... + season_{t-s+2}) + omega_t

    Attributes:
        period: s steps to a season: 5 trading days of a week, 12 months, 78 five-minute bars of a session.
    References:
        Durbin & Koopman (2012), section 3.2.2, eq. 3.3.
    """

    period: int = 5
    kind: ClassVar[str] = "seasonal"

    def __post_init__(self) -> None:
        check_count("seasonal.period", self.period, 2, 100)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        names = ("variance_irregular", "variance_level", "variance_seasonal")
        return tuple(Parameter(name, "positive", _Y2) for name in names)

    @property
    def states(self) -> tuple[State, ...]:
        lags = [f"seasonal_lag_{k}" for k in range(1, self.period - 1)]
        return tuple(State(name, _Y) for name in ("level", "seasonal", *lags))

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        pairs = level_and_noise(y[:, :, 0])
        return grid(*([irregular, level, share * irregular] for irregular, level in pairs for share in (1e-4, 0.05)))

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        irregular, level, seasonal = columns(natural)
        N = self.period
        F = torch.zeros(N, N, dtype=natural.dtype, device=natural.device)
        F[0, 0] = 1.0
        F[1, 1:] = -1.0
        F[2:, 1:-1] = torch.eye(N - 2).to(F)
        H = torch.zeros_like(F[:1])
        H[0, :2] = 1.0
        zero = torch.zeros_like(level)
        Q = diagonal(level, seasonal, *([zero] * (N - 2)))
        return StateSpace(F, H, Q, diagonal(irregular), torch.zeros_like(F), initial_diffuse=torch.eye(N).to(F))

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        every = unit_weights(self.state_names, natural)
        return {name: every[name] for name in ("level", "seasonal")}
