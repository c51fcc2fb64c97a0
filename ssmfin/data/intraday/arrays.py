"""Owns the steps of `loops.py` stated in array operations, a line of algebra each: the twin that they must match.

Nothing but tests calls them. R rows, S sessions of a calendar, G sessions with rows, edges (G + 1,) of their rows.
"""

from __future__ import annotations

import numpy as np

from ssmfin.data.intraday import sampling


def find_sessions(
    time: np.ndarray, shift: int, opens: np.ndarray, at_open: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last session that opened before each row was known, the time since, and whether there is one.

    Args:
        time: (R,) int64 microseconds. shift: from a stamp to the moment at which the row is known.
        opens: (S,) rising. at_open: a row known at the open belongs to the session; else one known later.
    Returns:
        index (R,), elapsed (R,) int64, inside (R,) bool; index 0 before the first open.
    """
    known = time + shift
    index = np.searchsorted(opens, known, side="right" if at_open else "left") - 1
    inside = index >= 0
    index = np.maximum(index, 0)
    return index, known - opens[index], inside


def trading_time(
    code: np.ndarray,
    index: np.ndarray,
    elapsed: np.ndarray,
    inside: np.ndarray,
    whole: np.ndarray,
    length: np.ndarray,
    break_start: np.ndarray,
    break_length: np.ndarray,
    label: np.ndarray,
    bits: int,
    shift: int,
    ends: bool,
) -> tuple[np.ndarray, int]:
    """Time since the open to trading time; `elapsed` and `inside` are changed in place.

    Args:
        code, index, elapsed, inside: (R,). whole: (S,) close less open. length: (S,) of trading, the break left out.
        break_start, break_length, label: (S,). ends: stamps say when a bar ended.
    Returns:
        (R,) key, code << bits | label; and how many rows lie outside every session.
    """
    late = max(shift - 1, 0)
    fits = inside & (elapsed <= whole[index] + late)
    begin, pause = break_start[index], break_length[index]
    within = (elapsed > begin + late) & (elapsed - shift < begin + pause) & (pause > 0)
    if ends and not shift:
        within &= elapsed <= begin + pause
    inside[:] = fits & ~within
    traded = np.where((pause > 0) & (elapsed > begin), np.maximum(elapsed - pause, begin), elapsed)
    elapsed[:] = np.minimum(traded, length[index])
    return (code << bits) | label[index], int((~inside).sum())


def split_held(code: np.ndarray, key: np.ndarray, inside: np.ndarray, ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of rows that can be worked on, and of those of the session of each asset's last row."""
    final = np.full(ids, -1, dtype=np.int64)
    final[code] = np.arange(len(key))  # the last row of each asset wins
    hold = inside & (key == np.where(final >= 0, key[final], -1)[code])
    return np.flatnonzero(inside & ~hold), np.flatnonzero(hold)


def in_order(key: np.ndarray, elapsed: np.ndarray) -> bool:
    """Whether the rows rise by (key, elapsed)."""
    rise, later = np.diff(key), np.diff(elapsed)
    return bool(((rise > 0) | ((rise == 0) & (later >= 0))).all())


def group_edges(key: np.ndarray) -> np.ndarray:
    """(G + 1,) where a new key begins, then R."""
    return np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1, [len(key)]])


def root_moves(log_price: np.ndarray, elapsed: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(R,) sqrt|r| within sessions, 0 where there is none; (G,) how many are not zero; rows that repeat a stamp."""
    inside = np.ones(len(log_price), dtype=bool)
    inside[starts[:-1]] = False
    move = np.abs(np.diff(log_price, prepend=np.nan))
    root = np.sqrt(np.where(inside & np.isfinite(move), move, 0.0))
    count = np.add.reduceat((root > 0).astype(np.int64), starts[:-1])
    return root, count, int((inside & (np.diff(elapsed, prepend=-1) == 0)).sum())


def wild_moves(log_price: np.ndarray, starts: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Rows that moved within their session by more than its limit (G,)."""
    move = np.diff(log_price, prepend=np.nan)
    move[starts[:-1]] = np.nan
    return np.flatnonzero(np.abs(move) > np.repeat(limit, np.diff(starts)))


def odd_ranges(
    opened: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    starts: np.ndarray,
    room: float,
    factor: np.ndarray,
) -> bool:
    """Whether any bar's high and low do not hold its other prices, or reach farther than they can.

    Args:
        opened, high, low, close: (R,). room: 1 and the tolerance of a price. factor: (G,) by which they may differ.
    """
    upper, lower = np.maximum(close, opened), np.minimum(close, opened)
    reach = np.repeat(factor, np.diff(starts))
    with np.errstate(invalid="ignore"):
        odd = (upper > high * room) | (lower * room < low) | (high > upper * reach) | (lower > low * reach)
    return bool(odd.any())


def session_quality(
    elapsed: np.ndarray, log_price: np.ndarray, starts: np.ndarray, length: np.ndarray, spacing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G,) longest gap, longest stale run, whether prices differ; see `sampling.session_quality`."""
    found = sampling.session_quality(elapsed, log_price, starts, length, spacing)
    return found.longest_gap, found.longest_stale, found.distinct


def previous_tick(
    elapsed: np.ndarray,
    log_price: np.ndarray,
    starts: np.ndarray,
    groups: np.ndarray,
    first_price: np.ndarray,
    points: np.ndarray,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Log prices on the grid; see `sampling.previous_tick`.

    Args:
        first_price: (D,) before a session's first row. step: grid points a sampling interval.
    Returns:
        (D, m + 1) prices; (D,) sampling intervals with a row.
    """
    rows = sampling.previous_tick(elapsed, starts, groups, points)
    prices = np.where(rows < 0, first_price[:, None], log_price[np.maximum(rows, 0)])
    m = len(points) - 1
    ends = np.append(np.arange(0, m, step), m)
    return prices, (np.diff(rows[:, ends], axis=1) != 0).sum(axis=1)


def signed_volume(price: np.ndarray, volume: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(R,) volume with the sign of the last change of price within the session, 0 before the first; prices known."""
    change = np.sign(np.diff(price, prepend=price[:1]))
    change[starts[:-1]] = 0.0
    known = change != 0
    known[starts[:-1]] = True
    last = np.maximum.accumulate(np.where(known, np.arange(len(change)), 0))
    signed: np.ndarray = change[last] * volume
    return signed
