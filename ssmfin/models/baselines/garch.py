"""Owns GARCH(1,1) and its asymmetric form, estimated through arch and filtered forward with fixed parameters."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ssmfin.errors import InputError, nearest
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, Target, TrainingSet

PERCENT = 100.0  # arch's optimiser wants variances near one
FEWEST_RETURNS = 100


class Parameters(NamedTuple):
    """r_t = mean + e_t, v_{t+1} = omega + (alpha + gamma [e_t < 0]) e_t^2 + beta v_t, per cent."""

    mean: float
    omega: float
    alpha: float
    gamma: float
    beta: float

    @property
    def persistence(self) -> float:
        return self.alpha + 0.5 * self.gamma + self.beta


class GARCH(Forecaster):
    """GARCH(1,1) of a return column by Gaussian quasi maximum likelihood, per id.

    v_{t+1} = omega + alpha e_t^2 + gamma e_t^2 [e_t < 0] + beta v_t   (gamma = 0 unless gjr)
    E_t v_{t+j} = omega + (alpha + gamma / 2 + beta) E_t v_{t+j-1}

    The forecasts of t+1 .. t+h are aggregated as the target is, then multiplied by mean(label) / mean(forecast) over
    the training rows of that id and horizon: a range or intraday variance leaves the overnight move out. Between refits
    the variance is filtered forward with fixed parameters. Where the optimiser does not converge from two starts,
    or the id has fewer than 100 returns in the window, RiskMetrics' omega = 0, alpha = 0.06, beta = 0.94 are used (a
    constant variance where all returns are equal), and the notes count it and name the id.

    References:
        Bollerslev (1986), Journal of Econometrics 31, eq. 1-2.
        Glosten, Jagannathan, Runkle (1993), Journal of Finance 48, 1779-1801.
    """

    kind: ClassVar[str] = "garch"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "GARCH(1,1) of returns, scaled to the target"
    column_fields: ClassVar[tuple[str, ...] | None] = ("returns",)
    uses_features: ClassVar[bool] = False
    fits_per_task: ClassVar[int] = 16
    seconds_per_fit: ClassVar[float] = 0.03

    returns: str = Field(default="log_return", description="column of decimal returns (0.01 = 1 %)")
    gjr: bool = Field(default=False, description="let negative returns raise variance by more (Glosten et al.)")

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        design = training.design
        column = _returns(design, self.returns)
        paths: dict[int, _Path] = {}
        troubled = []
        for k in range(len(design.ids)):
            rows = design.rows_of(k)
            trained = training.train[rows]
            if not trained.any():
                continue
            first = int(np.searchsorted(design.date_index[rows], training.window.train_start))
            window = PERCENT * column[rows][first:]
            parameters, converged = estimate(window[np.isfinite(window)], gjr=self.gjr)
            if not converged:
                troubled.append(design.ids[k])
            start = float(np.nanmean((window - parameters.mean) ** 2)) if np.isfinite(window).any() else 1.0
            variance = filter_variance(window, parameters, start)
            paths[k] = self._calibrated(training, k, _Path(parameters, first, variance, np.empty(0)))
        notes: dict[str, Any] = {"fits": len(paths), "not_converged": len(troubled)}
        if troubled:
            notes["not_converged_ids"] = ", ".join(troubled)
        return FittedGARCH(paths, self.returns, design.target, notes)

    def _calibrated(self, training: TrainingSet, k: int, path: _Path) -> _Path:
        design, target = training.design, training.design.target
        rows, ratios = design.rows_of(k), np.full(len(target.horizons), np.nan)
        for h in range(len(target.horizons)):
            inside = np.flatnonzero(training.train[rows, h])
            if len(inside):
                raw = aggregate_forecast(path.variance[inside - path.first], path.parameters, target)[:, h]
                ratios[h] = design.labels[rows, h][inside].mean() / raw.mean()
        return path._replace(ratios=ratios)


class _Path(NamedTuple):
    """One id's parameters and its one-step-ahead variances, per cent, from row `first` of the id on."""

    parameters: Parameters
    first: int
    variance: FloatArray  # (n,) the variance forecast for the day after each row of the window
    ratios: FloatArray  # (H,) label over forecast in the training rows


class FittedGARCH(Fitted):
    """Parameters, ratios and filtered variances per id number; new rows extend the filter."""

    def __init__(self, paths: dict[int, _Path], returns: str, target: Target, notes: dict[str, Any]) -> None:
        self.paths = paths
        self.returns = returns
        self.target = target
        self.notes = notes

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        column = _returns(design, self.returns)
        out = np.full((len(rows), len(self.target.horizons)), np.nan)
        for k in (int(k) for k in np.unique(design.id_index[rows])):
            if k not in self.paths or np.isnan(self.paths[k].ratios).any():
                raise InputError(
                    f"garch has no training row of id {design.ids[k]!r}; lengthen the training window or leave it out."
                )
            path, mine = self.paths[k], np.flatnonzero(design.id_index[rows] == k)
            begin = int(design.starts[k]) + path.first
            position = rows[mine] - begin
            if position.min() < 0:
                raise InputError("garch was asked for an origin before its training window; ask for later rows only.")
            seen = len(path.variance)
            new = PERCENT * column[begin + seen : begin + int(position.max()) + 1]
            later = filter_variance(new, path.parameters, float(path.variance[-1]))
            variance = np.concatenate([path.variance, later])[position]
            out[mine] = aggregate_forecast(variance, path.parameters, self.target) * path.ratios
        return out


def estimate(returns: FloatArray, *, gjr: bool) -> tuple[Parameters, bool]:
    """Parameters of one series and whether the optimiser converged (else RiskMetrics' own, see `GARCH`).

    Args:
        returns: (n,) per cent, finite.
    """
    if not len(returns) or not returns.std() > 0:
        return Parameters(float(returns[0]) if len(returns) else 0.0, 1.0, 0.0, 0.0, 0.0), False
    fallback = Parameters(float(returns.mean()), 0.0, 0.06, 0.0, 0.94)
    if len(returns) < FEWEST_RETURNS:
        return fallback, False
    from arch import arch_model

    model = arch_model(returns, mean="Constant", vol="GARCH", p=1, o=int(gjr), q=1, rescale=False)
    variance = float(returns.var())
    calm = [float(returns.mean()), 0.05 * variance, 0.05, *([0.05] if gjr else []), 0.90 - 0.025 * gjr]
    for starting_values in (None, np.array(calm)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the flag below says the same, and is reported
            result = model.fit(disp="off", show_warning=False, starting_values=starting_values)
        found = [float(value) for value in result.params]
        mean, omega, alpha = found[:3]
        gamma, beta = (found[3], found[4]) if gjr else (0.0, found[3])
        if result.convergence_flag == 0 and np.isfinite(found).all() and omega >= 0:
            return Parameters(mean, omega, alpha, gamma, beta), True
    return fallback, False


def filter_variance(returns: FloatArray, parameters: Parameters, start: float) -> FloatArray:
    """The variance forecast for the day after each return. A missing return counts as its own expectation.

    Args:
        returns: (n,) per cent, NaN where missing. start: the variance forecast for the first of them.
    Returns:
        (n,) per cent squared.

    >>> filter_variance(np.array([1.0, np.nan]), Parameters(0.0, 0.1, 0.1, 0.0, 0.8), 1.0)
    array([1., 1.])
    """
    mean, omega, alpha, gamma, beta = parameters
    out = np.empty(len(returns))
    variance = start
    for t, value in enumerate(returns.tolist()):
        if value == value:
            shock = value - mean
            variance = omega + (alpha + (gamma if shock < 0 else 0.0)) * shock * shock + beta * variance
        else:
            variance = omega + parameters.persistence * variance
        out[t] = variance
    return out


def aggregate_forecast(variance: FloatArray, parameters: Parameters, target: Target) -> FloatArray:
    """Variance forecasts aggregated like the target.

    Args:
        variance: (n,) the forecast for the next day.
    Returns:
        (n, H).
    """
    out = np.empty((len(variance), len(target.horizons)))
    ahead, total = variance.copy(), np.zeros_like(variance)
    for day in range(1, max(target.horizons) + 1):
        total = total + ahead
        for h in (i for i, horizon in enumerate(target.horizons) if horizon == day):
            out[:, h] = {"mean": total / day, "sum": total, "last": ahead}[target.aggregate]
        ahead = parameters.omega + parameters.persistence * ahead
    return out


def _returns(design: Design, name: str) -> FloatArray:
    column = design.columns.get(name)
    if column is None:
        raise InputError(f"garch.returns is {name!r}, which the panel does not have; {nearest(name, design.columns)}")
    return column
