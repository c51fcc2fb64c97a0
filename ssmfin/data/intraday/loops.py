"""Owns the fused loops over rows: placing rows on sessions, looking for bad ones, gaps, previous-tick sampling.

Each does in one pass, over integers where it can, what `arrays.py` states in array operations and many passes; both
give the same bits. Sums of floats stay with numpy, whose order of addition is its own. Compiled at the first use on a
machine (some seconds) and kept beside the module; the lock of the interpreter is free while they run.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
# numba compiles these functions for the types it meets; annotations would be neither checked nor used

from __future__ import annotations

import numpy as np
from numba import njit

_loop = njit(cache=True, nogil=True, error_model="numpy")


@_loop
def find_sessions(time, shift, opens, at_open):
    """The session of each row and the time since its open; `arrays.find_sessions` has the arguments."""
    R, S = len(time), len(opens)
    index, elapsed, inside = np.empty(R, np.int64), np.empty(R, np.int64), np.empty(R, np.bool_)
    late = shift if at_open else shift - 1  # open < known is open <= known - 1
    at = 0
    for r in range(R):
        probe = time[r] + late
        # most rows lie in the session of the row before
        if not (opens[at] <= probe and (at + 1 == S or probe < opens[at + 1])):
            at = max(np.searchsorted(opens, probe, side="right") - 1, 0)
        index[r] = at
        elapsed[r] = time[r] + shift - opens[at]
        inside[r] = opens[at] <= probe
    return index, elapsed, inside


@_loop
def trading_time(code, index, elapsed, inside, whole, length, break_start, break_length, label, bits, shift, ends):
    """Time since the open to trading time, in place; rows outside a session; the key of each row."""
    R = len(code)
    key = np.empty(R, np.int64)
    late = max(shift - 1, 0)
    outside = 0
    for r in range(R):
        s, e, fits = index[r], elapsed[r], inside[r]
        fits = fits and e <= whole[s] + late  # a bar that began before the close
        if break_length[s] > 0:
            begin, end = break_start[s], break_start[s] + break_length[s]
            within = e > begin + late and e - shift < end
            if ends and shift == 0:
                within = within and e <= end
            fits = fits and not within
            if e > begin:
                e = max(e - break_length[s], begin)
        elapsed[r] = min(e, length[s])
        inside[r] = fits
        outside += not fits
        key[r] = (code[r] << bits) | label[s]
    return key, outside


@_loop
def split_held(code, key, inside, ids):
    """(rows that can be worked on, rows of each asset's last session): positions, in stored order."""
    R = len(code)
    last = np.full(ids, -1, np.int64)
    for r in range(R):
        last[code[r]] = key[r]
    keep, hold = np.empty(R, np.int64), np.empty(R, np.int64)
    kept, held = 0, 0
    for r in range(R):
        if inside[r]:
            if key[r] == last[code[r]]:
                hold[held] = r
                held += 1
            else:
                keep[kept] = r
                kept += 1
    return keep[:kept], hold[:held]


@_loop
def in_order(key, elapsed):
    """Whether the rows rise by (key, elapsed)."""
    for r in range(1, len(key)):
        if key[r] < key[r - 1] or (key[r] == key[r - 1] and elapsed[r] < elapsed[r - 1]):
            return False
    return True


@_loop
def group_edges(key):
    """(G + 1,) where a new key begins, then R."""
    R = len(key)
    edges = np.empty(R + 1, np.int64)
    edges[0] = 0
    count = 1
    for r in range(1, R):
        if key[r] != key[r - 1]:
            edges[count] = r
            count += 1
    edges[count] = R
    return edges[: count + 1].copy()


@_loop
def root_moves(log_price, elapsed, starts):
    """(R,) sqrt|r| within sessions, 0 where there is none; (G,) how many are not zero; rows that repeat a stamp."""
    root, count = np.empty(len(log_price)), np.zeros(len(starts) - 1, np.int64)
    repeats = 0
    for g in range(len(starts) - 1):
        root[starts[g]] = 0.0
        for r in range(starts[g] + 1, starts[g + 1]):
            move = abs(log_price[r] - log_price[r - 1])
            root[r] = np.sqrt(move) if move < np.inf else 0.0
            count[g] += root[r] > 0.0
            repeats += elapsed[r] == elapsed[r - 1]
    return root, count, repeats


@_loop
def wild_moves(log_price, starts, limit):
    """Rows that moved by more than their session's limit."""
    found = np.empty(len(log_price), np.int64)
    count = 0
    for g in range(len(starts) - 1):
        for r in range(starts[g] + 1, starts[g + 1]):
            if abs(log_price[r] - log_price[r - 1]) > limit[g]:
                found[count] = r
                count += 1
    return found[:count].copy()


@_loop
def odd_ranges(opened, high, low, close, starts, room, factor):
    """Whether any bar's high and low do not hold its other prices, or reach farther than they can."""
    for g in range(len(starts) - 1):
        reach = factor[g]
        for r in range(starts[g], starts[g + 1]):
            upper, lower = max(close[r], opened[r]), min(close[r], opened[r])
            # a price that is missing is neither
            if np.isnan(close[r]) or np.isnan(opened[r]):
                continue
            if upper > high[r] * room or lower * room < low[r] or high[r] > upper * reach or lower > low[r] * reach:
                return True
    return False


@_loop
def session_quality(elapsed, log_price, starts, length, spacing):
    """Longest gap, longest stale run, whether prices differ; (G,) each. `arrays.session_quality` has the arguments."""
    G = len(starts) - 1
    gaps, stales, distinct = np.empty(G, np.int64), np.empty(G, np.int64), np.zeros(G, np.bool_)
    for g in range(G):
        first, end = starts[g], starts[g + 1]
        gap, stale, since = elapsed[first], 0, elapsed[first]
        for r in range(first + 1, end):
            gap = max(gap, elapsed[r] - elapsed[r - 1])
            if log_price[r] != log_price[r - 1]:
                distinct[g] = True
                since = elapsed[r]
            stale = max(stale, elapsed[r] - since)
        gap = max(gap, length[g] - elapsed[end - 1])
        gaps[g], stales[g] = max(gap - spacing, 0), max(stale - spacing, 0)
    return gaps, stales, distinct


@_loop
def previous_tick(elapsed, log_price, starts, groups, first_price, points, step):
    """(D, m + 1) prices on the grid, (D,) sampling intervals with a row; `arrays.previous_tick` has the arguments."""
    D, m = len(groups), len(points) - 1
    prices, covered = np.empty((D, m + 1)), np.zeros(D, np.int64)
    for d in range(D):
        g = groups[d]
        row, before = starts[g] - 1, starts[g] - 2
        for k in range(m + 1):
            while row + 1 < starts[g + 1] and elapsed[row + 1] <= points[k]:
                row += 1
            prices[d, k] = log_price[row] if row >= starts[g] else first_price[d]
            if k % step == 0 or k == m:
                covered[d] += k > 0 and row != before
                before = row
    return prices, covered


@_loop
def signed_volume(price, volume, starts):
    """(R,) volume with the sign of the last change of price within the session, 0 before the first; prices known."""
    out = np.empty(len(price))
    for g in range(len(starts) - 1):
        sign = 0.0
        out[starts[g]] = sign * volume[starts[g]]
        for r in range(starts[g] + 1, starts[g + 1]):
            if price[r] > price[r - 1]:
                sign = 1.0
            elif price[r] < price[r - 1]:
                sign = -1.0
            out[r] = sign * volume[r]
    return out
