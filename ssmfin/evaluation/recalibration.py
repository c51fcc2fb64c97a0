"""Owns intervals that learn from their own misses: quantile forecasts shifted, origin by origin, by matured outcomes.

    theta_p <- clip(theta_p + rate (p - 1{y_s <= q_s(p)}), -bound, bound)        once y_s is known
    q_t(p)  = Q_t(z_p + theta_p)

Q_t: the model's quantiles at t as a function of the normal score z = Phi^-1(level), on straight lines between the
levels that it gives and beyond the outer ones, of log y where the target is in logs. A quantile that was too low more
often than it says moves up, whatever the law of the errors: in the long run the share below it is p as long as theta
stays within its bound. The bound keeps the overlapping misses of a long horizon, which come in only after it, from
pushing the tails out of reach in a crisis.

This is adaptive conformal inference with each quantile on its own, and its step on the normal score. Every model, seed,
id and horizon learns by itself, from its own forecasts as they were issued, over all folds. A model in use does the
same (`Trained.live`), from its first forecast on.

Measured, rate 0.05 and bound 1 (chosen on these data, and little different from their neighbours), at 1, 5, 22 days: an
S4D with head: quantiles on the S&P 500, 2002-2018, whose intervals for 90 % held 88, 84, 76 %: now 90, 88, 84 %, the
weighted interval score 5, 10, 4 % lower (tests/benchmarks/bench_recalibration.py).

References:
    Gibbs, Candes (2021), Advances in Neural Information Processing Systems 34, eq. 2; Angelopoulos, Candes, Tibshirani
    (2023), the same 36, section 2 (quantile tracking; the bound is their saturation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from scipy.special import ndtri

from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.columns import quantile_levels
from ssmfin.models.interface import FloatArray


@dataclass(frozen=True)
class Recalibration:
    """How fast intervals learn: `evaluate.recalibrate` of a study.

    Attributes:
        rate: step of a quantile's normal score after each outcome; 0.05 moves the 95 % quantile up by 0.0475 after a
            miss, down by 0.0025 otherwise. bound: the furthest that it moves; 1 makes of 95 % at most 99.6 %.
    """

    rate: float = 0.05
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"recalibrate.rate is {self.rate}; use a number above 0 and up to 1, such as 0.05.")
        if not 0 < self.bound <= 5:
            raise InputError(f"recalibrate.bound is {self.bound}; use a number above 0 and up to 5, such as 1.")

    @classmethod
    def of(cls, given: Recalibration | Mapping[str, float]) -> Recalibration:
        """One as it is, or of its settings by name.

        Raises:
            InputError: a setting is unknown or without meaning.
        """
        if isinstance(given, Recalibration):
            return given
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"recalibrate has no setting {name!r}; {nearest(name, known)}.")
        return cls(**given)


def recalibrated(predictions: pl.DataFrame, known: pl.DataFrame, how: Recalibration, *, log: bool) -> pl.DataFrame:
    """Predictions whose quantiles have learned from the outcomes before them; all else is as it was.

    Args:
        predictions: as predictions.parquet.
        known: unique_id, ds, horizon, origin, known: positions of the origin's date, and of the date from which the
            label may be learned from; all rows of `predictions`.
        log: the target is in logs; where a quantile is zero, those of its row are shifted as they are.
    """
    levels = quantile_levels(predictions.columns)
    if not levels:
        return predictions
    frame = predictions.with_row_index("__row").join(known, on=["unique_id", "ds", "horizon"], how="left")
    table = predictions.select(*levels).to_numpy(writable=True)
    told = frame.filter(pl.any_horizontal(pl.col(list(levels)).is_not_null()))
    keys = ("model", "seed", "unique_id", "horizon")
    for _, part in told.sort(*keys, "origin").group_by(*keys, maintain_order=True):
        there = np.array([part[name].null_count() == 0 for name in levels])
        if there.sum() < 2:
            continue  # one quantile has no slope
        place = np.ix_(part["__row"].to_numpy(), np.flatnonzero(there))
        table[place] = track(
            table[place],
            part["y"].cast(pl.Float64).fill_null(math.nan).to_numpy(),
            np.array(list(levels.values()))[there],
            origin=part["origin"].to_numpy(),
            known=part["known"].to_numpy(),
            how=how,
            log=log,
        )
    return predictions.with_columns(
        pl.Series(name, table[:, i], dtype=pl.Float64).fill_nan(None) for i, name in enumerate(levels)
    )


def learned_sentence(how: Recalibration) -> str:
    """What a verdict says of it."""
    return (
        "The quantiles have learned from the outcomes known at each origin (adaptive conformal inference, rate "
        f"{how.rate:g}, bound {how.bound:g}); what the models themselves gave is in the tasks."
    )


class Tracker:
    """The quantiles of one series as they learn, outcome by outcome.

    Args:
        levels: (Q,) increasing, Q >= 2. log: lines are drawn over logs, where all quantiles are positive.
    """

    def __init__(self, levels: Sequence[float], how: Recalibration, *, log: bool) -> None:
        self.how, self.log = how, log
        self.levels = [float(level) for level in levels]
        self.scores = [float(score) for score in ndtri(np.array(self.levels))]
        self.shift = [0.0] * len(self.levels)  # theta

    def learn(self, outcome: float, said: Sequence[float]) -> None:
        """From an outcome and the shifted quantiles that were said of it; nothing from one that is not known."""
        if outcome != outcome:
            return
        for k, (level, value) in enumerate(zip(self.levels, said, strict=True)):
            moved = self.shift[k] + self.how.rate * (level - (outcome <= value))
            self.shift[k] = min(self.how.bound, max(-self.how.bound, moved))

    def shifted(self, quantiles: Sequence[float]) -> list[float]:
        """(Q,) what to say instead of a model's quantiles, not falling; to the bit these before the first outcome."""
        logs = self.log and min(quantiles) > 0
        own = [math.log(value) for value in quantiles] if logs else quantiles
        z, last = self.scores, len(self.scores) - 2
        found, place, reached = [], 0, -math.inf
        for k, shift in enumerate(self.shift):
            reached = max(reached, z[k] + shift)
            if reached == z[k]:
                found.append(quantiles[k])
                continue
            while place < last and z[place + 1] <= reached:
                place += 1
            part = (reached - z[place]) / (z[place + 1] - z[place])
            moved = own[place] + part * (own[place + 1] - own[place])
            found.append(math.exp(moved) if logs else moved)
        return found


def track(
    quantiles: FloatArray,
    y: FloatArray,
    levels: FloatArray,
    *,
    origin: Sequence[int] | np.ndarray,
    known: Sequence[int] | np.ndarray,
    how: Recalibration,
    log: bool = False,
) -> FloatArray:
    """The shifted quantiles of one series.

    Args:
        quantiles: (n, Q) not falling along the levels, Q >= 2. y: (n,) NaN where unknown for ever.
        levels: (Q,). origin: (n,) position of each origin's date, increasing. known: (n,) that from which y may be
            learned from, not falling. log: as of `Tracker`.
    Returns:
        (n, Q), not falling along the levels.

    >>> always_above = track(np.tile([0.0, 1.0], (4, 1)), np.full(4, 9.0), np.array([0.25, 0.75]),
    ...                      origin=range(4), known=range(1, 5), how=Recalibration(rate=0.1))
    >>> always_above[:, 1].round(3).tolist()
    [1.0, 1.056, 1.111, 1.167]
    """
    tracker = Tracker(levels.tolist(), how, log=log)
    y_of, known_of, origin_of = y.tolist(), np.asarray(known).tolist(), np.asarray(origin).tolist()
    issued: list[list[float]] = []
    oldest = 0
    for t, own in enumerate(quantiles.tolist()):
        while oldest < t and known_of[oldest] <= origin_of[t]:
            tracker.learn(y_of[oldest], issued[oldest])
            oldest += 1
        issued.append(tracker.shifted(own))
    return np.array(issued).reshape(quantiles.shape)
