"""Owns the exponential averages of a column: long memory in few numbers, defined from the first row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan, trailing_exponential
from ssmfin.features.transformer import PanelTransformer, panel_column


class ExponentialAverages(PanelTransformer):
    """Exponential averages of all rows of the same id so far, the row itself included.

        ewma_c(t) = sum_{i >= 0} a^i x_{t-i} / sum_{i >= 0} a^i,    a = c / (1 + c),   or its log

    or of x^2. Squared returns from close to close hold the night, which a realized variance of the session does not.

    Args:
        column: the column to average, on its original scale.
        centres_of_mass: c, the average age in rows of what is averaged.
        squared: average squares of the column.
        scale: "log" gives the log, NaN where the average is not positive.

    Missing values are skipped; NaN before the first observed one.

    References:
        Bollerslev, Hood, Huss, Pedersen (2018), Review of Financial Studies 31, eq. 14.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 2, "ds": days, "rv": [3.0, 6.0]})
    >>> ExponentialAverages("rv", centres_of_mass=[1]).fit_transform(frame)["ewma_1"].to_list()
    [3.0, 5.0]
    """

    def __init__(
        self,
        column: str,
        *,
        centres_of_mass: Sequence[float] = (1, 5, 25, 125),
        squared: bool = False,
        scale: Literal["log", "none"] = "none",
    ) -> None:
        self.column = column
        self.centres_of_mass = centres_of_mass
        self.squared = squared
        self.scale = scale

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        name = "ewma_squared" if self.squared else "ewma"
        return np.array([f"{name}_{centre:g}" for centre in self.centres_of_mass], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column,)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        values = panel_column(panel, self.column)
        if self.squared:
            values = np.square(values)
        out = np.column_stack([trailing_exponential(values, starts, centre) for centre in self.centres_of_mass])
        if self.scale == "log":
            out = log_or_nan(out)
        return out
