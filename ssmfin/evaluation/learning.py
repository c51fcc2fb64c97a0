"""Owns what features learn: one learning for each (feature, fit), made once and shared by every model and process.

A learning depends on the panel's training window and the feature's configuration alone, so whoever needs it first makes
it: a run before the models that need it (as a task of its own, stored), `ssmfin.evaluate` in memory. Only its JSON form
is handed on, so that a learning that was stored and read back transforms to the same bits as one made on the spot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.design import training_panel
from ssmfin.evaluation.splits import Fold, WalkForward
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.models.interface import Target

if TYPE_CHECKING:
    from ssmfin.features.transformer import PanelTransformer


@dataclass(frozen=True)
class LearnTask:
    """One feature learned in one training window; `folds` are those that use it."""

    feature: str
    fit: int
    folds: tuple[int, ...]
    seconds: float  # a first guess
    previous: bool  # it starts from the fit before it

    seed = 0

    @property
    def model(self) -> str:
        """What logs and progress call it; no model can have a name with a space."""
        return f"feature {self.feature}"

    @property
    def fits(self) -> tuple[int, ...]:
        return (self.fit,)


@dataclass(frozen=True)
class Learning:
    """What one task learned: the transformer's state as JSON text, and the seconds it took."""

    text: str
    seconds: float

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class Learnings(Protocol):
    """Where learnings are kept: in memory, or in the folder of a run."""

    def find(self, task: LearnTask) -> Learning | None:
        """The learning of a task if it is there.

        Raises:
            RuntimeError: it was tried and failed; the message says why.
        """
        ...

    def keep(self, task: LearnTask, learning: Learning) -> None:
        """Keep it for whoever asks next."""
        ...


@dataclass
class InMemory:
    """Learnings of one process."""

    kept: dict[tuple[str, int], Learning] = field(default_factory=dict)

    def find(self, task: LearnTask) -> Learning | None:
        return self.kept.get((task.feature, task.fit))

    def keep(self, task: LearnTask, learning: Learning) -> None:
        self.kept[task.feature, task.fit] = learning


@dataclass
class FeatureLearner:
    """The learned transformers of an experiment, by feature and fit.

    Attributes:
        features: all of the study; those that learn nothing are not asked for here.
        learnings: where they are kept.
    """

    panel: Panel
    target: Target
    walk_forward: WalkForward
    folds: list[Fold]
    features: Mapping[str, FeatureSpec]
    learnings: Learnings
    _transformers: dict[tuple[str, int], PanelTransformer] = field(default_factory=dict)

    @property
    def learned(self) -> dict[str, LearnedSpec]:
        """The features that learn."""
        return {name: spec for name, spec in self.features.items() if isinstance(spec, LearnedSpec)}

    def refit(self, feature: str) -> int:
        return self.learned[feature].refit or self.walk_forward.refit

    def fit_of(self, feature: str, fold: int) -> int:
        """The newest fit of a feature at a fold."""
        return fold // self.refit(feature)

    def task(self, feature: str, fit: int) -> LearnTask:
        spec, k = self.learned[feature], self.refit(feature)
        return LearnTask(
            feature=feature,
            fit=fit,
            folds=tuple(range(fit * k, min((fit + 1) * k, len(self.folds)))),
            seconds=spec.guessed_seconds(len(self.panel.ids)),
            previous=spec.warm_start and fit > 0,
        )

    def tasks(self) -> list[LearnTask]:
        """All learnings, feature by feature in the order of the folds."""
        return [self.task(name, fit) for name in self.learned for fit in range(-(-len(self.folds) // self.refit(name)))]

    def identity(self, task: LearnTask) -> dict[str, Any]:
        """What can change what is learned, besides the panel's values and the code: as JSON-able data."""
        fold = self.folds[task.folds[0]]
        found = {
            "feature": self.features[task.feature].model_dump(mode="json"),
            "target": {"column": self.target.column, "transform": self.target.transform},
            "window": [fold.train_start, fold.cutoff],
        }
        if task.previous:
            found["previous"] = self.identity(self.task(task.feature, task.fit - 1))
        return found

    def learning(self, task: LearnTask) -> Learning:
        """The learning of a task: as it is kept, or made now and kept.

        Raises:
            InputError: nothing can be learned in that window.
        """
        found = self.learnings.find(task)
        if found is None:
            found = self._learn(task)
            self.learnings.keep(task, found)
        return found

    def transformer(self, feature: str, fit: int) -> PanelTransformer:
        """The feature's transformer as learned in the given fit."""
        if (feature, fit) not in self._transformers:
            learning = self.learning(self.task(feature, fit))
            transformer = self._blank(feature).restore(learning.state)
            if self.learned[feature].follows and (before := self._before(feature, fit)) is not None:
                transformer.follow(before)
            self._transformers[feature, fit] = transformer
        return self._transformers[feature, fit]

    def remarks(self) -> dict[str, dict[str, Any]]:
        """What a reader must see of what was learned: "<feature>, fold <n>" -> plain facts, of all fits kept."""
        found = {}
        for task in self.tasks():
            if self._kept(task) and (remarks := self.transformer(task.feature, task.fit).remarks()):
                found[f"{task.feature}, {in_words(task.folds)}"] = remarks
        return found

    def facts(self) -> dict[str, dict[str, Any]]:
        """Feature -> kind, refit, fits, seconds, remarks, of what is kept; only those that learn."""
        remarks = self.remarks()
        found = {}
        for name, spec in self.learned.items():
            kept = [self.learnings.find(task) for task in self.tasks() if task.feature == name and self._kept(task)]
            found[name] = {
                "kind": spec.kind,
                "refit": self.refit(name),
                "fits": len(kept),
                "seconds": sum(learning.seconds for learning in kept if learning is not None),
                "remarks": {where: said for where, said in remarks.items() if where.startswith(f"{name}, ")},
            }
        return found

    def _kept(self, task: LearnTask) -> bool:
        try:
            return self.learnings.find(task) is not None
        except RuntimeError:
            return False

    def _before(self, feature: str, fit: int) -> PanelTransformer | None:
        """The newest earlier fit that did not fail."""
        for earlier in range(fit - 1, -1, -1):
            try:
                return self.transformer(feature, earlier)
            except (InputError, RuntimeError):
                continue
        return None

    def fits_needed(self, feature: str, fit: int) -> range:
        """The fits that must be there before `transformer` of a fit can be given without learning."""
        return range(0 if self.learned[feature].follows else fit, fit + 1)

    def _blank(self, feature: str) -> PanelTransformer:
        return self.features[feature].transformer(column=self.target.column, log=self.target.transform == "log")

    def _learn(self, task: LearnTask) -> Learning:
        from threadpoolctl import threadpool_limits

        fold = self.folds[task.folds[0]]
        began = time.perf_counter()
        transformer = self._blank(task.feature)
        if task.previous:
            transformer.start_from(self.learning(self.task(task.feature, task.fit - 1)).state)
        try:
            with threadpool_limits(limits=1):  # one thread: the same bits in every executor
                transformer.fit(training_panel(self.panel, fold.train_start, fold.cutoff))
        except InputError as error:
            raise InputError(f"feature {task.feature!r} cannot be learned at fold {fold.number}: {error}") from None
        text = json.dumps(transformer.state(), separators=(",", ":"))
        return Learning(text, time.perf_counter() - began)


def in_words(folds: tuple[int, ...]) -> str:
    """
    >>> in_words((3,)), in_words((4, 5, 6))
    ('fold 3', 'folds 4-6')
    """
    return f"fold {folds[0]}" if len(folds) == 1 else f"folds {folds[0]}-{folds[-1]}"


def feature_lines(remarks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Remarks as one line each.

    >>> feature_lines({"kalman, fold 3": {"failed": "1 of 2 ids (a)", "left out": "b"}})
    {'kalman, fold 3': 'failed: 1 of 2 ids (a); left out: b'}
    """
    return {where: "; ".join(f"{key}: {value}" for key, value in said.items()) for where, said in remarks.items()}


def spoken(remarks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Remarks as a line for each feature and kind of remark, however many folds it is true of; the first one's words.

    >>> spoken({"kalman, fold 3": {"failed": "1 of 2 ids (a)"}, "kalman, folds 5-6": {"failed": "1 of 2 ids (b)"}})
    ["feature 'kalman', fold 3 and 1 other fit: failed: 1 of 2 ids (a)."]
    """
    found: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for where, said in remarks.items():
        feature, _, folds = where.rpartition(", ")
        for key, value in said.items():
            found.setdefault((feature, key), []).append((folds, value))
    lines = []
    for (feature, key), items in found.items():
        (folds, value), others = items[0], len(items) - 1
        more = f" and {others} other fit{'s' if others > 1 else ''}" if others else ""
        lines.append(f"feature {feature!r}, {folds}{more}: {key}: {value}.")
    return lines


def learned_notes(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What reports say of features that learn.

    Args:
        facts: feature -> fits, seconds, remarks.
    Returns:
        "features learned": feature -> fits and seconds; "features to look at": "<feature>, fold <n>" -> one line.

    >>> learned_notes({"kalman": {"fits": 9, "seconds": 1.26, "remarks": {}}})
    {'features learned': {'kalman': '9 fits in 1.3 s, for all models'}}
    """
    if not facts:
        return {}
    learned = {name: f"{item['fits']} fits in {item['seconds']:.1f} s, for all models" for name, item in facts.items()}
    lines = {where: line for item in facts.values() for where, line in feature_lines(item["remarks"]).items()}
    return {"features learned": learned, **({"features to look at": lines} if lines else {})}
