"""Owns how a linear model per id and horizon walks through many windows, and how one is fitted alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import Regression
from ssmfin.models.baselines.range_sums import range_extremes, range_sums
from ssmfin.models.baselines.samples import Part, Sample, WindowDates, training_samples, walk_samples
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet, Window

LEAST_ROWS = 5  # for each coefficient, where a window may lack rows


@dataclass(frozen=True)
class LinearModel:
    """A linear model of one design: y = a + x'b per id and horizon.

    Attributes:
        regressors: (R, p). response: (R, H), NaN where unknown.
        estimate: samples, one of each part in `parts`, to coefficients.
        to_forecast: mu and residual variance, (n,) each, to the forecast on the original scale.
        insanity_filter: replace forecasts outside the range of the training labels by their mean.
        may_lack: an id with too few rows in a window gets NaN there, instead of an error.
    """

    regressors: FloatArray
    response: FloatArray
    parts: tuple[Part, ...]
    estimate: Callable[[tuple[Sample, ...]], Regression]
    to_forecast: Callable[[FloatArray, FloatArray], FloatArray]
    insanity_filter: bool
    may_lack: bool = False


class Bounds(NamedTuple):
    """Range and mean of the training labels of B windows, original scale, (B,) each."""

    low: FloatArray
    high: FloatArray
    mean: FloatArray

    @classmethod
    def of(cls, sample: Sample, n: FloatArray) -> Bounds:
        low, high = range_extremes(sample.label, sample.valid, sample.ranges)
        total = range_sums(np.where(sample.valid, sample.label, 0.0), sample.ranges)
        return cls(low, high, total / n)

    def replace_outside(self, forecast: FloatArray, which: np.ndarray) -> tuple[FloatArray, int]:
        """Forecasts with those outside the bounds replaced by the mean, and how many were.

        References:
            Bollerslev, Patton, Quaedvlieg (2016), Journal of Econometrics 192, section 3.1.
        """
        insane = ~((forecast >= self.low[which]) & (forecast <= self.high[which])) & np.isfinite(self.mean[which])
        return np.where(insane, self.mean[which], forecast), int(insane.sum())


# (id number, horizon number) -> coefficients, and the range of the training labels where forecasts are held to it.
Estimates: TypeAlias = "dict[tuple[int, int], tuple[Regression, Bounds | None]]"


@dataclass
class Tally:
    """What happened over all forecasts: counts, and the penalties that were chosen."""

    forecasts: int = 0
    replaced: int = 0
    penalties: list[FloatArray] = field(default_factory=list)


def walk_linear(design: Design, windows: list[Window], model: LinearModel) -> tuple[list[FloatArray], Tally]:
    """Forecasts (n, H) for the test rows of every window; each uses its own window alone, bit for bit."""
    tally = Tally()
    sizes = np.array([len(w.test_rows) for w in windows], dtype=np.int64)
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(w.test_rows for w in windows)])
    window = np.repeat(np.arange(len(windows)), sizes)
    forecasts = np.full((len(rows), design.labels.shape[1]), np.nan)
    dates, complete = WindowDates.of(windows), design.complete
    for k in np.unique(design.id_index[rows]):
        mine = np.flatnonzero(design.id_index[rows] == k)
        asked, position = np.unique(window[mine], return_inverse=True)
        asked_dates = WindowDates(*(bound[asked] for bound in dates))
        for h in range(forecasts.shape[1]):
            for w, samples in walk_samples(
                design, int(k), h, model.regressors, model.response[:, h], complete, asked_dates, model.parts
            ):
                place = np.full(len(asked), -1)
                place[w] = np.arange(len(w))
                here = np.flatnonzero(place[position] >= 0)
                which = place[position[here]]
                regression, bounds = _estimate(design, int(k), h, model, samples)
                forecasts[mine[here], h] = forecast_rows(model, regression, bounds, rows[mine[here]], which, tally)
                tally.penalties.append(regression.penalty)
    ends = np.cumsum(sizes)
    return [forecasts[end - size : end] for end, size in zip(ends, sizes, strict=True)], tally


def fit_linear(training: TrainingSet, model_of: Callable[[Design], LinearModel]) -> FittedLinear:
    """The same model for one training set, from the rows that its masks name."""
    model = model_of(training.design)
    estimates: Estimates = {}
    for k in range(len(training.design.ids)):
        for h in range(training.train.shape[1]):
            samples = training_samples(training, k, h, model.regressors, model.response[:, h], model.parts)
            if len(samples[0].y):
                estimates[k, h] = _estimate(training.design, k, h, model, samples)
    return FittedLinear(model_of, training.design.ids, estimates)


class FittedLinear(Fitted):
    """Coefficients per id and horizon."""

    def __init__(
        self,
        model_of: Callable[[Design], LinearModel],
        ids: tuple[str, ...],
        estimates: Estimates,
    ) -> None:
        self.model_of = model_of
        self.ids = ids
        self.estimates = estimates
        self.tally = Tally()
        self.notes: dict[str, Any] = {}

    def coefficients(self, unique_id: str, h: int = 0) -> FloatArray:
        """(1 + p,) intercept and coefficients of one id and horizon number."""
        regression, _ = self._of(self.ids.index(unique_id), h)
        return np.concatenate([regression.intercept, regression.coefficients[0]])

    def penalties(self) -> FloatArray:
        """(fits,) the penalties of all ids and horizons."""
        return np.array([regression.penalty[0] for regression, _ in self.estimates.values()])

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        model = self.model_of(design)
        forecasts = np.full((len(rows), design.labels.shape[1]), np.nan)
        for k in np.unique(design.id_index[rows]):
            mine = np.flatnonzero(design.id_index[rows] == k)
            for h in range(forecasts.shape[1]):
                if model.may_lack and (int(k), h) not in self.estimates:
                    continue
                regression, bounds = self._of(int(k), h)
                which = np.zeros(len(mine), dtype=np.int64)
                forecasts[mine, h] = forecast_rows(model, regression, bounds, rows[mine], which, self.tally)
        if model.insanity_filter:
            self.notes |= filter_notes(self.tally)
        return forecasts

    def _of(self, k: int, h: int) -> tuple[Regression, Bounds | None]:
        if (k, h) not in self.estimates:
            raise no_rows(self.ids[k], h)
        return self.estimates[k, h]


def filter_notes(tally: Tally) -> dict[str, Any]:
    """How often the insanity filter acted, of how many forecasts."""
    return {"insanity_filter": tally.replaced, "forecasts": tally.forecasts}


def _estimate(
    design: Design, k: int, h: int, model: LinearModel, samples: tuple[Sample, ...]
) -> tuple[Regression, Bounds | None]:
    regression = model.estimate(samples)
    bounds = Bounds.of(samples[0], np.maximum(regression.n, 1.0)) if model.insanity_filter else None
    if model.may_lack:
        regression = without_few(regression, model.regressors.shape[1] + 1)
        if bounds is not None:
            bounds = bounds._replace(mean=np.where(np.isnan(regression.intercept), np.nan, bounds.mean))
    elif (regression.n == 0).any():
        raise no_rows(design.ids[k], h)
    return regression, bounds


def without_few(regression: Regression, coefficients: int) -> Regression:
    """The same with NaN where there are fewer than `LEAST_ROWS` rows for each coefficient."""
    few = regression.n < LEAST_ROWS * coefficients
    return regression._replace(intercept=np.where(few, np.nan, regression.intercept))


def forecast_rows(
    model: LinearModel, regression: Regression, bounds: Bounds | None, rows: np.ndarray, which: np.ndarray, tally: Tally
) -> FloatArray:
    """(n,) forecasts on the original scale. Args: rows: (n,). which: (n,) the regression of each row."""
    mu = regression.forecast(model.regressors[rows], which)
    forecast = model.to_forecast(mu, regression.residual_variance[which])
    tally.forecasts += len(rows)
    if bounds is not None:
        forecast, replaced = bounds.replace_outside(forecast, which)
        tally.replaced += replaced
    return forecast


def no_rows(unique_id: str, h: int) -> InputError:
    return InputError(
        f"id {unique_id!r} has no training row for horizon number {h + 1} in a window that forecasts it; "
        "lengthen the training window or leave the id out."
    )
