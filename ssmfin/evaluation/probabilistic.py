"""Owns which quantiles and events are scored, on which rows, and beside which naive reference.

Rules, as for the leaderboard: only rows whose outcome is known; the quantiles (and probabilities) of a model's seeds
are averaged first, like its mean; pooled means averaged over the ids of a date, then over dates. Common rows: at each
horizon those where every model that gives quantiles or events there has them, and so has the reference (which needs
MIN_ERRORS past errors, so the first origins of an id do not count). The reference is the study's own reference model
with the errors it has made so far (`past_errors`); it is left out where that would cost more than half of the dates.

The scores themselves: `distribution_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.evaluation.columns import EVENT, THRESHOLD, distribution_columns, quantile_levels
from ssmfin.evaluation.distribution_scores import EVENT_SCORES, QUANTILE_SCORES, SCHEMA, DistributionScores
from ssmfin.evaluation.past_errors import MIN_ERRORS, past_errors
from ssmfin.evaluation.scores import Scored, align

KEPT = 0.5  # share of the dates that the reference must leave


@dataclass(frozen=True)
class Probabilistic:
    """Scores of all models that say more than the mean, on the same rows.

    Attributes:
        pooled: columns of `SCHEMA`, sorted by horizon, score, level, model. `value` is averaged over the ids of a date,
            then over dates (roc_auc, pr_auc, precision, recall: over rows); `n` counts dates. `reference_value` is the
            reference's on the same rows (of events: at the model's own threshold); dm_* compare the two: negative, the
            model is better. coverage_p_value: HAC test of the share; kupiec_ and christoffersen_p_value: of hits that
            do not overlap, every id by itself, Bonferroni over all (`coverage.each_stretch`). Null where undefined.
        by_id: the same for each id alone, `unique_id` first.
        reference: name of the naive reference in `model`; "" where there is none.
        notes: what the reader should know, in words.
    """

    pooled: pl.DataFrame
    by_id: pl.DataFrame
    reference: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DistributionForecasts:
    """What the models say beside the mean on the rows of `Scored`, seeds averaged.

    Attributes:
        quantiles: model -> level -> (R,). events: model -> (R,) probability. thresholds: model -> (R,). NaN: not told.
    """

    quantiles: Mapping[str, Mapping[float, np.ndarray]]
    events: Mapping[str, np.ndarray]
    thresholds: Mapping[str, np.ndarray]


def reference_name(model: str) -> str:
    """The naive reference as tables call it.

    >>> reference_name("log_har")
    'log_har (past errors)'
    """
    return f"{model} (past errors)"


def score_probabilistic(
    predictions: pl.DataFrame,
    *,
    reference: str,
    log: bool,
    known: pl.DataFrame,
    models: Sequence[str] = (),
) -> Probabilistic | None:
    """Score quantiles and events.

    Args:
        predictions: as predictions.parquet.
        reference: the model whose past errors make the naive reference; without its forecasts there is none.
        log: the target is in logs: errors are factors.
        known: unique_id, ds, horizon, origin, known: positions of the origin's date, and of the date at which the label
            is known; all rows of `predictions`.
        models: names that should be there, as in `scores.align`.
    Returns:
        None where no model says more than the mean.
    """
    names = distribution_columns(predictions.columns)
    if all(predictions[name].null_count() == predictions.height for name in names):
        return None
    scored = align(predictions, models=models)
    told = _told(predictions, scored)
    if not told.quantiles and not told.events:
        return None
    log = log and bool((scored.y > 0).all())
    table = _Table(scored, told, log, reference_name(reference), *_naive(scored, told, reference, log, known))
    rows = {h: table.common(h) for h in scored.horizons if table.models(h)}
    pooled = [row for h, chosen in rows.items() for row in table.rows(h, chosen)]
    by_id = [
        (unique_id, *row)
        for k, unique_id in enumerate(scored.ids)
        for h, chosen in rows.items()
        for row in table.rows(h, chosen[scored.id_index[chosen] == k])
    ]
    frame = pl.DataFrame(pooled, schema=SCHEMA, orient="row")
    return Probabilistic(
        pooled=frame,
        by_id=pl.DataFrame(by_id, schema={"unique_id": pl.String(), **SCHEMA}, orient="row"),
        reference=table.naive_name if frame["reference_value"].is_not_null().any() else "",
        notes=tuple(table.notes(rows)),
    )


def _told(predictions: pl.DataFrame, scored: Scored) -> DistributionForecasts:
    """Columns of the complete models on the rows of `scored`; a column that a seed lacks is not told."""
    levels = quantile_levels(predictions.columns)
    names = distribution_columns(predictions.columns)
    quantiles: dict[str, dict[float, np.ndarray]] = {}
    events, thresholds = {}, {}
    frame = predictions.filter(pl.col("y").is_not_null() & pl.col("y").is_not_nan()).select(
        "model", "seed", "unique_id", "ds", "horizon", *names
    )
    for model in scored.models if names else ():
        seeds = [seed for name, seed in scored.members if name == model]
        own = frame.filter((pl.col("model") == model) & pl.col("seed").is_in(seeds))
        own = own.select(*names, "seed", "unique_id", "ds", "horizon")
        present = [name for name in names if own[name].null_count() < own.height]
        if not present:
            continue
        own = own.sort("seed", "unique_id", "ds", "horizon")  # each seed in the order of `scored`
        mean = {
            name: own[name].fill_null(float("nan")).to_numpy().reshape(len(seeds), -1).mean(axis=0) for name in present
        }
        found = {levels[name]: mean[name] for name in present if name in levels}
        if found:
            quantiles[model] = found
        if EVENT in mean and THRESHOLD in mean:
            events[model], thresholds[model] = mean[EVENT], mean[THRESHOLD]
    return DistributionForecasts(quantiles, events, thresholds)


def _naive(
    scored: Scored, told: DistributionForecasts, reference: str, log: bool, known: pl.DataFrame
) -> tuple[dict[float, np.ndarray], dict[str, np.ndarray]]:
    """The reference's quantiles by level, and its probability of each model's event; empty without its forecasts."""
    if reference not in scored.models:
        return {}, {}
    forecast = scored.y_hat[scored.models.index(reference)]
    at = scored.keys.join(known, on=["unique_id", "ds", "horizon"], how="left", maintain_order="left")
    levels = sorted({level for found in told.quantiles.values() for level in found})
    found = past_errors(
        scored.y,
        forecast,
        series=scored.id_index * len(scored.horizons) + np.searchsorted(scored.horizons, scored.horizon),
        origin=at["origin"].to_numpy(),
        known=at["known"].to_numpy(),
        log=log and bool((forecast > 0).all()),
        levels=levels,
        thresholds=list(told.thresholds.values()),
    )
    return dict(zip(levels, found.quantiles.T, strict=True)), dict(zip(told.events, found.probabilities, strict=True))


@dataclass(frozen=True)
class _Table:
    """Makes rows of `SCHEMA`."""

    scored: Scored
    told: DistributionForecasts
    log: bool
    naive_name: str
    naive_quantiles: Mapping[float, np.ndarray]
    naive_events: Mapping[str, np.ndarray]

    def common(self, h: int) -> np.ndarray:
        """Rows of a horizon on which all can be scored, the reference too unless that would cost too many dates."""
        rows = np.flatnonzero(self.scored.horizon == h)
        naive = [*self.naive_quantiles.values(), *self.naive_events.values()]
        if not naive or not self.models(h):
            return rows
        kept = rows[np.isfinite(np.stack([values[rows] for values in naive])).all(axis=0)]
        return kept if self.dates(kept) >= KEPT * self.dates(rows) else rows

    def dates(self, rows: np.ndarray) -> int:
        return len(np.unique(self.scored.date_index[rows]))

    def notes(self, rows: Mapping[int, np.ndarray]) -> list[str]:
        """What the reader should know of the rows scored, by horizon."""
        found = [note for h in self.scored.horizons for note in self.in_part(h)]
        if not (self.naive_quantiles or self.naive_events):
            return found
        without, counts = [], []
        for h, chosen in rows.items():
            kept, all_dates = self.dates(chosen), self.dates(np.flatnonzero(self.scored.horizon == h))
            if not self.has_naive(chosen):
                without.append(str(h))
            elif kept < all_dates:
                counts.append(f"{kept:,} of {all_dates:,} at horizon {h}")
        if counts:
            found.append(
                f"Quantiles and events are scored on fewer dates ({'; '.join(counts)}): the first ones serve "
                f"{self.naive_name}, which needs {MIN_ERRORS} past errors of an id."
            )
        if without:
            found.append(
                f"No naive reference beside quantiles and events at horizon {', '.join(without)}: {self.naive_name} "
                f"needs {MIN_ERRORS} past errors of an id, which would leave less than half of the dates."
            )
        return found

    def has_naive(self, chosen: np.ndarray) -> bool:
        naive = [*self.naive_quantiles.values(), *self.naive_events.values()]
        return bool(naive) and all(np.isfinite(values[chosen]).all() for values in naive)

    def models(self, h: int) -> list[str]:
        """Models that give quantiles or events at a horizon."""
        at = self.scored.horizon == h
        return [m for m in self.scored.models if self.levels(m, at) or self._has_event(m, at)]

    def in_part(self, h: int) -> list[str]:
        """Models that give something at a horizon, but not in all rows."""
        at = self.scored.horizon == h
        every = {m: [*found.values()] for m, found in self.told.quantiles.items()}
        for m, p in self.told.events.items():
            every[m] = [*every.get(m, []), p]
        return [
            f"Not scored: quantiles or events of {m} at horizon {h} that are there in only some rows."
            for m, found in every.items()
            if any(np.isfinite(values[at]).any() and not np.isfinite(values[at]).all() for values in found)
        ]

    def levels(self, model: str, at: np.ndarray) -> list[float]:
        """Levels that a model gives in all of some rows."""
        return [level for level, q in self.told.quantiles.get(model, {}).items() if np.isfinite(q[at]).all()]

    def _has_event(self, model: str, at: np.ndarray) -> bool:
        return model in self.told.events and bool(np.isfinite(self.told.events[model][at]).all())

    def rows(self, h: int, chosen: np.ndarray) -> list[tuple[object, ...]]:
        """Rows of one horizon over the chosen rows of forecasts, sorted by score, level, model."""
        if not len(chosen):  # an id without forecasts at this horizon
            return []
        at = self.scored.horizon == h
        given = {m: levels for m in self.told.quantiles if (levels := self.levels(m, at))}
        naive = bool(self.naive_quantiles) and self.has_naive(chosen)
        shared = sorted(set.intersection(*map(set, given.values()))) if given else []
        view = DistributionScores(self.scored, self.log, chosen, h)
        found: list[tuple[object, ...]] = []
        for model, levels in given.items():
            mine = {level: self.told.quantiles[model][level][chosen] for level in levels}
            theirs = {level: self.naive_quantiles[level][chosen] for level in levels} if naive else {}
            found += view.quantile_rows(model, mine, theirs, shared)
        if given and naive:
            everything = {level: q[chosen] for level, q in self.naive_quantiles.items()}
            found += view.quantile_rows(self.naive_name, everything, {}, shared)
        for model in self.told.events:
            if self._has_event(model, at):
                happened = self.scored.y[chosen] > self.told.thresholds[model][chosen]
                other = self.naive_events[model][chosen] if self.has_naive(chosen) else None
                found += view.event_rows(model, happened, self.told.events[model][chosen], other)
        order = {score: place for place, score in enumerate((*QUANTILE_SCORES, *EVENT_SCORES))}
        return sorted(found, key=lambda row: (order[str(row[2])], row[3] or 0.0, row[0]))
