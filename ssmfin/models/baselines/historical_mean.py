"""Owns the historical mean: what an id has made on average so far, the forecast that returns rarely improve on."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, TrainingSet


class HistoricalMean(Forecaster):
    """Mean of the label over the training window, for each id and horizon, on the original scale.

    f = weight * mean_t y_t

    With `weight: 0` the forecast is zero, the other benchmark of returns: that nothing can be forecast.

    References:
        Welch, Goyal (2008), Review of Financial Studies 21; Campbell, Thompson (2008), the same volume.
    """

    kind: ClassVar[str] = "historical_mean"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "mean over the training window; with weight 0 a forecast of zero (returns)"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    uses_features: ClassVar[bool] = False
    fits_per_task: ClassVar[int] = 512
    seconds_per_fit: ClassVar[float] = 0.0005

    weight: float = Field(default=1.0, ge=0, le=1, description="of the mean; the rest is zero")

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        known, ids = training.train, len(training.design.ids)
        means = np.full((ids, known.shape[1]), np.nan)
        for h in range(known.shape[1]):
            rows = np.flatnonzero(known[:, h])
            index = training.design.id_index[rows]
            count = np.bincount(index, minlength=ids)
            total = np.bincount(index, weights=training.design.labels[rows, h], minlength=ids)
            np.divide(total, count, out=means[:, h], where=count > 0)
        return FittedMeans(self.weight * means)


class FittedMeans(Fitted):
    """One number an id and horizon, (K, H)."""

    def __init__(self, means: FloatArray) -> None:
        self.means = means
        self.notes: dict[str, Any] = {}

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return np.asarray(self.means[design.id_index[rows]])
