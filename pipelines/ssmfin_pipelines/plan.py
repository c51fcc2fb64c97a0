"""Owns what a run will do before it does it: its folds, models and features, what is done, what the rest will cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ssmfin.evaluation.plan import experiment_plan, skipped_ids, skipped_origins
from ssmfin_pipelines.executors.contract import Item
from ssmfin_pipelines.executors.machine import strain
from ssmfin_pipelines.prepare import Prepared, data_facts, day_text, learned_seconds, prepare
from ssmfin_pipelines.progress import duration
from ssmfin_pipelines.tables import text_table

if TYPE_CHECKING:
    from ssmfin_pipelines.study import Study

DOUBT = 3.0  # factor by which a guess may be wrong: machines, their load and early stopping differ
BUSY = 1.5  # strain that is worth a word
SHORT, FIRST, LAST = 8, 3, 2  # folds that are all shown; of more, how many at either end
SMALL = 0.2  # share of the time left that may be guessed without saying so


@dataclass(frozen=True)
class Plan:
    """What `ssmfin run` would do.

    Attributes:
        directory: the run folder. `workers`: tasks at a time.
        folds: fold, fit, train_start, train_end, validation_start, cutoff, test_start, test_end, n_train_rows,
            n_test_rows, n_ids.
        models: model, family, features (of a combination: its members), seeds, refit, tasks, fits, cached (finished
            tasks), seconds (of one core, for what is not cached).
        features: feature, kind, refit, tasks, cached, seconds of those that learn; one task a fit.
        guessed: how many of the seconds left are a first guess, because no task of that model has been measured yet.
        strain: by how much other programs slow a worker down; 1 on an idle machine.
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
    guessed: float
    strain: float = 1.0

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

    @property
    def range(self) -> tuple[float, float]:
        """Wall clock between which it should lie: a guess may be wrong by `DOUBT`, on a busy machine by more."""
        sure = self.core_seconds - self.guessed
        return (sure + self.guessed / DOUBT) / self.workers, (sure + self.guessed * DOUBT * self.strain) / self.workers

    def render(self, *, all_folds: bool = False) -> str:
        """The plan as text for a terminal: cost, models, folds; a long fold table loses its middle."""
        data = self.data
        out = [
            f"study    {self.name}",
            f"data     {data['rows']} rows, {len(data['ids'])} ids, {data['first']} to {data['last']}",
            f"run      {self.directory}",
            "",
            *self._cost(),
            "",
            *self._model_table(),
            "",
            *self._fold_table(all_folds),
        ]
        why = [f"never forecast: {name}, {why}" for name, why in self.never_forecast.items()]
        why += [f"not forecast: {count} origins, {why}" for why, count in self.not_forecast.items()]
        why += [f"left out: {name}, which {why}" for name, why in self.left_out.items()]
        return "\n".join([*out, *(["", *why] if why else [])])

    def _fold_table(self, all_folds: bool) -> list[str]:
        cells = [
            (
                str(row["fold"]),
                str(row["fit"]),
                f"{day_text(row['train_start'])} .. {day_text(row['train_end'])}",
                f"{day_text(row['validation_start'])} ..",
                day_text(row["cutoff"]),
                f"{day_text(row['test_start'])} .. {day_text(row['test_end'])}",
                str(row["n_train_rows"]),
                str(row["n_test_rows"]),
                str(row["n_ids"]),
            )
            for row in self.folds.iter_rows(named=True)
        ]
        left_out = 0 if all_folds or len(cells) <= SHORT else len(cells) - FIRST - LAST
        if left_out:
            cells = cells[:FIRST] + cells[-LAST:]
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
        lines = text_table(head, cells, right={0, 1, 6, 7, 8})
        if left_out:
            lines.insert(len(lines) - LAST, f"... {left_out} more (--folds shows all)")
        return lines

    def _model_table(self) -> list[str]:
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
                str(len(row["seeds"].split(", "))),
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
        return text_table(head, rows, right={3, 4, 5, 6, 7, 8})

    def _cost(self) -> list[str]:
        left = self.tasks - self.cached
        done = f"{self.cached} done already; {left} to do" if left else "all done already"
        out = [f"{self.tasks} tasks, {done}."]
        out += [f"time: {self._how_long()}."] if left else []
        if left and self.strain >= BUSY:
            out.append(f"busy: other programs slow this machine down now, by a factor of {self.strain:.1f}.")
        return out

    def _how_long(self) -> str:
        workers = f"on {self.workers} worker{'s' if self.workers != 1 else ''}"
        if self.guessed <= SMALL * self.core_seconds:
            return f"about {duration(self.seconds)} {workers}"
        low, high = self.range
        what = "a guess before any such task was timed" if self.guessed > 0.99 * self.core_seconds else "partly guessed"
        return f"{duration(low)} to {duration(high)} {workers}, {what} (--time measures)"

    def __str__(self) -> str:
        return self.render()


def plan_study(study: Study, *, time: Callable[[str], None] | None = None) -> Plan:
    """The folds, tasks and cost of a study, and what is done already. Writes nothing.

    Args:
        time: time one short fit of each model of which no task was measured, instead of guessing; is told its name.
    Raises:
        InputError: the data or the windows are wrong.
    """
    prepared = prepare(study)
    experiment, panel = prepared.experiment, prepared.panel
    seconds = learned_seconds(prepared)
    measured = {item.task.model for item in prepared.everything if prepared.store.mark(item.key) is not None}
    if time is not None:
        from ssmfin_pipelines.timing import seconds_of_a_fit, worth_timing

        unknown = [name for name in worth_timing(experiment) if name not in measured]
        found = seconds_of_a_fit(experiment, unknown, tell=time)
        items = [item for item in prepared.items if item.task.model in found]
        seconds |= {item.key: found[item.task.model] * len(item.task.fits) for item in items}
        measured |= found.keys()
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
                "features": ", ".join(features)
                if entry.forecaster.uses_features
                else ", ".join(experiment.members(name)) or "own lags",
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
        guessed=guessed_seconds(prepared, seconds, measured),
        strain=strain(prepared.workers),
    )


def guessed_seconds(prepared: Prepared, seconds: dict[str, float], measured: Set[str]) -> float:
    """Seconds of what is not done, of models and features of which nothing was measured."""
    left = (item for item in prepared.everything if item.task.model not in measured)
    return float(sum(seconds[item.key] for item in left))


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
