"""Owns the Markov switching regressions: `MarkovRegression` and, with lags in deviations, `MarkovAutoregression`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ssmfin.classical.regime.gaussian import GaussianSpecification
from ssmfin.classical.regime.linear import Layout
from ssmfin.classical.regime.model import (
    Switching,
    check_choice,
    check_count,
    check_names,
    permuted_transition,
)
from ssmfin.errors import InputError, nearest

if TYPE_CHECKING:
    from ssmfin.classical.regime.linear_problem import LinearProblem


@dataclass(frozen=True)
class SwitchingRegression(GaussianSpecification):
    """What the two have in common.

    Args:
        mean: of y, or the intercept where there are regressors: "switching", "common" or "zero".
        variance: of the errors: "switching" or "common".
        exogenous: names of the columns of x.
        common_exogenous: those of them whose coefficient does not switch.
    """

    mean: Literal["switching", "common", "zero"] = "switching"
    variance: Switching = "switching"
    exogenous: tuple[str, ...] = ()
    common_exogenous: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mean", self.mean, ("switching", "common", "zero"))
        check_choice("variance", self.variance, ("switching", "common"))
        check_names("exogenous", self.exogenous)
        check_names("common_exogenous", self.common_exogenous)
        for name in self.common_exogenous:
            if name not in self.exogenous:
                raise InputError(f"common_exogenous has {name!r}, not in exogenous; {nearest(name, self.exogenous)}.")

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Which parameter is whose."""

    @property
    def lagged(self) -> int:
        """Lags of y among the regressors."""
        return 0

    @property
    def memory(self) -> int:
        return self.layout.order + self.lagged

    @property
    def emission_names(self) -> tuple[str, ...]:
        return self.layout.emission_names

    @property
    def free_count(self) -> int:
        return self.regimes * (self.regimes - 1) + len(self.emission_names)

    @property
    def regressors(self) -> int:
        return len(self.exogenous)

    def design(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(B, T, J) columns in the order of the layout: constant, lags of y, x; NaN where unknown."""
        B, T = y.shape
        columns = [np.ones((B, T))] if self.mean != "zero" else []
        for lag in range(1, self.lagged + 1):
            column = np.full((B, T), np.nan)
            column[:, lag:] = y[:, : T - lag]
            columns.append(column)
        return np.stack([*columns, *np.moveaxis(x, 2, 0)], 2) if columns or x.shape[2] else np.zeros((B, T, 0))

    def observations(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (*self.layout.vectors(y, self.design(y, x)), np.ones((1, 1), dtype=bool))

    def emission(self, parameters: np.ndarray, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.layout.emission(parameters[:, self.regimes**2 :])

    @property
    def order(self) -> int:
        """Lagged regimes in the state."""
        return self.layout.order

    def problem(self, y: np.ndarray, x: np.ndarray) -> LinearProblem:
        """What a fit minimises."""
        from ssmfin.classical.regime.linear_problem import LinearProblem

        return LinearProblem(self, y, x)

    def signature(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = self.layout.parts(parameters[:, self.regimes**2 :])
        switching = [j for j, switches in enumerate(self.layout.switching) if switches]
        # slopes of regressors have units of their own: only the mean is compared where there is one
        if self.layout.constant and 0 in switching:
            switching = [0]
        locations = parts.beta[:, :, switching]
        return locations, np.repeat(parts.variance[:, :, None], max(len(switching), 1), axis=2)

    def order_key(self, parameters: np.ndarray) -> np.ndarray:
        parts = self.layout.parts(parameters[:, self.regimes**2 :])
        if self.variance == "switching":
            return parts.variance
        switching = [j for j, switches in enumerate(self.layout.switching) if switches]
        return parts.beta[:, :, switching[0]] if switching else parts.phi[:, :, 0]

    def permute(self, parameters: np.ndarray, order: np.ndarray) -> np.ndarray:
        parts = self.layout.parts(parameters[:, self.regimes**2 :])
        rows = np.arange(len(order))[:, None]
        moved = type(parts)(*(part[rows, order] for part in parts))
        return np.concatenate([permuted_transition(parameters, order), self.layout.whole(moved)], 1)


@dataclass(frozen=True)
class MarkovRegression(SwitchingRegression):
    """Regression whose coefficients and error variance are those of the present regime.

        y_t = c_{s_t} + sum_i phi_i(s_t) y_{t-i} + x_t' beta_{s_t} + e_t,   e_t ~ N(0, sigma^2_{s_t})

    Args:
        regimes, variance_floor: as for `Specification`.
        mean: c: "switching", "common" or "zero".
        variance: "switching" or "common".
        exogenous, common_exogenous: columns of x, and those whose coefficient does not switch.
        lags: of y itself as regressors. Not held stationary: one regime may be explosive in a chain that is not.
        lag_coefficients: "common" or "switching".
    References:
        Hamilton (1994), Time Series Analysis, section 22.4.

    >>> MarkovRegression(mean="common").parameter_names[4:]
    ('mean', 'variance_0', 'variance_1')
    """

    kind = "markov_regression"
    lags: int = 0
    lag_coefficients: Switching = "common"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("lags", self.lags, 0, 30)
        check_choice("lag_coefficients", self.lag_coefficients, ("switching", "common"))
        if self.variance == "common" and not any(self.layout.switching):
            raise InputError("nothing of this model switches; set mean or variance to 'switching'.")

    @cached_property
    def layout(self) -> Layout:
        names = [("mean", self.mean == "switching")] if self.mean != "zero" else []
        names += [(f"lag{lag}", self.lag_coefficients == "switching") for lag in range(1, self.lags + 1)]
        names += [(name, name not in self.common_exogenous) for name in self.exogenous]
        return Layout(
            self.regimes,
            0,
            tuple(name for name, _ in names),
            tuple(switches for _, switches in names),
            self.mean != "zero",
            False,
            self.variance == "switching",
        )

    @property
    def lagged(self) -> int:
        return self.lags


@dataclass(frozen=True)
class MarkovAutoregression(SwitchingRegression):
    """Autoregression in deviations from a mean that switches: the state is the tuple of p + 1 regimes.

        y_t - m_t = sum_{i=1..p} phi_i(s_t) (y_{t-i} - m_{t-i}) + e_t,   m_t = mu_{s_t} + x_t' beta_{s_t}

    The likelihood is conditional on the first p observations; a row whose lags are missing says nothing.

    Args:
        regimes, variance_floor: as for `Specification`.
        mean, variance, exogenous, common_exogenous: as for `MarkovRegression`.
        lags: p, 1 to 8 (K^(p + 1) tuples).
        lag_coefficients: phi: "common" or "switching"; stationary in each regime.
    References:
        Hamilton (1989), Econometrica 57, 357-384, eq. 4.1.

    >>> MarkovAutoregression(variance="common", lags=2).parameter_names[4:]
    ('mean_0', 'mean_1', 'ar1', 'ar2', 'variance')
    """

    kind = "markov_autoregression"
    lags: int = 1
    lag_coefficients: Switching = "common"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("lags", self.lags, 1, 8)
        check_choice("lag_coefficients", self.lag_coefficients, ("switching", "common"))
        if self.regimes ** (self.lags + 1) > 1024:
            raise InputError(
                f"lags is {self.lags} with {self.regimes} regimes, {self.regimes ** (self.lags + 1)} tuples of "
                "regimes; use fewer, or MarkovRegression with lags."
            )
        if self.variance == "common" and not any(self.layout.switching) and self.lag_coefficients == "common":
            raise InputError("nothing of this model switches; set mean or variance to 'switching'.")

    @cached_property
    def layout(self) -> Layout:
        names = [("mean", self.mean == "switching")] if self.mean != "zero" else []
        names += [(name, name not in self.common_exogenous) for name in self.exogenous]
        return Layout(
            self.regimes,
            self.lags,
            tuple(name for name, _ in names),
            tuple(switches for _, switches in names),
            self.mean != "zero",
            self.lag_coefficients == "switching",
            self.variance == "switching",
        )
