"""Owns arithmetic over rows grouped by id: the last w rows, the next h rows, never across an id's border; and logs.

Rows are sorted by (id, time); id k owns rows starts[k]:starts[k + 1]. Sums are taken directly over each window (no
running totals), so a value outside a window cannot touch its result, not even in the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

# A window of 22 over 2.5 million rows at once would be 440 MB: work in pieces of this many rows.
_PIECE = 1 << 18


def group_starts(ids: np.ndarray) -> np.ndarray:
    """(K + 1,) first rows of each run of equal values in `ids` (R,), then R.

    >>> group_starts(np.array(["a", "a", "b"])).tolist()
    [0, 2, 3]
    """
    if len(ids) == 0:
        return np.zeros(1, dtype=np.int64)
    changes = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    return np.concatenate([[0], changes, [len(ids)]]).astype(np.int64)


def trailing_mean(values: np.ndarray, starts: np.ndarray, window: int) -> np.ndarray:
    """(R,) mean of the last `window` rows of the same id, the row itself included; NaN for the first window - 1 rows.

    >>> trailing_mean(np.array([1.0, 2.0, 3.0, 10.0, 20.0]), np.array([0, 3, 5]), 2).tolist()
    [nan, 1.5, 2.5, nan, 15.0]
    """
    out = np.full(len(values), np.nan)
    _windows(values, window, out[window - 1 :], np.mean)
    for offset in range(window - 1):
        rows = starts[:-1] + offset
        out[rows[rows < starts[1:]]] = np.nan
    return out


def trailing_means(values: np.ndarray, starts: np.ndarray, windows: Sequence[int]) -> np.ndarray:
    """(R, W) means of the last w rows of the same id for each w of `windows`, as `trailing_mean`."""
    return np.column_stack([trailing_mean(values, starts, window) for window in windows])


def log_or_nan(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, NaN where a value is not positive (or missing).

    >>> log_or_nan(np.array([1.0, 0.0, -1.0])).tolist()
    [0.0, nan, nan]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), logs, np.nan)


def trailing_exponential(values: np.ndarray, starts: np.ndarray, centre_of_mass: float) -> np.ndarray:
    """(R,) exponential average of the rows of the same id so far, the row itself included; missing values are skipped.

        m_t = sum_{i >= 0} a^i x_{t-i} / sum_{i >= 0} a^i,    a = c / (1 + c)

    over the observed x alone, weights by their number of rows back. NaN before the first observed value.

    Args:
        centre_of_mass: c, in rows: the average age of what is averaged.

    >>> trailing_exponential(np.array([1.0, 3.0, 8.0]), np.array([0, 2, 3]), 1.0).round(4).tolist()
    [1.0, 2.3333, 8.0]
    """
    import polars as pl

    out = np.full(len(values), np.nan)
    for first, last in itertools.pairwise(starts):
        series = pl.Series(values[first:last], nan_to_null=True)
        mean = series.ewm_mean(com=centre_of_mass, adjust=True, ignore_nulls=False, min_samples=1)
        out[first:last] = mean.forward_fill().fill_null(float("nan")).to_numpy()
    return out


def forward_aggregate(
    values: np.ndarray, starts: np.ndarray, horizon: int, aggregate: Literal["mean", "sum", "last"]
) -> np.ndarray:
    """(R,) aggregate of the next `horizon` rows of the same id (itself excluded); NaN for the last `horizon` rows.

    >>> forward_aggregate(np.array([1.0, 2.0, 3.0, 10.0, 20.0]), np.array([0, 3, 5]), 2, "sum").tolist()
    [5.0, nan, nan, nan, nan]
    """
    out = np.full(len(values), np.nan)
    if aggregate == "last":
        out[:-horizon] = values[horizon:]
    elif len(values) > horizon:
        _windows(values[1:], horizon, out[: len(values) - horizon], np.mean if aggregate == "mean" else np.sum)
    for offset in range(1, horizon + 1):
        rows = starts[1:] - offset
        out[rows[rows >= starts[:-1]]] = np.nan
    return out


def _windows(values: np.ndarray, window: int, out: np.ndarray, reduce) -> None:  # type: ignore[no-untyped-def]
    """out[i] = reduce(values[i : i + window])."""
    count = len(values) - window + 1
    if count <= 0:
        return
    view = np.lib.stride_tricks.sliding_window_view(values, window)
    for begin in range(0, count, _PIECE):
        piece = slice(begin, min(begin + _PIECE, count))
        out[piece] = reduce(view[piece], axis=1)
