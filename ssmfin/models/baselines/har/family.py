"""Owns what all members of the HAR family share: how they are estimated, on which rows, and how they forecast."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from ssmfin.data.rows import log_or_nan, trailing_means
from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import Regression, ordinary_least_squares
from ssmfin.models.baselines.linear_walk import (
    Estimates,
    FittedLinear,
    LinearModel,
    Tally,
    filter_notes,
    fit_linear,
    walk_linear,
)
from ssmfin.models.baselines.pooled import fit_pooled, walk_pooled
from ssmfin.models.baselines.reweighted import huber, qlike_identity, qlike_log, weighted_by_fit
from ssmfin.models.baselines.samples import Sample
from ssmfin.models.baselines.scales import (
    require_positive_rows,
    require_positive_training,
    require_positive_windows,
)
from ssmfin.models.interface import Design, Fitted, FloatArray, Target, TrainingSet, WalkForecaster, Window

HARNESS_WINDOWS = (1, 5, 22)  # of Design.lag_means

ToForecast = Callable[[FloatArray, FloatArray], FloatArray]


class Regressors(NamedTuple):
    """Columns of a regression: names (p,), values (R, p) on the scale of the model, NaN where undefined."""

    names: tuple[str, ...]
    values: FloatArray


class HARFamily(WalkForecaster):
    """A linear regression of the target's aggregate over t+1 .. t+h on what is known at t, per id and horizon.

        y_{t, h} = b_0 + x_t'b + e        or in logs, with the forecast exp(mu + s2 / 2)

    s2 is the residual variance of the training window. Rows on which the member's own columns are missing do not
    train it; to forecast from such a row is refused.

    Estimation: `ols`; `wls`, least squares again with weights 1 / fitted (Patton, Sheppard 2015; the variance of
    realized variance grows with it); `qlike`, the minimiser of the QLIKE loss itself; `huber`, robust to outliers.

    Windows: the study's training window, or one or several of the last so many dates of it, whose forecasts are
    averaged with equal weights (Pesaran, Timmermann 2007, section 4). Where an id has fewer than five rows for each
    coefficient in one of them, the others speak, and where in all of them, the study's window. With
    `walk_forward.train: expanding`, "all" is everything up to the cutoff.

    References:
        Corsi (2009), Journal of Financial Econometrics 7; Clements, Preve (2021), Journal of Banking and Finance 133
        (estimation and windows); Pesaran, Timmermann (2007), Journal of Econometrics 137.
    """

    family: ClassVar[Literal["baseline"]] = "baseline"
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.0002

    windows: tuple[int, ...] = Field(HARNESS_WINDOWS, min_length=1, description="rows averaged by each regressor")
    estimation: Literal["ols", "wls", "qlike", "huber"] = Field("ols", description="how the coefficients are found")
    pooled: bool = Field(False, description="one vector of slopes for all ids, an intercept each (ols only)")
    train_windows: tuple[int | Literal["all"], ...] = Field(
        ("all",), min_length=1, description="dates of the training window to learn from; forecasts of several averaged"
    )
    insanity_filter: bool = Field(
        default=True,
        description="replace a forecast outside the range of the training window's labels by their mean",
    )

    @field_validator("windows")
    @classmethod
    def _increasing(cls, windows: tuple[int, ...]) -> tuple[int, ...]:
        if min(windows) < 1:
            raise ValueError(f"{min(windows)} is not a number of rows; use whole numbers from 1")
        return tuple(sorted(set(windows)))

    @field_validator("train_windows")
    @classmethod
    def _long_enough(cls, sizes: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for size in sizes:
            if isinstance(size, int) and size < 30:
                raise ValueError(f"{size} dates are too few to learn from; use 30 or more, or 'all'")
        return sizes

    @model_validator(mode="after")
    def _poolable(self) -> HARFamily:
        if self.pooled and self.estimation != "ols":
            raise ValueError(f"pooled: true with estimation: {self.estimation} is not offered; use estimation: ols")
        if self.in_logs and self.estimation == "wls":
            raise ValueError("estimation: wls weighs by the level of the fit, which logs do not have; use ols or qlike")
        return self

    @abstractmethod
    def regressors(self, design: Design) -> Regressors:
        """The member's columns for every row of a design; row r uses rows <= r of its id alone."""

    @property
    def in_logs(self) -> bool:
        """Whether the regression is in logs, whatever the target's transform is."""
        return bool(getattr(self, "log", False))

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        design = _known(training.design, self.regressors(training.design))
        if self.in_logs:
            require_positive_training(training, model=self.kind)
            learnt = np.flatnonzero(training.train.any(axis=1))
            require_positive_rows(training.design, training.design.lag_means, learnt, model=self.kind)
        parts = [self._fit_one(design, training.window, size) for size in self._sizes]
        return FittedHAR(self, parts)

    def _fit_one(self, design: Design, window: Window, size: int | str) -> Any:
        part = TrainingSet.of(design, _last(window, size))
        may_lack = size != "all"
        return (fit_pooled if self.pooled else fit_linear)(part, lambda other: self._model(other, may_lack=may_lack))

    def from_estimates(self, ids: tuple[str, ...], estimates: Estimates) -> FittedHAR:
        """What `fit` answered, from the `estimates` of its one part: one training window, not pooled."""
        return FittedHAR(self, [FittedLinear(self._model, ids, estimates)])

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        tested = np.concatenate([np.empty(0, dtype=np.int64), *(w.test_rows for w in windows)])
        if self.in_logs:
            require_positive_windows(design, windows, model=self.kind)
            learnt = design.complete & (design.date_index >= min((w.train_start for w in windows), default=0))
            learnt &= design.date_index <= max((w.cutoff for w in windows), default=-1)
            rows = np.concatenate([np.flatnonzero(learnt), tested])
            require_positive_rows(design, design.lag_means, rows, model=self.kind)
        regressors = self.regressors(design)
        known = _known(design, regressors)
        self._require(known, regressors, tested)
        parts, tally = [], Tally()
        for size in self._sizes:
            shorter = [_last(window, size) for window in windows]
            model = self._model(known, regressors, may_lack=size != "all")
            found, counts = (walk_pooled if self.pooled else walk_linear)(known, shorter, model)
            parts.append(found)
            tally.forecasts += counts.forecasts
            tally.replaced += counts.replaced
        forecasts = [self._average(several) for several in zip(*parts, strict=True)]
        return forecasts, filter_notes(tally) if self.insanity_filter else {}

    @property
    def _sizes(self) -> tuple[int | str, ...]:
        """The training windows to run; the study's own last where it only stands in."""
        return self.train_windows if "all" in self.train_windows else (*self.train_windows, "all")

    def _average(self, forecasts: Iterable[FloatArray]) -> FloatArray:
        """Mean over the asked windows that have a forecast; where none has, that of the study's window."""
        several = np.stack(list(forecasts))  # (sizes, n, H)
        asked = several[: len(self.train_windows)]
        there = np.isfinite(asked)
        total = np.where(there, asked, 0.0).sum(axis=0)
        count = there.sum(axis=0)
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), several[-1]))

    def _require(self, design: Design, regressors: Regressors, rows: np.ndarray) -> None:
        """Refuse origins at which a regressor is missing."""
        lost = rows[~design.complete[rows]]
        if not len(lost):
            return
        names, values = regressors
        row = int(lost[0])
        name = names[int(np.argmin(np.isfinite(values[row])))]
        raise InputError(
            f"{self.kind} has no {name} on {len(lost)} of {len(rows)} rows to forecast from, the first "
            f"{design.ids[design.id_index[row]]!r} at {design.dates[design.date_index[row]]}; supply the column there, "
            "drop those days, or give the study a feature as long as this model's longest window."
        )

    def _model(self, design: Design, at_hand: Regressors | None = None, *, may_lack: bool = False) -> LinearModel:
        target = replace(design.target, transform="log") if self.in_logs else design.target
        return LinearModel(
            regressors=(at_hand or self.regressors(design)).values,
            response=log_or_nan(design.labels) if self.in_logs else design.labels,
            parts=("train",),
            estimate=self._estimate,
            to_forecast=self._to_forecast(target),
            insanity_filter=self.insanity_filter,
            may_lack=may_lack,
        )

    def _estimate(self, samples: tuple[Sample, ...]) -> Regression:
        if self.estimation == "ols":
            return ordinary_least_squares(samples[0])
        if self.estimation == "wls":
            return weighted_by_fit(samples[0])
        if self.estimation == "huber":
            return huber(samples[0])
        return (qlike_log if self.in_logs else qlike_identity)(samples[0])

    def _to_forecast(self, target: Target) -> ToForecast:
        if not self.in_logs:
            return lambda mu, variance: mu
        if self.estimation == "qlike":  # the mean itself was fitted: nothing is left to correct
            return _without_warning(lambda mu, variance: np.asarray(np.exp(mu)))
        return _without_warning(target.to_original_scale)


class FittedHAR(Fitted):
    """One fitted regression for each length of the training window; forecasts are averaged."""

    def __init__(self, model: HARFamily, parts: list[Any]) -> None:
        self.model = model
        self.parts = parts
        self.notes: dict[str, Any] = {}

    def coefficients(self, unique_id: str, h: int = 0) -> FloatArray:
        """(1 + p,) intercept and coefficients of one id and horizon number, of the first training window."""
        return np.asarray(self.parts[0].coefficients(unique_id, h))

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        regressors = self.model.regressors(design)
        known = _known(design, regressors)
        self.model._require(known, regressors, rows)
        forecast = self.model._average([part.predict(known, rows) for part in self.parts])
        if self.model.insanity_filter:
            tally = Tally(
                forecasts=sum(part.tally.forecasts for part in self.parts),
                replaced=sum(part.tally.replaced for part in self.parts),
            )
            self.notes |= filter_notes(tally)
        return forecast


def _without_warning(to_forecast: ToForecast) -> ToForecast:
    """A forecast beyond all bounds becomes inf, which the insanity filter replaces and the harness refuses."""

    def quietly(mu: FloatArray, variance: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            return to_forecast(mu, variance)

    return quietly


def _last(window: Window, size: int | str) -> Window:
    if size == "all":
        return window
    return replace(window, train_start=max(window.train_start, window.cutoff - int(size) + 1))


def _known(design: Design, regressors: Regressors) -> Design:
    """The design without the rows on which regressors do not exist."""
    return replace(design, usable=design.complete & np.isfinite(regressors.values).all(axis=1))


def variance_lags(design: Design, windows: tuple[int, ...]) -> FloatArray:
    """(R, W) means of the target over the last w rows."""
    if windows == HARNESS_WINDOWS:
        return design.lag_means
    return trailing_means(design.observed, design.starts, windows)


def column_lags(design: Design, column: FloatArray, windows: tuple[int, ...]) -> FloatArray:
    """(R, W) means of a column (R,) over the last w rows."""
    return trailing_means(column, design.starts, windows)
