"""Owns models of several observed components: the dynamic Nelson-Siegel yield curve and one dynamic factor."""

from __future__ import annotations

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
from ssmfin.classical.kalman.moments import grid, row_sum, sample_moments
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace

_FACTORS = ("level", "slope", "curvature")


def nelson_siegel_loadings(maturities: Tensor, decay: Tensor) -> Tensor:
    """(P,), (B,) -> (B, P, 3): 1, (1 - e^-z) / z, (1 - e^-z) / z - e^-z with z = decay * maturity.

    References:
        Diebold & Li (2006), Journal of Econometrics 130, eq. 1.
    """
    z = decay[:, None] * maturities
    slope = -torch.expm1(-z) / z
    return torch.stack([torch.ones_like(z), slope, slope - torch.exp(-z)], 2)


@dataclass(frozen=True)
class DynamicNelsonSiegel(Specification):
    """A yield curve by level, slope and curvature, each an AR(1) about its mean.

        y_t(m) = level_t + slope_t s(z) + curvature_t c(z) + eps_t(m),     z = decay m
        f_{j,t+1} = mean_j + phi_j (f_jt - mean_j) + eta_jt

    Attributes:
        maturities: P of them, increasing, in the unit (months, years) whose inverse is that of `decay`.
        decay: known (.0609 a month is Diebold and Li's), or None to estimate it.
    References:
        Diebold, Rudebusch, Aruoba (2006), Journal of Econometrics 131, eq. 5-9, with diagonal transition and
        covariance; Christensen, Diebold, Rudebusch (2011): the independent-factor model.
    """

    maturities: tuple[float, ...] = ()
    decay: float | None = None
    kind: ClassVar[str] = "dynamic_nelson_siegel"

    def __post_init__(self) -> None:
        object.__setattr__(self, "maturities", tuple(float(m) for m in self.maturities))
        rising = all(a < b for a, b in zip(self.maturities, self.maturities[1:], strict=False))
        if len(self.maturities) < 3 or not rising or not 0 < self.maturities[0] < float("inf"):
            raise InputError(
                f"dynamic_nelson_siegel.maturities is {self.maturities}; give three or more, positive and increasing."
            )
        if self.decay is not None and not 0 < self.decay < float("inf"):
            raise InputError(f"dynamic_nelson_siegel.decay is {self.decay}; give a positive number, or none.")

    @property
    def scaling(self) -> Apart:
        return "common"

    @property
    def shifting(self) -> Apart:
        return "common"

    @property
    def components(self) -> int:
        return len(self.maturities)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        y, y2 = Unit(y=1), Unit(y=2)
        found = [Parameter(f"mean_{name}", "real", y, location=name == "level") for name in _FACTORS]
        found += [Parameter(f"persistence_{name}", "stationary") for name in _FACTORS]
        found += [Parameter(f"variance_{name}", "positive", y2) for name in _FACTORS]
        found += [Parameter(f"variance_irregular_{p + 1}", "positive", y2) for p in range(self.components)]
        return (*found, *([Parameter("decay", "positive")] if self.decay is None else []))

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(State(name, Unit(y=1)) for name in _FACTORS)

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        maturities = constant([list(self.maturities)], y)[0]
        # z = 1.793 is where the curvature's loading is largest
        middle = 1.793 / self.maturities[len(self.maturities) // 2]
        rows = []
        for decay in [self.decay] if self.decay is not None else [middle, 0.4 * middle, 2.5 * middle]:
            loadings = nelson_siegel_loadings(maturities, maturities.new_full((1,), decay))[0]  # (P, 3)
            weights = torch.linalg.pinv(loadings)  # (3, P)
            # sums in a fixed order; a date that lacks a maturity lacks its factors
            factors = [_weighted(y, weights[j]) for j in range(3)]
            fitted = [_weighted(torch.stack(factors, 2), loadings[p]) for p in range(self.components)]
            errors = [
                torch.clamp(sample_moments(y[:, :, p] - fitted[p]).variance, min=1e-4) for p in range(self.components)
            ]
            samples = [sample_moments(factor) for factor in factors]
            phis = [torch.clamp(1 - s.difference_variance / (2 * s.variance), 0.3, 0.98) for s in samples]
            shocks = [s.variance * (1 - phi * phi) for s, phi in zip(samples, phis, strict=True)]
            known = [] if self.decay is not None else [torch.full_like(phis[0], decay)]
            rows.append([*(s.mean for s in samples), *phis, *shocks, *errors, *known])
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        found = columns(natural)
        means, phis, shocks, errors = found[:3], found[3:6], found[6:9], found[9 : 9 + self.components]
        decay = found[-1] if self.decay is None else torch.full_like(found[0][:1], self.decay)
        H = nelson_siegel_loadings(constant([list(self.maturities)], natural)[0], decay)[:, None]
        start = [stationary_variance(v, phi) for v, phi in zip(shocks, phis, strict=True)]
        mean = torch.stack(means, 1)
        drift = torch.stack([m * (1 - phi) for m, phi in zip(means, phis, strict=True)], 1)
        return StateSpace(
            diagonal(*phis), H, diagonal(*shocks), diagonal(*errors), diagonal(*start)[:, 0], mean,
            state_intercept=drift[:, None],
        )  # fmt: skip

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(_FACTORS, natural)


@dataclass(frozen=True)
class DynamicFactor(Specification):
    """What a small panel has in common, as one AR(1) factor of variance one.

        y_pt = mean_p + loading_p f_t + eps_pt,     f_{t+1} = phi f_t + sqrt(1 - phi^2) eta_t,     loading_1 > 0

    Attributes:
        n_components: P, 2 to 30.
    References:
        Stock & Watson (1991), in Leading Economic Indicators, ch. 4; Durbin & Koopman (2012), section 3.7.
    """

    n_components: int = 2
    kind: ClassVar[str] = "dynamic_factor"

    def __post_init__(self) -> None:
        check_count("dynamic_factor.n_components", self.n_components, 2, 30)

    @property
    def components(self) -> int:
        return self.n_components

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        each = range(self.components)
        return (
            Parameter("persistence", "stationary"),
            *(Parameter(f"mean_{p + 1}", "real", Unit(y=1, component=p), location=True) for p in each),
            # the factor's sign is arbitrary: the first loading fixes it
            *(
                Parameter(f"loading_{p + 1}", "positive" if p == 0 else "real", Unit(y=1, component=p)) for p in each
            ),
            *(Parameter(f"variance_irregular_{p + 1}", "positive", Unit(y=2, component=p)) for p in each),
        )  # fmt: skip

    @property
    def states(self) -> tuple[State, ...]:
        return (State("factor"),)

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        P = self.components
        samples = [sample_moments(y[:, :, p]) for p in range(P)]
        deviations = [
            torch.where(torch.isnan(y[:, :, p]), 0.0, (y[:, :, p] - s.mean[:, None]) / s.variance.sqrt()[:, None])
            for p, s in enumerate(samples)
        ]
        first = deviations[0]
        signs = [torch.sign(row_sum(first * d) + 1e-300) for d in deviations]
        common = sum((d * sign[:, None] for d, sign in zip(deviations, signs, strict=True)), torch.zeros_like(first))
        size = torch.clamp(row_sum(common * common), min=1e-300)
        rows = []
        for phi in (0.9, 0.5, 0.0):
            for shrink in (0.9, 0.6):
                # correlation with the common part, kept away from one
                shares = [
                    shrink * row_sum(d * common) / torch.clamp((row_sum(d * d) * size).sqrt(), min=1e-300)
                    for d in deviations
                ]
                shares[0] = torch.clamp(shares[0], min=0.05)
                loadings = [share * s.variance.sqrt() for share, s in zip(shares, samples, strict=True)]
                noise = [s.variance * (1 - share * share) for share, s in zip(shares, samples, strict=True)]
                rows.append([torch.full_like(size, phi), *(s.mean for s in samples), *loadings, *noise])
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        P = self.components
        phi, *found = columns(natural)
        means, loadings, noise = found[:P], found[P : 2 * P], found[2 * P :]
        return StateSpace(
            diagonal(phi),
            torch.stack(loadings, 1)[:, None, :, None],
            diagonal((1 - phi) * (1 + phi)),
            diagonal(*noise),
            constant([[1.0]], natural),
            observation_intercept=torch.stack(means, 1)[:, None],
        )

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(("factor",), natural)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """(B, T, n), (n,) -> (B, T), summed in order."""
    total = values[:, :, 0] * weights[0]
    for k in range(1, values.shape[2]):
        total = total + values[:, :, k] * weights[k]
    return total
