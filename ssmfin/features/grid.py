"""Owns the step between long rows and the (series, steps, components) arrays that filters take.

Each id keeps its own calendar: step j is its j-th row, and shorter ids end in NaN. Every series begins at step 0, so
what the filter says of it does not depend on how long the others are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.data.rows import log_or_nan
from ssmfin.errors import InputError
from ssmfin.features.transformer import panel_column


@dataclass(frozen=True)
class Grid:
    """A panel as filters see it; B series, T steps, P components, J regressors.

    Attributes:
        series: B names: ids, or one empty name where all ids are components of one system.
        y: (B, T, P), NaN where missing. x: (B, T, J), None without regressors.
        series_at, step_at: (R,) where each row of the panel lies.
        lengths: (B,) steps of each series; those behind are padding.
        last: (B,) datetime64, the last date of each series.
    """

    series: tuple[str, ...]
    y: np.ndarray
    x: np.ndarray | None
    series_at: np.ndarray
    step_at: np.ndarray
    lengths: np.ndarray
    last: np.ndarray

    def rows(self, values: np.ndarray) -> np.ndarray:
        """(B, T) -> (R,), the value of each row."""
        out: np.ndarray = values[self.series_at, self.step_at]
        return out


def by_id(panel: Panel, starts: np.ndarray, y: np.ndarray, x: np.ndarray | None) -> Grid:
    """Each id a series on its own rows, with one step of padding after the longest.

    Args:
        starts: (B + 1,) first rows. y: (R, P). x: (R, J).

    The padding is the step after the end, whose predicted state is what the filter carries on.
    """
    lengths = np.diff(starts)
    B, T = len(lengths), int(lengths.max(initial=0)) + 1
    series_at = np.repeat(np.arange(B), lengths)
    step_at = np.arange(len(y)) - np.repeat(starts[:-1], lengths)
    grid = np.full((B, T, y.shape[1]), np.nan)
    grid[series_at, step_at] = y
    regressors = None
    if x is not None:
        regressors = np.full((B, T, x.shape[1]), np.nan)
        regressors[series_at, step_at] = x
    last = panel.frame["ds"].to_numpy()[starts[1:] - 1]
    return Grid(panel.ids, grid, regressors, series_at, step_at, lengths, last)


def by_date(panel: Panel, y: np.ndarray, components: list[str]) -> Grid:
    """All ids the components of one system, on the dates of the panel; ids that are not a component are left out.

    Args:
        y: (R,). components: P ids.
    Raises:
        InputError: a row is known later than its own date, so that the others of that date could not use it.
    """
    frame, dates = panel.frame, panel.dates
    if "known_at" in frame.columns and bool((frame["known_at"] > frame["ds"]).any()):
        late = frame.filter(frame["known_at"] > frame["ds"]).row(0, named=True)
        raise InputError(
            f"the row ({late['unique_id']}, {late['ds']}) is known at {late['known_at']}, after its date, and a model "
            "of several ids needs all of a date at once; fit one series at a time, or date rows by when they are known."
        )
    step_at = np.searchsorted(dates, frame["ds"].to_numpy())
    place = {name: position for position, name in enumerate(components)}
    component = np.array([place.get(name, -1) for name in frame["unique_id"].to_list()], dtype=np.int64)
    grid = np.full((1, len(dates) + 1, len(components)), np.nan)
    used = component >= 0
    grid[0, step_at[used], component[used]] = y[used]
    zero = np.zeros(len(y), dtype=np.int64)
    return Grid(("",), grid, None, zero, step_at, np.array([len(dates)]), dates[-1:])


def matrix(panel: Panel, names: tuple[str, ...], *, log: bool) -> np.ndarray:
    """(R, len(names)) value columns, or their logs (NaN where a value is not positive)."""
    out = np.column_stack([panel_column(panel, name) for name in names])
    if log:
        out = log_or_nan(out)
    return out


def only_column(panel: Panel, what: str) -> str:
    """The one numeric value column of a panel.

    Raises:
        InputError: there are several, or none.
    """
    numeric = [name for name in panel.value_columns if panel.frame.schema[name].is_numeric()]
    if len(numeric) != 1:
        raise InputError(
            f"{what}.column is not given and the panel has {len(numeric)} ({', '.join(numeric)}); name one."
        )
    return numeric[0]
