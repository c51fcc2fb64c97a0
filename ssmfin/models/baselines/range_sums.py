"""Owns sums, moments and extremes over many contiguous row ranges [lo, hi), without ever subtracting.

A disjoint sparse table: let L be the highest bit in which lo and hi - 1 differ and `mid` the multiple of 2^L that lies
in (lo, hi - 1]. The range is the last rows of the half block [mid - 2^L, mid) and the first of [mid, mid + 2^L), so two
accumulations that run outward from `mid` answer every range that is split there. Positions are absolute, so the
result of a range depends, bit for bit, on its own rows alone: not on rows outside it, nor on the other ranges asked.
(Differences of cumulative sums have neither property: one 1e300 anywhere before spoils every later window.)

Cost: O(n levels q^2) for n rows and q columns, where only the levels and half blocks that some range needs are visited
(rolling windows of 1000 rows need four), plus O(q^2) per range. Memory: O(n q) and the answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.models.interface import FloatArray


class RangeMoments(NamedTuple):
    """Moments of the valid rows of each of r ranges of q columns; zeros where a range has no valid row.

    n: (r,) rows. mean: (r, q). scatter: (r, q, q), sum of (z - mean)(z - mean)'.
    """

    n: FloatArray
    mean: FloatArray
    scatter: FloatArray


class RangeExtremes(NamedTuple):
    """Smallest and largest valid value of each of r ranges, (r,) each; inf and -inf where there is none."""

    low: FloatArray
    high: FloatArray


class Level(NamedTuple):
    """The ranges that are split at one level, and the m half blocks of 2^L rows that answer them.

    queries: (r',) their numbers. rows: (m, 2^L) row numbers in outward order. inside: (m, 2^L) bool, the row exists.
    left, right: (r',) where the part of each side is found in (m, 2^L) raveled. has_left, has_right: (r',) bool, or
    None where every range has that part.
    """

    queries: np.ndarray
    rows: np.ndarray
    inside: np.ndarray
    left: np.ndarray
    right: np.ndarray
    has_left: np.ndarray | None
    has_right: np.ndarray | None


class Ranges(NamedTuple):
    """r row ranges [lo, hi) over n rows, (r,) int64 each, and how they are answered. Make them with `ranges_of`."""

    lo: np.ndarray
    hi: np.ndarray
    levels: tuple[Level, ...]


def ranges_of(lo: np.ndarray, hi: np.ndarray, n: int) -> Ranges:
    """Where each range is split. Args: lo, hi: (r,) int, 0 <= lo, hi <= n; a range with hi <= lo is empty."""
    lo, hi = np.asarray(lo, dtype=np.int64), np.asarray(hi, dtype=np.int64)
    last = np.maximum(hi - 1, lo)
    splits = np.maximum(np.frexp((lo ^ last).astype(np.float64))[1] - 1, 0)  # the highest differing bit
    splits[hi <= lo] = -1
    numbers = np.flatnonzero(np.bincount(splits + 1)[1:])
    return Ranges(lo, hi, tuple(_level(int(number), np.flatnonzero(splits == number), lo, hi, n) for number in numbers))


def _level(number: int, queries: np.ndarray, lo: np.ndarray, hi: np.ndarray, n: int) -> Level:
    width, lo, hi = 1 << number, lo[queries], hi[queries]
    right = (hi - 1) >> number  # half blocks are numbered by position; odd ones run forward, even ones backward
    mid = right << number
    has_left, has_right = mid > lo, hi > mid
    needed = np.zeros(-(-n // width) + 1, dtype=bool)
    needed[right] = needed[right[has_left] - 1] = True
    place = np.cumsum(needed) - 1
    halves = np.flatnonzero(needed)
    outward = np.arange(width)
    rows = halves[:, None] * width + np.where((halves % 2 == 1)[:, None], outward, width - 1 - outward)  # (m, 2^L)
    return Level(
        queries=queries,
        rows=np.minimum(rows, n - 1),
        inside=rows < n,
        left=np.where(has_left, place[np.maximum(right - 1, 0)] * width + mid - 1 - lo, 0),
        right=place[right] * width + hi - 1 - mid,
        has_left=None if has_left.all() else has_left,
        has_right=None if has_right.all() else has_right,
    )


def range_sums(values: FloatArray, ranges: Ranges) -> FloatArray:
    """Sums of the rows of `values` in each range; an empty range sums to zero.

    Args:
        values: (n,) or (n, q), finite inside the ranges.
    Returns:
        (r,) or (r, q).

    >>> range_sums(np.array([1.0, 2.0, 4.0, 8.0]), ranges_of(np.array([0, 1, 2]), np.array([4, 3, 2]), 4))
    array([15.,  6.,  0.])
    """
    columns = np.ascontiguousarray(values.reshape(len(values), -1).T)  # (q, n)
    total = np.zeros((columns.shape[0], len(ranges.lo)))
    for level in ranges.levels:
        with np.errstate(over="ignore", invalid="ignore"):  # rows outside every range may hold anything
            running = np.cumsum(np.where(level.inside, columns[:, level.rows], 0.0), axis=-1)  # (q, m, 2^L)
        left, right = _look_up(running, level, empty=0.0)
        total[:, level.queries] = left + right
    return total.T.reshape(len(ranges.lo), *values.shape[1:])


def range_extremes(values: FloatArray, valid: np.ndarray, ranges: Ranges) -> RangeExtremes:
    """Smallest and largest of the valid values in each range.

    Args:
        values: (n,). valid: (n,) bool, which rows count.

    >>> whole = ranges_of(np.array([0]), np.array([3]), 3)
    >>> range_extremes(np.array([3.0, 9.0, 1.0]), np.array([True, False, True]), whole)
    RangeExtremes(low=array([1.]), high=array([3.]))
    """
    low, high = np.full(len(ranges.lo), np.inf), np.full(len(ranges.lo), -np.inf)
    for level in ranges.levels:
        counted = level.inside & valid[level.rows]
        for out, accumulate, empty in ((low, np.minimum, np.inf), (high, np.maximum, -np.inf)):
            running = accumulate.accumulate(np.where(counted, values[level.rows], empty), axis=-1)
            left, right = _look_up(running[None], level, empty=empty)
            out[level.queries] = accumulate(left, right)[0]
    return RangeExtremes(low, high)


def range_moments(values: FloatArray, valid: np.ndarray, ranges: Ranges) -> RangeMoments:
    """Count, mean and centred scatter matrix of the valid rows in each range.

    Outward from `mid`, with n_k rows of mean m_k so far, S_k = S_{k-1} + (n_{k-1} / n_k) (z_k - m_{k-1})(...)'; the two
    parts then merge as S = S_a + S_b + (n_a n_b / n) (m_b - m_a)(m_b - m_a)'. Every term is positive
    semidefinite, so nothing cancels, however far the mean is from zero.

    Args:
        values: (n, q). valid: (n,) bool; the values of other rows are never looked at.
    References:
        Chan, Golub, LeVeque (1983), The American Statistician 37, eq. 1.5 and 2.1.
    """
    columns = np.ascontiguousarray(values.T)  # (q, n)
    q, r = columns.shape[0], len(ranges.lo)
    count, mean, scatter = np.zeros(r), np.zeros((q, r)), np.zeros((q, q, r))
    for level in ranges.levels:
        counted = level.inside & valid[level.rows]  # (m, 2^L)
        with np.errstate(over="ignore", invalid="ignore"):  # rows outside every range may hold anything
            n = np.cumsum(counted, axis=-1, dtype=np.float64)
            # The first valid row outward is in every non-empty part, hence a shift that no other row can influence.
            first = np.take_along_axis(level.rows, counted.argmax(axis=-1)[:, None], axis=-1)
            shift = np.where(counted.any(axis=-1, keepdims=True), columns[:, first], 0.0)  # (q, m, 1)
            shifted = np.where(counted, columns[:, level.rows] - shift, 0.0)  # (q, m, 2^L)
            running_mean = np.cumsum(shifted, axis=-1) / np.maximum(n, 1.0)
            step = shifted
            step[..., 1:] -= running_mean[..., :-1]
            weight = counted * (n - 1.0) / np.maximum(n, 1.0)

            n_a, n_b = (part[0] for part in _look_up(n[None], level, empty=0.0))
            s_a, s_b = _look_up(np.broadcast_to(shift, shifted.shape), level, empty=0.0)  # (q, r')
            m_a, m_b = _look_up(running_mean, level, empty=0.0)
            none_a, none_b, total = n_a == 0, n_b == 0, np.maximum(n_a + n_b, 1.0)
            # shifts first: each difference is small, though the means may be large
            apart = np.where(none_a | none_b, 0.0, (s_b - s_a) + (m_b - m_a))
            merged = np.where(none_a, s_b + m_b, s_a + (m_a + apart * (n_b / total)))
            count[level.queries] = n_a + n_b
            mean[:, level.queries] = np.where(none_a & none_b, 0.0, merged)
            between = n_a * n_b / total
            for i in range(q):
                running = np.cumsum((weight * step[i]) * step[i:], axis=-1)  # (q - i, m, 2^L)
                left, right = _look_up(running, level, empty=0.0)
                scatter[i, i:, level.queries] = (left + right + (between * apart[i]) * apart[i:]).T
    for i in range(1, q):
        scatter[i, :i] = scatter[:i, i]
    return RangeMoments(count, np.ascontiguousarray(mean.T), np.ascontiguousarray(scatter.transpose(2, 0, 1)))


def _look_up(running: FloatArray, level: Level, *, empty: float) -> tuple[FloatArray, FloatArray]:
    """(q, m, 2^L) -> left and right parts, (q, r') each."""
    flat = running.reshape(len(running), -1)
    left, right = flat.take(level.left, axis=1), flat.take(level.right, axis=1)
    if level.has_left is not None:
        left = np.where(level.has_left, left, empty)
    if level.has_right is not None:
        right = np.where(level.has_right, right, empty)
    return left, right
