"""Owns a study made ready to run: its data loaded, its tasks under their keys, what each is expected to take."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.evaluation.learning import LearnTask, in_words
from ssmfin_pipelines.executors.contract import Item
from ssmfin_pipelines.executors.machine import usable_cores
from ssmfin_pipelines.keys import code_of, digest, run_folder, task_key
from ssmfin_pipelines.learned import with_stored_learnings
from ssmfin_pipelines.store import TaskStore

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin_pipelines.study import Study

FAIR_FOLDS, FAIR_ORIGINS = 5, 100  # fewer deserve a warning


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
    def combinations(self) -> tuple[Item, ...]:
        """The tasks that only read what other tasks have forecast; they come last."""
        return tuple(item for item in self.items if self.experiment.members(item.task.model))

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
    experiment, learn_keys = with_stored_learnings(experiment, TaskStore(directory), data_fingerprint=fingerprint)
    seen = [spec.kind for spec in study.features.values()]  # any feature decides which rows all models share
    code = {name: code_of([entry.kind, *seen]) for name, entry in study.entries.items()}
    for name in experiment.models:
        if members := experiment.members(name):  # the code behind its members decides its forecasts, too
            code[name] = digest(code[name], *(code[member] for member in members))
    tasks = experiment.tasks()
    keys = {
        task: task_key(experiment.identity(task), data_fingerprint=fingerprint, code=code[task.model]) for task in tasks
    }
    items = tuple(
        Item(
            keys[task],
            task,
            task.seconds,
            frozenset(keys[member] for member in experiment.member_tasks(task))
            or frozenset(learn_keys[need] for need in experiment.needs(task)),
        )
        for task in tasks
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


def few_forecasts(prepared: Prepared) -> str | None:
    """A word about a walk-forward of so few folds or origins that a comparison of models says little."""
    folds, origins = len(prepared.experiment.folds), sum(map(len, prepared.experiment.test_rows))
    if folds >= FAIR_FOLDS and origins >= FAIR_ORIGINS:
        return None
    return (
        f"walk_forward leaves {folds} fold{'' if folds == 1 else 's'} and {origins} origins to forecast from, few to "
        "compare models on; use a smaller walk_forward.train.size, or more data."
    )


def data_facts(panel: Panel) -> dict[str, Any]:
    """Size and range of a panel."""
    return {
        "rows": panel.frame.height,
        "ids": list(panel.ids),
        "first": day_text(panel.frame["ds"].min()),
        "last": day_text(panel.frame["ds"].max()),
    }


def label_of(task: Task | LearnTask) -> str:
    """A task in words for the log.

    >>> label_of(Task("s4d", 1, (2, 3), (8, 9, 10, 11), 1.0))
    's4d seed 1, folds 8-11'
    """
    seed = f" seed {task.seed}" if isinstance(task, Task) else ""
    return f"{task.model}{seed}, {in_words(task.folds)}"


def day_text(value: Any) -> str:
    """A date, or a time that is not midnight; "-" where there is none."""
    return "-" if value is None else str(value).removesuffix(" 00:00:00")
