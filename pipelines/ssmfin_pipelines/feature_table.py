"""Owns the table of a study's features, one row per (unique_id, ds, fold): what was known at ds, learned at the fold's
cutoff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.causality import check_causality
from ssmfin.evaluation.design import feature_columns
from ssmfin.evaluation.learning import FeatureLearner, InMemory, spoken
from ssmfin.evaluation.splits import Fold
from ssmfin.features.spec import FeatureSpec
from ssmfin.models.interface import Target
from ssmfin_pipelines.executors.machine import one_thread_here
from ssmfin_pipelines.keys import run_folder
from ssmfin_pipelines.learned import StoredLearnings, learn_keys
from ssmfin_pipelines.progress import Display, Meter, automatic, silent
from ssmfin_pipelines.store import TaskStore
from ssmfin_pipelines.study.reading import NO_TARGET

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin_pipelines.study import Study

CANARY = "leak check"  # its key among those of the tasks, each a feature and a number


@dataclass(frozen=True)
class FeatureTable:
    """Features of a study.

    Attributes:
        frame: unique_id, ds, fold, cutoff, `<feature>__<column>`, and `<feature>__status` of those that learn.
        names: the feature columns. remarks: what a reader must see, a line for each feature and kind of remark.
    """

    frame: pl.DataFrame
    names: tuple[str, ...]
    remarks: list[str]


def feature_table(study: Study, *, windows: bool = False, progress: Display | None = None) -> FeatureTable:
    """The features of a study; its models play no part.

    Args:
        windows: also the rows of each fold's training window, as learned at its cutoff (a row then comes once for each
            fold whose window or test dates hold it). Without it: each row once, under the fold that tests it; rows
            before the first cutoff only where nothing learns, with no fold.
        progress: shows how far learning is; default: a bar on a terminal, plain lines elsewhere, on standard error.
    Raises:
        InputError: the data, the windows or a feature do not fit, or a feature sees the future.
    """
    panel = load(study)
    target = Target(study.target.column, study.target.horizons, transform=study.target.transform)
    if study.target.column == NO_TARGET:
        target = Target(NO_TARGET, (1,), transform="none")
        check_columns(study.features)
    with one_thread_here():
        folds = study.walk_forward.folds(panel.dates)
        learner = FeatureLearner(panel, target, study.walk_forward, folds, study.features, InMemory())
        if learner.learned and study.target.column != NO_TARGET:
            learner.learnings = stored(study, panel, learner)
        meter = _meter(learner)
        show = (progress or automatic()) if learner.learned else silent
        with show(meter, study.name):
            if learner.learned or any(":" in spec.kind for spec in study.features.values()):
                with meter.doing(CANARY):
                    check_causality(panel, target, study.features, folds)
            parts = list(_parts(panel, learner, meter, windows=windows))
            meter.finish()
    frame = pl.concat(parts).sort("unique_id", "ds", "fold", nulls_last=False)
    names = tuple(name for name in frame.columns[4:] if not name.endswith("__status"))
    return FeatureTable(frame, names, spoken(learner.remarks()))


def _meter(learner: FeatureLearner) -> Meter:
    """The leak check, then a task for each fit that is not there yet; all features that learn are filtered anew."""
    tasks = [(f"{task.feature} {task.fit}", task.model, task.seconds) for task in learner.tasks()]
    per_fit = sum(task.seconds for task in learner.tasks() if task.fit == 0)
    return Meter([(CANARY, "leak check", 2 * per_fit), *tasks])


def load(study: Study) -> Panel:
    """The panel of a study, its target checked if there is one."""
    return study.data.load() if study.target.column == NO_TARGET else study.load()


def stored(study: Study, panel: Panel, learner: FeatureLearner) -> StoredLearnings:
    """What a run of the same study has learned already; without such a run nothing is written."""
    fingerprint = panel.fingerprint()
    folder = Path(study.output.directory) / run_folder(study.name, study.resolved(), fingerprint)
    keys = learn_keys(learner, data_fingerprint=fingerprint)
    return StoredLearnings(TaskStore(folder), keys, InMemory())


def check_columns(features: Mapping[str, FeatureSpec]) -> None:
    """Refuse a feature that takes the target's column where there is no target.

    Raises:
        InputError: naming the feature.
    """
    for name, spec in features.items():
        parameters = spec.transformer(column=NO_TARGET, log=False).get_params()
        if NO_TARGET in parameters.values():
            raise InputError(
                f"feature {name!r} takes the target's column and the study has no target; name a column in it, or add "
                "a target."
            )


def _parts(panel: Panel, learner: FeatureLearner, meter: Meter, *, windows: bool) -> Iterator[pl.DataFrame]:
    keys = panel.frame.select("unique_id", "ds")
    date_index = np.searchsorted(panel.dates, panel.frame["ds"].to_numpy())
    columns: dict[str, list[pl.Series]] = {
        name: named_columns(panel, learner, name, None) for name, spec in learner.features.items() if not spec.fitted
    }
    fits: dict[str, int] = {}

    def part(rows: np.ndarray, fold: Fold | None) -> pl.DataFrame:
        series = [one.gather(rows) for name in learner.features for one in columns[name]]
        cutoff = None if fold is None else panel.frame["ds"].gather(int(np.argmax(date_index == fold.cutoff)))[0]
        return keys[rows].with_columns(
            pl.lit(None if fold is None else fold.number, dtype=pl.Int32).alias("fold"),
            pl.lit(cutoff, dtype=panel.frame.schema["ds"]).alias("cutoff"),
            *series,
        )

    if not learner.learned and not windows:
        yield part(np.flatnonzero(date_index < learner.folds[0].cutoff), None)
    for fold in learner.folds:
        for name in learner.learned:
            fit = learner.fit_of(name, fold.number)
            if fits.get(name) != fit:
                fits[name] = fit
                with meter.doing(f"{name} {fit}"):
                    columns[name] = named_columns(panel, learner, name, fit)
        first = fold.train_start if windows else fold.test_start
        yield part(np.flatnonzero((date_index >= first) & (date_index < fold.test_stop)), fold)


def named_columns(panel: Panel, learner: FeatureLearner, name: str, fit: int | None) -> list[pl.Series]:
    """`<feature>__<column>` (R,) of one feature; of one that learns as learned in a fit, with `<feature>__status`."""
    target = learner.target
    if fit is None:
        transformer = learner.features[name].transformer(column=target.column, log=target.transform == "log")
    else:
        transformer = learner.transformer(name, fit)
    try:
        values = feature_columns(panel, transformer.fit(panel) if fit is None else transformer)
    except InputError as error:
        raise InputError(f"feature {name!r}: {error}") from error
    found = [pl.Series(f"{name}__{c}", values[:, i]) for i, c in enumerate(transformer.get_feature_names_out())]
    if fit is not None:
        of_id = dict(zip(panel.ids, transformer.status(panel.ids), strict=True))
        found.append(panel.frame["unique_id"].replace_strict(of_id).alias(f"{name}__status"))
    return found
