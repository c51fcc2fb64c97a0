"""Owns the regressors that realized measures give: jumps, and the measurement error that quarticity tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import trailing_means
from ssmfin.features.transformer import PanelTransformer, panel_column


class JumpLags(PanelTransformer):
    """The jump part of the variance over the last w rows, from a jump-robust variance beside it.

        jump_w(t) = lag_w(J)                     plain,    J = max(RV - BV, 0)
        jump_w(t) = log(1 + lag_w(J) / lag_w(BV))    under a log, without a unit

    Args:
        column: realized variance, decimal squared per row. robust: bipower variation or the like, same unit.
        windows: lengths in rows of the id's own calendar.

    NaN for the first w - 1 rows of each id, and wherever the window holds a missing value.

    References:
        Andersen, Bollerslev, Diebold (2007), Review of Economics and Statistics 89, eq. 8.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 2, "ds": days, "rv": [3.0, 2.0], "bv": [2.0, 2.5]})
    >>> JumpLags("rv", windows=[1, 2]).fit_transform(frame)["jump_2"].to_list()
    [nan, 0.5]
    """

    def __init__(
        self,
        column: str,
        *,
        robust: str = "bv",
        windows: Sequence[int] = (1, 5, 22),
        scale: Literal["log", "none"] = "none",
    ) -> None:
        self.column = column
        self.robust = robust
        self.windows = windows
        self.scale = scale

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"jump_{window}" for window in self.windows], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column, self.robust)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        robust = panel_column(panel, self.robust)
        jump = np.maximum(panel_column(panel, self.column) - robust, 0.0)
        out = trailing_means(jump, starts, self.windows)
        if self.scale == "none":
            return out
        return np.asarray(np.log1p(out / _positive_means(robust, starts, self.windows)))


class QuarticityLags(PanelTransformer):
    """How well the last w rows measure the variance: the interaction of HARQ, or its relative error under a log.

        error_w(t) = sqrt(lag_w(RQ)) lag_w(RV)       plain
        error_w(t) = sqrt(lag_w(RQ)) / lag_w(RV)     under a log

    Args:
        column: realized variance, decimal squared per row. quarticity: its realized quarticity, squared units of it.
        windows: lengths in rows of the id's own calendar.

    NaN for the first w - 1 rows of each id, and wherever the window holds a missing value.

    References:
        Bollerslev, Patton, Quaedvlieg (2016), Journal of Econometrics 192, eq. 10 and 14.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, d) for d in (2, 3)]
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 2, "ds": days, "rv": [3.0, 2.0], "rq": [4.0, 9.0]})
    >>> QuarticityLags("rv").fit_transform(frame)["error_1"].to_list()
    [6.0, 6.0]
    """

    def __init__(
        self,
        column: str,
        *,
        quarticity: str = "rq",
        windows: Sequence[int] = (1,),
        scale: Literal["log", "none"] = "none",
    ) -> None:
        self.column = column
        self.quarticity = quarticity
        self.windows = windows
        self.scale = scale

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array([f"error_{window}" for window in self.windows], dtype=object)

    def columns_read(self) -> tuple[str, ...]:
        return (self.column, self.quarticity)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        quarticity = panel_column(panel, self.quarticity)
        means = trailing_means(quarticity, starts, self.windows)
        root = np.sqrt(np.maximum(means, 0.0))  # a mean of NaN stays NaN
        variance = panel_column(panel, self.column)
        if self.scale == "log":
            return np.asarray(root / _positive_means(variance, starts, self.windows))
        return np.asarray(root * trailing_means(variance, starts, self.windows))


def _positive_means(values: np.ndarray, starts: np.ndarray, windows: Sequence[int]) -> np.ndarray:
    means = trailing_means(values, starts, windows)
    return np.where(means > 0, means, np.nan)
