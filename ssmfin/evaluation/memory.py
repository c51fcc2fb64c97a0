"""Owns the memory of a run's models, fit by fit, as memory.parquet keeps it.

    kind "used"     of the whole network: the age of the rows that its correction of the base hangs on. At level p: the
                    newest so many rows hold the share p of its sensitivity. This is what training decided.
    kind "modes"    of a layer: half-lives of the modes of its state. At level p: that share of the modes forgets at
                    least as fast. Each fit draws its own start, and training moves them little.

The inputs themselves may look back, HAR's over 22 rows: rows are counted from them on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from ssmfin.models.interface import Memory, TrainingSet

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
SCHEMA = {
    "model": pl.String(),
    "seed": pl.Int64(),
    "fit": pl.Int32(),
    "kind": pl.String(),
    "layer": pl.Int32(),
    "learned": pl.Boolean(),
    "level": pl.Float64(),
    "rows": pl.Float64(),
    "days": pl.Float64(),
}


def memory_of_fit(memory: Memory, training: TrainingSet, *, model: str, seed: int, fit: int) -> pl.DataFrame:
    """What one fit remembers, all its networks together.

    Args:
        memory: of the fitted model. training: what it was fitted on.
    Returns:
        model, seed, fit (its number), cutoff (the moment of fitting), kind, layer (from 0; null where kind is "used"),
        learned (false: of networks that training left at their start), level, rows, days (with rows: trading days as a
        rule). None of kind "used" where nothing was learned.
    """
    per_day = rows_per_day(training)
    found: list[tuple[str, int | None, bool, float, float]] = []
    if memory.sensitivity.any():
        held = np.cumsum(memory.sensitivity) / memory.sensitivity.sum()
        found += [("used", None, True, level, 1.0 + int(np.searchsorted(held, level))) for level in LEVELS]
    layers = memory.layers
    for layer, learned in sorted({(one.layer, one.learned) for one in layers}, key=lambda key: (key[0], not key[1])):
        scales = [one.time_scales.ravel() for one in layers if (one.layer, one.learned) == (layer, learned)]
        half_lives = math.log(2.0) * np.quantile(np.concatenate(scales), LEVELS, method="inverted_cdf")
        found += [("modes", layer, learned, *pair) for pair in zip(LEVELS, half_lives.tolist(), strict=True)]
    rows = [(model, seed, fit, *one, one[-1] / per_day) for one in found]
    cutoff = training.design.dates[training.window.cutoff]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(cutoff=pl.Series(np.repeat(cutoff, len(rows))))
    return table.select("model", "seed", "fit", "cutoff", pl.exclude("model", "seed", "fit", "cutoff"))


def rows_per_day(training: TrainingSet) -> float:
    """Rows of an id in a day of the training window, on average: 1 where rows are days."""
    design = training.design
    inside = design.date_index >= training.window.train_start
    day = design.dates[design.date_index[inside]].astype("datetime64[D]").astype(np.int64)
    days = len(np.unique(np.stack([design.id_index[inside], day]), axis=1).T)
    return float(inside.sum() / days) if days else 1.0


def merged_memory(parts: Sequence[pl.DataFrame]) -> pl.DataFrame | None:
    """The memory of several tasks as one frame, the same in whatever order they come; None of none."""
    keys = ("model", "seed", "fit", "kind", "layer", "learned", "level")
    return pl.concat(parts).sort(*keys, descending=[name == "kind" for name in keys]) if parts else None
