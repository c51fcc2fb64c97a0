"""Owns the step from forecasts to a judgement: one call for scores, tests and the verdict, for Python and for a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from ssmfin.evaluation.claims import Combinations
from ssmfin.evaluation.cross_section import CrossSection, rank_information, ranking_sentences
from ssmfin.evaluation.experiment import Experiment
from ssmfin.evaluation.leaderboard import Leaderboard, make_leaderboard
from ssmfin.evaluation.probabilistic import Probabilistic, score_probabilistic
from ssmfin.evaluation.probabilistic_words import probabilistic_sentences
from ssmfin.evaluation.recalibration import Recalibration, learned_sentence, recalibrated
from ssmfin.evaluation.verdict import Verdict, make_verdict
from ssmfin.evaluation.wording import step_name
from ssmfin.models.combination.spec import Combination


@dataclass(frozen=True)
class Scoring:
    """How forecasts are judged: the `evaluate` section of a study.

    Attributes:
        losses: the first one decides the verdict. reference: the model that ratios and tests compare with.
        mcs_size: size of the model confidence set test (0.1: the 90 % set).
        cross_section: how ids are ranked against each other; None: they are not.
        recalibrate: how quantiles learn from matured outcomes; None: they stay as the models gave them.
    """

    losses: tuple[str, ...] = ("qlike", "mse", "mae")
    reference: str = "log_har"
    mcs_size: float = 0.1
    cross_section: CrossSection | None = None
    recalibrate: Recalibration | None = None


class Judgement(NamedTuple):
    """Scores of the means, of quantiles and events (None where no model gives any), and what they support."""

    leaderboard: Leaderboard
    probabilistic: Probabilistic | None
    verdict: Verdict


def families(experiment: Experiment) -> dict[str, str]:
    """model -> baseline, ssm, sequence, combination or custom."""
    return {name: entry.forecaster.family for name, entry in experiment.models.items()}


def combinations_of(experiment: Experiment) -> Combinations:
    """The combinations of a study, and for each with a state-space member the model that is the same without it.

    That is the one member left, or a combination of those left with the same settings otherwise.
    """
    family = families(experiment)
    specs = {
        name: entry.forecaster for name, entry in experiment.models.items() if isinstance(entry.forecaster, Combination)
    }
    without = {}
    for name, spec in specs.items():
        left = [member for member in spec.members if family[member] != "ssm"]
        if len(left) in (0, len(spec.members)):
            continue
        same = [
            other
            for other, found in specs.items()
            if set(found.members) == set(left) and found.model_copy(update={"members": spec.members}) == spec
        ]
        if len(left) == 1 or same:
            without[name] = left[0] if len(left) == 1 else same[0]
    return Combinations({name: spec.members for name, spec in specs.items()}, without)


def issued(experiment: Experiment, predictions: pl.DataFrame, scoring: Scoring) -> pl.DataFrame:
    """The forecasts of all tasks as they are scored and written: with quantiles that have learned, if so asked.

    A label is learned from as soon as it is known, plus the embargo.
    """
    if scoring.recalibrate is None:
        return predictions
    known = label_positions(experiment).with_columns(pl.col("known") + experiment.walk_forward.embargo)
    return recalibrated(predictions, known, scoring.recalibrate, log=experiment.target.transform == "log")


def judge(
    experiment: Experiment,
    predictions: pl.DataFrame,
    scoring: Scoring,
    costs: Mapping[str, tuple[float, float]],
) -> Judgement:
    """Scores of all models on the same rows, and what they support.

    Args:
        predictions: columns as in predictions.parquet. costs: model -> (fit seconds, predict seconds).
    Raises:
        InputError: no model has every forecast, or a loss does not fit the target.
    """
    board = make_leaderboard(
        predictions,
        losses=scoring.losses,
        reference=scoring.reference,
        mcs_size=scoring.mcs_size,
        seed=experiment.seed,
        costs=costs,
        models=tuple(experiment.models),
    )
    verdict = make_verdict(board, families=families(experiment), combined=combinations_of(experiment))
    spread = score_probabilistic(
        predictions,
        reference=scoring.reference,
        log=experiment.target.transform == "log",
        known=label_positions(experiment),
        models=tuple(experiment.models),
    )
    step = step_name(board.date_losses["ds"])
    said = () if spread is None else probabilistic_sentences(spread, families(experiment), step)
    if said and scoring.recalibrate is not None:
        said = (*said, learned_sentence(scoring.recalibrate))
    absent = tuple(f"{name} is left out: it {why}." for name, why in experiment.left_out.items())
    ranked: tuple[str, ...] = ()
    if scoring.cross_section is not None:
        ranking = rank_information(predictions, scoring.cross_section, models=tuple(experiment.models))
        ranked = ranking_sentences(ranking, step_name(ranking.by_date["ds"]))
        board = replace(board, ranking=ranking)
    return Judgement(board, spread, replace(verdict, paragraphs=(*ranked, *verdict.paragraphs, *said, *absent)))


def label_positions(experiment: Experiment) -> pl.DataFrame:
    """unique_id, ds, horizon, and the positions of two dates: of the origin, and when the label is known."""
    design = experiment.design
    keys = experiment.panel.frame.select("unique_id", "ds").with_columns(origin=pl.Series(design.date_index))
    return pl.concat(
        keys.with_columns(horizon=pl.lit(h, dtype=pl.Int32), known=pl.Series(design.label_known[:, j]))
        for j, h in enumerate(experiment.target.horizons)
    )
