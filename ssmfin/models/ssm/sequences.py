"""Owns the way from rows of a Design to sequences: standardised inputs, training segments, forecast windows.

A sequence ends at an origin and holds rows of one id in their order; a calendar gap is just the next row. A row with an
undefined feature is absent: zero, and marked so, like the steps before the first row of an id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmfin.models.interface import Design, FloatArray

LARGEST_INPUT = 8.0  # training standard deviations: a feed error must not drive the network where it never was


@dataclass(frozen=True)
class InputScale:
    """Standardisation of feature columns, learned from the rows of a training window.

        x = (feature - mean of the id) / standard deviation about those means, pooled over ids

    The level of a log variance differs between ids by more than it moves within one, and is already in the baseline:
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

    def apply(self, design: Design, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of the rows in `index` (any shape, -1 for a step that is not there).

        Returns:
            x: index.shape + (F,) float32, zero where absent. present: index.shape float32 of 0 and 1.
        """
        centres = np.stack([self.centres.get(name, self.pooled) for name in design.ids])
        values = (design.features[index] - centres[design.id_index[index]]) / self.scale
        present = (index >= 0) & np.isfinite(values).all(axis=-1)
        values = np.where(present[..., None], values, 0.0)
        return np.clip(values, -LARGEST_INPUT, LARGEST_INPUT).astype(np.float32), present.astype(np.float32)


def forecast_windows(design: Design, rows: np.ndarray, context: int) -> np.ndarray:
    """(n, context) row numbers: window i ends at rows[i] and never leaves its id (-1 before the id's first row)."""
    index = rows[:, None] + np.arange(1 - context, 1)
    first = design.starts[design.id_index[rows]]
    return np.where(index >= first[:, None], index, -1)


def training_segments(design: Design, origins: np.ndarray, context: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Stretches of rows that cover every training origin once, each led by the context of its first origin.

    One pass over a stretch gives the loss at all of its origins: `length + context - 1` steps for `length` origins,
    where windows would take `context` steps for each.

    Args:
        origins: (R,) bool. length: origins in a segment, the last one of an id may have fewer.
    Returns:
        index: (S, T) row numbers in the order of id and time, -1 to the right of a short segment.
        is_origin: (S, T) bool: a training origin, and not there as context only.
    """
    spans = []
    for k in range(len(design.ids)):
        inside = np.flatnonzero(origins[design.rows_of(k)]) + int(design.starts[k])
        if len(inside):
            last = int(inside[-1]) + 1
            spans += [
                (max(int(design.starts[k]), begin - context + 1), begin, min(begin + length, last))
                for begin in range(int(inside[0]), last, length)
            ]
    index = np.full((len(spans), max(end - first for first, _, end in spans)), -1, dtype=np.int64)
    is_origin = np.zeros(index.shape, dtype=bool)
    for row, (first, begin, end) in enumerate(spans):
        index[row, : end - first] = np.arange(first, end)
        is_origin[row, begin - first : end - first] = origins[begin:end]
    return index, is_origin
