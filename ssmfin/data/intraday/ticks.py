"""Owns the checks of single rows within sessions: which price a row has, which rows are bad and by which rule.

Nothing is removed here. A rule looks at its own session only, all of which is known when the session closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.data.contract import PRICE_TOLERANCE
from ssmfin.data.intraday import loops
from ssmfin.data.intraday.scan import Kind
from ssmfin.data.intraday.sessions import Sessions

SPIKE_MOVES = 10.0  # typical moves that a spike is away from the prices around it
SPIKE_RETURN = 0.1  # share of its size by which the price may fail to come back
SPIKE_ROWS = 3
_SQRT_NORMAL = 0.8221789586623885  # E sqrt|z| of a standard normal, 2^(1/4) Gamma(3/4) / sqrt(pi)


class Ticks(NamedTuple):
    """What the rows of some sessions say.

    Attributes:
        log_price: (R,) logarithm of the price before adjustment; NaN where it is no price.
        price: (R,) as stored, bad ones included.
        flags: rule -> (R,) bool.
    """

    log_price: np.ndarray
    price: np.ndarray
    flags: dict[str, np.ndarray]


def check_rows(kind: Kind, sessions: Sessions) -> Ticks:
    """Prices and flags of the rows.

    quotes: the price is the mid, (bid + ask) / 2. bars: the close, known when the bar ends; the open of a session's
    first bar is its first price.
    """
    values = sessions.values
    flags = dict(sessions.flags)
    if kind == "quotes":
        bid, ask = values["bid"], values["ask"]
        price = 0.5 * (bid + ask)
        usable = (bid > 0) & (ask > 0)
        crossed = bid > ask
        if crossed.any():
            flags["crossed_quote"] = crossed & usable
    else:
        price = values["close" if kind == "bars" else "price"]
        usable = price > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        log_price = np.log(price)
    usable = usable & np.isfinite(log_price)
    if not usable.all():
        flags["not_a_price"] = ~usable
        log_price = np.where(usable, log_price, np.nan)
    starts = sessions.starts
    root, moved, repeats = loops.root_moves(log_price, sessions.elapsed, starts)
    if repeats:
        _flag_same_stamps(kind, sessions, flags)
    # (G,) standard deviation of a move that a few wild ones cannot raise: (mean sqrt|r| / E sqrt|z|)^2, r not zero
    scale = (np.add.reduceat(root, starts[:-1]) / np.maximum(moved, 1) / _SQRT_NORMAL) ** 2
    away = loops.wild_moves(log_price, starts, SPIKE_MOVES * scale)
    if len(away) > 1:
        _flag_spikes(log_price, away, SPIKE_MOVES * scale, starts, flags)
    if kind == "bars" and {"high", "low"} <= values.keys():
        _flag_ranges(values, scale, starts, flags)
    return Ticks(log_price, price, flags)


def _flag_same_stamps(kind: Kind, sessions: Sessions, flags: dict[str, np.ndarray]) -> None:
    """Two trades or quotes of one stamp are usual (the last one counts); two bars or snapshots are not."""
    values = sessions.values
    same = np.diff(sessions.elapsed, prepend=-1) == 0
    same[sessions.starts[:-1]] = False
    rows = np.flatnonzero(same)
    alike = np.ones(len(rows), dtype=bool)
    for column in values.values():
        alike &= (column[rows] == column[rows - 1]) | (np.isnan(column[rows]) & np.isnan(column[rows - 1]))
    name = "close" if kind == "bars" else "price"
    if kind in ("trades", "quotes"):
        return
    copies, contradictions = np.zeros(len(same), bool), np.zeros(len(same), bool)
    copies[rows[alike]] = True
    differ = rows[values[name][rows] != values[name][rows - 1]]
    contradictions[differ] = True
    if copies.any():
        flags["repeated_row"] = copies
    if contradictions.any():
        flags["duplicate_stamp"] = contradictions


def _flag_spikes(
    log_price: np.ndarray, away: np.ndarray, limit: np.ndarray, starts: np.ndarray, flags: dict[str, np.ndarray]
) -> None:
    """Runs of one to three prices that leave by more than ten typical moves and come back to where they left.

    Args:
        away: rows that moved by more than their session's `limit` (G,).
    """
    group = np.searchsorted(starts, away, side="right") - 1
    spikes = np.zeros(len(log_price), dtype=bool)
    for width in range(1, SPIKE_ROWS + 1):
        fits = away + width < starts[group + 1]
        first, own = away[fits], group[fits]
        before, after = log_price[first - 1], log_price[first + width]
        inner = log_price[first[:, None] + np.arange(width)] - before[:, None]
        side = np.sign(inner[:, :1])
        size = (inner * side).min(axis=1)
        with np.errstate(invalid="ignore"):
            found = (size > limit[own]) & (np.abs(after - before) <= SPIKE_RETURN * size)
        for step in range(width):
            spikes[first[found] + step] = True
    if spikes.any():
        flags["spike"] = spikes


def _flag_ranges(
    values: dict[str, np.ndarray], scale: np.ndarray, starts: np.ndarray, flags: dict[str, np.ndarray]
) -> None:
    high, low, close = values["high"], values["low"], values["close"]
    opened = values.get("open", close)
    room = 1.0 + PRICE_TOLERANCE
    with np.errstate(over="ignore"):
        factor = np.where(scale > 0, np.exp(SPIKE_MOVES * scale), np.inf)
    if not loops.odd_ranges(opened, high, low, close, starts, room, factor):
        return
    upper, lower = np.maximum(close, opened), np.minimum(close, opened)
    with np.errstate(invalid="ignore", divide="ignore"):
        outside = (upper > high * room) | (lower * room < low)
        reach = np.repeat(factor, np.diff(starts))
        wide = (high > upper * reach) | (lower > low * reach)
    if outside.any():
        flags["bar_range"] = outside
    if (wide & ~outside).any():
        flags["wide_range"] = wide & ~outside
