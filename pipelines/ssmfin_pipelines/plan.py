"""Owns what a run will do before it does it: its tasks and their keys, what is done, what the rest will cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.evaluation.learning import LearnTask, in_words
from ssmfin.evaluation.plan import experiment_plan, skipped_ids, skipped_origins
from ssmfin_pipelines.executors.contract import Item
from ssmfin_pipelines.executors.machine import usable_cores
from ssmfin_pipelines.keys import code_version, digest, external_code_version, run_folder, task_key
from ssmfin_pipelines.learned import with_stored_learnings
from ssmfin_pipelines.progress import duration
from ssmfin_pipelines.store import TaskStore
from ssmfin_pipelines.tables import text_table

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin_pipelines.study import Study


@dataclass(frozen=True)
class Prepared:
    """A study with its data loaded and its tasks named; nothing is written yet.

    Attributes:
        data_fingerprint: of the panel. `directory`: the run folder, there or not.
        items: every task of a model under its key, in the order of the study; their seconds are guesses.
        learnings: likewise, what features learn before the models that see them.
    """

    study: Study
    panel: Panel
    experiment: Experiment
    data_fingerprint: str
    directory: Path
    items: tuple[Item, ...]
    learnings: tuple[Item, ...] = ()

    @property
    def everything(self) -> tuple[Item, ...]:
        """All tasks: what features learn, then the models."""
        return self.learnings + self.items

    @cached_property
    def store(self) -> TaskStore:
        return TaskStore(self.directory)

    @property
    def workers(self) -> int:
        """How many tasks run at the same time."""
        execution = self.study.execution
        if execution.backend == "inline":
            return 1
        return usable_cores() if execution.workers == "auto" else int(execution.workers)


def prepare(study: Study) -> Prepared:
    """Load the data of a study and name its tasks.

    Raises:
        InputError: the data or the windows are wrong.
    """
    panel = study.load()
    experiment = study.experiment(panel)
    fingerprint = panel.fingerprint()
    folder = run_folder(study.name, study.resolved(), fingerprint)
    directory = Path(study.output.directory) / folder
    experiment, learn_keys = with_stored_learnings(
        experiment, TaskStore(directory), data_fingerprint=fingerprint, code=code_version()
    )
    code = {name: _code_of(entry.kind) for name, entry in study.entries.items()}
    items = tuple(
        Item(
            task_key(experiment.identity(task), data_fingerprint=fingerprint, code=code[task.model]),
            task,
            task.seconds,
            frozenset(learn_keys[need] for need in experiment.needs(task)),
        )
        for task in experiment.tasks()
    )
    learnings = tuple(
        Item(
            learn_keys[task.feature, task.fit],
            task,
            task.seconds,
            frozenset({learn_keys[task.feature, task.fit - 1]} if task.previous else ()),
        )
        for task in experiment.learner.tasks()
    )
    return Prepared(study, panel, experiment, fingerprint, directory, items, learnings)


def _code_of(kind: str) -> str:
    """Version of the code behind a model; of the user's own class also its sources."""
    module, colon, _ = kind.partition(":")
    return digest(code_version(), external_code_version(module)) if colon else code_version()


def learned_seconds(prepared: Prepared) -> dict[str, float]:
    """Key -> expected seconds: the task's guess, corrected by the finished tasks of its model in this run."""
    measured: dict[str, float] = defaultdict(float)
    guessed: dict[str, float] = defaultdict(float)
    for item in prepared.everything:
        mark = prepared.store.mark(item.key)
        if mark is not None:
            measured[item.task.model] += mark.seconds
            guessed[item.task.model] += item.seconds
    ratio = {model: measured[model] / guessed[model] for model in measured if guessed[model] > 0}
    return {item.key: item.seconds * ratio.get(item.task.model, 1.0) for item in prepared.everything}


@dataclass(frozen=True)
class Plan:
    """What `ssmfin run` would do.

    Attributes:
        directory: the run folder. `workers`: tasks at a time.
        folds: fold, fit, train_start, train_end, validation_start, cutoff, test_start, test_end, n_train_rows,
            n_test_rows, n_ids.
        models: model, family, features, seeds, refit, tasks, fits, cached (finished tasks), seconds (of one core, for
            what is not cached).
        features: feature, kind, refit, tasks, cached, seconds of those that learn; one task a fit.
        data: rows, ids, first, last. `never_forecast`: id -> why it is not forecast in any fold.
        not_forecast: reason -> number of rows of the test dates without a forecast.
        left_out: model -> why it has no meaning for this target.
    """

    name: str
    directory: Path
    workers: int
    folds: pl.DataFrame
    models: pl.DataFrame
    data: dict[str, Any]
    never_forecast: dict[str, str]
    not_forecast: dict[str, int]
    left_out: dict[str, str]
    features: pl.DataFrame

    @property
    def tasks(self) -> int:
        return int(self.models["tasks"].sum()) + int(self.features["tasks"].sum())

    @property
    def fits(self) -> int:
        return int(self.models["fits"].sum()) + int(self.features["tasks"].sum())

    @property
    def cached(self) -> int:
        return int(self.models["cached"].sum()) + int(self.features["cached"].sum())

    @property
    def core_seconds(self) -> float:
        """Work that is left, in seconds of one core."""
        return float(self.models["seconds"].sum()) + float(self.features["seconds"].sum())

    @property
    def seconds(self) -> float:
        """Wall clock that is left, about: the work of one core shared among the workers."""
        return self.core_seconds / self.workers

    def render(self, *, most_folds: int = 24) -> str:
        """The plan as text for a terminal: folds, models, totals; a long fold table loses its middle."""
        data = self.data
        out = [
            f"study    {self.name}",
            f"data     {data['rows']} rows, {len(data['ids'])} ids, {data['first']} to {data['last']}",
            f"run      {self.directory}",
            "",
        ]
        half = most_folds // 2
        cells = [
            (
                str(row["fold"]),
                str(row["fit"]),
                f"{_day(row['train_start'])} .. {_day(row['train_end'])}",
                f"{_day(row['validation_start'])} ..",
                _day(row["cutoff"]),
                f"{_day(row['test_start'])} .. {_day(row['test_end'])}",
                str(row["n_train_rows"]),
                str(row["n_test_rows"]),
                str(row["n_ids"]),
            )
            for row in self.folds.iter_rows(named=True)
        ]
        if len(cells) > most_folds:
            cells[half:-half] = [("..", "..", "..", "..", "..", "..", "..", "..", "..")]
        head = (
            "fold",
            "fit",
            "train origins",
            "validation",
            "cutoff",
            "test origins",
            "train rows",
            "test rows",
            "ids",
        )
        out += text_table(head, cells, right={0, 1, 6, 7, 8})
        out.append("")
        rows = [
            (
                row["feature"],
                "feature",
                f"learns ({row['kind']})",
                "",
                str(row["refit"]),
                str(row["tasks"]),
                str(row["tasks"]),
                str(row["cached"]),
                duration(row["seconds"]),
            )
            for row in self.features.iter_rows(named=True)
        ]
        rows += [
            (
                row["model"],
                row["family"],
                row["features"],
                row["seeds"],
                str(row["refit"]),
                str(row["tasks"]),
                str(row["fits"]),
                str(row["cached"]),
                duration(row["seconds"]),
            )
            for row in self.models.iter_rows(named=True)
        ]
        rows.append(
            (
                "all",
                "",
                "",
                "",
                "",
                str(self.tasks),
                str(self.fits),
                str(self.cached),
                duration(self.core_seconds),
            )
        )
        head = ("model", "family", "features", "seeds", "refit", "tasks", "fits", "cached", "to compute")
        out += text_table(head, rows, right={4, 5, 6, 7, 8})
        out.append("")
        out += [f"never forecast: {name}, {why}" for name, why in self.never_forecast.items()]
        out += [f"not forecast: {count} origins, {why}" for why, count in self.not_forecast.items()]
        out += [f"left out: {name}, which {why}" for name, why in self.left_out.items()]
        left = self.tasks - self.cached
        workers = f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        cost = f"{self.cached} done already; {left} to do, about {duration(self.seconds)} on {workers}"
        out.append(f"{self.tasks} tasks, {cost if left else 'all done already'}.")
        return "\n".join(out)

    def __str__(self) -> str:
        return self.render()


def plan_study(study: Study) -> Plan:
    """The folds, tasks and cost of a study, and what is done already. Writes nothing.

    Raises:
        InputError: the data or the windows are wrong.
    """
    prepared = prepare(study)
    experiment, panel = prepared.experiment, prepared.panel
    seconds = learned_seconds(prepared)
    by_model: dict[str, list[Item]] = defaultdict(list)
    for item in prepared.items:
        by_model[item.task.model].append(item)
    rows = []
    for name, entry in experiment.models.items():
        done = {item.key for item in by_model[name] if prepared.store.mark(item.key) is not None}
        features = tuple(experiment.features) if entry.features is None else entry.features
        rows.append(
            {
                "model": name,
                "family": type(entry.forecaster).family,
                "features": ", ".join(features) if entry.forecaster.uses_features else "own lags",
                "seeds": ", ".join(map(str, entry.runs)),
                "refit": experiment.refit(name),
                "tasks": len(by_model[name]),
                "fits": sum(len(item.task.fits) for item in by_model[name]),
                "cached": len(done),
                "seconds": float(sum(seconds[item.key] for item in by_model[name] if item.key not in done)),
            }
        )
    return Plan(
        name=study.name,
        directory=prepared.directory,
        workers=prepared.workers,
        folds=experiment_plan(experiment),
        models=pl.DataFrame(rows),
        data=data_facts(panel),
        never_forecast=skipped_ids(experiment),
        not_forecast=skipped_origins(experiment),
        left_out=dict(experiment.left_out),
        features=learned_table(prepared, seconds),
    )


def learned_table(prepared: Prepared, seconds: dict[str, float]) -> pl.DataFrame:
    """feature, kind, refit, tasks, cached, seconds: what the features that learn cost, in the order of the study."""
    learner = prepared.experiment.learner
    rows = []
    for name, spec in learner.learned.items():
        own = [item for item in prepared.learnings if item.task.feature == name]
        left = [item for item in own if prepared.store.mark(item.key) is None]
        rows.append(
            {
                "feature": name,
                "kind": spec.kind,
                "refit": learner.refit(name),
                "tasks": len(own),
                "cached": len(own) - len(left),
                "seconds": float(sum(seconds[item.key] for item in left)),
            }
        )
    schema = {
        "feature": pl.String,
        "kind": pl.String,
        "refit": pl.Int64,
        "tasks": pl.Int64,
        "cached": pl.Int64,
        "seconds": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def data_facts(panel: Panel) -> dict[str, Any]:
    """Size and range of a panel."""
    return {
        "rows": panel.frame.height,
        "ids": list(panel.ids),
        "first": _day(panel.frame["ds"].min()),
        "last": _day(panel.frame["ds"].max()),
    }


def label_of(task: Task | LearnTask) -> str:
    """A task in words for the log.

    >>> label_of(Task("s4d", 1, (2, 3), (8, 9, 10, 11), 1.0))
    's4d seed 1, folds 8-11'
    """
    seed = f" seed {task.seed}" if isinstance(task, Task) else ""
    return f"{task.model}{seed}, {in_words(task.folds)}"


def _day(value: Any) -> str:
    return "-" if value is None else str(value).removesuffix(" 00:00:00")
