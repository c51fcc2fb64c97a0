"""Owns the experiment: everything that fixes the result of a study, and how it is cut into tasks and windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.design import build_design, check_target, feature_columns
from ssmfin.evaluation.learning import FeatureLearner, InMemory, Learnings
from ssmfin.evaluation.splits import Fold, WalkForward
from ssmfin.features.spec import FeatureSpec
from ssmfin.features.transformer import panel_column
from ssmfin.models.combination.spec import Combination, check_combination
from ssmfin.models.interface import Design, Forecaster, Target, Window

COLUMNS_KEPT = 2  # fits of each feature that learns whose columns stay in memory


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
    learnings: Learnings | None = None  # where what features learn is kept; None: in this object

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
            InputError: the target is wrong, the reference is one of the models left out, or a combination has a member
                that it cannot have.
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
        kinds = {name: getattr(entry.forecaster, "kind", "") for name, entry in models.items()}  # a user's may lack it
        for name, entry in models.items():
            if isinstance(entry.forecaster, Combination):
                check_combination(name, entry.forecaster, kinds, left_out, target, least=least)
                if entry.features is not None or entry.refit is not None:
                    raise InputError(
                        f"model {name!r} is a combination, which is not fitted; give no features, no refit."
                    )
        kept = {name: entry for name, entry in models.items() if name not in left_out}
        return cls(panel, target, walk_forward, features, kept, seed, left_out)

    @cached_property
    def folds(self) -> list[Fold]:
        self.walk_forward.check(self.target.horizons)
        return self.walk_forward.folds(self.panel.dates)

    @cached_property
    def learner(self) -> FeatureLearner:
        """What the features learn, fold by fold, shared by all models."""
        learnings = InMemory() if self.learnings is None else self.learnings
        return FeatureLearner(self.panel, self.target, self.walk_forward, self.folds, self.features, learnings)

    @cached_property
    def design(self) -> Design:
        """All rows; with features that learn, as learned in the first training window (its use: which rows exist)."""
        learned = {name: self.learner.transformer(name, 0) for name in self.learner.learned}
        design = build_design(self.panel, self.target, self.features, learned=learned)
        return replace(design, usable=design.complete)

    def learned_by(self, model: str) -> tuple[str, ...]:
        """The features that learn among those that a model sees."""
        entry = self.models[model]
        wanted = tuple(self.features) if entry.features is None else entry.features
        return tuple(name for name in wanted if name in self.learner.learned and entry.forecaster.uses_features)

    def needs(self, task: Task) -> list[tuple[str, int]]:
        """The learnings, as (feature, fit), that must be there before a task: its own, and the first of each feature
        (which decides the rows that all models share)."""
        learner, k = self.learner, self.refit(task.model)
        own = [
            (name, fit)
            for name in self.learned_by(task.model)
            for window in task.fits
            for fit in learner.fits_needed(name, learner.fit_of(name, window * k))
        ]
        return list(dict.fromkeys([*((name, 0) for name in learner.learned), *own]))

    def members(self, model: str) -> tuple[str, ...]:
        """The models that a combination combines; none for any other model."""
        forecaster = self.models[model].forecaster
        return forecaster.members if isinstance(forecaster, Combination) else ()

    def member_tasks(self, task: Task) -> list[Task]:
        """The tasks whose forecasts a combination's task reads; none for any other model's."""
        members = self.members(task.model)
        return [other for other in self.tasks() if other.model in members] if members else []

    def fold_of(self, window: Window) -> int:
        """The fold at whose cutoff a window is fitted."""
        return next(fold.number for fold in self.folds if fold.cutoff == window.cutoff)

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
                f"{self.walk_forward.train.size} dates; {self._rarest_feature()}lower walk_forward.train.min_rows or "
                "use fewer lags."
            )
        return rows

    def _rarest_feature(self) -> str:
        """The feature that leaves the fewest rows complete, in words, where it leaves out a tenth or more."""
        defined = np.isfinite(self.design.features).mean(axis=0) if self.design.features.size else np.ones(0)
        if not len(defined) or defined.min() > 0.9:
            return ""
        rarest = int(defined.argmin())
        name, share = self.design.feature_names[rarest], defined[rarest]
        return (
            f"feature {name} is undefined in {1 - share:.0%} of the rows: start the panel later or leave it out; else "
        )

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
        """All tasks, model by model in the order of the study. A combination has one, for all folds, without fits."""
        found = []
        for name, entry in self.models.items():
            if self.members(name):
                seconds = entry.forecaster.guessed_seconds(self.panel.frame.height, len(self.panel.ids))
                found += [Task(name, seed, (), tuple(range(len(self.folds))), seconds) for seed in entry.runs]
                continue
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
                            seconds=sum(self._guessed_seconds(entry.forecaster, fit * k) for fit in chunk),
                        )
                    )
        return found

    def _guessed_seconds(self, forecaster: Forecaster, fold: int) -> float:
        """One fit at a fold's cutoff, on one core, before any was measured."""
        start, cutoff = self.folds[fold].train_start, self.folds[fold].cutoff
        rows = int(self._rows_until[cutoff + 1] - self._rows_until[start])
        return forecaster.guessed_seconds(rows, len(self.panel.ids))

    @cached_property
    def _rows_until(self) -> np.ndarray:
        """(T + 1,) rows of the panel before each date."""
        index = np.searchsorted(self.panel.dates, self.panel.frame["ds"].to_numpy())
        return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=len(self.panel.dates)))])

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
            "members": [self.identity(member) for member in self.member_tasks(task)],
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
        learned = self.learned_by(model)
        if window is not None and learned:
            matrix = design.features.copy()
            for name in learned:
                own = [i for i, owner in enumerate(self._owners) if owner == name]
                matrix[:, own] = self._learned_columns(name, self.learner.fit_of(name, self.fold_of(window)))
            # a row is used only where it is complete in the common design, so that all models keep the same rows
            usable = design.complete & np.isfinite(matrix).all(axis=1)
            lost = window.test_rows[~usable[window.test_rows]]
            if len(lost):
                row = self.panel.frame.row(int(lost[0]), named=True)
                raise RuntimeError(
                    f"features of model {model!r} are missing in {len(lost)} rows that other models forecast "
                    "from, the first "
                    f"({row['unique_id']}, {row['ds']}): a feature that learns must be defined wherever it was at "
                    "first."
                )
            design = replace(design, features=matrix, usable=usable)
        chosen = [i for i, owner in enumerate(self._owners) if owner in wanted]
        if len(chosen) == len(design.feature_names):
            return design
        return replace(
            design, features=design.features[:, chosen], feature_names=tuple(design.feature_names[i] for i in chosen)
        )

    @cached_property
    def _owners(self) -> list[str]:
        """The feature that each column of the design belongs to (names may hold `__` themselves)."""
        longest_first = sorted(self.features, key=len, reverse=True)
        return [
            next(name for name in longest_first if column.startswith(f"{name}__"))
            for column in self.design.feature_names
        ]

    def _learned_columns(self, name: str, fit: int) -> np.ndarray:
        """(R, F) of one feature as learned in one fit; the last few are kept, since models of a fold come in turn."""
        kept = self._columns_kept
        if (name, fit) not in kept:
            while len(kept) >= COLUMNS_KEPT * max(1, len(self.learner.learned)):
                kept.pop(next(iter(kept)))
            kept[name, fit] = feature_columns(self.panel, self.learner.transformer(name, fit))
        return kept[name, fit]

    @cached_property
    def _columns_kept(self) -> dict[tuple[str, int], np.ndarray]:
        return {}
