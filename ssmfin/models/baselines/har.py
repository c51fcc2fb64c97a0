"""Owns the heterogeneous autoregressions HAR and log-HAR, and the plain in-sample regression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import least_squares_by_rows, ordinary_least_squares
from ssmfin.models.baselines.linear_walk import LinearModel, filter_notes, fit_linear, walk_linear
from ssmfin.models.baselines.scales import (
    require_positive_rows,
    require_positive_training,
    require_positive_windows,
    safe_log,
)
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet, WalkForecaster, Window


class HAR(WalkForecaster):
    """Heterogeneous autoregression of realized variance, per id and horizon, on the original scale.

    RV_{t+1..t+h} = b_0 + b_1 RV_t + b_5 mean(RV_{t-4..t}) + b_22 mean(RV_{t-21..t}) + e

    by least squares in each training window. The left side is the study's aggregate of the target over t+1 .. t+h.

    References:
        Corsi (2009), Journal of Financial Econometrics 7, eq. 8.

    >>> HAR(insanity_filter=False).insanity_filter
    False
    """

    kind: ClassVar[str] = "har"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "regression on means over 1, 5, 22 days"
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.0001

    insanity_filter: bool = Field(
        default=True,
        description="replace a forecast outside the range of the training window's labels by their mean",
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        return fit_linear(training, self._model)

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        forecasts, tally = walk_linear(design, windows, self._model(design))
        return forecasts, filter_notes(tally) if self.insanity_filter else {}

    def _model(self, design: Design) -> LinearModel:
        return LinearModel(
            regressors=design.lag_means,
            response=design.labels,
            parts=("train",),
            estimate=lambda samples: ordinary_least_squares(samples[0]),
            to_forecast=lambda mu, variance: mu,
            insanity_filter=self.insanity_filter,
        )


class LogHAR(WalkForecaster):
    """HAR in logs: log of the label on logs of the three means; the forecast is exp(mu + s2 / 2).

    s2 is the residual variance RSS / (n - 4) of the training window; without the target's bias correction the forecast
    is exp(mu). The model is in logs whatever the target's transform is.

    References:
        Andersen, Bollerslev, Diebold (2007), Review of Economics and Statistics 89, eq. 13.
    """

    kind: ClassVar[str] = "log_har"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "HAR in logs with lognormal bias correction"
    positive_target: ClassVar[bool] = True
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.0001

    insanity_filter: bool = Field(
        default=False,
        description="replace a forecast outside the range of the training window's labels by their mean",
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        require_positive_training(training, model=self.kind)
        require_positive_rows(
            training.design, training.design.lag_means, np.flatnonzero(training.train.any(axis=1)), model=self.kind
        )
        return fit_linear(training, self._model)

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        require_positive_windows(design, windows, model=self.kind)
        learnt = design.complete & (design.date_index >= min((w.train_start for w in windows), default=0))
        learnt &= design.date_index <= max((w.cutoff for w in windows), default=-1)
        tested = np.concatenate([np.flatnonzero(learnt), *(w.test_rows for w in windows)])
        require_positive_rows(design, design.lag_means, tested, model=self.kind)
        forecasts, tally = walk_linear(design, windows, self._model(design))
        return forecasts, filter_notes(tally) if self.insanity_filter else {}

    def _model(self, design: Design) -> LinearModel:
        in_logs = replace(design.target, transform="log")
        return LinearModel(
            regressors=safe_log(design.lag_means),
            response=safe_log(design.labels),
            parts=("train",),
            estimate=lambda samples: ordinary_least_squares(samples[0]),
            to_forecast=in_logs.to_original_scale,
            insanity_filter=self.insanity_filter,
        )


class HARRegression(NamedTuple):
    """An in-sample HAR on n rows.

    coefficients: (1 + windows,), intercept first. residual_variance: RSS / (n - 1 - windows).
    """

    coefficients: FloatArray
    residual_variance: float
    n: int


def har_regression(
    realized_variance: FloatArray, *, horizon: int = 1, windows: tuple[int, ...] = (1, 5, 22), log: bool = False
) -> HARRegression:
    """HAR of one series by least squares over the whole sample.

    mean(RV_{t+1..t+h}) = b_0 + sum_w b_w mean(RV_{t-w+1..t}) + e, or the same in logs of those means.

    Args:
        realized_variance: (T,) variance per day, in time order, finite.
        horizon: h, days ahead. windows: days averaged by each regressor.
    Raises:
        InputError: too few values, or non-positive ones under a log.
    References:
        Corsi (2009), Journal of Financial Econometrics 7, eq. 8.

    >>> rv = 1e-4 * np.exp(np.sin(np.arange(300.0)))
    >>> har_regression(rv).coefficients.shape
    (4,)
    """
    rv = np.asarray(realized_variance, dtype=np.float64)
    first, count = max(windows) - 1, len(rv) - max(windows) + 1 - horizon
    if rv.ndim != 1 or count < len(windows) + 2:
        raise InputError(
            f"realized_variance is too short, shape {rv.shape} for windows {windows} and horizon {horizon}; "
            f"pass one series of at least {max(windows) + horizon + len(windows) + 1} values."
        )
    if not np.isfinite(rv).all() or (log and not (rv > 0).all()):
        wrong = rv[~np.isfinite(rv) | (rv <= 0)][0]
        raise InputError(f"realized_variance holds a value that cannot be used, {wrong:g}; drop or repair it.")

    def means(width: int, start: int) -> FloatArray:
        return np.asarray(np.lib.stride_tricks.sliding_window_view(rv, width).mean(axis=1)[start : start + count])

    x = np.column_stack([means(w, first - w + 1) for w in windows])
    y = means(horizon, first + 1)
    intercept, slopes, variance = least_squares_by_rows(*((np.log(x), np.log(y)) if log else (x, y)))
    return HARRegression(np.concatenate([[intercept], slopes]), variance, count)
