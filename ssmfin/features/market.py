"""Owns what the other ids tell: averages over all other ids of what each last showed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan, trailing_means
from ssmfin.errors import InputError
from ssmfin.features.transformer import PanelTransformer, panel_column


class MarketLags(PanelTransformer):
    """Means over the other ids of their own lags, each as last known before the row's date.

        market_w(t) = mean_{j != i} g(lag_w(x_j)(last row of j known before t)),   g = log or identity

    Markets close at different hours. Without `known_at` a panel of days cannot say which of two closes of one date
    came first, so rows of other ids count from the next date on (`same_date=True` lets them count at once: right where
    all ids close together, or for an id that closes last). With `known_at` the rows known by t count, whatever
    their date.

    Args:
        column: the column to average, on its original scale.
        windows: lengths in rows of each other id's own calendar.
        scale: "log" averages logs of the lags, "none" the lags.
        max_age: days after which what an id last showed no longer counts (it is delisted, or has a hole).

    NaN where no other id has shown anything.

    References:
        Bollerslev, Hood, Huss, Pedersen (2018), Review of Financial Studies 31, section 2.3 (global risk).

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3)]
    >>> frame = pl.DataFrame({"unique_id": ["a", "a", "b", "b"], "ds": days * 2, "rv": [1.0, 2.0, 3.0, 4.0]})
    >>> MarketLags("rv", windows=[1]).fit_transform(frame)["market_1"].to_list()
    [nan, 3.0, nan, 1.0]
    """

    def __init__(
        self,
        column: str,
        *,
        windows: Sequence[int] = (1, 5, 22),
        scale: Literal["log", "none"] = "none",
        same_date: bool = False,
        max_age: int = 30,
    ) -> None:
        self.column = column
        self.windows = windows
        self.scale = scale
        self.same_date = same_date
        self.max_age = max_age

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"market_{window}" for window in self.windows], dtype=object)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        ids = len(starts) - 1
        if ids < 2:
            raise InputError(
                f"the market feature averages over other ids, and the panel has {ids}; use a panel of several ids."
            )
        values = panel_column(panel, self.column)
        lags = trailing_means(values, starts, self.windows)
        if self.scale == "log":
            lags = log_or_nan(lags)
        return self._over_others(panel, lags, starts)

    def _over_others(self, panel: Panel, lags: np.ndarray, starts: np.ndarray) -> np.ndarray:
        dates, moments = panel.dates, panel.frame["ds"].to_numpy()
        with_known = "known_at" in panel.frame.columns
        known = panel.frame["known_at"].to_numpy() if with_known else moments
        side: Literal["left", "right"] = "right" if with_known or self.same_date else "left"
        oldest = dates - np.timedelta64(self.max_age, "D")
        total, count = np.zeros((len(dates), lags.shape[1])), np.zeros((len(dates), lags.shape[1]))
        shown = []  # what each id last showed, (T, W)
        for first, last in itertools.pairwise(starts):
            newest = first + np.searchsorted(known[first:last], dates, side=side) - 1  # (T,)
            there = (newest >= first) & (moments[np.maximum(newest, first)] >= oldest)
            value = np.where(there[:, None], lags[np.maximum(newest, first)], np.nan)
            shown.append(value)
            finite = np.isfinite(value)
            total += np.where(finite, value, 0.0)
            count += finite
        out = np.full_like(lags, np.nan)
        for k, (first, last) in enumerate(itertools.pairwise(starts)):
            at = np.searchsorted(dates, moments[first:last])
            own = shown[k][at]
            finite = np.isfinite(own)
            others = count[at] - finite
            mean = (total[at] - np.where(finite, own, 0.0)) / np.maximum(others, 1.0)
            out[first:last] = np.where(others > 0, mean, np.nan)
        return out
