"""Owns trading sessions: an exchange's own calendar (exchange_calendars), or fixed hours of every date.

Moments are microseconds of UTC since 1970. Half days, holidays, lunch breaks and daylight saving come from the
calendar.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl

from ssmfin.data.intraday.durations import DAY
from ssmfin.data.moments import MICROSECONDS, zoned_to_utc
from ssmfin.errors import InputError, nearest

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(24:00|(?:[01]\d|2[0-3]):[0-5]\d)\s+(\S+)")
_YEARS = 25
_EPOCH = np.datetime64("1970-01-01", "D")


class Sessions(NamedTuple):
    """S consecutive sessions in time order, none of which overlap.

    Attributes:
        label: (S,) days since 1970, the session's date.
        open, close: (S,) int64 microseconds of UTC.
        break_start, break_end: (S,) int64 likewise; both `close` where there is no break.
    """

    label: np.ndarray
    open: np.ndarray
    close: np.ndarray
    break_start: np.ndarray
    break_end: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """(S,) microseconds of trading, the break left out."""
        length: np.ndarray = (self.close - self.open) - (self.break_end - self.break_start)
        return length


@dataclass(frozen=True)
class Calendar:
    """When a market trades.

    Attributes:
        name: of the exchange (ISO 10383: XNYS; 24/7, 24/5), or "09:30-16:00 America/New_York" for the same hours on
            every date that has data.
        zone: IANA name of its time zone.
        hours: opening and closing minute of the day and whether it opens on the eve, for fixed hours.
    """

    name: str
    zone: str
    hours: tuple[int, int] | None = None

    @property
    def knows_holidays(self) -> bool:
        """Whether a date without data is missing rather than a day off."""
        return self.hours is None

    def between(self, first: int, last: int) -> Sessions:
        """The sessions that may hold moments from `first` to `last`, and a few around them."""
        return self.of_years(*years_around(first, last))

    def of_years(self, first: int, last: int) -> Sessions:
        """The sessions of whole years; made once."""
        return _sessions(self.name, self.zone, self.hours, first, last)


def years_around(first: int, last: int) -> tuple[int, int]:
    """The years that hold two moments and three days around them."""
    years = (np.array([first - 3 * DAY, last + 3 * DAY]) // DAY + _EPOCH).astype("datetime64[Y]").astype(int) + 1970
    return int(years[0]), int(years[1])


def calendar_named(name: str) -> Calendar:
    """The calendar of an exchange, or fixed hours.

    Args:
        name: `XNYS`, `XLON`, `24/7`, ..., an alias such as `NYSE`, or `09:30-16:00 America/New_York`. Hours that open
            later than they close begin on the eve: `18:00-17:00 America/New_York`.
    Raises:
        InputError: there is no such exchange or time zone.
    Example:
        >>> calendar_named("09:30-16:00 America/New_York").zone
        'America/New_York'
    """
    text = name.strip()
    match = _HOURS.fullmatch(text)
    if match is not None:
        close_hour, close_minute = map(int, match[3].split(":"))
        zone = match[4]
        _require_zone(zone, name)
        return Calendar(text, zone, (60 * int(match[1]) + int(match[2]), 60 * close_hour + close_minute))
    import exchange_calendars

    known = exchange_calendars.get_calendar_names(include_aliases=True)
    if text not in known:
        raise InputError(
            f"calendar {name!r} is no exchange that we know; {nearest(text, known)} "
            f'(or give fixed hours, "09:30-16:00 America/New_York").'
        )
    return Calendar(text, _zone_of(text))


def _require_zone(zone: str, name: str) -> None:
    try:
        pl.Series([0], dtype=MICROSECONDS).dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError:
        raise InputError(f"calendar {name!r} names no time zone, {zone!r}; use a name such as Europe/Berlin.") from None


@lru_cache(maxsize=32)
def _zone_of(name: str) -> str:
    return str(_exchange(name, 2015, 2015).tz)


def _exchange(name: str, first_year: int, last_year: int):  # type: ignore[no-untyped-def]
    """The calendar of those years or more: to build one takes as long for a year as for decades."""
    from exchange_calendars.errors import CalendarError

    try:
        return _built(name, first_year // _YEARS * _YEARS, last_year // _YEARS * _YEARS + _YEARS - 1)
    except (ValueError, CalendarError):  # some are not known so far back or ahead
        pass
    try:
        return _built(name, first_year, last_year)
    except (ValueError, CalendarError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"calendar {name!r} does not reach over the data's years, {first_year} to {last_year} ({reason}); "
            f"check the stamps, or give fixed hours."
        ) from None


@lru_cache(maxsize=16)
def _built(name: str, first_year: int, last_year: int):  # type: ignore[no-untyped-def]
    import exchange_calendars
    import pandas as pd  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        # exchange_calendars 4.13 reads naive nanoseconds through Series.values, which pandas 3.1 deprecates
        warnings.simplefilter("ignore", getattr(pd.errors, "Pandas4Warning", DeprecationWarning))
        return exchange_calendars.get_calendar(name, start=f"{first_year}-01-01", end=f"{last_year}-12-31")


@lru_cache(maxsize=64)
def _sessions(name: str, zone: str, hours: tuple[int, int] | None, first_year: int, last_year: int) -> Sessions:
    if hours is not None:
        return _fixed_hours(zone, hours, first_year, last_year)
    schedule = _exchange(name, first_year, last_year).schedule.loc[f"{first_year}-01-01" : f"{last_year}-12-31"]
    moments = {
        column: schedule[column].dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        for column in ("open", "break_start", "break_end", "close")
    }
    never = schedule["break_start"].isna().to_numpy()
    label = schedule.index.to_numpy().astype("datetime64[D]").astype(np.int64)
    return Sessions(
        label,
        moments["open"],
        moments["close"],
        np.where(never, moments["close"], moments["break_start"]),
        np.where(never, moments["close"], moments["break_end"]),
    )


def _fixed_hours(zone: str, hours: tuple[int, int], first_year: int, last_year: int) -> Sessions:
    label = np.arange(np.datetime64(f"{first_year}-01-01"), np.datetime64(f"{last_year + 1}-01-01"))
    opening, closing = hours
    eve = opening >= closing  # opens on the evening before
    midnight = pl.Series(label.astype("datetime64[us]")).cast(MICROSECONDS)
    opens = _local_to_utc(midnight, opening - 1440 if eve else opening, zone)
    closes = _local_to_utc(midnight, closing, zone)
    return Sessions(label.astype(np.int64), opens, closes, closes, closes)


def _local_to_utc(midnight: pl.Series, minutes: int, zone: str) -> np.ndarray:
    local = pl.select(midnight + pl.duration(minutes=minutes)).to_series()
    try:
        return zoned_to_utc(local, zone, latest=True)
    except InputError:  # a time that spring skips, as midnight in some zones: the hour after
        later = local.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null").is_null()
        shifted = pl.select(pl.when(later).then(local + pl.duration(hours=1)).otherwise(local)).to_series()
        return zoned_to_utc(shifted, zone, latest=True)


def wall_clock(moments: np.ndarray, zone: str) -> np.ndarray:
    """Moments of UTC as the wall clock of a zone shows them, both (R,) int64 microseconds."""
    utc = pl.Series(moments, dtype=pl.Int64).cast(MICROSECONDS).dt.replace_time_zone("UTC")
    return utc.dt.convert_time_zone(zone).dt.replace_time_zone(None).to_physical().to_numpy()
