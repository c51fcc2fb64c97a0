"""Owns linear regressions with slopes common to all ids and an intercept each, over many windows at once.

With S_i the scatter of id i about its own means in a window, the within estimator solves (sum_i S_i,xx) b =
sum_i S_i,xy: the scatters of the ids simply add up, so pooling costs no more than a regression for each id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import Regression, within_least_squares
from ssmfin.models.baselines.linear_walk import Bounds, LinearModel, Tally, forecast_rows, no_rows, without_few
from ssmfin.models.baselines.range_sums import RangeMoments, range_moments
from ssmfin.models.baselines.samples import Sample, WindowDates, training_samples, walk_samples
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet, Window


def walk_pooled(design: Design, windows: list[Window], model: LinearModel) -> tuple[list[FloatArray], Tally]:
    """Forecasts (n, H) for the test rows of every window; each uses its own window alone, bit for bit.

    References:
        Wooldridge (2010), Econometric Analysis of Cross Section and Panel Data, eq. 10.43 (the within estimator).
    """
    tally = Tally()
    sizes = np.array([len(w.test_rows) for w in windows], dtype=np.int64)
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(w.test_rows for w in windows)])
    window = np.repeat(np.arange(len(windows)), sizes)
    forecasts = np.full((len(rows), design.labels.shape[1]), np.nan)
    dates, complete = WindowDates.of(windows), design.complete

    for h in range(forecasts.shape[1]):

        def samples_of(k: int, h: int = h) -> Iterator[tuple[np.ndarray, Sample]]:
            for w, (sample,) in walk_samples(
                design, k, h, model.regressors, model.response[:, h], complete, dates, ("train",)
            ):
                yield w, sample

        found = _estimate(len(design.ids), len(windows), samples_of, model)
        for k in np.unique(design.id_index[rows]):
            mine = np.flatnonzero(design.id_index[rows] == k)
            if not model.may_lack and (found.regressions[k].n[window[mine]] == 0).any():
                raise no_rows(design.ids[int(k)], h)
            forecasts[mine, h] = forecast_rows(
                model, found.regressions[k], found.bounds[k], rows[mine], window[mine], tally
            )
    ends = np.cumsum(sizes)
    return [forecasts[end - size : end] for end, size in zip(ends, sizes, strict=True)], tally


def fit_pooled(training: TrainingSet, model_of: Callable[[Design], LinearModel]) -> FittedPooled:
    """The same model for one training set, from the rows that its masks name."""
    model = model_of(training.design)

    def samples_of(k: int, h: int) -> Iterator[tuple[np.ndarray, Sample]]:
        (sample,) = training_samples(training, k, h, model.regressors, model.response[:, h], ("train",))
        if len(sample.y):
            yield np.array([0]), sample

    ids = training.design.ids
    found = [
        _estimate(len(ids), 1, lambda k, h=h: samples_of(k, h), model)  # type: ignore[misc]
        for h in range(training.train.shape[1])
    ]
    return FittedPooled(model_of, ids, found)


class _Found:
    """Regressions and bounds of every id (K), each over B windows, for one horizon."""

    def __init__(self, regressions: list[Regression], bounds: list[Bounds | None]) -> None:
        self.regressions = regressions
        self.bounds = bounds


class FittedPooled(Fitted):
    """Common slopes and intercepts per id, for each horizon."""

    def __init__(self, model_of: Callable[[Design], LinearModel], ids: tuple[str, ...], found: list[_Found]) -> None:
        self.model_of = model_of
        self.ids = ids
        self.found = found
        self.tally = Tally()
        self.notes: dict[str, Any] = {}

    def coefficients(self, unique_id: str, h: int = 0) -> FloatArray:
        """(1 + p,) the id's intercept and the common slopes of one horizon number."""
        regression = self.found[h].regressions[self.ids.index(unique_id)]
        return np.concatenate([regression.intercept, regression.coefficients[0]])

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        model = self.model_of(design)
        forecasts = np.full((len(rows), design.labels.shape[1]), np.nan)
        for k in np.unique(design.id_index[rows]):
            mine = np.flatnonzero(design.id_index[rows] == k)
            for h, found in enumerate(self.found):
                regression = found.regressions[k]
                if not model.may_lack and regression.n[0] == 0:
                    raise no_rows(self.ids[int(k)], h)
                which = np.zeros(len(mine), dtype=np.int64)
                forecasts[mine, h] = forecast_rows(model, regression, found.bounds[k], rows[mine], which, self.tally)
        return forecasts


def _estimate(
    ids: int, windows: int, samples_of: Callable[[int], Iterator[tuple[np.ndarray, Sample]]], model: LinearModel
) -> _Found:
    q = model.regressors.shape[1] + 1
    n, mean = np.zeros((ids, windows)), np.zeros((ids, windows, q))
    scatter = np.zeros((windows, q, q))
    bounds: list[Bounds | None] = [None] * ids
    for k in range(ids):
        limits = [np.full(windows, np.nan) for _ in Bounds._fields]
        for w, sample in samples_of(k):
            moments = range_moments(np.column_stack([sample.x, sample.y]), sample.valid, sample.ranges)
            n[k, w], mean[k, w] = moments.n, moments.mean
            scatter[w] += moments.scatter
            if model.insanity_filter:
                for target, values in zip(limits, Bounds.of(sample, np.maximum(moments.n, 1.0)), strict=True):
                    target[w] = values
        if model.insanity_filter:
            bounds[k] = Bounds(*limits)
    total = n.sum(axis=0)
    if (total == 0).any() and not model.may_lack:
        raise InputError(
            f"{int((total == 0).sum())} of {windows} training windows have no row of any id with a known label; "
            "lengthen the training window."
        )
    # the size of the regressors themselves, which says when one is constant: the mean over ids, not zero
    overall = (n[:, :, None] * mean).sum(axis=0) / np.maximum(total, 1.0)[:, None]
    common = within_least_squares(RangeMoments(total, overall, scatter), groups=(n > 0).sum(axis=0))
    regressions = []
    for k in range(ids):
        intercept = mean[k, :, -1].copy()
        for j in range(q - 1):
            intercept -= common.coefficients[:, j] * mean[k, :, j]
        own = common._replace(intercept=intercept, n=n[k])
        regressions.append(without_few(own, q) if model.may_lack else own)
    return _Found(regressions, bounds)
