"""Owns what features learned as it lies in a run folder: read by whoever needs it, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ssmfin.evaluation.experiment import Experiment
from ssmfin.evaluation.learning import FeatureLearner, InMemory, Learning, LearnTask, in_words
from ssmfin.versions import package_versions
from ssmfin_pipelines.keys import code_of, task_key
from ssmfin_pipelines.store import Mark, TaskStore


@dataclass(frozen=True)
class StoredLearnings:
    """Learnings of a run: in memory once found, on disk once `create`d (a plan reads them and writes nothing).

    Attributes:
        keys: (feature, fit) -> key in the store.
    """

    store: TaskStore
    keys: Mapping[tuple[str, int], str]
    memory: InMemory

    def find(self, task: LearnTask) -> Learning | None:
        found = self.memory.find(task)
        if found is not None:
            return found
        key = self.keys[task.feature, task.fit]
        if self.store.is_done(key):
            mark = self.store.mark(key)
            found = Learning(self.store.state(key), mark.seconds if mark is not None else 0.0)
            self.memory.keep(task, found)
            return found
        failure = self.store.failure(key)
        if failure is not None:
            raise RuntimeError(f"{task.model} could not be learned, {in_words(task.folds)}: {failure['error']}")
        return None

    def keep(self, task: LearnTask, learning: Learning) -> None:
        self.memory.keep(task, learning)
        if self.store.tasks.is_dir():
            self.write(task, learning)

    def write(self, task: LearnTask, learning: Learning) -> None:
        """Put one learning on disk."""
        mark = Mark(
            model=task.model,
            seed=0,
            fits=1,
            rows=0,
            seconds=learning.seconds,
            fit_seconds=learning.seconds,
            predict_seconds=0.0,
            notes={},
            versions=package_versions(),
            device="cpu",
        )
        self.store.write_state(self.keys[task.feature, task.fit], learning.text, mark)

    def write_all(self) -> None:
        """Put on disk what was learned before there was a folder."""
        for (feature, fit), learning in self.memory.kept.items():
            if not self.store.is_done(self.keys[feature, fit]):
                self.write(LearnTask(feature, fit, (), 0.0, False), learning)


def learn_keys(learner: FeatureLearner, *, data_fingerprint: str) -> dict[tuple[str, int], str]:
    """(feature, fit) -> key of its learning."""
    code = {name: code_of([spec.kind]) for name, spec in learner.learned.items()}
    return {
        (task.feature, task.fit): task_key(
            learner.identity(task), data_fingerprint=data_fingerprint, code=code[task.feature]
        )
        for task in learner.tasks()
    }


def with_stored_learnings(
    experiment: Experiment, store: TaskStore, *, data_fingerprint: str
) -> tuple[Experiment, dict[tuple[str, int], str]]:
    """The experiment with its learnings in a run folder, and their keys."""
    keys = learn_keys(experiment.learner, data_fingerprint=data_fingerprint)
    if not keys:
        return experiment, keys
    return replace(experiment, learnings=StoredLearnings(store, keys, InMemory())), keys
