"""Owns PanelTransformer: the sklearn transformer that every feature is, from a panel to columns keyed by id and date.

A feature at t is a function of rows known by t alone. `fit` may learn parameters, from the training window only;
`transform` runs forward in time and may look back before the window.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ssmfin.data.loading import load_panel
from ssmfin.data.panel import Panel
from ssmfin.data.rows import group_starts
from ssmfin.errors import InputError, nearest
from ssmfin.features.smoothed import refuse_smoothed
from ssmfin.features.state import from_plain, to_plain

if TYPE_CHECKING:
    import pandas as pd


class PanelTransformer(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc, call-arg]
    """Base of the feature transformers: sklearn's protocol over long panels.

    Subclasses give `get_feature_names_out` and `_columns(panel, starts) -> (R, F)`, and `_learn(panel, starts)` if they
    learn. What is learned lives in attributes that end in an underscore, as in scikit-learn; `state` and `restore`
    carry them as JSON data from the process that learned to those that transform.

    A frame goes in (a `Panel`, polars or pandas, long with `unique_id` and `ds`); a frame of the same kind comes out,
    keyed by `unique_id` and `ds`, one row per input row, sorted by both. `set_output(transform=...)` overrides the
    kind.
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
        return self._framed(X, panel, self.values(panel))

    def values(self, panel: Panel) -> np.ndarray:
        """(R, F) float64, the same as `transform`, as a bare array."""
        return self._columns(panel, group_starts(panel.frame["unique_id"].to_numpy()))

    def _framed(
        self, X: Panel | pl.DataFrame | pd.DataFrame, panel: Panel, values: np.ndarray
    ) -> pl.DataFrame | pd.DataFrame:
        """Values (R, F) with their keys, as the kind of frame that was given or asked for."""
        out = panel.frame.select("unique_id", "ds")
        out = out.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(self.get_feature_names_out()))
        wants_pandas = self._output == "pandas" or (
            self._output == "default" and not isinstance(X, (Panel, pl.DataFrame))
        )
        return out.to_pandas() if wants_pandas else out

    def set_output(self, *, transform: Literal["default", "polars", "pandas"] | None = None) -> Self:
        """Choose the kind of frame that comes out, as in scikit-learn."""
        if transform is not None:
            if transform not in ("default", "polars", "pandas"):
                raise InputError(f"set_output(transform=...) is {transform!r}; use 'default', 'polars' or 'pandas'.")
            self._output = transform
        return self

    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON-able data; `restore` of it transforms to the same bits.

        Raises:
            InputError: a learned attribute cannot be said in JSON.
        """
        check_is_fitted(self, "fitted_")
        learned = {key: value for key, value in vars(self).items() if key.endswith("_") and not key.startswith("_")}
        return {key: to_plain(value, name=f"{type(self).__name__}.{key}") for key, value in learned.items()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over what another instance with the same parameters learned, instead of `fit`."""
        for key, value in state.items():
            setattr(self, key, from_plain(value))
        self.fitted_ = True
        return self

    def start_from(self, previous: Mapping[str, Any]) -> Self:
        """Let the next `fit` begin at what an earlier window taught (a warm start); nothing, unless a subclass can."""
        return self

    def follow(self, previous: PanelTransformer) -> Self:
        """Keep the identities of an earlier fit (the labels of regimes); nothing, unless a subclass has any."""
        return self

    def status(self, ids: Sequence[str]) -> list[str]:
        """How what was learned of each id came about, in a word."""
        return ["learned"] * len(ids)

    def remarks(self) -> dict[str, Any]:
        """Plain facts about what was learned that a reader must see: which ids did not converge, what was done."""
        return {}

    @abstractmethod
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """(F,) names of the columns, without the keys."""

    def columns_read(self) -> tuple[str, ...] | None:
        """The panel's value columns that the feature is a function of; None, unless a subclass says: perhaps all."""
        return None

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        """Nothing to learn, unless a subclass says so."""

    @abstractmethod
    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        """(R, F) feature values; row r may use rows <= r of its id, and rows of other ids known by then."""


def as_panel(X: Panel | pl.DataFrame | pd.DataFrame) -> Panel:
    """A panel as it is; a frame through the panel contract.

    Raises:
        InputError: the frame breaches the contract, or is a smoothed result.
    """
    refuse_smoothed(X)
    return X if isinstance(X, Panel) else load_panel(X)


def panel_column(panel: Panel, name: str) -> np.ndarray:
    """(R,) float64 of one value column (nulls become NaN).

    Raises:
        InputError: the panel has no such column, or it is a smoothed one.
    """
    refuse_smoothed(None, [name])
    if name not in panel.frame.columns:
        raise InputError(f"column {name!r} is not in the panel; {nearest(name, panel.value_columns)}.")
    return panel.frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
