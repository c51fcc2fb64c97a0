"""Owns the way from rows of a Design to sequences: standardised inputs, training segments, chunks of a history.

A sequence holds the rows of one id in their order, those with an undefined feature left out: a calendar gap is just the
next row, and so is a row that a stream would refuse. It may be cut at days for intraday panels (`reset`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssmfin.models.deep.skeleton import Inputs
from ssmfin.models.interface import Design, FloatArray

LARGEST_INPUT = 8.0  # training standard deviations: a feed error must not drive the network where it never was


@dataclass(frozen=True)
class InputScale:
    """Standardisation of feature columns, learned from the rows of a training window.

        x = (feature - mean of the id) / standard deviation about those means, pooled over ids

    The level of a log variance differs between ids by more than it moves within one, and is already in the base:
    so each id has its own centre. Units are pooled, so that a quiet and a wild id keep their different amplitudes.

    Attributes:
        centres: (F,) by id. `pooled`: (F,) mean over all rows, for ids without training rows. `scale`: (F,) > 0.
    """

    centres: dict[str, FloatArray]
    pooled: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, design: Design, rows: np.ndarray, teaching: np.ndarray) -> InputScale:
        """Learn centres from `rows`, all else from the rows of ids that teach ((R,) bool, some; features finite)."""
        centres: dict[str, FloatArray] = {}
        squares = np.zeros(design.features.shape[1])
        for k, name in enumerate(design.ids):
            of_id = design.rows_of(k)
            values = design.features[of_id][rows[of_id]]
            if len(values):
                centres[name] = values.mean(axis=0)
                squares += np.square(values[teaching[of_id][rows[of_id]]] - centres[name]).sum(axis=0)
        learnt = design.features[rows & teaching]
        scale = np.sqrt(squares / len(learnt))
        # a constant column carries nothing; rounding of its mean must not be blown up to unit size
        constant = scale <= 1e-12 * np.abs(learnt).max(axis=0)
        return cls(centres, learnt.mean(axis=0), np.where(constant, 1.0, scale))

    def apply(self, names: tuple[str, ...], id_index: np.ndarray, features: FloatArray) -> FloatArray:
        """Inputs (..., F) of rows of features (..., F), all finite, of the ids `names[id_index]` (...)."""
        centres = np.stack([self.centres.get(name, self.pooled) for name in names])
        values = (features - centres[id_index]) / self.scale
        return np.asarray(np.clip(values, -LARGEST_INPUT, LARGEST_INPUT))


@dataclass(frozen=True)
class Reader:
    """How rows become inputs of a network.

    Attributes:
        scale: of the columns. numbers: 1 .. K of the ids that the network knows.
        daily: a new sequence starts with each calendar day.
    """

    scale: InputScale
    numbers: dict[str, int]
    daily: bool
    dtype: torch.dtype

    def inputs(self, design: Design, index: np.ndarray) -> Inputs:
        """Inputs of the rows in `index` ((B, T), -1 for a step that is not there, after all others of the sequence)."""
        there = index >= 0
        id_index = design.id_index[index]
        features = np.where(there[..., None], design.features[index], 0.0)
        columns = np.where(there[..., None], self.scale.apply(design.ids, id_index, features), 0.0)
        day = days(design.dates)[design.date_index[index]]
        numbers = np.array([self.numbers.get(name, 0) for name in design.ids])
        reset = None
        if self.daily:
            first = np.zeros(index.shape, dtype=bool)
            first[:, 1:] = (day[:, 1:] != day[:, :-1]) & there[:, 1:]
            before = self._row_before(design, index[:, 0])
            first[:, 0] = (before >= 0) & (days(design.dates)[design.date_index[before]] != day[:, 0])
            reset = torch.from_numpy(first)
        return Inputs(
            torch.from_numpy(columns).to(self.dtype),
            torch.from_numpy(calendar(day)),
            torch.from_numpy(numbers[id_index]),
            reset,
        )

    def _row_before(self, design: Design, rows: np.ndarray) -> np.ndarray:
        """(B,) the input row of the same id before each of `rows`, -1 if there is none."""
        before = np.full(len(rows), -1, dtype=np.int64)
        for place, row in enumerate(rows):
            if row >= 0:
                first = int(design.starts[design.id_index[row]])
                earlier = np.flatnonzero(np.isfinite(design.features[first:row]).all(axis=1))
                before[place] = first + earlier[-1] if len(earlier) else -1
        return before


def days(dates: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01, int64."""
    return dates.astype("datetime64[D]").astype(np.int64)


def calendar(day: np.ndarray) -> np.ndarray:
    """(...) days since 1970-01-01 -> (..., 2) int64: weekday, 0 for Monday, and month, 0 for January.

    >>> calendar(days(np.array("2024-02-29", dtype="datetime64[D]"))).tolist()
    [3, 1]
    """
    month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    return np.stack(((day + 3) % 7, month), axis=-1)


def input_rows(design: Design) -> list[np.ndarray]:
    """Of each id, the numbers of the rows that are steps of its sequence: those whose features are all finite."""
    finite = np.isfinite(design.features).all(axis=1)
    return [np.flatnonzero(finite[design.rows_of(k)]) + int(design.starts[k]) for k in range(len(design.ids))]


def training_segments(
    sequences: list[np.ndarray], origins: np.ndarray, warm_up: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of rows that cover every training origin once, each led by `warm_up` rows (fewer at a series' start).

    One pass over a stretch gives the loss at all of its origins: `length + warm_up` steps for `length` origins, where
    windows would take `warm_up` steps for each.

    Args:
        sequences: rows of each id, as of `input_rows`. origins: (R,) bool, all in `sequences`.
        length: origins in a segment, the last one of an id may have fewer.
    Returns:
        index: (S, T) row numbers in the order of id and time, -1 to the right of a short segment.
        is_origin: (S, T) bool: a training origin, and not there as warm-up only.
    """
    spans = []
    for rows in sequences:
        inside = np.flatnonzero(origins[rows])  # positions in the sequence
        if len(inside):
            last = int(inside[-1]) + 1
            for begin in range(int(inside[0]), last, length):
                end = min(begin + length, last)
                first = max(0, begin - warm_up)
                spans.append((rows[first:end], begin - first))
    index = np.full((len(spans), max(len(rows) for rows, _ in spans)), -1, dtype=np.int64)
    is_origin = np.zeros(index.shape, dtype=bool)
    for place, (rows, lead) in enumerate(spans):
        index[place, : len(rows)] = rows
        is_origin[place, lead : len(rows)] = origins[rows[lead:]]
    return index, is_origin


def chunk(sequences: list[np.ndarray], number: int, length: int) -> np.ndarray:
    """(B, length) row numbers of one chunk of every sequence, -1 after its end: always of the same shape."""
    index = np.full((len(sequences), length), -1, dtype=np.int64)
    for place, rows in enumerate(sequences):
        part = rows[number * length : (number + 1) * length]
        index[place, : len(part)] = part
    return index
