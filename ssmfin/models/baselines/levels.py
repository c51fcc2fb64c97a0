"""Owns forecasts that are one level, the same for every row ahead: how a level becomes a forecast of each horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ssmfin.models.interface import Design, Fitted, FloatArray, Window


def level_forecast(design: Design, level: FloatArray, rows: np.ndarray) -> FloatArray:
    """(n, H): the level itself for a mean or a last value, h times it for a sum. Args: level: (R,)."""
    times = (
        np.array(design.target.horizons, dtype=np.float64)
        if design.target.aggregate == "sum"
        else np.ones(len(design.target.horizons))
    )
    return np.asarray(level[rows][:, None] * times)


def walk_level(design: Design, windows: list[Window], level: FloatArray) -> tuple[list[FloatArray], dict[str, Any]]:
    """The level's forecasts for the test rows of every window; nothing is learned, so windows do not matter."""
    return [level_forecast(design, level, window.test_rows) for window in windows], {}


class FittedLevel(Fitted):
    """A level that is a function of each row's past alone. `level_of` maps a design to (R,)."""

    def __init__(self, level_of: Callable[[Design], FloatArray]) -> None:
        self.level_of = level_of
        self.notes: dict[str, Any] = {}

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return level_forecast(design, self.level_of(design), rows)
