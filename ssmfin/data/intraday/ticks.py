"""Owns the checks of single rows within sessions: which price a row has, which rows are bad and by which rule.

Nothing is removed here. A rule looks at its own session only, all of which is known when the session closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.data.contract import PRICE_TOLERANCE
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


def group_of_rows(starts: np.ndarray) -> np.ndarray:
    """(R,) the session of each row."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


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
    inside = np.ones(len(price), dtype=bool)  # whether a row follows one of the same session
    inside[sessions.starts[:-1]] = False
    same = inside & np.concatenate([[False], np.diff(sessions.elapsed) == 0])
    if same.any():
        _flag_same_stamps(kind, values, same, flags)
    scale = _typical_move(log_price, inside, sessions.starts)
    _flag_spikes(log_price, inside, scale, sessions.starts, flags)
    if kind == "bars" and {"high", "low"} <= values.keys():
        _flag_ranges(values, scale, sessions.starts, flags)
    return Ticks(log_price, price, flags)


def _flag_same_stamps(
    kind: Kind, values: dict[str, np.ndarray], same: np.ndarray, flags: dict[str, np.ndarray]
) -> None:
    """Two trades or quotes of one stamp are usual (the last one counts); two bars or snapshots are not."""
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


def _typical_move(log_price: np.ndarray, inside: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(G,) standard deviation of a move that a few wild ones cannot raise: (mean sqrt|r| / E sqrt|z|)^2, r not zero."""
    move = np.zeros(len(log_price))
    move[1:] = np.abs(np.diff(log_price))
    root = np.sqrt(np.where(inside & np.isfinite(move), move, 0.0))
    total = np.add.reduceat(root, starts[:-1])
    count = np.add.reduceat((root > 0).astype(np.int64), starts[:-1])
    scale: np.ndarray = (total / np.maximum(count, 1) / _SQRT_NORMAL) ** 2
    return scale


def _flag_spikes(
    log_price: np.ndarray, inside: np.ndarray, scale: np.ndarray, starts: np.ndarray, flags: dict[str, np.ndarray]
) -> None:
    """Runs of one to three prices that leave by more than ten typical moves and come back to where they left."""
    limit = SPIKE_MOVES * scale
    move = np.zeros(len(log_price))
    move[1:] = np.diff(log_price)
    with np.errstate(invalid="ignore"):
        away = np.flatnonzero(inside & (np.abs(move) > np.repeat(limit, np.diff(starts))))
    if len(away) < 2:
        return
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
    upper, lower = close, close
    if "open" in values:
        upper, lower = np.maximum(close, values["open"]), np.minimum(close, values["open"])
    room = 1.0 + PRICE_TOLERANCE
    with np.errstate(invalid="ignore", divide="ignore"):
        outside = (upper > high * room) | (lower * room < low)
        factor = np.where(scale > 0, np.exp(SPIKE_MOVES * scale), np.inf)
        reach = np.repeat(factor, np.diff(starts))
        wide = (high > upper * reach) | (lower > low * reach)
    if outside.any():
        flags["bar_range"] = outside
    if (wide & ~outside).any():
        flags["wide_range"] = wide & ~outside
