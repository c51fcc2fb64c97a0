"""Owns the cross-sectional regression: what a feature has earned across ids on the average date."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ssmfin.errors import InputError
from ssmfin.models.baselines.scales import model_response, require_positive_training
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, TrainingSet

_ROUNDING = 1e-24  # a share of squares
_SINGULAR = 1e-10  # share of the largest eigenvalue below which a direction of the regressors is not there


class FamaMacBeth(Forecaster):
    """Regression of the label on the features across the ids of each date; its coefficients are averaged over dates.

    y_{i,t} = a_t + x_{i,t}' b_t + e_{i,t}  for each t,      f_i = mean_t a_t + x_i' mean_t b_t

    What moves all ids alike is in a_t and cannot pass for evidence on b. A feature that is the same for all ids of a
    date (an index, a calendar) gets no slope. Dates with fewer than `least_ids` rows are left out.

    References:
        Fama, MacBeth (1973), Journal of Political Economy 81; Lewellen (2015), Critical Finance Review 4.
    """

    kind: ClassVar[str] = "fama_macbeth"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "slopes across the ids of a date, averaged over dates: ranks ids (Fama, MacBeth 1973)"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    fits_per_task: ClassVar[int] = 64
    seconds_per_fit: ClassVar[float] = 0.002

    least_ids: int | None = Field(
        default=None, ge=2, description="rows that a date needs; default: two more than the features, at least 3"
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        design = training.design
        if design.target.transform == "log":
            require_positive_training(training, model=self.kind)
        response = model_response(design)
        least = self.least_ids or max(3, design.features.shape[1] + 2)
        fits = []
        for h in range(response.shape[1]):
            rows = np.flatnonzero(training.train[:, h])
            _, date = np.unique(design.date_index[rows], return_inverse=True)
            fits.append(_average_coefficients(design.features[rows], response[rows, h], date, least))
        return FittedAverages(fits, design, least)


class _Coefficients:
    """Intercept, slopes (F,), variance of what the forecast leaves, and how many dates gave them (0: none)."""

    def __init__(self, intercept: float, slopes: FloatArray, residual_variance: float, dates: int) -> None:
        self.intercept = intercept
        self.slopes = slopes
        self.residual_variance = residual_variance
        self.dates = dates


def _average_coefficients(x: FloatArray, y: FloatArray, date: np.ndarray, least: int) -> _Coefficients:
    """Args: x: (n, F). y: (n,). date: (n,) 0 .. D - 1."""
    count = np.bincount(date)
    if not (count >= least).any():
        return _Coefficients(float("nan"), np.full(x.shape[1], np.nan), float("nan"), 0)
    columns = range(x.shape[1])
    mean_y = np.bincount(date, weights=y) / count
    mean_x = np.stack([np.bincount(date, weights=x[:, f]) / count for f in columns], axis=1)  # (D, F)
    dx, dy = x - mean_x[date], y - mean_y[date]
    size = np.stack([np.bincount(date, weights=x[:, f] * x[:, f]) for f in columns], axis=1)
    spread = np.stack([np.bincount(date, weights=dx[:, f] * dx[:, f]) for f in columns], axis=1)
    dx[(spread <= _ROUNDING * size)[date]] = 0.0  # the same for all ids: what is left of it is rounding
    scatter = np.empty((len(count), x.shape[1], x.shape[1]))
    for f in columns:
        for g in range(f + 1):
            scatter[:, f, g] = scatter[:, g, f] = np.bincount(date, weights=dx[:, f] * dx[:, g])
    moment = np.stack([np.bincount(date, weights=dx[:, f] * dy) for f in columns], axis=1)
    # scaled to one unit, so that what counts as singular does not hang on units of the features
    scale = np.sqrt(np.einsum("dff->df", scatter))
    scale[scale == 0] = 1.0
    inverse = np.linalg.pinv(scatter / (scale[:, :, None] * scale[:, None, :]), rcond=_SINGULAR, hermitian=True)
    slopes = np.einsum("dfg,dg->df", inverse, moment / scale) / scale
    used = count >= least
    slope = slopes[used].mean(axis=0)
    intercept = float((mean_y - np.einsum("df,df->d", mean_x, slopes))[used].mean())
    rest = y - intercept - x @ slope
    return _Coefficients(intercept, slope, float(rest @ rest / len(y)), int(used.sum()))


class FittedAverages(Fitted):
    """Average coefficients, one set a horizon."""

    def __init__(self, fits: list[_Coefficients], design: Design, least: int) -> None:
        empty = next((h for h, fit in enumerate(fits) if fit.dates == 0), None)
        if empty is not None:
            raise InputError(
                f"fama_macbeth has no date with {least} ids in the training window that ends "
                f"{str(design.dates[-1])[:10]}; use more ids, fewer features, or lower least_ids."
            )
        self.fits = fits
        self.notes: dict[str, Any] = {"dates_regressed": float(np.mean([fit.dates for fit in fits]))}
        for f, name in enumerate(design.feature_names):
            self.notes[f"slope_{name}"] = float(np.mean([fit.slopes[f] for fit in fits]))

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        mu = np.column_stack([fit.intercept + design.features[rows] @ fit.slopes for fit in self.fits])
        return np.asarray(design.target.to_original_scale(mu, np.array([fit.residual_variance for fit in self.fits])))
