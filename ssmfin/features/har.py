"""Owns the HAR regressors: means of a column over the last 1, 5, 22 rows (a day, a week, a month of daily data)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan, trailing_means
from ssmfin.features.transformer import PanelTransformer, panel_column


class HarLags(PanelTransformer):
    """Means over the last w rows of the same id, the row itself included.

        lag_w(t) = (1 / w) sum_{i=0}^{w-1} x_{t-i},   or its log

    Args:
        column: the column to average, on its original scale.
        windows: lengths in rows of the id's own calendar (a holiday of one market does not shorten another's week).
        scale: "log" gives log lag_w, NaN where the mean is not positive; "none" gives lag_w.

    NaN for the first w - 1 rows of each id, and wherever the window holds a missing value.

    References:
        Corsi (2009), Journal of Financial Econometrics 7, eq. 10.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3, 4)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 3, "ds": days, "rv": [1.0, 3.0, 5.0]})
    >>> HarLags("rv", windows=[1, 2]).fit_transform(frame)["lag_2"].to_list()
    [nan, 2.0, 4.0]
    """

    def __init__(
        self, column: str, *, windows: Sequence[int] = (1, 5, 22), scale: Literal["log", "none"] = "none"
    ) -> None:
        self.column = column
        self.windows = windows
        self.scale = scale

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"lag_{window}" for window in self.windows], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column,)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        values = panel_column(panel, self.column)
        out = trailing_means(values, starts, self.windows)
        if self.scale == "log":
            out = log_or_nan(out)
        return out
