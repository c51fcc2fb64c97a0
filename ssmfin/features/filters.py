"""Owns what features made by a filter share: parameters for each id, what stands in where a fit failed, the carry.

`fit` learns parameters in the training window and freezes them; `transform` filters the given history forward from its
first row; `update` goes on from where that ended.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from sklearn.utils.validation import check_is_fitted

from ssmfin.data.panel import Panel
from ssmfin.data.rows import group_starts
from ssmfin.errors import InputError
from ssmfin.features.grid import Grid
from ssmfin.features.smoothed import SmoothedPanel
from ssmfin.features.state import from_plain
from ssmfin.features.transformer import PanelTransformer, as_panel

if TYPE_CHECKING:
    import pandas as pd

CONVERGED, NOT_CONVERGED, FAILED, UNSEEN = "converged", "not_converged", "failed", "unseen"
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Estimates:
    """Parameters of B series as maximum likelihood left them; K parameters.

    Attributes:
        parameters: (B, K), NaN where the fit failed. status, reason: (B,).
        scale, offset: (B, K): parameter = offset + scale * (what it is for a series of mean 0 and unit 1).
        units: (B, U) what else is fixed by the training sample of each series: units of arithmetic, a mean taken off.
    """

    parameters: np.ndarray
    status: list[str]
    reason: list[str]
    scale: np.ndarray
    offset: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class _Carried:
    """Where a filter stands: the series it knows, the last date of each, and their state."""

    series: tuple[str, ...]
    last: np.ndarray
    state: Any


class FilterFeatures(PanelTransformer):
    """Base of the Kalman and regime features.

    What `fit` learns, by id: `ids_`, `parameters_` (as used), `status_` ("converged", "not_converged": the best point
    found is used, "failed": `typical_` is used) and `reason_`. `typical_` is what the converged id nearest to the
    median has, each in units of its own training sample, taken back to the units of the id it stands in for; an id
    without a row in the training window gets it in the median units of the others. `remarks` and `status` tell of each
    of these.
    """

    _carried: _Carried | None = None
    _starts: tuple[dict[str, np.ndarray], np.ndarray] | None = None

    @abstractmethod
    def _grid(self, panel: Panel, starts: np.ndarray) -> Grid:
        """The panel as the filter sees it."""

    @abstractmethod
    def _estimate(self, grid: Grid, warm: np.ndarray | None) -> Estimates:
        """Maximum likelihood; `warm` (B, K) are parameters to start from."""

    @abstractmethod
    def _run(
        self, grid: Grid, parameters: np.ndarray, units: np.ndarray, carry: Any, *, keep: bool
    ) -> tuple[np.ndarray, Any]:
        """(R, F) columns, and the carry of each series at its own end if asked to keep it."""

    @abstractmethod
    def _smooth(self, grid: Grid, parameters: np.ndarray, units: np.ndarray) -> Any:
        """The `Smoothed` of a whole history."""

    def transform(self, X: Panel | pl.DataFrame | pd.DataFrame) -> pl.DataFrame | pd.DataFrame:
        """Columns keyed by unique_id and ds, filtered forward from each id's first row; `update` goes on from here."""
        check_is_fitted(self, "fitted_")
        panel = as_panel(X)
        grid = self._grid(panel, group_starts(panel.frame["unique_id"].to_numpy()))
        values, state = self._run(grid, *self._used(grid.series), None, keep=True)
        self._carried = _Carried(grid.series, grid.last, state)
        return self._framed(X, panel, values)

    def update(self, X: Panel | pl.DataFrame | pd.DataFrame) -> pl.DataFrame | pd.DataFrame:
        """The columns of rows that come after those transformed so far, in time proportional to the new rows.

        Equals the last rows of `transform` of everything to rounding (1e-12).

        Raises:
            InputError: nothing was transformed yet, an id is new, or a row is not later than what was seen of its id (a
                repeated or restated row). The state is then as before.
        """
        check_is_fitted(self, "fitted_")
        carried = self._carried
        if carried is None:
            raise InputError("update has nothing to go on from; call transform with the history first.")
        panel = _as_new_rows(X)
        grid = self._grid(panel, group_starts(panel.frame["unique_id"].to_numpy()))
        place = {name: position for position, name in enumerate(carried.series)}
        unknown = [name for name in grid.series if name not in place]
        if unknown:
            raise InputError(
                f"update has rows of {unknown[0]!r}, which the history does not ({named(unknown)}); transform the "
                "history with it first."
            )
        index = np.array([place[name] for name in grid.series], dtype=np.int64)
        self._check_later(panel, grid, carried.last[index])
        values, state = self._run(grid, *self._used(grid.series), carried.state.select(index), keep=True)
        last = carried.last.copy()
        last[index] = grid.last
        self._carried = replace(carried, last=last, state=with_rows(carried.state, index, state))
        return self._framed(X, panel, values)

    def smoothed(self, X: Panel | pl.DataFrame | pd.DataFrame) -> SmoothedPanel:
        """States given all rows of X, before and after: to look at. The harness refuses this type (`Smoothed`)."""
        check_is_fitted(self, "fitted_")
        panel = as_panel(X)
        grid = self._grid(panel, group_starts(panel.frame["unique_id"].to_numpy()))
        found = self._smooth(grid, *self._used(grid.series))
        parts = {item.name: getattr(found, item.name) for item in fields(found)}
        keys = panel.frame.select("unique_id", "ds")
        return SmoothedPanel(**parts, keys=keys, series_at=grid.series_at, step_at=grid.step_at)

    def status(self, ids: Sequence[str]) -> list[str]:
        """How the parameters of each id came about: converged, not_converged, failed or unseen."""
        known = dict(zip(self.ids_, self.status_, strict=True))
        return [known.get("" if "" in known else name, UNSEEN) for name in ids]

    def remarks(self) -> dict[str, Any]:
        found = {}
        for status, treated in (
            (NOT_CONVERGED, "the best point found is used"),
            (FAILED, "the parameters of a typical id are used"),
        ):
            at = [i for i, own in enumerate(self.status_) if own == status]
            if at:
                names = named([self.ids_[i] or "all" for i in at])
                reason = self.reason_[at[0]].rstrip(".")
                found[status.replace("_", " ")] = f"{len(at)} of {len(self.ids_)} ids ({names}); {reason}; {treated}"
        return found

    def start_from(self, previous: Mapping[str, Any]) -> Self:
        """Begin the next fit at the parameters of an earlier one as well (a warm start)."""
        parameters = from_plain(previous["parameters_"])
        self._starts = (dict(zip(previous["ids_"], parameters, strict=True)), from_plain(previous["typical_"]))
        return self

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        if not panel.frame.height:
            raise InputError("the training window holds no row; give an earlier window or more data.")
        self._carried = None
        grid = self._grid(panel, starts)
        warm = None
        if self._starts is not None:
            known, typical = self._starts
            warm = np.array([known.get(name, typical) for name in grid.series])
        found = self._estimate(grid, warm)
        usable = np.isfinite(found.parameters).all(axis=1)
        if not usable.any():
            first = grid.series[0]
            raise InputError(f"no id could be fitted; the first, {first!r}, {found.reason[0]}")
        good = np.array([status == CONVERGED for status in found.status])
        good = good if good.any() else usable
        typical = _nearest_to_median((found.parameters[good] - found.offset[good]) / found.scale[good])
        self.ids_ = list(grid.series)
        self.parameters_ = np.where(usable[:, None], found.parameters, found.offset + found.scale * typical)
        self.units_ = found.units
        self.status_ = list(found.status)
        self.reason_ = list(found.reason)
        self.typical_ = np.median(found.offset[good], axis=0) + np.median(found.scale[good], axis=0) * typical
        self.typical_units_ = np.median(found.units[good], axis=0)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        grid = self._grid(panel, starts)
        return self._run(grid, *self._used(grid.series), None, keep=False)[0]

    def _used(self, series: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(B, K) parameters and (B, U) units of the named series."""
        place = {name: position for position, name in enumerate(self.ids_)}
        parameters = np.array([self.parameters_[place[n]] if n in place else self.typical_ for n in series])
        units = np.array([self.units_[place[n]] if n in place else self.typical_units_ for n in series])
        return parameters, units.reshape(len(series), -1)

    def _check_later(self, panel: Panel, grid: Grid, last: np.ndarray) -> None:
        dates = panel.frame["ds"].to_numpy()
        early = np.flatnonzero(dates <= last[grid.series_at])
        if len(early):
            row = panel.frame.row(int(early[0]), named=True)
            seen = str(last[grid.series_at[early[0]]])[:19]
            raise InputError(
                f"update has a row ({row['unique_id']}, {row['ds']}) that is not after the last one seen, {seen} "
                f"({len(early)} rows); give later rows only, or transform the corrected history again."
            )


def _as_new_rows(X: Panel | pl.DataFrame | pd.DataFrame) -> Panel:
    """Like `as_panel`, but one date is enough: the contract wants two of a panel, so it is shown an earlier row too."""
    if isinstance(X, Panel) or "ds" not in X.columns or not len(X):
        return as_panel(X)
    frame = X if isinstance(X, pl.DataFrame) else pl.from_pandas(X)
    if not frame.schema["ds"].is_temporal() or frame["ds"].n_unique() != 1:
        return as_panel(X)
    times = [name for name in ("ds", "known_at") if name in frame.columns]
    earlier = frame.head(1).with_columns(pl.col(times).dt.offset_by("-1y"))
    panel = as_panel(pl.concat([earlier, frame]))
    return replace(panel, frame=panel.frame.filter(pl.col("ds") == panel.frame["ds"].max()))


def named(names: Sequence[str]) -> str:
    """The first few of some ids, for a message."""
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _nearest_to_median(values: np.ndarray) -> np.ndarray:
    """The row of (B, K) nearest to the median of all; a row, since medians of transition matrices are none."""
    middle = np.median(values, axis=0)
    spread = np.median(np.abs(values - middle), axis=0)
    distance = np.abs(values - middle) / np.where(spread > 0, spread, 1.0)
    found: np.ndarray = values[int(distance.sum(axis=1).argmin())]
    return found


def with_rows(whole: Any, index: np.ndarray, part: Any) -> Any:
    """A carry (a dataclass of arrays over series, or of dicts of them) with some series replaced."""

    def put(old: Any, new: Any) -> Any:
        if isinstance(old, dict):
            return {name: put(old[name], new[name]) for name in old}
        values = old.copy()
        values[index] = new
        return values

    return replace(
        whole, **{item.name: put(getattr(whole, item.name), getattr(part, item.name)) for item in fields(whole)}
    )
