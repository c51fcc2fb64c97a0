"""Owns the calendar as a feature: the weekday of the row, and its month, as indicators."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.features.transformer import PanelTransformer

WEEKDAYS = ("tuesday", "wednesday", "thursday", "friday")
MONTHS = tuple(range(2, 13))


class CalendarIndicators(PanelTransformer):
    """1 on Tuesdays, on Wednesdays, on Thursdays, on Fridays, else 0; of the months February .. December too if asked.

    Monday (and a session at a weekend) and January are what the others are compared with. It is the row's own date: the
    next session's follows from it but for holidays, which a panel does not announce.

    Args:
        month: indicators of the month too.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 2, "ds": days, "rv": [1.0, 2.0]})
    >>> CalendarIndicators().fit_transform(frame)["tuesday"].to_list()
    [0.0, 1.0]
    """

    def __init__(self, *, month: bool = False) -> None:
        self.month = month

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        months = [f"month_{month}" for month in MONTHS] if self.month else []
        return np.array([*WEEKDAYS, *months], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return ()

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        day = panel.frame["ds"].cast(pl.Date)
        out = [day.dt.weekday().to_numpy()[:, None] == np.arange(2, 6)]
        if self.month:
            out.append(day.dt.month().to_numpy()[:, None] == np.array(MONTHS))
        return np.concatenate(out, axis=1).astype(np.float64)
