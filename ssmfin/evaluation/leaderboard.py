"""Owns the leaderboard: every model's loss, its ratio to the reference and what the tests say, pooled and per id.

`scores` says how rows become losses, `comparison` what the tests are; here they are put in one table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.comparison import diebold_mariano, mincer_zarnowitz, model_confidence_sets, too_few
from ssmfin.evaluation.cross_section import Ranking
from ssmfin.evaluation.losses import Loss, losses_named
from ssmfin.evaluation.scores import (
    Scored,
    align,
    date_losses,
    loss_by_regime,
    loss_by_year,
    loss_panel,
    seed_spread,
)

__all__ = [
    "SCHEMA",
    "Leaderboard",
    "loss_by_regime",
    "loss_by_year",
    "loss_panel",
    "make_leaderboard",
    "seed_spread",
]

SCHEMA: dict[str, pl.DataType] = {
    "model": pl.String(),
    "horizon": pl.Int32(),
    "loss": pl.String(),
    "value": pl.Float64(),
    "ratio_to_reference": pl.Float64(),
    "dm_statistic": pl.Float64(),
    "dm_p_value": pl.Float64(),
    "in_mcs": pl.Boolean(),
    "mcs_p_value": pl.Float64(),
    "n": pl.Int64(),
    "fit_seconds": pl.Float64(),
    "predict_seconds": pl.Float64(),
    "mz_intercept": pl.Float64(),
    "mz_slope": pl.Float64(),
    "mz_r2": pl.Float64(),
}


@dataclass(frozen=True)
class Leaderboard:
    """Results of all complete models on the same rows.

    Attributes:
        pooled: columns of `SCHEMA`, sorted by horizon, loss (primary first), value (best first). `value` is the mean
            over dates of the mean loss across ids, `n` the number of dates, the seconds are totals of the study.
            dm_* compare with `reference`: negative statistic, the model is better; null where there is no test. mz_*
            regress y on the forecast over all rows of all ids (so R2 credits level differences between ids: see by_id).
        by_id: the same for each id alone, unique_id first; `n` is the number of its rows; seconds are null.
        reference: the model of ratio_to_reference and dm_*. `losses`: names, the first is the primary one.
        mcs_size: size of the model confidence set; 0.1 is the 90 % set.
        date_losses: horizon, ds, model, value: the primary loss by date, pooled, from which the verdict is tested.
        ids, seeds: ids scored; seeds averaged in each model.
        incomplete: what was left out because forecasts are missing: model, seed (null: all), rows, expected.
        notes: what the reader should know (missing tests, infinite losses, models left out), in words.
        ranking: how the models order the ids of a date; None where it was not asked for.
    """

    pooled: pl.DataFrame
    by_id: pl.DataFrame
    reference: str
    losses: tuple[str, ...]
    mcs_size: float
    date_losses: pl.DataFrame
    ids: tuple[str, ...]
    seeds: dict[str, int]
    incomplete: pl.DataFrame
    notes: tuple[str, ...]
    ranking: Ranking | None = None


def make_leaderboard(
    predictions: pl.DataFrame,
    *,
    losses: Iterable[str] = ("qlike", "mse", "mae"),
    reference: str = "log_har",
    mcs_size: float = 0.1,
    seed: int = 0,
    costs: Mapping[str, tuple[float, float]] | None = None,
    models: Sequence[str] = (),
    reps: int = 1000,
    by_id_reps: int = 500,
) -> Leaderboard:
    """Score, rank and test every model of a study.

    Args:
        predictions: one row per (unique_id, ds, horizon, model, seed) with y (null: not known yet) and y_hat.
        losses: names of losses; the first is the primary one, on which the verdict rests.
        reference: model with which all others are compared. If some of its own forecasts are missing, ratios and
            tests against it are null and a note says so.
        mcs_size: size of the model confidence set test, in (0, 1).
        seed: of the bootstrap; same input and seed, same bits.
        costs: model -> (fit seconds, predict seconds), totals over the study.
        models: names that should be there; one without any forecast is listed in `incomplete`.
        reps, by_id_reps: bootstrap draws of the model confidence set, pooled and for each id.
    Raises:
        InputError: the frame is not one of predictions (see `scores.align`), the reference or a loss is unknown, y is
            not positive where a loss needs it.
    """
    definitions = losses_named(losses)
    known = set(predictions["model"].unique().to_list() if "model" in predictions.columns else ()) | set(models)
    if known and reference not in known:
        raise InputError(f"evaluate.reference {reference!r} is not among the models; {nearest(reference, known)}")
    scored = align(predictions, models=models)
    row_losses = [scored.losses(loss) for loss in definitions]
    notes = _notes(scored, definitions, row_losses, reference)
    table = _Table(scored, definitions, reference, mcs_size, seed)

    pooled = []
    for h in scored.horizons:
        panels = [scored.by_date(lines, h)[1] for lines in row_losses]
        pooled += table.rows(panels, np.flatnonzero(scored.horizon == h), h, reps)
    pooled_frame = pl.DataFrame(pooled, schema=SCHEMA, orient="row")
    seconds = {m: (costs or {}).get(m, (None, None)) for m in scored.models}
    pooled_frame = pooled_frame.with_columns(
        pl.Series(name, [seconds[m][i] for m in pooled_frame["model"]], dtype=pl.Float64)
        for i, name in enumerate(("fit_seconds", "predict_seconds"))
    )

    by_id: list[tuple[object, ...]] = []
    starts = np.searchsorted(scored.id_index, np.arange(len(scored.ids) + 1))
    for k, unique_id in enumerate(scored.ids):
        span = np.arange(starts[k], starts[k + 1])
        for h in scored.horizons:
            rows = span[scored.horizon[span] == h]
            if len(rows):
                panels = [lines[:, rows].T for lines in row_losses]
                found = table.rows(panels, rows, h, by_id_reps)
                by_id += [(unique_id, *row) for row in found]
    return Leaderboard(
        pooled=pooled_frame,
        by_id=pl.DataFrame(by_id, schema={"unique_id": pl.String(), **SCHEMA}, orient="row"),
        reference=reference,
        losses=tuple(loss.name for loss in definitions),
        mcs_size=mcs_size,
        date_losses=date_losses(scored, definitions[0]),
        ids=scored.ids,
        seeds={m: sum(name == m for name, _ in scored.members) for m in scored.models},
        incomplete=scored.incomplete,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Table:
    """Makes rows of `SCHEMA` from losses."""

    scored: Scored
    losses: tuple[Loss, ...]
    reference: str
    mcs_size: float
    seed: int

    def rows(self, panels: list[np.ndarray], chosen: np.ndarray, horizon: int, reps: int) -> list[tuple[object, ...]]:
        """Rows of one horizon, all losses, best model first.

        Args:
            panels: (n, M) losses in time order, one array per loss.
            chosen: positions of the rows behind them, for the Mincer-Zarnowitz regression.
        """
        models = self.scored.models
        y = self.scored.y[chosen]
        regressions = [mincer_zarnowitz(y, forecast[chosen]) for forecast in self.scored.y_hat]
        sets = model_confidence_sets(panels, horizon=horizon, size=self.mcs_size, reps=reps, seed=self.seed)
        base = models.index(self.reference) if self.reference in models else None
        result: list[tuple[object, ...]] = []
        for loss, panel, confidence in zip(self.losses, panels, sets, strict=True):
            value = panel.mean(axis=0)
            block: list[tuple[object, ...]] = []
            for m, model in enumerate(models):
                ratio = statistic = p_value = None
                if base is not None:
                    ratio = _ratio(value[m], value[base])
                if base is not None and m != base:
                    test = diebold_mariano(panel[:, m], panel[:, base], horizon=horizon)
                    statistic, p_value = _number(test.statistic), _number(test.p_value)
                mz = regressions[m]
                loss_columns = (model, horizon, loss.name, float(value[m]), ratio, statistic, p_value)
                mcs_columns = (bool(confidence.in_set[m]), _number(confidence.p_value[m]), len(panel))
                mz_columns = (_number(mz.intercept), _number(mz.slope), _number(mz.r2))
                block.append((*loss_columns, *mcs_columns, None, None, *mz_columns))
            result += sorted(block, key=lambda row: (row[3], row[0]))
        return result


def _notes(scored: Scored, losses: tuple[Loss, ...], row_losses: list[np.ndarray], reference: str) -> list[str]:
    notes = []
    left_out = scored.incomplete["model"].to_list()
    for model, seed, rows, expected in scored.incomplete.iter_rows():
        only = model not in scored.models and left_out.count(model) == 1
        what = model if only else f"seed {seed} of {model}"
        notes.append(f"Left out: {what}, which has {rows:,} of {expected:,} forecasts.")
    if reference not in scored.models:
        notes.append(
            f"The reference {reference} is left out, so there are no ratios to it and no tests against it; "
            "rerun its failed tasks or choose another evaluate.reference."
        )
    for loss, lines in zip(losses, row_losses, strict=True):
        infinite = np.isinf(lines).sum(axis=1)
        notes += [
            f"{model} has an infinite {loss.label} in {count:,} of {lines.shape[1]:,} forecasts (not "
            "positive, or absurd ones): it has no rank by this loss."
            for model, count in zip(scored.models, infinite, strict=True)
            if count
        ]
    for h in scored.horizons:
        at = scored.horizon == h
        if reason := too_few(len(np.unique(scored.date_index[at])), h):
            notes.append(f"No Diebold-Mariano test and no model confidence set, pooled: {reason}.")
        counts = np.bincount(scored.id_index[at], minlength=len(scored.ids))
        short = [unique_id for unique_id, n in zip(scored.ids, counts, strict=True) if n and too_few(int(n), h)]
        if short and len(scored.ids) > 1:
            named = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
            notes.append(
                f"No tests by id at horizon {h} for {len(short)} of {len(scored.ids)} ids, too few rows: {named}."
            )
    return notes


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _ratio(value: float, reference: float) -> float | None:
    """Ratio of two mean losses; null where it is undefined (0/0, inf/inf) or the reference is infinite."""
    if not math.isfinite(reference) or reference == 0:
        return 1.0 if value == reference == 0 else None
    return float(value / reference)
