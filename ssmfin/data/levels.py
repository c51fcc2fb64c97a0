"""Owns the question whether a series is the level of a price, whose logarithm is no log variance."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel

LEAST = 60  # values that are enough to judge
IDS = 50  # ids that are looked at
_VARIANCE = re.compile(
    r"var|vol|sigma|garch|ewma|vix|stoxx|parkinson|klass|satchell|yang|std|(^|[^a-z])(rv|bv|rk|iv|rq|sd|h)\d*([^a-z]|$)"
)


def is_price_level(name: str, values: np.ndarray) -> bool:
    """Whether a series moves as prices do: far above a decimal variance, in small steps, up as often as down, for ever.

    A random walk of n values has a lag-one autocorrelation of about 1 - 5 / n, rarely below 1 - 12 / n. Variances in
    percent squared move by far more than 4 % a day, or decay most days and jump on few. Means over a long rolling
    window move as prices do; a column whose name says variance is never taken for a price.

    Args:
        name: of the column. values: (T,) of one id, in time order.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if _VARIANCE.search(name.lower()) or len(values) < LEAST or values.min() <= 0 or np.median(values) <= 0.5:
        return False
    log = np.log(values)
    step = np.diff(log)
    moved = step[step != 0]
    if 2 * len(moved) < len(step) or np.median(np.abs(moved)) > 0.04 or not 0.4 < np.mean(moved > 0) < 0.6:
        return False
    return bool(np.corrcoef(log[1:], log[:-1])[0, 1] > min(0.99, 1 - 12 / len(log)))


def price_warning(panel: Panel, column: str, transform: str) -> str | None:
    """One sentence if a target of which a log is taken looks like a price for most ids, else None."""
    if transform != "log" or column not in panel.value_columns:
        return None
    series = [
        part[column].to_numpy()
        for part in panel.frame.filter(panel.frame["unique_id"].is_in(list(panel.ids[:IDS])))
        .select("unique_id", column)
        .partition_by("unique_id", maintain_order=True)
    ]
    if 2 * sum(is_price_level(column, values) for values in series) <= len(series):
        return None
    median = np.nanmedian(np.concatenate(series))
    return (
        f"target.column {column!r} looks like a price, not a variance, {median:.6g} in the median and small steps; "
        "forecast a variance (data.measures computes it from high and low) or returns."
    )
