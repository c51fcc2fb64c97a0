"""Owns the scores of quantiles and events on some rows of one horizon, as rows of one long table.

Scores (lower is better but for those marked +; `level` in brackets):

    wis               twice the mean pinball loss over the levels that all models share: the weighted interval score
                      where levels are symmetric about a median among them, and an approximation of the CRPS
    wis_log           the same of log y and the logs of the quantiles, for a positive target in logs: calm and turbulent
                      days count alike
    pinball [q]       pinball loss of the quantile q
    below [q]         share of outcomes at or below the quantile q; should be q
    coverage [c]      share of outcomes within the central interval of mass c; should be c
    width [c]         mean width of that interval
    brier, log_loss   of the probability of the event; of its natural logarithm
    precision+, recall+ [p]   of alarms, raised where the probability exceeds p = ALARM
    roc_auc+, pr_auc+         how the probability ranks, over all rows of all ids
    event_share               how often the event came

References:
    Gneiting, Raftery (2007), JASA 102. Bracher, Ray, Gneiting, Reich (2021), PLoS Computational Biology 17, eq. 1-3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import polars as pl

from ssmfin.evaluation.comparison import diebold_mariano
from ssmfin.evaluation.coverage import christoffersen, coverage_test, each_stretch, kupiec, pinball
from ssmfin.evaluation.scores import Scored

SCHEMA: dict[str, pl.DataType] = {
    "model": pl.String(),
    "horizon": pl.Int32(),
    "score": pl.String(),
    "level": pl.Float64(),
    "value": pl.Float64(),
    "reference_value": pl.Float64(),
    "ratio_to_reference": pl.Float64(),
    "dm_statistic": pl.Float64(),
    "dm_p_value": pl.Float64(),
    "coverage_p_value": pl.Float64(),
    "kupiec_p_value": pl.Float64(),
    "christoffersen_p_value": pl.Float64(),
    "n": pl.Int64(),
}
QUANTILE_SCORES = ("wis", "wis_log", "pinball", "below", "coverage", "width")
EVENT_SCORES = ("event_share", "brier", "log_loss", "roc_auc", "pr_auc", "precision", "recall")
ALARM = 0.5  # the cut that minimises errors where missing an event costs as much as a false alarm


@dataclass(frozen=True)
class DistributionScores:
    """Scores on some rows of one horizon.

    Attributes:
        scored: outcomes of all rows. log: quantiles are scored in logs, too. chosen: (n,) rows of `scored`, sorted.
    """

    scored: Scored
    log: bool
    chosen: np.ndarray
    horizon: int

    @cached_property
    def dates(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) position of each row's date among the dates, and (t,) ids of each date."""
        _, code = np.unique(self.scored.date_index[self.chosen], return_inverse=True)
        return code, np.bincount(code)

    @cached_property
    def ids(self) -> list[np.ndarray]:
        """For each id its rows, in time order (rows are sorted by id, then date)."""
        ids = self.scored.id_index[self.chosen]
        return np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids)) + 1)

    def by_date(self, values: np.ndarray) -> np.ndarray:
        """(t,) means over the ids of each date, in time order."""
        code, count = self.dates
        return np.asarray(np.bincount(code, weights=values) / count)

    def quantile_rows(
        self,
        model: str,
        quantiles: Mapping[float, np.ndarray],
        naive: Mapping[float, np.ndarray],
        shared: Sequence[float],
    ) -> list[tuple[object, ...]]:
        """All scores of one model's quantiles, (n,) each; `naive`: the reference's, or nothing."""
        y = self.scored.y[self.chosen]
        mine, theirs = (
            {level: self.by_date(pinball(y, q, level)) for level, q in found.items()} for found in (quantiles, naive)
        )
        rows = [self._loss(model, "pinball", level, mine[level], theirs.get(level)) for level in quantiles]
        if shared:
            wis = [_mean_of(losses, shared) for losses in (mine, theirs)]
            rows.append(self._loss(model, "wis", None, *wis))
        if shared and self.log and all((found[level] > 0).all() for found in (quantiles, naive) for level in found):
            in_logs = [
                _mean_of(
                    {level: self.by_date(pinball(np.log(y), np.log(q), level)) for level, q in found.items()}, shared
                )
                for found in (quantiles, naive)
            ]
            rows.append(self._loss(model, "wis_log", None, *in_logs))
        for level, q in quantiles.items():
            rows.append(self._share(model, "below", level, y <= q, y <= naive[level] if naive else None))
        for low, high in central(quantiles):
            mass = round(high - low, 12)
            inside = (y >= quantiles[low]) & (y <= quantiles[high])
            other = (y >= naive[low]) & (y <= naive[high]) if naive else None
            rows.append(self._share(model, "coverage", mass, inside, other))
            width = self.by_date(quantiles[high] - quantiles[low]).mean()
            base = self.by_date(naive[high] - naive[low]).mean() if naive else None
            rows.append(self._row(model, "width", mass, width, base, ratio=True))
        return rows

    def event_rows(
        self, model: str, happened: np.ndarray, p: np.ndarray, naive: np.ndarray | None
    ) -> list[tuple[object, ...]]:
        """All scores of one model's probabilities, (n,)."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        rows = [self._row(model, "event_share", None, self.by_date(happened.astype(float)).mean(), None)]
        for score, loss in (("brier", _brier), ("log_loss", _log_loss)):
            other = None if naive is None else self.by_date(loss(happened, naive))
            rows.append(self._loss(model, score, None, self.by_date(loss(happened, p)), other))
        never = not happened.any()
        single = never or bool(happened.all())
        rankings = (("roc_auc", roc_auc_score, single), ("pr_auc", average_precision_score, never))
        for score, function, undefined in rankings:
            values = [math.nan if undefined or q is None else float(function(happened, q)) for q in (p, naive)]
            rows.append(self._row(model, score, None, values[0], values[1]))
        alarms = [np.zeros(len(p), dtype=bool) if q is None else q > ALARM for q in (p, naive)]
        right = [int((alarm & happened).sum()) for alarm in alarms]
        precision = [
            hits / n if (n := int(alarm.sum())) else math.nan for hits, alarm in zip(right, alarms, strict=True)
        ]
        recall = [math.nan if never else hits / int(happened.sum()) for hits in right]
        rows.append(self._row(model, "precision", ALARM, *precision))
        rows.append(self._row(model, "recall", ALARM, recall[0], None if naive is None else recall[1]))
        return rows

    def _loss(
        self, model: str, score: str, level: float | None, mine: np.ndarray | None, theirs: np.ndarray | None
    ) -> tuple[object, ...]:
        """A mean loss with its Diebold-Mariano test against the reference's, both by date."""
        if mine is None:
            return self._row(model, score, level, math.nan, None)
        if theirs is None:
            return self._row(model, score, level, mine.mean(), None)
        test = diebold_mariano(mine, theirs, horizon=self.horizon)
        return self._row(model, score, level, mine.mean(), theirs.mean(), ratio=True, dm=(test.statistic, test.p_value))

    def _share(
        self, model: str, score: str, level: float, hits: np.ndarray, naive: np.ndarray | None
    ) -> tuple[object, ...]:
        """A share of hits with the three tests of it."""
        share = self.by_date(hits.astype(float))
        series = [hits[rows] for rows in self.ids]
        tests = (
            coverage_test(share, level, horizon=self.horizon),
            each_stretch(series, self.horizon, partial(kupiec, rate=level)),
            each_stretch(series, self.horizon, christoffersen),
        )
        other = None if naive is None else self.by_date(naive.astype(float)).mean()
        return self._row(model, score, level, share.mean(), other, tests=tests)

    def _row(
        self,
        model: str,
        score: str,
        level: float | None,
        value: float,
        reference: float | None,
        *,
        ratio: bool = False,
        dm: tuple[float, float] = (math.nan, math.nan),
        tests: tuple[float, float, float] = (math.nan, math.nan, math.nan),
    ) -> tuple[object, ...]:
        base = math.nan if reference is None else float(reference)
        relative = float(value) / base if ratio and base > 0 else math.nan
        numbers = (float(value), base, relative, *dm, *tests)
        told = (None if math.isnan(x) else float(x) for x in numbers)
        return (model, self.horizon, score, level, *told, len(self.dates[1]))


def central(levels: Sequence[float] | Mapping[float, object]) -> list[tuple[float, float]]:
    """Pairs of levels that bound a central interval, widest first.

    >>> central([0.05, 0.25, 0.5, 0.75, 0.9])
    [(0.25, 0.75)]
    """
    given = sorted(levels)
    by_mirror = {round(1 - level, 12): level for level in given if level > 0.5}
    return [(low, by_mirror[round(low, 12)]) for low in given if low < 0.5 and round(low, 12) in by_mirror]


def _mean_of(losses: Mapping[float, np.ndarray], levels: Sequence[float]) -> np.ndarray | None:
    """(t,) twice the mean pinball loss over some levels; None where there are none."""
    return np.asarray(2 * np.mean([losses[level] for level in levels], axis=0)) if losses else None


def _brier(happened: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(p - happened))


def _log_loss(happened: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(np.maximum(np.where(happened, p, 1 - p), 1e-15)))
