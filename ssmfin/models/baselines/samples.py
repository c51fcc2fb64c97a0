"""Owns which rows of an id are training rows: samples by contiguous ranges for a walk, by masks for a single fit.

Within an id dates increase and the date at which a label is known does not decrease, so the training rows of a window
are the valid rows of one range [lo, hi). Where `known_at` breaks that order for a window, its rows are listed instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from ssmfin.models.baselines.range_sums import Ranges, ranges_of
from ssmfin.models.interface import Design, FloatArray, TrainingSet, Window

Part = Literal["train", "fit", "validation"]
QUERY_CELLS = 1 << 22  # ranges x columns^2 answered at once: 32 MiB a scatter array


class Sample(NamedTuple):
    """B training samples of one id and horizon: sample b is the valid rows of the b-th range.

    x: (n, p) regressors. y: (n,) response. label: (n,) on the original scale. valid: (n,) bool.
    """

    x: FloatArray
    y: FloatArray
    label: FloatArray
    valid: np.ndarray
    ranges: Ranges

    def rows(self, b: int) -> np.ndarray:
        """Row numbers of sample b."""
        lo, hi = int(self.ranges.lo[b]), int(self.ranges.hi[b])
        return lo + np.flatnonzero(self.valid[lo:hi])


class WindowDates(NamedTuple):
    """The boundaries of W windows, (W,) int64 each; the meaning is that of `Window`."""

    train_start: np.ndarray
    labels_until: np.ndarray
    validation_start: np.ndarray
    fit_labels_until: np.ndarray

    @classmethod
    def of(cls, windows: list[Window]) -> WindowDates:
        return cls(*(np.array([getattr(w, name) for w in windows], dtype=np.int64) for name in cls._fields))

    def bounds(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First origin, first origin no longer in the part, last date at which a label may become known."""
        never = np.full_like(self.train_start, np.iinfo(np.int64).max)
        if part == "train":
            return self.train_start, never, self.labels_until
        if part == "fit":
            return self.train_start, self.validation_start, self.fit_labels_until
        return np.maximum(self.validation_start, self.train_start), never, self.labels_until


class LabelRanges(NamedTuple):
    """Rows [lo, hi) of W windows, and whether they are all rows that qualify (else they must be listed)."""

    lo: np.ndarray
    hi: np.ndarray
    contiguous: np.ndarray


def label_ranges(
    dates: np.ndarray, known: np.ndarray, first: np.ndarray, stop: np.ndarray, until: np.ndarray
) -> LabelRanges:
    """Rows with first <= date < stop whose label is known by `until`.

    Args:
        dates: (n,) int64, increasing. known: (n,) int64. first, stop, until: (W,) int64.

    >>> known = np.array([1, 2, 3, 4])
    >>> label_ranges(np.arange(4), known, np.array([1]), np.array([9]), np.array([3]))
    LabelRanges(lo=array([1]), hi=array([3]), contiguous=array([ True]))
    """
    lo, end = np.searchsorted(dates, first), np.searchsorted(dates, stop)
    # All rows before `early` qualify, none from `late` on does; the two differ only where `known` decreases.
    early = np.minimum(np.searchsorted(np.maximum.accumulate(known), until, side="right"), end)
    late = np.minimum(np.searchsorted(np.minimum.accumulate(known[::-1])[::-1], until, side="right"), end)
    return LabelRanges(lo, np.maximum(early, lo), (late <= early) | (late <= lo))


def walk_samples(
    design: Design,
    k: int,
    h: int,
    x: FloatArray,
    y: FloatArray,
    complete: np.ndarray,
    dates: WindowDates,
    parts: tuple[Part, ...],
) -> Iterator[tuple[np.ndarray, tuple[Sample, ...]]]:
    """Positions in the windows of `dates`, and their samples (one of each part), for one id and horizon.

    Args:
        x: (R, p), y: (R,) over all rows of the design. complete: (R,) bool, `design.complete`.
    """
    rows = design.rows_of(k)
    x, y, label, known = x[rows], y[rows], design.labels[rows, h], design.label_known[rows, h]
    valid = complete[rows] & np.isfinite(label)
    ranges = [label_ranges(design.date_index[rows], known, *dates.bounds(part)) for part in parts]
    contiguous = np.logical_and.reduce([r.contiguous for r in ranges])
    at_once = max(1, QUERY_CELLS // (x.shape[1] + 1) ** 2)
    together = np.flatnonzero(contiguous)
    for start in range(0, len(together), at_once):
        w = together[start : start + at_once]
        yield w, tuple(Sample(x, y, label, valid, ranges_of(r.lo[w], r.hi[w], len(y))) for r in ranges)
    date = design.date_index[rows]
    for odd in np.flatnonzero(~contiguous):
        masks = []
        for part in parts:
            first, stop, until = (bound[odd] for bound in dates.bounds(part))
            masks.append(valid & (date >= first) & (date < stop) & (known <= until))
        yield np.array([odd]), tuple(_listed(x, y, label, np.flatnonzero(mask)) for mask in masks)


def training_samples(
    training: TrainingSet, k: int, h: int, x: FloatArray, y: FloatArray, parts: tuple[Part, ...]
) -> tuple[Sample, ...]:
    """The samples (B = 1, one of each part) of one id and horizon, by the masks of a training set."""
    rows = training.design.rows_of(k)
    label = training.design.labels[rows, h]
    return tuple(_listed(x[rows], y[rows], label, np.flatnonzero(getattr(training, part)[rows, h])) for part in parts)


def _listed(x: FloatArray, y: FloatArray, label: FloatArray, rows: np.ndarray) -> Sample:
    everything = np.ones(len(rows), dtype=bool)
    whole = ranges_of(np.array([0]), np.array([len(rows)]), len(rows))
    return Sample(x[rows], y[rows], label[rows], everything, whole)
