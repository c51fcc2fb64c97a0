"""Owns the Kalman forecaster: a local level, or a sum of AR(1)s, under noise, for the (log) target of each id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from ssmfin.errors import InputError
from ssmfin.models.interface import (
    LEVELS,
    Design,
    Fitted,
    FloatArray,
    Forecast,
    Forecaster,
    Target,
    TrainingSet,
    check_levels,
)

if TYPE_CHECKING:
    from ssmfin.classical.kalman.filtering import Carry
    from ssmfin.classical.kalman.fitting import KalmanFit

CONVERGED, FAILED = "converged", "failed"
NAMES_SHOWN = 5


class Kalman(Forecaster):
    """A linear Gaussian state-space model of the target's own past, per id, by maximum likelihood.

        local_level    y_t = level_t + eps_t,   level_{t+1} = level_t + eta_t
        sum_of_ar1     y_t = mean + sum_j a_jt + eps_t,   a_{j,t+1} = phi_j a_jt + eta_jt

    with y the target on its model scale (log under `transform: log`). All ids are estimated in one batch at each refit,
    in the training window; parameters are frozen in between and the filter reads on. Under a log the forecast of the
    target at t + k is

        exp(E y_{t+k} + Var y_{t+k} / 2)

    aggregated over k = 1 .. h (measured: a variance of training errors in its place costs 15 to 25 % of QLIKE at 5 and
    22 rows ahead). Quantiles, exp(E y + z sd y), are given where the target is the value of one row (horizon 1, or
    `aggregate: last`): those of a mean of log-normals have no closed form. An id that cannot be fitted takes the median
    parameters of the others; the notes name it.

    References:
        Durbin & Koopman (2012), Time Series Analysis by State Space Methods, sections 2.1, 4.11 and 7.3.
    """

    kind: ClassVar[str] = "kalman"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "local level, or a sum of AR(1)s, under noise by the Kalman filter"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    uses_features: ClassVar[bool] = False
    fits_per_task: ClassVar[int] = 8
    seconds_per_fit: ClassVar[float] = 0.02

    model: Literal["local_level", "sum_of_ar1"] = Field(
        default="local_level", description="level as a random walk, or as a sum of AR(1)s (long memory)"
    )
    terms: int = Field(default=2, ge=2, le=3, description="AR(1)s in the sum; sum_of_ar1 only")
    levels: Annotated[tuple[float, ...], AfterValidator(check_levels)] = Field(
        default=LEVELS, max_length=99, description="quantiles, in (0, 1), where the target is one row; none: []"
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        from ssmfin.classical.kalman.fitting import KalmanFit, fit
        from ssmfin.classical.kalman.kinds import specification

        design = training.design
        spec = specification(self.model, **({"terms": self.terms} if self.model == "sum_of_ar1" else {}))
        y = _grid(design)
        inside = _grid(design, design.date_index >= training.window.train_start)
        found = fit(spec, np.where(inside == 1.0, y, np.nan))
        seen = (inside == 1.0).any(axis=1)
        usable = np.isfinite(found.parameters).all(axis=1)
        if not usable.any():
            first = int(np.flatnonzero(seen)[0])
            raise InputError(
                f"kalman cannot be fitted to any id; the first, {design.ids[first]!r}, {found.reason[first]}"
            )
        good = found.status == CONVERGED
        typical = np.median(found.parameters[good if good.any() else usable], axis=0)
        frozen = KalmanFit.at(spec, np.where(usable[:, None], found.parameters, typical), y_scale=found.y_scale)
        return FittedKalman(frozen, design.target, _notes(design, found.status, seen), self.levels)


class FittedKalman(Fitted):
    """Frozen parameters of every id."""

    def __init__(
        self, frozen: KalmanFit, target: Target, notes: dict[str, Any], levels: tuple[float, ...] = ()
    ) -> None:
        self.frozen = frozen
        self.target = target
        self.notes = notes
        self.levels = levels

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return self.forecast(design, rows).mean

    def forecast(self, design: Design, rows: np.ndarray) -> Forecast:
        """The mean, and quantiles at the horizons of which the target is one row."""
        mean, variance = self.moments(design, rows)
        alone = self.target.aggregate == "last" or 1 in self.target.horizons
        return Forecast(
            mean=self._mean(mean, variance),
            levels=self.levels if alone else (),
            quantiles=self._quantiles(mean, variance) if alone and self.levels else None,
        )

    def _quantiles(self, mean: FloatArray, variance: FloatArray) -> FloatArray:
        """(n, H, Q), NaN at horizons over which several rows are aggregated."""
        from scipy.special import ndtri

        horizons = np.array(self.target.horizons)
        centre, deviation = mean[:, horizons - 1], np.sqrt(variance[:, horizons - 1])
        found = centre[..., None] + deviation[..., None] * ndtri(np.array(self.levels))
        several = (horizons > 1) & (self.target.aggregate != "last")
        found = np.where(several[:, None], np.nan, found)
        return np.exp(found) if self.target.transform == "log" else found

    def _mean(self, mean: FloatArray, variance: FloatArray) -> FloatArray:
        if self.target.transform == "log":
            mean = np.exp(mean + 0.5 * variance if self.target.bias_correction == "lognormal" else mean)
        if self.target.aggregate == "last":
            return mean[:, np.array(self.target.horizons) - 1]
        sums = np.column_stack([mean[:, :h].sum(axis=1) for h in self.target.horizons])
        return sums if self.target.aggregate == "sum" else sums / np.array(self.target.horizons)

    def moments(self, design: Design, rows: np.ndarray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance (n, h) of the model-scale target 1 .. h rows after each origin; h the longest horizon."""
        from ssmfin.classical.kalman.forecasting import forecast

        steps = max(self.target.horizons)
        series = design.id_index[rows]
        found = forecast(self.frozen.select(series), self.carry(design, rows), steps)
        return found.mean[:, :, 0], found.covariance[:, :, 0, 0]

    def carry(self, design: Design, rows: np.ndarray) -> Carry:
        """The state predicted for the step after each origin."""
        from ssmfin.classical.kalman.filtering import Carry, filter_series

        past = filter_series(self.frozen, _grid(design))
        series = design.id_index[rows]
        step = rows - design.starts[series] + 1  # the grid has one step more than the longest id has rows
        covariance = past.predicted_covariance[series, step]
        return Carry(past.predicted_state[series, step], covariance, np.zeros_like(covariance))


def _grid(design: Design, values: np.ndarray | None = None) -> FloatArray:
    """(K, T + 1) the observed target on its model scale (or other values of the rows), NaN behind an id's end."""
    if values is None:
        observed = design.observed
        if design.target.transform == "log":
            observed = np.log(observed, out=np.full_like(observed, np.nan), where=observed > 0)
        values = observed
    lengths = np.diff(design.starts)
    out = np.full((len(lengths), int(lengths.max(initial=0)) + 1), np.nan)
    out[design.id_index, np.arange(design.rows) - design.starts[design.id_index]] = values
    return out


def _notes(design: Design, status: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    notes: dict[str, Any] = {"fits": int(seen.sum()), "not_converged": 0}
    for k in np.flatnonzero(seen & (status != CONVERGED)):
        notes["not_converged"] += 1
        key = "failed_ids" if status[k] == FAILED else "not_converged_ids"
        named = notes.setdefault(key, "")
        if named.count(";") < NAMES_SHOWN - 1:
            notes[key] = f"{named}; {design.ids[k]}".lstrip("; ")
    return notes
