"""Owns previous-tick sampling on a regular grid of trading time, and what the rows between say about a session.

The price at a grid point is that of the last row at or before it; before the first row it is the first price of the
session. A break (lunch) takes no trading time: the first interval after it carries the change over the break.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Quality(NamedTuple):
    """Facts of G sessions.

    Attributes:
        rows: (G,) rows with a price.
        longest_gap: (G,) microseconds without a row, the width of a bar not counted.
        longest_stale: (G,) microseconds over which the price did not change, the width of a bar not counted.
        distinct: (G,) whether there are two different prices.
    """

    rows: np.ndarray
    longest_gap: np.ndarray
    longest_stale: np.ndarray
    distinct: np.ndarray


def session_quality(
    elapsed: np.ndarray, log_price: np.ndarray, starts: np.ndarray, length: np.ndarray, spacing: int
) -> Quality:
    """Gaps and stale runs of sessions that all have at least one row.

    Args:
        elapsed, log_price: (R,) rows with a price, in time order. starts: (G + 1,). length: (G,) of the session.
        spacing: usual distance between two rows, which is no gap.
    """
    heads, tails = starts[:-1], starts[1:] - 1
    step = np.diff(elapsed, prepend=0)
    step[heads] = elapsed[heads]
    gap = np.maximum(np.maximum.reduceat(step, heads), length - elapsed[tails])
    change = np.ones(len(elapsed), dtype=bool)
    change[1:] = log_price[1:] != log_price[:-1]
    change[heads] = True
    runs = np.flatnonzero(change)
    run_ends = np.append(runs[1:], len(elapsed)) - 1
    lasted = np.zeros(len(elapsed), dtype=np.int64)
    lasted[runs] = elapsed[run_ends] - elapsed[runs]
    stale = np.maximum.reduceat(lasted, heads)
    first = np.searchsorted(runs, heads)
    distinct = np.append(first[1:], len(runs)) - first > 1
    return Quality(np.diff(starts), np.maximum(gap - spacing, 0), np.maximum(stale - spacing, 0), distinct)


def grid(length: int, interval: int) -> np.ndarray:
    """(m + 1,) trading time of the grid points: multiples of the interval, and the close.

    >>> grid(10, 4).tolist()
    [0, 4, 8, 10]
    """
    return np.minimum(np.arange(-(-length // interval) + 1, dtype=np.int64) * interval, length)


def previous_tick(elapsed: np.ndarray, starts: np.ndarray, groups: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(D, m + 1) the row whose price stands at each grid point, -1 before the session's first row.

    Args:
        elapsed: (R,) within [0, length], rising within a session. starts: (G + 1,).
        groups: (D,) sessions to sample, rising. points: (m + 1,) trading time.
    """
    span = int(points[-1]) + 1
    counts = starts[groups + 1] - starts[groups]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    everything = len(groups) == len(starts) - 1
    rows = None if everything else _rows_of(starts, groups, counts, offsets)
    key = elapsed if rows is None else elapsed[rows]
    key = key + np.repeat(np.arange(len(groups), dtype=np.int64) * span, counts)
    wanted = points[None, :] + (np.arange(len(groups), dtype=np.int64) * span)[:, None]  # (D, m + 1)
    found = np.searchsorted(key, wanted.ravel(), side="right").reshape(wanted.shape) - 1
    before = found < offsets[:-1, None]
    found = np.maximum(found, 0)
    picked: np.ndarray = found if rows is None else rows[found]
    picked[before] = -1
    return picked


def _rows_of(starts: np.ndarray, groups: np.ndarray, counts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The rows of some sessions, one session after the other."""
    rows: np.ndarray = np.arange(offsets[-1]) + np.repeat(starts[groups] - offsets[:-1], counts)
    return rows
