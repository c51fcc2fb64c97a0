"""Owns what the other ids tell: averages over other ids, or over named groups of ids, of what each last showed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.moments import Closes, panel_moments
from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan, trailing_exponential, trailing_means
from ssmfin.errors import InputError, nearest
from ssmfin.features.leverage import fallen
from ssmfin.features.transformer import PanelTransformer, panel_column

Of = Literal["lags", "leverage", "shock"]
SHOCK_MEMORY = 5.0  # centre of mass, in rows, of the variance that a shock is measured by


class MarketLags(PanelTransformer):
    """Means over other ids of what each last showed: its lags, its leverage, or its last shock.

        market_w(t) = mean_{j in G(i)} g_w(last row of j known at t)

        g_w = log lag_w(x_j), or lag_w(x_j) itself      of "lags": a variance
        g_w = min(lag_w(r_j), 0), standardised          of "leverage": as the feature `leverage`
        g   = r_j / sqrt(ewma_5(v_j))                   of "shock": the last return, in units of its volatility

    G(i) is all ids but i, or, with `groups`, each group in turn, i included, which gives a column for each group: the
    last session of the Americas tells Asia more than an average over the world does.

    Which row of j is known at t? Markets close at different hours. Without more, a panel of days cannot say which of
    two closes of one date came first, so rows of other ids count from the next date on. Three ways to say more:

        known_at     (a column of the panel) the rows known by t count, whatever their date
        closes       when each id closes, hour and zone: the forecast is made at the id's own close, and rows of other
                     ids count if they closed no later
        same_date    rows of other ids count on their own date: right where all ids close together, or where the
                     forecast is made when the last of them has closed, and before any of them opens again

    Args:
        column: the column to average, on its original scale; with leverage and shock: the return, decimal.
        windows: lengths in rows of each other id's own calendar; without effect for shock.
        scale: of lags: "log" averages their logs, "none" the lags.
        of: what is averaged. variance: column of variances per row, for leverage (None: plain) and shock (needed).
        groups: name -> ids.
        closes: as `data.closes`.
        max_age: days after which what an id last showed no longer counts (it is delisted, or has a hole).

    NaN where none of them has shown anything.

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
        of: Of = "lags",
        variance: str | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        closes: Closes | None = None,
        same_date: bool = False,
        max_age: int = 30,
    ) -> None:
        self.column = column
        self.windows = windows
        self.scale = scale
        self.of = of
        self.variance = variance
        self.groups = groups
        self.closes = closes
        self.same_date = same_date
        self.max_age = max_age

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        name = {"lags": "market", "leverage": "market_negative", "shock": "market_shock"}[self.of]
        several = [name] if self.of == "shock" else [f"{name}_{window}" for window in self.windows]
        if self.groups is not None:
            several = [f"{group}_{column}" for group in self.groups for column in several]
        return np.array(several, dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column,) if self.variance is None else (self.column, self.variance)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        ids = len(starts) - 1
        if ids < 2:
            raise InputError(
                f"the market feature averages over other ids, and the panel has {ids}; use a panel of several ids."
            )
        members = self._members(panel.ids)
        own = self._own(panel, starts)
        newest = self._newest(panel, starts)
        if members is None:
            return _over_others(own, newest, starts)
        return np.column_stack([_over(own, newest, group) for group in members])

    def _own(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        """(R, W) what each row shows."""
        values = panel_column(panel, self.column)
        if self.of == "lags":
            lags = trailing_means(values, starts, self.windows)
            return log_or_nan(lags) if self.scale == "log" else lags
        variance = None if self.variance is None else panel_column(panel, self.variance)
        if self.of == "leverage":
            return fallen(values, variance, starts, self.windows)
        if variance is None:
            raise InputError("market of: shock divides returns by their volatility; name the variance column.")
        level = trailing_exponential(variance, starts, SHOCK_MEMORY)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(level > 0, values / np.sqrt(level), np.nan)[:, None]

    def _members(self, ids: tuple[str, ...]) -> list[np.ndarray] | None:
        """Positions in `ids` of each group; ids that are not in the panel are left out."""
        if self.groups is None:
            return None
        found = []
        for name, group in self.groups.items():
            positions = np.flatnonzero(np.isin(ids, list(group)))
            if not len(positions):
                raise InputError(
                    f"market group {name!r} has no id of the panel, {list(group)}; {nearest(next(iter(group)), ids)}."
                )
            found.append(positions)
        return found

    def _newest(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        """(K, R) the newest row of each id that is known at each row, and not older than max_age; -1 for none."""
        dates = panel.frame["ds"].to_numpy()
        side: Literal["left", "right"] = "left"
        if "known_at" in panel.frame.columns:
            known, now, side = panel.frame["known_at"].to_numpy(), dates, "right"
        elif self.closes is not None:
            known = now = panel_moments(panel.frame, self.closes)
            side = "right"
        else:
            known = now = dates
            side = "right" if self.same_date else "left"
        oldest = dates - np.timedelta64(self.max_age, "D")
        out = np.empty((len(starts) - 1, len(dates)), dtype=np.int64)
        for k, (first, last) in enumerate(itertools.pairwise(starts)):
            newest = first + np.searchsorted(known[first:last], now, side=side) - 1
            there = (newest >= first) & (dates[np.maximum(newest, first)] >= oldest)
            out[k] = np.where(there, newest, -1)
        return out


def _over(own: np.ndarray, newest: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(R, W) means over some ids of what they last showed; NaN where none has shown anything."""
    total = np.zeros((newest.shape[1], own.shape[1]))
    count = np.zeros_like(total)
    for k in members:
        value = np.where(newest[k][:, None] >= 0, own[newest[k]], np.nan)
        finite = np.isfinite(value)
        total += np.where(finite, value, 0.0)
        count += finite
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def _over_others(own: np.ndarray, newest: np.ndarray, starts: np.ndarray) -> np.ndarray:
    ids = len(starts) - 1
    out = np.full(own.shape, np.nan)
    everyone = np.arange(ids)
    for k, (first, last) in enumerate(itertools.pairwise(starts)):
        rows = slice(first, last)
        out[rows] = _over(own, newest[:, rows], everyone[everyone != k])
    return out
