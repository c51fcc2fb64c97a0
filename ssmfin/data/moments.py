"""Owns dates and clocks: text to naive moments, one time zone a table, closing times to moments in UTC."""

from __future__ import annotations

import datetime
import difflib
import zoneinfo
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ssmfin.errors import InputError

MICROSECONDS = pl.Datetime("us")
DAY = 86_400_000_000  # microseconds
AN_HOUR = {"time": "16:00", "zone": "America/New_York"}  # an example, for messages

_ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(\.\d{1,9})?)?\s*(Z|[+-]\d{2}:?\d{2})?$"


def parse_text(text: pl.Series, date_format: str | None) -> tuple[pl.Series, pl.Series | None]:
    """ISO dates and datetimes (or `date_format`, strftime) to naive wall-clock moments.

    Args:
        text: (rows,) strings.
    Returns:
        (rows,) Datetime("us"), null where the text is not a date; (rows,) the offset of each text ("" for none,
        "+00:00" for Z), or None if no text has one.
    """
    text = text.str.strip_chars()
    if date_format is not None:
        timed = any(code in date_format for code in ("%H", "%I", "%T", "%M", "%R"))
        if timed:
            return text.str.to_datetime(date_format, time_unit="us", strict=False), None
        return text.str.to_date(date_format, strict=False).cast(MICROSECONDS), None
    if (text.str.len_bytes() == 10).all():  # nulls are ignored; the quick road for plain dates
        plain = pl.when(text.str.contains(r"^\d{4}-\d{2}-\d{2}$")).then(text)
        return pl.select(plain.str.to_date("%Y-%m-%d", strict=False).cast(MICROSECONDS)).to_series(), None
    groups = text.str.extract_groups(_ISO).struct.unnest()
    day, clock, second, fraction, offset = (groups[name] for name in groups.columns)
    whole = day + " " + clock.fill_null("00:00") + second.fill_null(":00") + fraction.fill_null(".0")
    moments = whole.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    if offset.null_count() == len(offset):
        return moments, None
    offset = offset.str.replace("^Z$", "+00:00").str.replace(r"^([+-]\d{2})(\d{2})$", "$1:$2")
    return moments, offset.fill_null("")


def on_calendar(moments: pl.Series) -> pl.Series:
    """Dates or datetimes with null for what lies outside the years 1 to 9999, which cannot even be shown."""
    units = {"ms": 86_400_000, "us": DAY, "ns": DAY * 1000}
    a_day = units[moments.dtype.time_unit] if isinstance(moments.dtype, pl.Datetime) else 1
    first, last = (
        day.toordinal() - datetime.date(1970, 1, 1).toordinal() for day in (datetime.date.min, datetime.date.max)
    )
    number = moments.to_physical()
    # a day less at both ends: a change of zone must stay within the calendar
    inside = (number // a_day).is_between(first + 1, last - 1)
    if inside.fill_null(True).all():
        return moments
    return pl.select(pl.when(inside).then(moments)).to_series()


def is_timed(moments: pl.Series) -> bool:
    """Whether any moment has a time of day. `moments` is Date or Datetime("us")."""
    if moments.dtype == pl.Date:
        return False
    return bool((moments.to_physical() % DAY != 0).any())


def _clock(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError('write the time of day in quotes, "16:00"')
    return value


def _zone(name: str) -> str:
    try:
        pl.Series([0], dtype=MICROSECONDS).dt.replace_time_zone(name)
    except pl.exceptions.PolarsError:
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "use a name such as America/New_York"
        raise ValueError(f"no such time zone, {name!r}; {remedy}") from None
    return name


TimeOfDay = Annotated[datetime.time, BeforeValidator(_clock, json_schema_input_type=str)]
Zone = Annotated[str, AfterValidator(_zone)]


class Clock(BaseModel):
    """A time of day in a place: `{time: "16:00", zone: "America/New_York"}`. Daylight saving is accounted for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: TimeOfDay = Field(description='local time of day, in quotes: "16:15"')
    zone: Zone = Field(description="IANA name of the time zone")


class Closes(Clock):
    """When a panel's dates end: the moment at which a row's ds is its origin. Early closes are not known to it."""

    by_id: dict[str, Clock] = Field(default_factory=dict, description="ids that close at another time or place")


def in_utc(days: pl.Series, clock: Clock, *, latest: bool) -> np.ndarray:
    """The clock's time on each day as microseconds of UTC since 1970, (rows,) int64.

    Args:
        days: (rows,) Date.
        latest: which of two moments to take in the hour that autumn repeats. What becomes known is taken late and an
            origin early, so that a doubt never lets the future in.
    Raises:
        InputError: spring skips that time on one of the days.
    """
    local = days.cast(MICROSECONDS) + datetime.timedelta(
        hours=clock.time.hour, minutes=clock.time.minute, seconds=clock.time.second
    )
    return zoned_to_utc(local, clock.zone, latest=latest)


def zoned_to_utc(local: pl.Series, zone: str, *, latest: bool) -> np.ndarray:
    """Wall-clock moments of a zone as microseconds of UTC since 1970, (rows,) int64; see `in_utc`."""
    zoned = local.dt.replace_time_zone(zone, ambiguous="latest" if latest else "earliest", non_existent="null")
    skipped = zoned.is_null() & local.is_not_null()
    if skipped.any():
        first = local.filter(skipped)[0]
        raise InputError(f"{first} does not exist in {zone}, daylight saving skips it; choose another time of day.")
    return zoned.dt.convert_time_zone("UTC").to_physical().to_numpy()


def panel_moments(frame: pl.DataFrame, closes: Closes) -> np.ndarray:
    """The moment in UTC of every row of a panel, (rows,) int64 microseconds.

    Args:
        frame: unique_id and ds; ds is a Date, or a Datetime whose wall clock is that of `closes.zone`.
    """
    if frame["ds"].dtype != pl.Date:
        if closes.by_id:
            raise InputError("closes.by_id is given, but ds has a time of day already; leave by_id out.")
        return zoned_to_utc(frame["ds"], closes.zone, latest=False)
    moments = in_utc(frame["ds"], closes, latest=False).copy()
    for clock in set(closes.by_id.values()):
        names = [name for name, own in closes.by_id.items() if own == clock]
        rows = frame["unique_id"].is_in(names).to_numpy()
        moments[rows] = in_utc(frame["ds"].filter(rows), clock, latest=False)
    return moments
