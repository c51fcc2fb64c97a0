"""Owns the join of further sources as of the moment at which their values were known: never a value from the future.

A row of the panel is an origin: the end of its date (or its moment, if ds has a time of day). It receives the newest
row of the other source that was known by then:

    next_day           known from the next calendar day on (the default; safe for daily panels of any time zone: every
                       market has closed by the next date's close; a panel with times of day should state hours)
    same_day           known at the origin of its own date; only you can know that this is so
    {time, zone}       known at that hour of its date; the panel then needs `data.closes`, its own hour
    {column: c}        known at the moment in the source's column c (with its `zone` if it has a time of day)

With hours, days are compared as moments in UTC, daylight saving included: Tokyo's close of today is known at New
York's close, the VIX of 16:15 is not known at 16:00.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssmfin.data.breaches import ROW, Breaches
from ssmfin.data.columns import read_table
from ssmfin.data.contract import check_values, sort_rows, value_columns
from ssmfin.data.moments import AN_HOUR, DAY, Clock, Closes, Zone, in_utc, is_timed, panel_moments, zoned_to_utc
from ssmfin.data.sources import AnySource
from ssmfin.data.wording import KEYWORDS, Wording
from ssmfin.errors import InputError, nearest


class KnownColumn(BaseModel):
    """`{column: published, zone: "Europe/London"}`: the source says itself when each row was known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(description="the source's own name of the column")
    zone: Zone | None = Field(None, description="whose wall clock it shows, if it has a time of day")


KnownAt = Literal["next_day", "same_day"] | KnownColumn | Clock
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=str | list[str]
    ),
    Field(min_length=1),
]


class Exogenous(BaseModel):
    """One further source: adds `<name>__<column>` for each selected column, and `<name>__age`, days since its date."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$", description="prefix of the new columns")
    source: AnySource
    columns: dict[str, str] = Field(default_factory=dict, description="our names to the source's")
    ids: Texts | None = Field(None, description="which of the source's series to use")
    select: Texts | None = Field(None, description="columns to join, under our names; default all")
    known_at: KnownAt = Field("next_day", description="when a row was known")
    by_id: bool = Field(
        False, description="true: each id of the panel gets the rows of the same id; false: all get the same"
    )
    date_format: str | None = Field(None, description="strftime format of dates that are text and not ISO")

    def read(self, say: Wording = KEYWORDS) -> tuple[pl.DataFrame, Breaches, str | None]:
        """The source's sorted rows (ds, maybe known_at, the selected columns), what is wrong with them, their zone.

        Args:
            say: how messages name settings.
        Raises:
            InputError: a file cannot be read, or a selected column or id is not there.
        """
        columns = dict(self.columns)
        if isinstance(self.known_at, KnownColumn):
            columns["known_at"] = columns.get(self.known_at.column, self.known_at.column)
        label = f"{say('exogenous')} {self.name!r} ({self.source.describe()})"
        table = read_table(
            self.source, columns=columns, required=self.select or (), date_format=self.date_format, label=label, say=say
        )
        frame = table.frame
        if "known_at" in frame.columns and not isinstance(self.known_at, KnownColumn):
            raise InputError(
                f"{label} has a column known_at, but its known_at is {_describe(self.known_at)}; "
                f"set {say.entry('known_at', {'column': self.columns.get('known_at', 'known_at')})}."
            )
        have = value_columns(frame)
        if not have:
            raise InputError(f"{label} has no column of numbers, {list(frame.columns)}; nothing can be joined.")
        unknown = [name for name in self.select or () if name not in have]
        if unknown:
            raise InputError(f"{label} has no value column {unknown[0]!r}; {nearest(unknown[0], have)}.")
        if self.ids is not None:
            frame = keep_ids(frame, self.ids, label, "its ids")
        elif not self.by_id and (names := frame["unique_id"].unique().sort()).len() > 1:
            raise InputError(
                f"{label} holds {names.len()} series, {names.head(3).to_list()}, and by_id is false; choose one with "
                f"ids, or set {say.entry('by_id', True)} if they are the panel's own."
            )
        select = list(dict.fromkeys(self.select or have))
        keys = [c for c in ("unique_id", "ds", "known_at") if c in frame.columns]
        frame, _ = sort_rows(frame.select(*keys, *select, ROW), table.part_starts, table.breaches)
        check_values(frame, table.breaches)
        frame = frame.filter(~table.breaches.bad(frame))
        # a row without any value says nothing; the last one that says something stands
        return frame.filter(~pl.all_horizontal(pl.col(select).is_null())), table.breaches, table.zone

    def join(
        self,
        panel: pl.DataFrame,
        other: pl.DataFrame,
        closes: Closes | None,
        zone: str | None = None,
        say: Wording = KEYWORDS,
    ) -> pl.DataFrame:
        """The panel with this source's columns, as known at each row's origin; rows and their order stay.

        Args:
            panel: unique_id, ds (Date or Datetime("us")), sorted.
            other: what `read` returned.
            closes: the hour at which the panel's dates end.
            zone: the time zone that the source's own moments name. say: how messages name settings.
        Raises:
            InputError: hours must be compared and one side's are not known; or a column is there already.
        """
        values = list(value_columns(other))
        added = [f"{self.name}__{c}" for c in values] + [f"{self.name}__age"]
        clash = [c for c in added if c in panel.columns or added.count(c) > 1]
        if clash:
            raise InputError(f"{say('exogenous')} {self.name!r} would overwrite {clash[0]!r}; choose another name.")
        origin, known = self._keys(panel, other, closes, zone, say)
        strict = self.known_at == "next_day"
        if self.by_id:
            row = _newest_by_id(panel["unique_id"], origin, other["unique_id"], known, strict)
        else:
            row = _newest(origin, known, strict)
        found = pl.Series(np.maximum(row, 0))
        absent = pl.Series(row < 0)
        joined = other.select(pl.col(values).name.prefix(f"{self.name}__"), pl.col("ds").alias("__ds"))
        if other.height == 0:
            return panel.with_columns(pl.lit(None, pl.Float64).alias(c) for c in added)
        joined = joined[found].with_columns(panel["ds"].alias("__origin"))
        as_moment = [pl.col(c).cast(pl.Datetime("us")).to_physical() for c in ("__origin", "__ds")]
        joined = joined.with_columns(((as_moment[0] - as_moment[1]) / DAY).alias(f"{self.name}__age"))
        joined = joined.select(pl.when(~absent).then(pl.col(c)).alias(c) for c in added)
        return pl.concat([panel, joined], how="horizontal")

    def _keys(
        self, panel: pl.DataFrame, other: pl.DataFrame, closes: Closes | None, zone: str | None, say: Wording
    ) -> tuple[np.ndarray, np.ndarray]:
        """Origin of each row of the panel and moment of knowledge of each row of the source, on one common axis."""
        at = self.known_at
        if isinstance(at, Clock):
            if is_timed(other["ds"]):
                raise InputError(
                    f"{say('exogenous')} {self.name!r} has times of day in ds and a known_at of {at.time}; "
                    "give dates, or name the column that says when rows were known."
                )
            return self._moments(panel, closes, say), in_utc(other["ds"].cast(pl.Date), at, latest=True)
        known = other["known_at"] if isinstance(at, KnownColumn) else other["ds"]
        if isinstance(at, KnownColumn) and is_timed(known):
            zone = at.zone or zone
            if zone is None:
                raise InputError(
                    f"{say('exogenous')} {self.name!r} is known at times of day, {known[0]} for example; say where: "
                    f"{say.entry('known_at', {'column': at.column, 'zone': 'America/New_York'})}."
                )
            return self._moments(panel, closes, say), zoned_to_utc(known, zone, latest=True)
        if at == "next_day" or panel["ds"].dtype == pl.Date or not is_timed(known):
            return _days(panel["ds"]), _days(known)
        return panel["ds"].to_physical().to_numpy(), known.to_physical().to_numpy()

    def _moments(self, panel: pl.DataFrame, closes: Closes | None, say: Wording) -> np.ndarray:
        if closes is None:
            raise InputError(
                f"{say('exogenous')} {self.name!r} is known at {_describe(self.known_at)}, but it is not said when the "
                f"panel's own dates end; set {say('closes', AN_HOUR)}, or use {say.entry('known_at', 'next_day')}."
            )
        return panel_moments(panel, closes)


def require_ids(frame: pl.DataFrame, ids: tuple[str, ...], label: str, where: str) -> None:
    """Refuse ids that the data do not have.

    Raises:
        InputError: an id is not there; names the nearest, and `where` it was asked for.
    """
    have = set(frame["unique_id"].unique().to_list()) if ids else set()
    unknown = [f"{name!r} ({nearest(name, sorted(have)[:200])})" for name in ids if name not in have]
    if unknown:
        raise InputError(f"{label} has no id {', no id '.join(unknown)}; correct {where}.")


def keep_ids(frame: pl.DataFrame, ids: tuple[str, ...], label: str, where: str) -> pl.DataFrame:
    """The rows of these ids; see `require_ids`."""
    require_ids(frame, ids, label, where)
    return frame.filter(pl.col("unique_id").is_in(list(ids)))


def _describe(at: Any) -> str:
    if isinstance(at, Clock):
        return f"{at.time:%H:%M} {at.zone}"
    return f"column {at.column!r}" if isinstance(at, KnownColumn) else str(at)


def _days(moments: pl.Series) -> np.ndarray:
    return moments.cast(pl.Date).to_physical().to_numpy()


def _newest(origin: np.ndarray, known: np.ndarray, strict: bool) -> np.ndarray:
    """Position in `known` (sorted) of the last entry at or (strict) before each origin; -1 where there is none."""
    return np.searchsorted(known, origin, side="left" if strict else "right") - 1


def _newest_by_id(
    ids: pl.Series, origin: np.ndarray, other_ids: pl.Series, known: np.ndarray, strict: bool
) -> np.ndarray:
    """`_newest` within the rows of the same id; both sides are sorted by (id, moment)."""
    left = pl.DataFrame({"id": ids, "at": pl.Series(origin, dtype=pl.Int64)})
    right = pl.DataFrame({"id": other_ids, "at": pl.Series(known, dtype=pl.Int64)}).with_row_index("row")
    joined = left.join_asof(
        right, on="at", by="id", strategy="backward", allow_exact_matches=not strict, check_sortedness=False
    )
    return joined["row"].cast(pl.Int64).fill_null(-1).to_numpy()
