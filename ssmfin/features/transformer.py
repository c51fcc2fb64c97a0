"""Owns PanelTransformer: the sklearn transformer that every feature is, from a panel to columns keyed by id and date.

A feature at t is a function of rows known by t alone. `fit` may learn parameters, from the training window only;
`transform` runs forward in time and may look back before the window.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ssmfin.data.loading import load_panel
from ssmfin.data.panel import Panel
from ssmfin.data.rows import group_starts
from ssmfin.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


class PanelTransformer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc, call-arg]
    """Base of the feature transformers: sklearn's protocol over long panels.

    Subclasses give `get_feature_names_out` and `_columns(panel, starts) -> (R, F)`, and `_learn(panel, starts)` if they
    learn. A frame goes in (a `Panel`, polars or pandas, long with `unique_id` and `ds`); a frame of the same kind comes
    out, keyed by `unique_id` and `ds`, one row per input row, sorted by both. `set_output(transform=...)` overrides
    the kind.
    """

    _output: Literal["default", "polars", "pandas"] = "default"

    def fit(self, X: Panel | pl.DataFrame | pd.DataFrame, y: object = None) -> Self:
        """Learn parameters from X alone (many features learn nothing)."""
        panel = as_panel(X)
        self._learn(panel, group_starts(panel.frame["unique_id"].to_numpy()))
        self.fitted_ = True
        return self

    def transform(self, X: Panel | pl.DataFrame | pd.DataFrame) -> pl.DataFrame | pd.DataFrame:
        """Columns keyed by unique_id and ds; NaN where a feature is not defined yet."""
        check_is_fitted(self, "fitted_")
        panel = as_panel(X)
        out = panel.frame.select("unique_id", "ds")
        values = self.values(panel)
        out = out.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(self.get_feature_names_out()))
        wants_pandas = self._output == "pandas" or (
            self._output == "default" and not isinstance(X, (Panel, pl.DataFrame))
        )
        return out.to_pandas() if wants_pandas else out

    def values(self, panel: Panel) -> np.ndarray:
        """(R, F) float64, the same as `transform`, as a bare array."""
        return self._columns(panel, group_starts(panel.frame["unique_id"].to_numpy()))

    def set_output(self, *, transform: Literal["default", "polars", "pandas"] | None = None) -> Self:
        """Choose the kind of frame that comes out, as in scikit-learn."""
        if transform is not None:
            if transform not in ("default", "polars", "pandas"):
                raise InputError(f"set_output(transform=...) is {transform!r}; use 'default', 'polars' or 'pandas'.")
            self._output = transform
        return self

    @abstractmethod
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """(F,) names of the columns, without the keys."""

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        """Nothing to learn, unless a subclass says so."""

    @abstractmethod
    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        """(R, F) feature values; row r may use rows <= r of its id, and rows of other ids known by then."""


def as_panel(X: Panel | pl.DataFrame | pd.DataFrame) -> Panel:
    """A panel as it is; a frame through the panel contract."""
    return X if isinstance(X, Panel) else load_panel(X)


def panel_column(panel: Panel, name: str) -> np.ndarray:
    """(R,) float64 of one value column (nulls become NaN).

    Raises:
        InputError: the panel has no such column.
    """
    if name not in panel.frame.columns:
        raise InputError(f"column {name!r} is not in the panel; {nearest(name, panel.value_columns)}.")
    return panel.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
