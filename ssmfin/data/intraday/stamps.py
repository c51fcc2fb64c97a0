"""Owns the clock of a source's stamps: naive wall clock of one zone, or UTC; and rows whose moment is in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl

from ssmfin.data.date_formats import format_remedy
from ssmfin.data.intraday.calendars import Calendar, Sessions, wall_clock, years_around
from ssmfin.data.intraday.durations import DAY
from ssmfin.data.intraday.scan import STAMP, Batch
from ssmfin.data.moments import MICROSECONDS, parse_text
from ssmfin.errors import InputError

UTC = "UTC"


class Stamps(NamedTuple):
    """Stamps of a batch on the source's clock.

    Attributes:
        time: (R,) int64 microseconds; 0 where it is not known.
        lost: (R,) bool, the stamp is missing or cannot be read.
        unzoned: (R,) bool, text without an offset where other rows have one; read on the calendar's clock.
    """

    time: np.ndarray
    lost: np.ndarray
    unzoned: np.ndarray


@dataclass
class Clock:
    """Which clock the stamps of a source show. The first batch decides; a later one that differs is refused.

    Attributes:
        naive_zone: whose wall clock naive stamps are.
        zone: of the stamps as `read` returns them: `naive_zone` or UTC; None before the first batch.
    """

    label: str
    naive_zone: str
    date_format: str | None = None
    zone: str | None = None
    zoned: bool | None = None

    def read(self, batch: Batch) -> Stamps:
        """The stamps of a batch.

        Raises:
            InputError: no stamp can be read, or some files have a time zone and others none.
        """
        column = batch.frame[STAMP]
        if column.dtype == pl.String:
            return self._read_text(column)
        zoned = batch.zone is not None
        self._settle(zoned)
        none = np.zeros(len(column), dtype=bool)
        if not column.null_count():
            return Stamps(column.to_numpy(), none, none)
        return Stamps(column.fill_null(0).to_numpy(), column.is_null().to_numpy(), none)

    def _read_text(self, column: pl.Series) -> Stamps:
        moments, offsets = parse_text(column, self.date_format)
        if len(moments) and moments.null_count() == len(moments) and self.zoned is None:
            what = "holds no ISO time" if self.date_format is None else f"is not written as {self.date_format!r} says"
            remedy = format_remedy(column.str.strip_chars(), "date_format", iso="YYYY-MM-DD HH:MM:SS")
            raise InputError(f"{self.label} {what}, {column[0]!r}; {remedy}.")
        lost = moments.is_null().to_numpy()
        time = moments.to_physical().fill_null(0).to_numpy()
        none = np.zeros(len(time), dtype=bool)
        if offsets is None:
            if self.zoned:  # a file of plain stamps after others with offsets
                return Stamps(self._to_utc(time), lost, ~lost)
            self._settle(False)
            return Stamps(time, lost, none)
        self._settle(True)
        text = offsets.fill_null("")
        unzoned = (text == "").to_numpy() & ~lost
        hours = text.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0)
        minutes = text.str.slice(4, 2).cast(pl.Int64, strict=False).fill_null(0)
        sign = pl.select(pl.when(text.str.starts_with("-")).then(-1).otherwise(1)).to_series()
        shift = ((hours * 60 + minutes) * sign).to_numpy() * 60_000_000
        utc = time - shift
        if unzoned.any():
            utc = np.where(unzoned, self._to_utc(time), utc)
        return Stamps(utc, lost, unzoned)

    def _to_utc(self, time: np.ndarray) -> np.ndarray:
        """Naive stamps as UTC, good enough to place them on a day; the rows are flagged."""
        local = pl.Series(time, dtype=pl.Int64).cast(MICROSECONDS)
        zoned = local.dt.replace_time_zone(self.naive_zone, ambiguous="earliest", non_existent="null")
        return zoned.dt.convert_time_zone(UTC).to_physical().fill_null(pl.Series(time)).to_numpy()

    def _settle(self, zoned: bool) -> None:
        if self.zoned is None:
            self.zoned = zoned
            self.zone = UTC if zoned else self.naive_zone
        elif self.zoned != zoned:
            raise InputError(
                f"{self.label} mixes time zones, stamps with a zone in some files and without one in others; "
                f"give all files the same."
            )


class ClockedSessions(NamedTuple):
    """Sessions as the source's clock shows them.

    Attributes:
        sessions: in UTC.
        open, close: (S,) on the source's clock.
        break_start, break_end: (S,) microseconds of trading since the open at which a break begins, and its length.
        shifts: (S,) bool, the clock is set within the session: its rows need the exact conversion.
    """

    sessions: Sessions
    open: np.ndarray
    close: np.ndarray
    break_start: np.ndarray
    break_length: np.ndarray
    shifts: np.ndarray


def on_clock(calendar: Calendar, first: int, last: int, zone: str) -> ClockedSessions:
    """The sessions around stamps `first` to `last` of the clock `zone`."""
    return _on_clock(calendar, *years_around(first - DAY, last + DAY), zone)


@lru_cache(maxsize=64)  # asked for by every batch; to convert some years takes as long as to place its rows
def _on_clock(calendar: Calendar, first_year: int, last_year: int, zone: str) -> ClockedSessions:
    sessions = calendar.of_years(first_year, last_year)
    if zone == UTC:
        open_, close = sessions.open, sessions.close
    else:  # copies, since loops are compiled once more for arrays that may not be written
        open_, close = wall_clock(sessions.open, zone).copy(), wall_clock(sessions.close, zone).copy()
    return ClockedSessions(
        sessions,
        open_,
        close,
        sessions.break_start - sessions.open,
        sessions.break_end - sessions.break_start,
        (close - open_) != (sessions.close - sessions.open),
    )


class Exact(NamedTuple):
    """Wall-clock stamps as UTC: (R,) int64, and which do not exist or exist twice."""

    time: np.ndarray
    skipped: np.ndarray
    ambiguous: np.ndarray


def exact_utc(time: np.ndarray, zone: str) -> Exact:
    """Naive stamps of a zone as UTC; of two possible moments the earlier, of none the one an hour before."""
    local = pl.Series(time, dtype=pl.Int64).cast(MICROSECONDS)
    early = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    late = local.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    skipped = early.is_null()
    ambiguous = (early != late).fill_null(False)
    if skipped.any():
        moved = pl.select(local - pl.duration(hours=1)).to_series()
        before = moved.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        early = pl.select(pl.when(skipped).then(before).otherwise(early)).to_series()
    utc = early.dt.convert_time_zone(UTC).to_physical().fill_null(pl.Series(time)).to_numpy()
    return Exact(utc, skipped.to_numpy(), ambiguous.to_numpy())
