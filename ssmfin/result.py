"""Owns what an evaluation answers: `Result`, how it is put together, and `evaluate`, the study in Python.

`ssmfin run` stores the tasks and then calls `summarise`, exactly as `evaluate` does with tasks kept in memory.
"""

from __future__ import annotations

import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.causality import check_causality
from ssmfin.evaluation.columns import merged
from ssmfin.evaluation.cross_section import CrossSection
from ssmfin.evaluation.experiment import Experiment, ModelEntry, Task
from ssmfin.evaluation.judging import Scoring, families, issued, judge
from ssmfin.evaluation.leaderboard import Leaderboard
from ssmfin.evaluation.learning import learned_notes
from ssmfin.evaluation.memory import merged_memory
from ssmfin.evaluation.plan import experiment_plan, skipped_ids, skipped_origins
from ssmfin.evaluation.probabilistic import Probabilistic
from ssmfin.evaluation.recalibration import Recalibration
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.verdict import Verdict
from ssmfin.evaluation.walk_forward import merge_notes, run_task
from ssmfin.features.kinds import spec_class
from ssmfin.features.row_specs import HarLagsSpec
from ssmfin.features.spec import FeatureSpec
from ssmfin.models.interface import Forecaster, Target
from ssmfin.models.registry import BENCHMARKS, forecaster_class
from ssmfin.versions import ABSENT, NUMERIC_PACKAGES, package_versions

if TYPE_CHECKING:
    import pandas as pd

    from ssmfin.data.panel import Panel
    from ssmfin.reporting.data import ReportData


@dataclass(frozen=True)
class Outcome:
    """What became of a task. `error` and `traceback` are empty where it went well."""

    task: Task
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Result:
    """A finished evaluation: forecasts, scores, the verdict, and everything that its report shows.

    Attributes:
        probabilistic: scores of quantiles and events; None where no model gives any.
        weights: of combinations over time: model, unique_id, ds, horizon, member, weight, learned; None without one.
        memory: half-lives of the models with memory, fit by fit (`evaluation.memory`); None without one. See
            `sf.memory` and `sf.plot_memory`.
    """

    name: str
    experiment: Experiment
    scoring: Scoring
    predictions: pl.DataFrame
    scores: Leaderboard
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    study_yaml: str = ""
    reproduce: str = ""
    source: str = "a panel given in Python"
    probabilistic: Probabilistic | None = None
    weights: pl.DataFrame | None = None
    memory: pl.DataFrame | None = None

    @property
    def leaderboard(self) -> pl.DataFrame:
        """Pooled over ids; columns as in leaderboard.parquet."""
        return self.scores.pooled

    @property
    def ranking(self) -> pl.DataFrame | None:
        """Rank IC and long-short spread of every model; None unless `cross_section` was asked for."""
        return None if self.scores.ranking is None else self.scores.ranking.table

    @property
    def leaderboard_by_id(self) -> pl.DataFrame:
        """The same for each id alone, `unique_id` first."""
        return self.scores.by_id

    @property
    def failures(self) -> list[dict[str, Any]]:
        """One entry per failed task: model, seed, folds, error, traceback."""
        return [
            {
                "model": outcome.task.model,
                "seed": outcome.task.seed,
                "folds": list(outcome.task.folds),
                "error": outcome.error,
                "traceback": outcome.traceback,
            }
            for outcome in self.outcomes
            if outcome.error
        ]

    @cached_property
    def costs(self) -> pl.DataFrame:
        """model, family, tasks, fits, fit_seconds, predict_seconds."""
        return model_costs(self.experiment, self.outcomes)

    def report(self, path: str | Path) -> Path:
        """Write the report, one HTML file that needs nothing else."""
        from ssmfin.reporting.page import write_report

        return write_report(self.report_data(), Path(path))

    def report_data(self) -> ReportData:
        """Everything the report shows."""
        from ssmfin.reporting.data import ReportData

        experiment, panel = self.experiment, self.experiment.panel
        target = experiment.target
        return ReportData(
            name=self.name,
            headline=self.verdict.headline,
            paragraphs=self.verdict.paragraphs,
            leaderboard=self.leaderboard,
            leaderboard_by_id=self.leaderboard_by_id,
            predictions=self.predictions,
            folds=experiment_plan(experiment),
            reference=self.scoring.reference,
            families=families(experiment),
            target={
                "column": target.column,
                "transform": target.transform,
                "horizons": list(target.horizons),
                "aggregate": target.aggregate,
            },
            losses=self.scoring.losses,
            failures=self.failures,
            costs=self.costs,
            notes={
                name: merge_notes([dict(o.notes) for o in self.outcomes if o.task.model == name and not o.error])
                for name in experiment.models
            },
            data_notes={
                "source": self.source,
                "rows": len(panel.frame),
                "ids": len(panel.ids),
                "first": str(panel.dates[0])[:10],
                "last": str(panel.dates[-1])[:10],
                **panel.notes,
                "ids never forecast": skipped_ids(experiment),
                "origins not forecast": skipped_origins(experiment),
                "models left out": dict(experiment.left_out),
                **learned_notes(experiment.learner.facts()),
            },
            study_yaml=self.study_yaml,
            reproduce=self.reproduce,
            environment=environment(),
            probabilistic=None if self.probabilistic is None else self.probabilistic.pooled,
            cross_section=self.scoring.cross_section,
            memory=self.memory,
        )

    def __str__(self) -> str:
        return "\n".join([self.verdict.headline, "", *self.verdict.paragraphs])


def environment() -> dict[str, str]:
    """Versions of what computes, without importing it."""
    packages = {k: v for k, v in package_versions(("ssmfin", *NUMERIC_PACKAGES)).items() if v != ABSENT}
    return {"python": platform.python_version(), "platform": platform.system(), **packages}


def model_costs(experiment: Experiment, outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """model, family, tasks, fits, fit_seconds, predict_seconds, in the order of the study."""
    rows = []
    for name, entry in experiment.models.items():
        own = [outcome for outcome in outcomes if outcome.task.model == name and not outcome.error]
        rows.append(
            {
                "model": name,
                "family": entry.forecaster.family,
                "tasks": len(own),
                "fits": sum(len(outcome.task.fits) for outcome in own),
                "fit_seconds": float(sum(outcome.fit_seconds for outcome in own)),
                "predict_seconds": float(sum(outcome.predict_seconds for outcome in own)),
            }
        )
    return pl.DataFrame(rows)


def summarise(
    experiment: Experiment,
    predictions: pl.DataFrame,
    outcomes: Sequence[Outcome],
    *,
    name: str,
    scoring: Scoring,
    study_yaml: str = "",
    reproduce: str = "",
    source: str = "a panel given in Python",
    weights: pl.DataFrame | None = None,
    memory: pl.DataFrame | None = None,
) -> Result:
    """Scores and the verdict from the forecasts of all tasks.

    Args:
        predictions: columns and order as in predictions.parquet.
        outcomes: one per task, failed ones included. weights: of combinations over time. memory: of all fits.
    """
    costs = model_costs(experiment, outcomes)
    seconds = {row["model"]: (row["fit_seconds"], row["predict_seconds"]) for row in costs.iter_rows(named=True)}
    judged = judge(experiment, predictions, scoring, seconds)
    return Result(
        name=name,
        experiment=experiment,
        scoring=scoring,
        predictions=predictions,
        scores=judged.leaderboard,
        verdict=judged.verdict,
        outcomes=tuple(outcomes),
        probabilistic=judged.probabilistic,
        study_yaml=study_yaml,
        reproduce=reproduce,
        source=source,
        weights=weights,
        memory=memory,
    )


def evaluate(
    models: Mapping[str, Any],
    panel: Panel | pl.DataFrame | pd.DataFrame,
    *,
    target: str | Target,
    folds: WalkForward,
    features: Mapping[str, FeatureSpec | Mapping[str, Any]] | None = None,
    benchmarks: Mapping[str, Any] | None = None,
    losses: Sequence[str] = ("qlike", "mse", "mae"),
    reference: str = "log_har",
    mcs_size: float = 0.1,
    cross_section: CrossSection | Mapping[str, int] | None = None,
    recalibrate: Recalibration | Mapping[str, float] | None = None,
    seed: int = 0,
    name: str = "evaluation",
) -> Result:
    """Walk forward with the given models and, whatever they are, the five benchmarks on the same rows.

    Args:
        models: name -> forecaster, regressor in sklearn's manner, or a `ModelEntry` that adds features, seeds, refits.
        panel: long, with `unique_id` and `ds`. target: a column (log, mean over t+1..t+h for `folds.horizons`), or a
            `Target` that says more. features: name -> spec, or its mapping as in a study file; default: HAR lags.
        benchmarks: further or tuned benchmarks by name. losses, reference, mcs_size: as in `Scoring`. seed: of the
            study. cross_section: rank ids against each other, such as {"groups": 10, "least_ids": 20}.
        recalibrate: let quantiles learn from matured outcomes, such as {"rate": 0.05, "bound": 1}.
    Returns:
        `result.verdict`, `result.leaderboard`, `result.predictions`, `result.report("file.html")`. A model that raises
        is recorded in `result.failures`; the others go on.
    Raises:
        InputError: the panel, the target, the windows or a name is wrong, or a feature sees the future.
    """
    from ssmfin.features.transformer import as_panel

    ranked = CrossSection(**cross_section) if isinstance(cross_section, Mapping) else cross_section
    learning = None if recalibrate is None else Recalibration.of(recalibrate)
    scoring = Scoring(tuple(losses), reference, mcs_size, ranked, learning)
    if isinstance(target, str):
        target = Target(column=target, horizons=tuple(folds.horizons or (1,)))
    defaults = {kind: forecaster_class(kind)() for kind in BENCHMARKS}
    entries = {key: _entry(key, value) for key, value in {**defaults, **(benchmarks or {}), **models}.items()}
    clash = sorted(set(models) & ({*BENCHMARKS} | set(benchmarks or {})))
    if clash:
        raise InputError(
            f"model name {clash[0]!r} is the name of a benchmark; choose another, or tune it under benchmarks=."
        )
    experiment = Experiment.of(
        as_panel(panel),
        target,
        folds,
        {key: _spec(key, value) for key, value in (features or {"har": HarLagsSpec()}).items()},
        entries,
        reference=reference,
        seed=seed,
    )
    check_causality(experiment.panel, target, experiment.features, experiment.folds)
    frames: list[pl.DataFrame] = []
    weights: list[pl.DataFrame] = []
    memories: list[pl.DataFrame] = []
    outcomes = []
    for task in sorted(experiment.tasks(), key=lambda task: bool(experiment.members(task.model))):  # members first
        try:
            done = run_task(experiment, task, members=frames)
        except InputError:
            raise
        except Exception as error:  # a model's own failure is recorded, as in a study
            outcomes.append(Outcome(task, error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()))
            continue
        frames.append(done.predictions)
        weights += [] if done.weights is None else [done.weights]
        memories += [] if done.memory is None else [done.memory]
        outcomes.append(Outcome(task, done.fit_seconds, done.predict_seconds, done.notes))
    if not frames:
        raise RuntimeError(f"every task failed, the first with: {outcomes[0].error}\n{outcomes[0].traceback}")
    return summarise(
        experiment,
        issued(experiment, merged(frames), scoring),
        outcomes,
        name=name,
        scoring=scoring,
        weights=pl.concat(weights) if weights else None,
        memory=merged_memory(memories),
    )


def _entry(name: str, given: object) -> ModelEntry:
    if isinstance(given, ModelEntry):
        return given
    if isinstance(given, Forecaster):
        return ModelEntry(given)
    if callable(getattr(given, "fit", None)) and callable(getattr(given, "predict", None)):
        from ssmfin.models.external import SklearnForecaster

        return ModelEntry(SklearnForecaster(estimator=given))
    raise InputError(f"model {name!r} is {given!r}, no forecaster; give an instance such as sf.S4D() or a regressor.")


def _spec(name: str, given: object) -> FeatureSpec:
    if isinstance(given, FeatureSpec):
        return given
    if isinstance(given, Mapping) and isinstance(given.get("kind"), str):
        return spec_class(given["kind"])(**{key: value for key, value in given.items() if key != "kind"})
    raise InputError(f"feature {name!r} is {given!r}, no spec; give one, such as {{'kind': 'har_lags'}}.")
