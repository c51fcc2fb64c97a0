"""Owns ranks across ids: where an id's recent mean stands among what all ids last showed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import trailing_means
from ssmfin.errors import InputError
from ssmfin.features.transformer import PanelTransformer, panel_column


class CrossSectionRanks(PanelTransformer):
    """Rank of each id's lag mean among all ids, from -1/2 (lowest) to 1/2, ties at their mean rank.

        rank_w(t) = (places below + (ties - 1) / 2 + 1/2) / n - 1/2,   of lag_w(x)(t - skip) among n ids

    With a return column, windows of a few rows are reversal, `windows=[231], skip=21` is momentum of a year without its
    last month, and with a variance the rank of risk. Ranks are the same in calm and in turbulent times, and no outlier
    or bad tick reaches far in them.

    Which rows of other ids count at t is decided as for `MarketLags`: those of earlier dates, of the same date too with
    `same_date=True` (right where all ids close together), or with `known_at` those known by t.

    Args:
        column: the column to average. windows: lengths in rows of the id's own calendar. skip: newest rows left out.
        max_age: days after which what an id last showed no longer counts.

    NaN where the window is not complete, or where fewer than `least_ids` ids can be compared.

    References:
        Gu, Kelly, Xiu (2020), Review of Financial Studies 33, section 2.1; Jegadeesh, Titman (1993), Journal of Finance
        48, for momentum.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3)]
    >>> frame = pl.DataFrame({"unique_id": ["a", "a", "b", "b"], "ds": days * 2, "r": [0.1, 0.0, -0.1, 0.2]})
    >>> CrossSectionRanks("r", windows=[1], same_date=True).fit_transform(frame)["rank_1"].to_list()
    [0.25, -0.25, -0.25, 0.25]
    """

    def __init__(
        self,
        column: str,
        *,
        windows: Sequence[int] = (5,),
        skip: int = 0,
        same_date: bool = False,
        least_ids: int = 2,
        max_age: int = 30,
    ) -> None:
        self.column = column
        self.windows = windows
        self.skip = skip
        self.same_date = same_date
        self.least_ids = least_ids
        self.max_age = max_age

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"rank_{window}" for window in self.windows], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column,)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        if len(starts) - 1 < 2:
            raise InputError(f"ranks compare ids, and the panel has {len(starts) - 1}; use a panel of several ids.")
        lags = trailing_means(panel_column(panel, self.column), starts, self.windows)
        if self.skip:
            lags = _skipped(lags, starts, self.skip)
        dates, moments = panel.dates, panel.frame["ds"].to_numpy()
        with_known = "known_at" in panel.frame.columns
        known = panel.frame["known_at"].to_numpy() if with_known else moments
        side: Literal["left", "right"] = "right" if with_known or self.same_date else "left"
        oldest = dates - np.timedelta64(self.max_age, "D")
        shown = np.full((len(dates), len(starts) - 1, lags.shape[1]), np.nan)  # (T, K, W), what each id last showed
        for k, (first, last) in enumerate(itertools.pairwise(starts)):
            newest = first + np.searchsorted(known[first:last], dates, side=side) - 1  # (T,)
            there = (newest >= first) & (moments[np.maximum(newest, first)] >= oldest)
            shown[there, k] = lags[newest[there]]
        date = np.searchsorted(dates, moments)
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        out = np.empty_like(lags)
        for w in range(lags.shape[1]):
            out[:, w] = _ranks(lags[:, w], shown[:, :, w], date, owner, self.least_ids)
        return out


def _skipped(values: np.ndarray, starts: np.ndarray, skip: int) -> np.ndarray:
    """(R, W) the values `skip` rows before, of the same id; NaN on its first rows."""
    out = np.full_like(values, np.nan)
    for first, last in itertools.pairwise(starts):
        out[first + skip : last] = values[first : max(first, last - skip)]
    return out


def _ranks(own: np.ndarray, shown: np.ndarray, date: np.ndarray, owner: np.ndarray, least: int) -> np.ndarray:
    """(R,) ranks of own values (R,) among those that the other ids show (T, K) on the row's date."""
    out = np.full(len(own), np.nan)
    order = np.argsort(date, kind="stable")
    bounds = np.searchsorted(date[order], np.arange(len(shown) + 1))
    for t, (begin, end) in enumerate(itertools.pairwise(bounds)):
        rows = order[begin:end]
        rows = rows[np.isfinite(own[rows])]
        if not len(rows):
            continue
        values = shown[t]
        there = np.sort(values[np.isfinite(values)])
        mine, x = values[owner[rows]], own[rows]
        counted = np.isfinite(mine)  # what the id itself showed is not one of the others
        below = np.searchsorted(there, x, side="left") - (counted & (mine < x))
        upto = np.searchsorted(there, x, side="right") - (counted & (mine <= x))
        n = len(there) - counted + 1  # the others and the id itself
        # upto - below others tie with the id: together they share upto - below + 1 places
        rank = (below + (upto - below) / 2.0 + 0.5) / n - 0.5
        out[rows] = np.where(n >= least, rank, np.nan)
    return out
