"""Owns the comparison of several runs: what changed from the first to the others, and all models together.

Everything is of the rows that all runs forecast and whose outcome is known, by the losses and the reference of the
first run. `changes.py` says what became of each model; the leaderboard and the verdict are those of one study with all
models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.changes import Change, ChangeWords, change_table, make_changes
from ssmfin.evaluation.claims import primary
from ssmfin.evaluation.common_rows import (
    NEEDED,
    ROW,
    LeftOut,
    Origins,
    RunForecasts,
    combinations_under,
    common_rows,
    named_models,
)
from ssmfin.evaluation.judging import Scoring
from ssmfin.evaluation.leaderboard import Leaderboard, make_leaderboard
from ssmfin.evaluation.verdict import Verdict, make_verdict
from ssmfin.evaluation.wording import step_name

ALPHA = 0.05


@dataclass(frozen=True)
class Standing:
    """One way of forecasting among all: the model, the runs that have it so, and its primary loss at each horizon.

    Attributes:
        name: in the comparison, such as `base:ridge`. runs: labels; "both" or "all" where every run has it.
        entries: horizon -> its row of the leaderboard.
    """

    name: str
    model: str
    runs: str
    entries: Mapping[int, Mapping[str, Any]]

    @property
    def mean_log_ratio(self) -> float:
        """Over horizons, to the reference; inf where a ratio is unknown."""
        ratios = [entry["ratio_to_reference"] for entry in self.entries.values()]
        known = [math.log(ratio) for ratio in ratios if ratio is not None and 0 < ratio < math.inf]
        return sum(known) / len(known) if known and len(known) == len(ratios) else math.inf


@dataclass(frozen=True)
class RunComparison:
    """What several runs say together.

    Attributes:
        labels: of the runs; the first is the one that the others are held against.
        headline, paragraphs: what changed, in words. claims: the same as claims with their tests.
        rows: rows (unique_id, ds, horizon) that all runs forecast and whose outcome is known; dates: origins among
            them, sorted. left_out: what each run has beside them.
        models: model in the comparison -> where it comes from, (label, model there) of each run that has it.
        scores: all models on the common rows. verdict: whether a state-space model beats the best baseline among them.
        families: model in the comparison -> baseline, ssm, ... predictions: of the common rows, under those names.
        step: what one step of a horizon is, singular.
    """

    labels: tuple[str, ...]
    headline: str
    paragraphs: tuple[str, ...]
    claims: tuple[Change, ...]
    rows: int
    dates: pl.Series
    left_out: tuple[LeftOut, ...]
    models: Origins
    scores: Leaderboard
    verdict: Verdict
    families: Mapping[str, str]
    predictions: pl.DataFrame
    step: str

    @property
    def changes(self) -> pl.DataFrame:
        """model, run, against, horizon, ratio, dm_statistic, dm_p_value, p_holm, better, worse, reason."""
        return change_table(self.claims)

    @property
    def leaderboard(self) -> pl.DataFrame:
        """All models on the common rows; columns as in leaderboard.parquet."""
        return self.scores.pooled

    @property
    def by_id(self) -> pl.DataFrame:
        """The same for each id alone, `unique_id` first."""
        return self.scores.by_id

    @property
    def horizons(self) -> list[int]:
        """The horizons that all runs forecast."""
        return [int(h) for h in self.leaderboard["horizon"].unique().sort()]

    @property
    def tested(self) -> int:
        """Comparisons that the p-values of the changes allow for."""
        return len({id(c.claim) for c in self.claims if not math.isnan(c.claim.p_value)})

    @property
    def reference(self) -> str:
        """In words: 'log_har', or 'log_har in base' where runs differ in it."""
        ((label, model), *_) = self.models[self.scores.reference]
        return model if model == self.scores.reference else f"{model} in {label}"

    def standings(self) -> list[Standing]:
        """Model by model, the best first, each in the order of the runs."""
        return standings(self.scores, self.models, self.labels)

    def __str__(self) -> str:
        return "\n\n".join((self.headline, *self.paragraphs, self.verdict.opening))


def standings(leaderboard: Leaderboard, origins: Origins, labels: Sequence[str]) -> list[Standing]:
    """All ways of forecasting by the primary loss: models by the best of their runs, each in the order of the runs."""
    entries: dict[str, dict[int, dict[str, Any]]] = {}
    for row in primary(leaderboard).iter_rows(named=True):
        entries.setdefault(row["model"], {})[row["horizon"]] = row
    found = []
    for name, held in origins.items():
        if name in entries:
            found.append(Standing(name, held[0][1], _named([label for label, _ in held], labels), entries[name]))
    best: dict[str, float] = {}
    for standing in found:
        best[standing.model] = min(best.get(standing.model, math.inf), standing.mean_log_ratio)
    first = {name: labels.index(held[0][0]) for name, held in origins.items()}
    return sorted(found, key=lambda standing: (best[standing.model], standing.model, first[standing.name]))


def _named(runs: Sequence[str], labels: Sequence[str]) -> str:
    """Some of the runs in few words."""
    absent = [label for label in labels if label not in runs]
    if not absent:
        return "both" if len(labels) == 2 else "all"
    return f"all but {absent[0]}" if len(absent) == 1 < len(labels) - 1 else ", ".join(runs)


def compare_forecasts(runs: Sequence[RunForecasts], scoring: Scoring, *, seed: int = 0) -> RunComparison:
    """Compare the forecasts of several runs on the rows that all of them have.

    Args:
        runs: two or more, labels distinct; the first is the one that the others are held against.
        scoring: losses and reference, which is a model of the first run. seed: of the bootstrap of confidence sets.
    Raises:
        InputError: the targets differ (says how), no row is common, or the reference has no forecasts in the first run.
    """
    labels = tuple(run.label for run in runs)
    if len(runs) < 2:
        raise InputError(f"a comparison needs two runs or more, {len(runs)} given; name more.")
    if len(set(labels)) < len(labels):
        raise InputError(f"runs are labelled alike, {', '.join(labels)}; give each its own label.")
    common, left_out = common_rows(runs)
    names, origins = named_models(runs, common)
    if scoring.reference not in names[0]:
        raise InputError(
            f"the reference {scoring.reference!r} of {labels[0]} has no forecasts there; run its failed tasks again, "
            "or name another run first."
        )
    predictions = pl.concat(
        run.predictions.join(common, on=ROW, how="semi")
        .filter(pl.col("model").is_in(list(chosen)))
        .with_columns(pl.col("model").replace_strict(chosen))
        .select(NEEDED)  # runs may differ in their quantiles
        for run, chosen in zip(runs, names, strict=True)
        if chosen
    )
    # Outcomes agree to rounding; the first run's are taken for all, so that every model is judged by the same bits.
    outcomes = runs[0].predictions.select(*ROW, "y").unique(ROW)
    predictions = predictions.drop("y").join(outcomes, on=ROW, how="left").select(NEEDED)
    by_label = {run.label: run for run in runs}
    first_of = {name: held[0] for name, held in origins.items()}
    seconds = {name: by_label[label].seconds.get(model) for name, (label, model) in first_of.items()}
    board = make_leaderboard(
        predictions,
        losses=scoring.losses,
        reference=names[0][scoring.reference],
        mcs_size=scoring.mcs_size,
        seed=seed,
        costs={name: cost for name, cost in seconds.items() if cost is not None},
        models=tuple(origins),
    )
    families = {name: by_label[label].families[model] for name, (label, model) in first_of.items()}
    step = step_name(board.date_losses["ds"])
    combined = combinations_under(runs, origins)
    ranked = dict.fromkeys(standing.model for standing in standings(board, origins, labels))
    changes = make_changes(board, origins, labels, list(ranked), ALPHA)
    words = ChangeWords(board, families, origins, labels, changes, step, ALPHA)
    return RunComparison(
        labels=labels,
        headline=words.headline(),
        paragraphs=words.paragraphs(),
        claims=changes,
        rows=common.height,
        dates=common["ds"].unique().sort(),
        left_out=left_out,
        models=origins,
        scores=board,
        verdict=make_verdict(board, families=families, combined=combined, step=step, alpha=ALPHA),
        families=families,
        predictions=predictions,
        step=step,
    )
