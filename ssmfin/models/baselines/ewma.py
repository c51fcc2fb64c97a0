"""Owns the exponentially weighted moving average of the target (RiskMetrics)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ssmfin.models.baselines.levels import FittedLevel, walk_level
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet, WalkForecaster, Window


class EWMA(WalkForecaster):
    """Exponentially weighted average of the target, per id, from the id's first row on.

    s_t = decay s_{t-1} + (1 - decay) x_t, s_1 = x_1; the forecast is s_t for every row ahead, h s_t for a sum.

    It learns nothing, so the window plays no part. A missing value leaves the average as it is.

    References:
        J. P. Morgan, Reuters (1996), RiskMetrics Technical Document, eq. 5.3.
    """

    kind: ClassVar[str] = "ewma"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "RiskMetrics average of the target"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.00001

    decay: float = Field(default=0.94, ge=0, lt=1, description="weight of the past per row; RiskMetrics' daily 0.94")

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        return FittedLevel(self._level)

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        return walk_level(design, windows, self._level(design))

    def _level(self, design: Design) -> FloatArray:
        return exponential_average(design.observed, design.starts, self.decay)


def exponential_average(values: FloatArray, starts: np.ndarray, decay: float) -> FloatArray:
    """s_t = decay s_{t-1} + (1 - decay) x_t within each of K groups of rows, in time order.

    Args:
        values: (R,), NaN where missing (and NaN out until the group's first value). starts: (K + 1,).
    Returns:
        (R,).

    >>> exponential_average(np.array([1.0, 2.0, 5.0]), np.array([0, 2, 3]), 0.5)
    array([1. , 1.5, 5. ])
    """
    lengths = np.diff(starts)
    out = np.full(len(values), np.nan)
    order = np.argsort(-lengths, kind="stable")  # longest first, so that those still running are a prefix
    first, state = starts[:-1][order], np.full(len(lengths), np.nan)
    alive = len(lengths)
    for t in range(int(lengths.max(initial=0))):
        while lengths[order[alive - 1]] <= t:
            alive -= 1
        x, s = values[first[:alive] + t], state[:alive]
        s = np.where(np.isnan(s), x, np.where(np.isnan(x), s, decay * s + (1 - decay) * x))
        state[:alive] = out[first[:alive] + t] = s
    return out
