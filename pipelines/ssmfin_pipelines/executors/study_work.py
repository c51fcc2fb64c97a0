"""Owns what a worker does with a task of a study: fit and predict it, store it, say what it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.experiment import Experiment
from ssmfin.evaluation.learning import LearnTask
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.versions import package_versions
from ssmfin_pipelines.atomic import storage
from ssmfin_pipelines.executors.contract import Item
from ssmfin_pipelines.keys import code_of
from ssmfin_pipelines.learned import with_stored_learnings
from ssmfin_pipelines.store import Mark, TaskStore

if TYPE_CHECKING:
    from ssmfin_pipelines.study import Study


@dataclass(frozen=True)
class HereWork:
    """Work on an experiment that is already in this process."""

    experiment: Experiment
    store: TaskStore

    def open(self) -> Callable[[Item], float]:
        return lambda item: perform(self.experiment, self.store, item)


@dataclass(frozen=True)
class StudyWork:
    """Work for another process: the study travels, the panel waits in a file that each process reads once.

    `code` is the version that the keys were made with; a process that finds another one must not store under them.
    `fingerprint` is the panel's.
    """

    study: Study
    panel_file: Path
    notes: dict[str, Any]
    directory: Path
    code: str
    fingerprint: str

    def open(self) -> Callable[[Item], float]:
        from ssmfin.data.panel import Panel

        if study_code(self.study) != self.code:
            raise InputError(
                "the sources of ssmfin or of the study's own classes changed while the run was going, "
                f"{self.directory}; run the study again: what is done stays, under the version that did it."
            )
        panel = Panel(pl.read_ipc(self.panel_file), self.notes)
        store = TaskStore(self.directory)
        experiment, _ = with_stored_learnings(self.study.experiment(panel), store, data_fingerprint=self.fingerprint)
        return HereWork(experiment, store).open()


def study_code(study: Study) -> str:
    """Version of all code that computes a study."""
    return code_of(
        [*(entry.kind for entry in study.entries.values()), *(spec.kind for spec in study.features.values())]
    )


def write_panel_file(frame: pl.DataFrame, path: Path) -> None:
    """Lay a panel out for the workers, once per run."""
    with storage(path):
        frame.write_ipc(path, compression="uncompressed")


def perform(experiment: Experiment, store: TaskStore, item: Item) -> float:
    """Do one task unless another process has finished it meanwhile; returns the seconds it took."""
    if store.is_done(item.key):
        found = store.mark(item.key)
        return found.seconds if found is not None else 0.0
    if isinstance(item.task, LearnTask):
        return experiment.learner.learning(item.task).seconds  # its keeper stores it
    began = time.perf_counter()
    members = (
        [store.predictions(key) for key in sorted(item.needs) if store.mark(key) is not None]
        if experiment.members(item.task.model)
        else []
    )
    result = run_task(experiment, item.task, members)
    seconds = time.perf_counter() - began
    mark = Mark(
        model=item.task.model,
        seed=item.task.seed,
        fits=len(item.task.fits),
        rows=result.predictions.height,
        seconds=seconds,
        fit_seconds=result.fit_seconds,
        predict_seconds=result.predict_seconds,
        notes=dict(result.notes),
        versions=package_versions(),
        device=_device(),
    )
    store.write_done(item.key, result.predictions, mark, weights=result.weights, memory=result.memory)
    return seconds


def _device() -> str:
    """Where torch computed, if it did: the name of the GPU once one was used, else cpu."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return "cpu"
