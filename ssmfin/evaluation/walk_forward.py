"""Owns the one path by which every forecast is made: `run_task` fits and predicts one task of an experiment.

`ssmfin.evaluate` and `ssmfin run` both go through here; executors only decide when and where a task runs. A task's
result depends on the experiment and the task alone: seeds are derived, threads are capped to one, and what a model is
given is cut at its cutoff, so that nothing later exists for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from ssmfin.evaluation.design import cut
from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.models.interface import TrainingSet, WalkForecaster, Window

SORT_KEYS = ("model", "seed", "unique_id", "ds", "horizon")


@dataclass(frozen=True)
class TaskResult:
    """Forecasts of one task, sorted by `SORT_KEYS`, with what it took."""

    predictions: pl.DataFrame
    fit_seconds: float
    predict_seconds: float
    notes: dict[str, Any] = field(default_factory=dict)


def run_task(experiment: Experiment, task: Task) -> TaskResult:
    """Fit and predict one task.

    Raises:
        RuntimeError: the model answered with a wrong shape or a forecast that is not finite.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # one thread: the same bits in every executor
        entry = experiment.models[task.model]
        windows = [experiment.window(task.model, fit) for fit in task.fits]
        if isinstance(entry.forecaster, WalkForecaster) and not experiment.learned_by(task.model):
            begin = time.perf_counter()
            forecasts, notes = entry.forecaster.walk(experiment.design_for(task.model), windows)
            fit_seconds, predict_seconds = time.perf_counter() - begin, 0.0
        else:
            forecasts, notes, fit_seconds, predict_seconds = _fit_and_predict(experiment, task, windows)
        parts = list(_frames(experiment, task, windows, forecasts))
    return TaskResult(
        predictions=pl.concat(parts).sort(*SORT_KEYS),
        fit_seconds=fit_seconds,
        predict_seconds=predict_seconds,
        notes=notes,
    )


def _fit_and_predict(
    experiment: Experiment, task: Task, windows: list[Window]
) -> tuple[list[np.ndarray], dict[str, Any], float, float]:
    forecasts, notes, fit_seconds, predict_seconds = [], [], 0.0, 0.0
    for fit, window in zip(task.fits, windows, strict=True):
        design = experiment.design_for(task.model, window)
        past, _ = cut(design, window.cutoff, labels_until=window.cutoff)
        training = TrainingSet.of(past, replace(window, test_rows=np.empty(0, dtype=np.int64)))
        begin = time.perf_counter()
        seed = derived_seed(experiment.seed, task.seed, fit)
        fitted = experiment.models[task.model].forecaster.fit(training, seed=seed)
        fit_seconds += time.perf_counter() - begin
        notes.append(fitted.notes)
        begin = time.perf_counter()
        if len(window.test_rows):
            last = int(design.date_index[window.test_rows].max())
            seen, position = cut(design, last, labels_until=None)
            forecasts.append(fitted.predict(seen, position[window.test_rows]))
        else:
            forecasts.append(np.empty((0, len(design.target.horizons))))
        predict_seconds += time.perf_counter() - begin
    return forecasts, merge_notes(notes), fit_seconds, predict_seconds


def _frames(
    experiment: Experiment, task: Task, windows: list[Window], forecasts: list[np.ndarray]
) -> Iterator[pl.DataFrame]:
    design, frame = experiment.design, experiment.panel.frame
    horizons = np.array(experiment.target.horizons, dtype=np.int32)
    cutoffs = np.array([fold.cutoff for fold in experiment.folds])
    for window, y_hat in zip(windows, forecasts, strict=True):
        rows = window.test_rows
        _check_forecasts(experiment, task, rows, y_hat)
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
            y_hat=pl.Series(y_hat.ravel(), dtype=pl.Float64),
        )


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
