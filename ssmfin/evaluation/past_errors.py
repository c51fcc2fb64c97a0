"""Owns the naive forecast distribution: a point forecast with the errors it has made so far.

    target in logs: errors y_s / f_s, quantile f_t Q(errors);      otherwise: errors y_s - f_s, quantile f_t + Q(errors)

over the newest WINDOW origins s of the same id and horizon whose outcome was known at t. It costs nothing, adapts to
the id and the horizon, and is calibrated by construction as long as errors keep their law: what any model's intervals
must beat. Its errors are out of sample throughout, so the first origins of an id have none.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WINDOW = 1000  # errors
MIN_ERRORS = 100  # before there are as many, there is no quantile of 5 % worth the name


class PastErrors(NamedTuple):
    """quantiles (R, Q) and, for each set of thresholds, the probability to exceed them, (R,); NaN at the start."""

    quantiles: np.ndarray
    probabilities: list[np.ndarray]


def past_errors(
    y: np.ndarray,
    forecast: np.ndarray,
    *,
    series: np.ndarray,
    origin: np.ndarray,
    known: np.ndarray,
    log: bool,
    levels: Sequence[float],
    thresholds: Sequence[np.ndarray] = (),
) -> PastErrors:
    """Quantiles of a point forecast plus (in logs: times) its own matured errors.

    Args:
        y, forecast: (R,) realised, and the point forecast; positive if `log`.
        series: (R,) number of the (id, horizon) of each row. origin: (R,) position of its date, increasing in a series.
        known: (R,) position of the date at which y is known, not falling in a series.
        levels: (Q,). thresholds: (R,) each, on the scale of y; NaN where none is asked.
    """
    quantiles = np.full((len(y), len(levels)), np.nan)
    probabilities = [np.full(len(y), np.nan) for _ in thresholds]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = y / forecast if log else y - forecast
        limits = [threshold / forecast if log else threshold - forecast for threshold in thresholds]
    for one in np.unique(series):
        rows = np.flatnonzero(series == one)
        ordered: list[float] = []
        held: deque[float] = deque()
        oldest = 0  # first row whose error is not in yet
        for row in rows.tolist():
            while known[rows[oldest]] <= origin[row]:
                value = float(error[rows[oldest]])
                oldest += 1
                bisect.insort(ordered, value)
                held.append(value)
                if len(held) > WINDOW:
                    del ordered[bisect.bisect_left(ordered, held.popleft())]
            n = len(ordered)
            if n < MIN_ERRORS:
                continue
            for number, level in enumerate(levels):  # plain floats: arrays of five would take longer
                place = level * (n - 1)
                below = min(int(place), n - 2)
                quantiles[row, number] = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
            for limit, out in zip(limits, probabilities, strict=True):
                # half an error is added: a probability of 0 or 1 would claim more than n errors can
                out[row] = (n - bisect.bisect_right(ordered, limit[row]) + 0.5) / (n + 1)
    quantiles = forecast[:, None] * quantiles if log else forecast[:, None] + quantiles
    for threshold, out in zip(thresholds, probabilities, strict=True):
        out[np.isnan(threshold)] = np.nan
    return PastErrors(quantiles, probabilities)
