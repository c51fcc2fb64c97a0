"""Owns the feature that hands over columns of the panel (an exogenous series, a return) as they are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan
from ssmfin.features.transformer import PanelTransformer, panel_column


class Columns(PanelTransformer):
    """Value columns of the panel, or their logs (NaN where a value is not positive).

    Args:
        columns: names of value columns.
        scale: "log" or "none".
    """

    def __init__(self, columns: Sequence[str], *, scale: Literal["log", "none"] = "none") -> None:
        self.columns = columns
        self.scale = scale

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"log_{name}" if self.scale == "log" else name for name in self.columns], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        out = np.column_stack([panel_column(panel, name) for name in self.columns])
        if self.scale == "log":
            out = log_or_nan(out)
        return out
