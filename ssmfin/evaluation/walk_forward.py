"""Owns the one path by which every forecast is made: an Experiment is cut into Tasks, `run_task` fits and predicts one.

`ssmfin.evaluate` and `ssmfin run` both go through here; executors only decide when and where a task runs. A task's
result depends on the experiment and the task alone: seeds are derived, threads are capped to one, and what a model is
given is cut at its cutoff, so that nothing later exists for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.design import build_design, check_target, cut
from ssmfin.evaluation.splits import Fold, WalkForward
from ssmfin.features.spec import FeatureSpec
from ssmfin.features.transformer import panel_column
from ssmfin.models.interface import Design, Forecaster, Target, TrainingSet, WalkForecaster, Window

PREDICTION_SCHEMA: dict[str, Any] = {
    "unique_id": pl.String,
    "ds": None,  # as in the panel
    "horizon": pl.Int32,
    "fold": pl.Int32,
    "cutoff": None,
    "model": pl.String,
    "seed": pl.Int64,
    "y": pl.Float64,
    "y_hat": pl.Float64,
}
SORT_KEYS = ("model", "seed", "unique_id", "ds", "horizon")


@dataclass(frozen=True)
class ModelEntry:
    """A model's place in an experiment.

    Attributes:
        forecaster: its configuration. features: names of the study's features it sees; None: all of them.
        seeds: one run each for a stochastic model (others run once, with the first). refit: fit on every k-th fold;
            None: as the walk-forward says.
    """

    forecaster: Forecaster
    features: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    refit: int | None = None

    @property
    def runs(self) -> tuple[int, ...]:
        return self.seeds if self.forecaster.stochastic else self.seeds[:1]


@dataclass(frozen=True)
class Task:
    """A unit of work that is stored and resumed as a whole: one model, one seed, some consecutive fits."""

    model: str
    seed: int
    fits: tuple[int, ...]
    folds: tuple[int, ...]
    seconds: float  # a first guess


@dataclass(frozen=True)
class TaskResult:
    """Forecasts of one task, sorted by `SORT_KEYS`, with what it took."""

    predictions: pl.DataFrame
    fit_seconds: float
    predict_seconds: float
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """Everything that fixes the result of a study: the panel, what is forecast, when, from what, and by which models.

    Raises (on first use of `folds`, `tasks` or `design`):
        InputError: the target, the windows or a model's feature names do not fit the panel.
    """

    panel: Panel
    target: Target
    walk_forward: WalkForward
    features: Mapping[str, FeatureSpec]
    models: Mapping[str, ModelEntry]
    seed: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)  # model -> why it has no meaning for this target

    @classmethod
    def of(
        cls,
        panel: Panel,
        target: Target,
        walk_forward: WalkForward,
        features: Mapping[str, FeatureSpec],
        models: Mapping[str, ModelEntry],
        *,
        reference: str,
        seed: int = 0,
    ) -> Experiment:
        """An experiment without the models that have no meaning for its target (log-HAR of a return).

        Raises:
            InputError: the target is wrong, or the reference is one of the models left out.
        """
        check_target(panel, target)
        least = float(panel_column(panel, target.column).min())
        left_out = {
            name: f"needs a positive target; the least {target.column} is {least:g}"
            for name, entry in models.items()
            if entry.forecaster.positive_target and least <= 0
        }
        if reference in left_out:
            raise InputError(
                f"evaluate.reference is {reference!r}, which {left_out[reference]}; "
                f"use another reference, such as 'har'."
            )
        kept = {name: entry for name, entry in models.items() if name not in left_out}
        return cls(panel, target, walk_forward, features, kept, seed, left_out)

    @cached_property
    def folds(self) -> list[Fold]:
        self.walk_forward.check(self.target.horizons)
        return self.walk_forward.folds(self.panel.dates)

    @cached_property
    def design(self) -> Design:
        """All rows; with features that learn, as learned in the first training window (its use: which rows exist)."""
        first = self.folds[0]
        design = build_design(
            self.panel, self.target, self.features, learn_from=first.train_start, learn_until=first.cutoff
        )
        return replace(design, usable=design.complete)

    @cached_property
    def test_rows(self) -> list[np.ndarray]:
        """Rows to forecast from, fold by fold; the same for every model.

        An id takes part in a fold if it has `train.min_rows` complete training rows with known labels of the longest
        horizon, at the cutoff of the fold and at every earlier one whose fit some model still uses there.
        """
        design, required = self.design, self.walk_forward.train.required_rows
        refits = sorted({self.refit(name) for name in self.models} | {self.walk_forward.refit})
        trained = [self._trained_ids(fold, required) for fold in self.folds]
        rows = []
        for fold in self.folds:
            eligible = trained[fold.number].copy()
            for k in refits:
                eligible &= trained[fold.number - fold.number % k]
            inside = (design.date_index >= fold.test_start) & (design.date_index < fold.test_stop)
            rows.append(np.flatnonzero(inside & design.complete & eligible[design.id_index]))
        if not any(len(found) for found in rows):
            raise InputError(
                f"no id has {required} complete training rows in any training window of "
                f"{self.walk_forward.train.size} dates; lower walk_forward.train.min_rows or use fewer lags."
            )
        return rows

    def _trained_ids(self, fold: Fold, required: int) -> np.ndarray:
        design = self.design
        usable = (
            design.complete
            & (design.date_index >= fold.train_start)
            & (design.label_known[:, -1] <= fold.labels_until)
            & (design.label_known.max(axis=1) <= fold.labels_until)
        )
        return np.bincount(design.id_index[usable], minlength=len(design.ids)) >= required

    def refit(self, model: str) -> int:
        return self.models[model].refit or self.walk_forward.refit

    def window(self, model: str, fit: int) -> Window:
        """The fit-th fit of a model and the rows of all folds that use it."""
        k = self.refit(model)
        folds = self.folds[fit * k : (fit + 1) * k]
        first = folds[0]
        return Window(
            train_start=first.train_start,
            cutoff=first.cutoff,
            labels_until=first.labels_until,
            validation_start=first.validation_start,
            fit_labels_until=first.fit_labels_until,
            test_rows=np.sort(np.concatenate([self.test_rows[fold.number] for fold in folds])),
        )

    def tasks(self) -> list[Task]:
        """All tasks, model by model in the order of the study."""
        found = []
        for name, entry in self.models.items():
            k = self.refit(name)
            fits = -(-len(self.folds) // k)
            size = entry.forecaster.fits_per_task
            for seed in entry.runs:
                for begin in range(0, fits, size):
                    chunk = tuple(range(begin, min(begin + size, fits)))
                    found.append(
                        Task(
                            model=name,
                            seed=seed,
                            fits=chunk,
                            folds=tuple(range(chunk[0] * k, min((chunk[-1] + 1) * k, len(self.folds)))),
                            seconds=entry.forecaster.seconds_per_fit * len(chunk) * len(self.panel.ids),
                        )
                    )
        return found

    def identity(self, task: Task) -> dict[str, Any]:
        """What can change the task's result, besides the panel's values and the code: as JSON-able data."""
        entry = self.models[task.model]
        return {
            "model": task.model,
            "kind": f"{type(entry.forecaster).__module__}:{type(entry.forecaster).__qualname__}",
            "parameters": entry.forecaster.model_dump(mode="json"),
            "model_features": list(self.features if entry.features is None else entry.features),
            "features": {name: spec.model_dump(mode="json") for name, spec in self.features.items()},
            "target": {
                "column": self.target.column,
                "horizons": list(self.target.horizons),
                "transform": self.target.transform,
                "aggregate": self.target.aggregate,
                "bias_correction": self.target.bias_correction,
            },
            "walk_forward": self.walk_forward.model_dump(mode="json", exclude={"horizons"}),
            "refit": self.refit(task.model),
            "all_refits": sorted({self.refit(name) for name in self.models}),  # they decide which rows are common
            "seed": [self.seed, task.seed],
            "fits": list(task.fits),
        }

    def design_for(self, model: str, window: Window | None = None) -> Design:
        """The design with the model's own feature columns; features that learn are learned in the given window."""
        entry = self.models[model]
        wanted = tuple(self.features) if entry.features is None else entry.features
        for name in wanted:
            if name not in self.features:
                raise InputError(
                    f"model {model!r} wants feature {name!r}, which the study does not define; "
                    f"{nearest(name, self.features)}."
                )
        design = self.design
        if window is not None and any(self.features[name].fitted for name in wanted):
            learned = build_design(
                self.panel, self.target, self.features, learn_from=window.train_start, learn_until=window.cutoff
            )
            # a row is used only where it is complete in the common design, so that all models keep the same rows
            design = replace(learned, usable=design.complete & np.isfinite(learned.features).all(axis=1))
            lost = window.test_rows[~design.complete[window.test_rows]]
            if len(lost):
                row = self.panel.frame.row(int(lost[0]), named=True)
                raise RuntimeError(
                    f"features of model {model!r} are missing in {len(lost)} rows that other models forecast "
                    "from, the first "
                    f"({row['unique_id']}, {row['ds']}): a feature that learns must be defined wherever it was at "
                    "first."
                )
        chosen = [i for i, name in enumerate(design.feature_names) if name.split("__")[0] in wanted]
        if len(chosen) == len(design.feature_names):
            return design
        return replace(
            design, features=design.features[:, chosen], feature_names=tuple(design.feature_names[i] for i in chosen)
        )


def run_task(experiment: Experiment, task: Task) -> TaskResult:
    """Fit and predict one task.

    Raises:
        RuntimeError: the model answered with a wrong shape or a forecast that is not finite.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # one thread: the same bits in every executor
        entry = experiment.models[task.model]
        windows = [experiment.window(task.model, fit) for fit in task.fits]
        wanted = tuple(experiment.features) if entry.features is None else entry.features
        shared = not any(experiment.features[name].fitted for name in wanted if name in experiment.features)
        if isinstance(entry.forecaster, WalkForecaster) and (shared or not entry.forecaster.uses_features):
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
