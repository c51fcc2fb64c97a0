"""Owns the step from forecasts to a judgement: one call for scores, tests and the verdict, for Python and for a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from ssmfin.evaluation.experiment import Experiment
from ssmfin.evaluation.leaderboard import Leaderboard, make_leaderboard
from ssmfin.evaluation.verdict import Verdict, make_verdict


@dataclass(frozen=True)
class Scoring:
    """How forecasts are judged: the `evaluate` section of a study.

    Attributes:
        losses: the first one decides the verdict. reference: the model that ratios and tests compare with.
        mcs_size: size of the model confidence set test (0.1: the 90 % set).
    """

    losses: tuple[str, ...] = ("qlike", "mse", "mae")
    reference: str = "log_har"
    mcs_size: float = 0.1


def families(experiment: Experiment) -> dict[str, str]:
    """model -> baseline, ssm, sequence or custom."""
    return {name: entry.forecaster.family for name, entry in experiment.models.items()}


def judge(
    experiment: Experiment,
    predictions: pl.DataFrame,
    scoring: Scoring,
    costs: Mapping[str, tuple[float, float]],
) -> tuple[Leaderboard, Verdict]:
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
    verdict = make_verdict(board, families=families(experiment))
    absent = tuple(f"{name} is left out: it {why}." for name, why in experiment.left_out.items())
    return board, replace(verdict, paragraphs=(*verdict.paragraphs, *absent))
