"""Owns the random walk: tomorrow is as today."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from ssmfin.models.baselines.levels import FittedLevel, walk_level
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet, WalkForecaster, Window


class RandomWalk(WalkForecaster):
    """The newest known value of the target, times h where the target is a sum over h rows.

    >>> RandomWalk().kind
    'random_walk'
    """

    kind: ClassVar[str] = "random_walk"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "the newest known value"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.00001

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        return FittedLevel(lambda design: design.observed)

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        return walk_level(design, windows, design.observed)
