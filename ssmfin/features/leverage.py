"""Owns the leverage regressors: how much the market fell over the last 1, 5, 22 rows (falls raise volatility more)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import trailing_means
from ssmfin.features.transformer import PanelTransformer, panel_column


class Leverage(PanelTransformer):
    """Negative part of the return over the last w rows of the same id, plain or in units of its volatility.

        leverage_w(t) = min((1 / w) sum_{i=0}^{w-1} r_{t-i}, 0)                                        plain
        leverage_w(t) = min(sum_{i=0}^{w-1} r_{t-i}, 0) / sqrt(sum_{i=0}^{w-1} v_{t-i})                standardised by v

    Standardise it where the model is in logs: log volatility answers to the shock relative to its level, and a model
    linear in plain returns would multiply its forecast by a hundred on a day of -9 %.

    Args:
        column: the return, decimal (0.01 = 1 %).
        windows: lengths in rows of the id's own calendar.
        variance: column of variances per row, decimal squared; None: plain.

    NaN for the first w - 1 rows of each id, and wherever the window holds a missing value or no variance.

    References:
        Corsi, Reno (2012), Journal of Business and Economic Statistics 30, eq. 2.4.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3, 4)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 3, "ds": days, "r": [0.02, -0.04, 0.01]})
    >>> Leverage("r", windows=[1, 2]).fit_transform(frame)["negative_2"].to_list()
    [nan, -0.01, -0.015]
    """

    def __init__(self, column: str, *, windows: Sequence[int] = (1, 5, 22), variance: str | None = None) -> None:
        self.column = column
        self.windows = windows
        self.variance = variance

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"negative_{window}" for window in self.windows], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column,) if self.variance is None else (self.column, self.variance)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        returns = panel_column(panel, self.column)
        variance = None if self.variance is None else panel_column(panel, self.variance)
        return fallen(returns, variance, starts, self.windows)


def fallen(returns: np.ndarray, variance: np.ndarray | None, starts: np.ndarray, windows: Sequence[int]) -> np.ndarray:
    """(R, W) negative part of mean returns over the last w rows, plain or standardised by variances there."""
    mean: np.ndarray = np.minimum(trailing_means(returns, starts, windows), 0.0)
    if variance is None:
        return mean
    level = trailing_means(variance, starts, windows)
    out = np.full_like(mean, np.nan)
    # w m / sqrt(w v) with means m and v
    np.divide(mean * np.sqrt(windows), np.sqrt(level, where=level > 0, out=level), out=out, where=level > 0)
    return out
