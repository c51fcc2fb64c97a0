"""Owns the one path by which every forecast is made: `run_task` fits and predicts one task of an experiment.

`ssmfin.evaluate` and `ssmfin run` both go through here; executors only decide when and where a task runs. A task's
result depends on the experiment and the task alone: seeds are derived, threads are capped to one, and what a model is
given is cut at its cutoff, so that nothing later exists for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from ssmfin.evaluation.columns import forecast_columns, merged
from ssmfin.evaluation.combining import combine_members
from ssmfin.evaluation.design import cut
from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.evaluation.memory import memory_of_fit
from ssmfin.models.interface import Forecast, TrainingSet, WalkForecaster, Window


@dataclass(frozen=True)
class TaskResult:
    """Forecasts of one task, sorted by `columns.SORT_KEYS`, with what it took, in seconds.

    `weights` are those of a combination over time; `memory` is what each fit remembers by (`memory_of_fit`).
    """

    predictions: pl.DataFrame
    fit_seconds: float
    predict_seconds: float
    notes: dict[str, Any] = field(default_factory=dict)
    weights: pl.DataFrame | None = None
    memory: pl.DataFrame | None = None


def run_task(experiment: Experiment, task: Task, members: Iterable[pl.DataFrame] = ()) -> TaskResult:
    """Fit and predict one task.

    Args:
        members: for a combination, the predictions of all tasks that `experiment.member_tasks` names, in any order.
    Raises:
        RuntimeError: the model answered with a wrong shape or a forecast that is not finite, or a member of a
            combination lacks forecasts.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # one thread: the same bits in every executor
        if experiment.members(task.model):
            return _combine(experiment, task, members)
        entry = experiment.models[task.model]
        windows = [experiment.window(task.model, fit) for fit in task.fits]
        memories: list[pl.DataFrame] = []
        if isinstance(entry.forecaster, WalkForecaster) and not experiment.learned_by(task.model):
            begin = time.perf_counter()
            means, notes = entry.forecaster.walk(experiment.design_for(task.model), windows)
            forecasts = [Forecast(mean) for mean in means]
            fit_seconds, predict_seconds = time.perf_counter() - begin, 0.0
        else:
            forecasts, notes, fit_seconds, predict_seconds, memories = _fit_and_predict(experiment, task, windows)
        parts = list(_frames(experiment, task, [window.test_rows for window in windows], forecasts))
    return TaskResult(
        predictions=merged(parts),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
        notes=notes,
        memory=pl.concat(memories) if memories else None,
    )


def _combine(experiment: Experiment, task: Task, members: Iterable[pl.DataFrame]) -> TaskResult:
    begin = time.perf_counter()
    found = combine_members(experiment, task, members)
    parts = list(_frames(experiment, task, [found.rows], [found.forecast]))
    return TaskResult(merged(parts), 0.0, time.perf_counter() - begin, dict(found.notes), found.weights)


def _fit_and_predict(
    experiment: Experiment, task: Task, windows: list[Window]
) -> tuple[list[Forecast], dict[str, Any], float, float, list[pl.DataFrame]]:
    forecasts, notes, fit_seconds, predict_seconds = [], [], 0.0, 0.0
    memories = []
    for fit, window in zip(task.fits, windows, strict=True):
        design = experiment.design_for(task.model, window)
        if not len(window.test_rows):  # no id has enough rows to learn from: there may be none at all
            forecasts.append(Forecast(np.empty((0, len(design.target.horizons)))))
            continue
        past, _ = cut(design, window.cutoff, labels_until=window.cutoff)
        training = TrainingSet.of(past, replace(window, test_rows=np.empty(0, dtype=np.int64)))
        begin = time.perf_counter()
        seed = derived_seed(experiment.seed, task.seed, fit)
        fitted = experiment.models[task.model].forecaster.fit(training, seed=seed)
        fit_seconds += time.perf_counter() - begin
        notes.append(fitted.notes)
        if (memory := fitted.memory(past)) is not None:
            table = memory_of_fit(memory, training, model=task.model, seed=task.seed, fit=fit)
            memories.append(table.with_columns(pl.col("cutoff").cast(experiment.panel.frame.schema["ds"])))
        begin = time.perf_counter()
        last = int(design.date_index[window.test_rows].max())
        seen, position = cut(design, last, labels_until=None)
        forecasts.append(fitted.forecast(seen, position[window.test_rows]))
        predict_seconds += time.perf_counter() - begin
    return forecasts, merge_notes(notes), fit_seconds, predict_seconds, memories


def _frames(
    experiment: Experiment, task: Task, origins: list[np.ndarray], forecasts: list[Forecast]
) -> Iterator[pl.DataFrame]:
    design, frame = experiment.design, experiment.panel.frame
    horizons = np.array(experiment.target.horizons, dtype=np.int32)
    cutoffs = np.array([fold.cutoff for fold in experiment.folds])
    for rows, forecast in zip(origins, forecasts, strict=True):
        _check_forecasts(experiment, task, rows, forecast.mean)
        _check_distribution(experiment, task, len(rows), forecast)
        fold = np.searchsorted(cutoffs, design.date_index[rows], side="right") - 1
        repeat = np.repeat(np.arange(len(rows)), len(horizons))
        keys = frame.select("unique_id", "ds")[rows[repeat]]
        yield keys.with_columns(
            horizon=pl.Series(np.tile(horizons, len(rows)), dtype=pl.Int32),
            fold=pl.Series(fold[repeat], dtype=pl.Int32),
            cutoff=pl.Series(design.dates[cutoffs[fold[repeat]]]).cast(frame.schema["ds"]),
            model=pl.lit(task.model, dtype=pl.String),
            seed=pl.lit(task.seed, dtype=pl.Int64),
            y=pl.Series(design.labels[rows].ravel(), dtype=pl.Float64).fill_nan(None),
            **forecast_columns(forecast),
        )


def _check_distribution(experiment: Experiment, task: Task, rows: int, forecast: Forecast) -> None:
    """Quantiles are there for all rows of a horizon or for none, and do not cross; probabilities are ones."""
    shape = (rows, len(experiment.target.horizons))
    q, p, threshold = forecast.quantiles, forecast.event, forecast.threshold
    if q is not None:
        if q.shape != (*shape, len(forecast.levels)):
            raise RuntimeError(
                f"model {task.model!r} gave quantiles of shape {q.shape}, not (rows, horizons, levels) = "
                f"{(*shape, len(forecast.levels))}."
            )
        told = ~np.isnan(q).all(axis=(0, 2))
        if not np.isfinite(q[:, told]).all() or (np.diff(q[:, told], axis=-1) < 0).any():
            raise RuntimeError(f"model {task.model!r} gave quantiles that are not finite, or that cross.")
    if (p is None) != (threshold is None):
        raise RuntimeError(f"model {task.model!r} gave an event without a threshold, or the reverse; give both.")
    if p is not None and threshold is not None:
        if p.shape != shape or threshold.shape != shape:
            raise RuntimeError(
                f"model {task.model!r} gave events of shape {p.shape} and {threshold.shape}, not {shape}."
            )
        if not (np.isfinite(threshold).all() and ((p >= 0) & (p <= 1)).all()):
            raise RuntimeError(f"model {task.model!r} gave a probability outside [0, 1] or a threshold not finite.")


def _check_forecasts(experiment: Experiment, task: Task, rows: np.ndarray, y_hat: np.ndarray) -> None:
    expected = (len(rows), len(experiment.target.horizons))
    if y_hat.shape != expected:
        raise RuntimeError(
            f"model {task.model!r} gave forecasts of shape {y_hat.shape}, not (rows, horizons) = {expected}."
        )
    bad = ~np.isfinite(y_hat)
    if bad.any():
        i, j = (int(x) for x in np.argwhere(bad)[0])
        row = experiment.panel.frame.row(int(rows[i]), named=True)
        raise RuntimeError(
            f"model {task.model!r} gave {int(bad.sum())} forecasts that are not finite, the first {y_hat[i, j]} for "
            f"{row['unique_id']} at {row['ds']}, horizon {experiment.target.horizons[j]}."
        )


def derived_seed(*parts: int) -> int:
    """One 32-bit seed from several numbers, the same on every machine and in every order of execution."""
    return int(np.random.SeedSequence([part & 0xFFFFFFFF for part in parts]).generate_state(1)[0])


def merge_notes(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """Facts of many fits or tasks as one: counts add up, other numbers are averaged, texts are collected.

    >>> merge_notes([{"forecasts": 2, "loss": 0.5}, {"forecasts": 3, "loss": 1.5}])
    {'forecasts': 5, 'loss': 1.0}
    """
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for note in notes for key in note):
        values = [note[key] for note in notes if key in note]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            merged[key] = sum(values)
        elif all(isinstance(value, (int, float)) for value in values):
            merged[key] = float(np.mean(values))
        elif all(value == values[0] for value in values):
            merged[key] = values[0]
        else:
            merged[key] = sorted({str(value) for value in values})
    return merged
