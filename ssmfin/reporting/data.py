"""Owns ReportData: everything a report shows, already computed, as plain frames and facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ssmfin.evaluation.cross_section import CrossSection


@dataclass(frozen=True)
class ReportData:
    """What one finished study knows. The report computes nothing but summaries of these.

    Attributes:
        name: of the study.
        headline: the verdict in one sentence. `paragraphs`: what stands behind it, a few sentences each.
        leaderboard: pooled over ids: model, horizon, loss, value, ratio_to_reference, dm_statistic, dm_p_value, in_mcs,
            mcs_p_value, n, fit_seconds, predict_seconds, mz_intercept, mz_slope, mz_r2.
        leaderboard_by_id: the same, `unique_id` first.
        predictions: unique_id, ds (the origin), horizon, fold, cutoff, model, seed, y (null where the label is not
            complete), y_hat; original scale.
        folds: fold, fit, train_start, train_end, cutoff, validation_start, test_start, test_end, n_train_rows,
            n_test_rows. `validation_start` may be null; a fold that reuses a fit carries the number of that fit.
        reference: the model that the others are compared with.
        families: model -> "baseline", "ssm", "sequence" or "custom"; models that failed entirely are named here too.
        target: column, transform, horizons, aggregate.
        losses: the first one is the one that the plots show.
        failures: one dict per failed task: model, seed, folds, error, traceback.
        costs: model, family, tasks, fits, fit_seconds, predict_seconds.
        notes: model -> plain facts, such as {"har": {"insanity_filter": 3, "forecasts": 12000}}.
        data_notes: source, rows, ids, first, last, dropped rows, ids never forecast and why.
        cross_section: how ids are ranked against each other; None where the study does not ask for it.
        probabilistic: scores of quantiles and events, as in probabilistic.parquet; None where no model gives any.
        memory: half-lives of the models with memory, fit by fit, as in memory.parquet; None where no model has any.
        study_yaml: the resolved study. `reproduce`: the commands. `environment`: package -> version.
    """

    name: str
    headline: str
    paragraphs: tuple[str, ...]
    leaderboard: pl.DataFrame
    leaderboard_by_id: pl.DataFrame
    predictions: pl.DataFrame
    folds: pl.DataFrame
    reference: str
    families: dict[str, str]
    target: dict[str, Any]
    losses: tuple[str, ...]
    failures: list[dict[str, Any]]
    costs: pl.DataFrame
    notes: dict[str, dict[str, Any]]
    data_notes: dict[str, Any]
    study_yaml: str
    reproduce: str
    environment: dict[str, str]
    probabilistic: pl.DataFrame | None = None
    cross_section: CrossSection | None = None
    memory: pl.DataFrame | None = None
