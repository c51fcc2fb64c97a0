"""Owns ridge regression that is estimated anew at every row: what `ridge` would be with a fit each day."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ssmfin.data.rows import forward_aggregate, log_or_nan
from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import ridge_given
from ssmfin.models.baselines.linear_walk import LEAST_ROWS, FittedLinear
from ssmfin.models.baselines.range_sums import ranges_of
from ssmfin.models.baselines.ridge import HALF_DECADES, Ridge
from ssmfin.models.baselines.samples import QUERY_CELLS, Sample
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, TrainingSet

FULL_ENOUGH = 4  # a quarter of the rows must be there before the rolling estimate is used


class RollingRidge(Forecaster):
    """`ridge`, estimated anew at each origin t on the last rows of the id whose labels were known at t.

    min_{a, b} sum_{s = t-h-W+1}^{t-h} (y_s - a - x_s'b)^2 + n penalty sum_j (sd_j b_j)^2,   y_s known at s + h

    The penalty of each id and horizon is the one that `ridge` chooses when the model is fitted; it stays until the next
    fit, and so does W. Until a quarter of the W rows is there (and five for each coefficient), the coefficients are
    those of `ridge` at the fit. At its origins inside the training window the model is out of sample, too: a residual
    that another model learns there is of the kind that it will meet later.

    References:
        Hoerl, Kennard (1970), Technometrics 12, eq. 2.1.
    """

    kind: ClassVar[str] = "rolling_ridge"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "ridge on all features, estimated anew at every row"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    seconds_per_fit: ClassVar[float] = 0.01

    penalties: tuple[float, ...] = Field(
        default=HALF_DECADES, min_length=1, description="grid of penalties, as of ridge"
    )
    rows: int | None = Field(
        None, ge=30, description="W, rows to learn from; default: as many as the training window has dates"
    )

    @field_validator("penalties")
    @classmethod
    def _valid(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        return Ridge(penalties=penalties).penalties

    def fit(self, training: TrainingSet, *, seed: int = 0) -> FittedRollingRidge:
        window = training.window
        _require_prompt(training.design)
        return FittedRollingRidge(
            frozen=Ridge(penalties=self.penalties).fit(training),
            rows=self.rows or window.cutoff - window.train_start + 1,
            wait=window.cutoff - window.labels_until,
        )


class FittedRollingRidge(Fitted):
    """Penalties, and how many rows to learn from; the coefficients are found at each row.

    Attributes:
        frozen: `ridge` at the fit. rows: W. wait: the embargo, in rows, on top of the horizon.
    """

    def __init__(self, frozen: FittedLinear, rows: int, wait: int) -> None:
        self.frozen = frozen
        self.rows = rows
        self.wait = wait
        self.notes: dict[str, Any] = {"penalty_median": float(np.median(frozen.penalties()))}

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        """Labels are formed from the target as it was observed, row by row: those that the design has are not read."""
        forecast = self.frozen.predict(design, rows)
        complete, target = design.complete, design.target
        for k in np.unique(design.id_index[rows]):
            mine = np.flatnonzero(design.id_index[rows] == k)
            of_id = design.rows_of(int(k))
            place = rows[mine] - of_id.start
            x, observed = design.features[of_id], design.observed[of_id]
            ends = np.array([0, len(observed)])
            for h, horizon in enumerate(target.horizons):
                label = forward_aggregate(observed, ends, horizon, target.aggregate)
                y = log_or_nan(label) if target.transform == "log" else label
                valid = complete[of_id] & np.isfinite(y)
                start, stop, enough = self._range(valid, place, horizon, x.shape[1])
                penalty = float(self.frozen.estimates[int(k), h][0].penalty[0])
                at_once = max(1, QUERY_CELLS // (x.shape[1] + 1) ** 2)
                used = np.flatnonzero(enough)
                for begin in range(0, len(used), at_once):
                    some = used[begin : begin + at_once]
                    sample = Sample(x, y, label, valid, ranges_of(start[some], stop[some], len(y)))
                    found = ridge_given(sample, penalty)
                    mu = found.forecast(x[place[some]], np.arange(len(some)))
                    forecast[mine[some], h] = target.to_original_scale(mu, found.residual_variance)
        return forecast

    def ready(self, design: Design) -> np.ndarray:
        """(R, H) bool: the row has a rolling estimate, not that of the fit."""
        out = np.zeros((design.rows, len(design.target.horizons)), dtype=bool)
        complete, finite = design.complete, np.isfinite(design.observed)
        for k in range(len(design.ids)):
            of_id = design.rows_of(k)
            valid = complete[of_id] & finite[of_id]
            for h, horizon in enumerate(design.target.horizons):
                out[of_id, h] = self._range(valid, np.arange(len(valid)), horizon, design.features.shape[1])[2]
        return out

    def _range(self, valid: np.ndarray, place: np.ndarray, horizon: int, p: int) -> tuple[np.ndarray, ...]:
        """Rows [start, stop) of the id that each of its rows in `place` learns from, and whether they are enough."""
        stop = np.maximum(place + 1 - horizon - self.wait, 0)  # s + h + wait <= t
        start = np.maximum(stop - self.rows, 0)
        there = np.concatenate([[0], np.cumsum(valid)])
        return start, stop, there[stop] - there[start] >= max(self.rows // FULL_ENOUGH, LEAST_ROWS * (p + 1))


def _require_prompt(design: Design) -> None:
    """Refuse a target that is known later than its date: at t its last values are missing, and labels with them."""
    row = np.arange(design.rows)
    for h, horizon in enumerate(design.target.horizons):
        last = row + horizon
        inside = np.flatnonzero(last < design.starts[design.id_index + 1])
        late = inside[design.label_known[inside, h] > design.date_index[last[inside]]]
        if len(late):
            first = int(late[0])
            raise InputError(
                f"rolling_ridge learns from the target up to the day itself, but known_at is later than ds, as for the "
                f"label of {design.ids[design.id_index[first]]!r} at {design.dates[design.date_index[first]]}; use "
                "ridge, or a residual of ridge."
            )
