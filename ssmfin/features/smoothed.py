"""Owns two-sided results over a panel: a type and a column prefix of their own, which the harness refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ssmfin.classical.smoothed import WHY, Smoothed
from ssmfin.errors import InputError

PREFIX = "smoothed__"


@dataclass(frozen=True, repr=False)
class SmoothedPanel(Smoothed):
    """Smoothed quantities of every id, to look at; no feature can be made of them.

    Attributes (besides those of `Smoothed`):
        keys: (R rows) unique_id and ds. series_at, step_at: (R,) where each row lies in the (B, T) arrays.
    """

    keys: pl.DataFrame = field(default_factory=pl.DataFrame)
    series_at: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    step_at: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def to_frame(self) -> pl.DataFrame:
        """unique_id, ds, and `smoothed__<quantity>` with its standard error (regimes: probabilities alone).

        The prefix is the type that the frame carries: a panel with such a column is refused wherever models are
        evaluated or features are made.
        """
        found = {}
        for name, (mean, variance) in self.outputs.items():
            found[PREFIX + name] = mean[self.series_at, self.step_at]
            if np.isfinite(variance).any():
                found[f"{PREFIX}{name}_se"] = np.sqrt(variance[self.series_at, self.step_at])
        if not self.outputs:
            for position, name in enumerate(self.states):
                found[PREFIX + name] = self.mean[self.series_at, self.step_at, position]
        return self.keys.with_columns(pl.Series(name, values) for name, values in found.items())


def refuse_smoothed(given: object, columns: Iterable[str] = ()) -> None:
    """Refuse a smoothed result, or columns made of one.

    Raises:
        InputError: with the reason.

    >>> refuse_smoothed(None, ["rv", "close"])
    """
    if isinstance(given, Smoothed):
        raise InputError(f"a {type(given).__name__} is no panel of features: {WHY}.")
    for name in columns:
        if PREFIX in name:
            raise InputError(f"column {name!r} is smoothed: {WHY}, or leave the column out.")
