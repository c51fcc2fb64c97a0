"""Owns the panel contract: keys, order, duplicates, magnitudes, prices, targets, gaps.

The order of the rows. Files may come in any order and a file may hold its ids in any order, because nothing is lost by
sorting those. Within one file the dates of an id must rise (or fall throughout: newest first): a date that jumps back
is as a rule a wrong date (day and month swapped, a century), and sorting would hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.breaches import ROW, Breaches, moment
from ssmfin.data.moments import AN_HOUR, DAY, Closes
from ssmfin.data.wording import KEYWORDS, Wording
from ssmfin.errors import InputError, nearest

# Squares (losses, variances) of larger values overflow float64.
LARGEST = float(np.sqrt(np.finfo(np.float64).max))
# Float32 prices and rounded adjustment factors move a close past the high by less than this, relatively.
PRICE_TOLERANCE = 1e-6
GAP_DATES = 22  # dates that others traded and the id did not; the longest HAR window
GAP_DAYS = 31  # calendar days, where there are no others


def sort_rows(frame: pl.DataFrame, part_starts: np.ndarray, breaches: Breaches) -> tuple[pl.DataFrame, bool]:
    """Rows sorted by (unique_id, ds), flagged where the stored order or a duplicate key is a breach.

    Args:
        frame: unique_id, ds, values, ROW, in stored order.
        part_starts: first ROW of every file.
    Returns:
        The sorted frame and whether the files hold the newest rows first.
    """
    same_id = frame["unique_id"] == frame["unique_id"].shift()
    rising = frame["ds"] > frame["ds"].shift()
    heads = frame["unique_id"].filter(~same_id.fill_null(False))
    if (rising | ~same_id).fill_null(True).all() and bool((heads > heads.shift()).fill_null(True).all()):
        return frame, False  # sorted and unique already: the usual case of a large file
    frame = frame[pl.Series(_order(frame["unique_id"], frame["ds"]))]
    same_id = (frame["unique_id"] == frame["unique_id"].shift()).fill_null(False)
    equal = same_id & (frame["ds"] == frame["ds"].shift()).fill_null(False)
    _flag_duplicates(frame, equal, breaches)
    newest_first = _flag_disorder(frame, same_id & ~equal, part_starts, breaches)
    return frame, newest_first


def _order(ids: pl.Series, ds: pl.Series) -> np.ndarray:
    """(rows,) positions that sort by (id, ds), rows of equal keys in stored order.

    Two stable passes over small integers, which numpy sorts by radix: seven times as fast as comparing text.
    """
    code = ids.cast(pl.Enum(ids.unique().sort())).to_physical().to_numpy()
    moments = ds.to_physical().to_numpy()
    since = moments - moments.min()
    if (since % DAY == 0).all() and since.max() // DAY < 1 << 16:
        since = (since // DAY).astype(np.uint16)
    by_date = np.argsort(since, kind="stable")
    if len(np.unique(code)) <= 1 << 16:
        code = code.astype(np.uint16)
    return by_date[np.argsort(code[by_date], kind="stable")]


def _flag_duplicates(frame: pl.DataFrame, equal: pl.Series, breaches: Breaches) -> None:
    """Copies: one of them stays. Rows that contradict each other: all of them go, for none is known to be right."""
    if not equal.any():
        return
    twice = equal | equal.shift(-1, fill_value=False)
    values = [c for c in frame.columns if c != ROW]
    copy = equal
    for name in values:
        copy = copy & frame[name].eq_missing(frame[name].shift())
    suspects = frame.filter(twice).with_columns(
        copy.filter(twice).alias("__copy"), equal.filter(twice).alias("__equal")
    )
    alike = (pl.col("__copy") | ~pl.col("__equal")).all().over("unique_id", "ds")
    suspects = suspects.with_columns(alike.alias("__alike"))
    copies = suspects.select((pl.col("__equal") & pl.col("__alike")).alias("m"))["m"]
    breaches.flag(
        suspects, copies, "a row is stored twice", "keep one of them (dropping keeps one)", lambda row: "an exact copy"
    )
    differ = suspects.select((~pl.col("__alike")).alias("m"))["m"]
    shown = next((c for c in values if c not in ("unique_id", "ds", "known_at")), "ds")
    breaches.flag(
        suspects,
        differ,
        "(unique_id, ds) is not unique",
        "keep the right one (dropping leaves out all of them); is an id column or the time of day missing?",
        lambda row: f"{shown} = {row[shown]}",
    )


def _flag_disorder(frame: pl.DataFrame, pair: pl.Series, part_starts: np.ndarray, breaches: Breaches) -> bool:
    """Flag ids whose dates neither rise nor fall throughout a file; answer whether they fall."""
    part = pl.Series(np.searchsorted(part_starts, frame[ROW].to_numpy(), side="right"), dtype=pl.UInt32)
    pair = pair & (part == part.shift()).fill_null(False)
    falls = pair & (frame[ROW] < frame[ROW].shift()).fill_null(False)
    if not falls.any():
        return False
    counts = (
        frame.select("unique_id")
        .with_columns(part.alias("part"), pair.alias("pairs"), falls.alias("falls"))
        .group_by("unique_id", "part")
        .agg(pl.col("pairs").sum(), pl.col("falls").sum())
        .filter((pl.col("falls") > 0) & (pl.col("falls") < pl.col("pairs")))
    )
    if counts.is_empty():
        return True
    mixed = frame.with_columns(part.alias("part")).join(counts, on=["unique_id", "part"], how="semi").sort(ROW)
    by_series = pl.col("ds").shift().over("unique_id", "part")
    mixed = mixed.with_columns(by_series.alias("__before")).with_columns(
        (pl.col("ds") < pl.col("__before")).alias("__back")
    )
    breaches.flag(
        mixed,
        mixed["__back"].fill_null(False),
        "dates within an id are not in order",
        "check these dates, then sort the file by date",
        lambda row: f"comes after {moment(row['__before'])}",
        droppable=False,
    )
    return False


def check_values(frame: pl.DataFrame, breaches: Breaches) -> None:
    """Infinite and absurdly large values in any value column; the order of `known_at`. `frame` is sorted."""
    for name in value_columns(frame):
        size = frame[name].abs()
        if (size.max() or 0.0) <= LARGEST:  # type: ignore[operator]
            continue
        infinite = size.is_infinite().fill_null(False)
        breaches.flag(
            frame, infinite, f"{name} is infinite", "write a number, or nothing where there is none", _value(name)
        )
        absurd = (size > LARGEST).fill_null(False) & ~infinite
        breaches.flag(
            frame, absurd, f"{name} is too large to be squared (limit {LARGEST:.3g})", "check its unit", _value(name)
        )
    if "known_at" in frame.columns:
        early = frame["known_at"] < frame["ds"]
        show = lambda row: f"known at {moment(row['known_at'])}"  # noqa: E731 - one wording for two flags
        breaches.flag(
            frame, early, "known_at is before ds", "a row cannot be known before its date: correct one of them", show
        )
        latest = frame.select(pl.col("known_at").cum_max().shift().over("unique_id"))["known_at"]
        sinks = (frame["known_at"] < latest).fill_null(False)
        breaches.flag(frame, sinks, "known_at is earlier than that of an older row of the id", "correct known_at", show)


def check_prices(frame: pl.DataFrame, names: Sequence[str], breaches: Breaches) -> None:
    """Prices that no day of trading can have: not positive, high below low, open or close outside the range.

    Args:
        names: those of open, high, low, close that are in use.
    """
    positive = pl.repeat(True, frame.height, eager=True, dtype=pl.Boolean)
    for name in names:
        wrong = (frame[name] <= 0).fill_null(False)
        positive = positive & ~wrong
        breaches.flag(frame, wrong, f"{name} is not a positive price", "correct the price", _value(name))
    room = 1.0 + PRICE_TOLERANCE
    crossed = positive & (frame["high"] * room < frame["low"]).fill_null(False)
    breaches.flag(
        frame,
        crossed,
        "high is below low",
        "correct the prices",
        lambda row: f"high {row['high']!r}, low {row['low']!r}",
    )
    for name in (n for n in names if n in ("open", "close")):
        price = frame[name]
        outside = (
            ((price > frame["high"] * room) | (price * room < frame["low"])).fill_null(False) & positive & ~crossed
        )
        breaches.flag(
            frame,
            outside,
            f"{name} is outside the range from low to high",
            "correct the prices",
            lambda row, name=name: f"{name} {row[name]!r}, low {row['low']!r}, high {row['high']!r}",  # type: ignore[misc]
        )


def check_target(frame: pl.DataFrame, target: str, positive: bool, breaches: Breaches) -> None:
    """The target must be there on every row, and above zero where its logarithm will be taken.

    Raises:
        InputError: there is no such column; names the nearest.
    """
    have = value_columns(frame)
    if target not in have:
        raise InputError(f"{breaches.say('target')} {target!r} is not in {breaches.label}; {nearest(target, have)}.")
    column = frame[target]
    missing = column.is_null()
    if missing.all():
        breaches.add(
            f"{target} is the target and has no value at all, {frame.height:,} empty rows", "choose another column"
        )
        return
    breaches.flag(
        frame,
        missing,
        f"{target} is the target and is missing (NaN)",
        "give its value or leave the row out",
        lambda row: "NaN",
    )
    if positive:
        wrong = (column <= 0).fill_null(False)
        remedy = f"correct the values, or use {breaches.say('positive', False)}"
        breaches.flag(frame, wrong, f"{target} is not positive and a log is taken of it", remedy, _value(target))


def check_dates(frame: pl.DataFrame, breaches: Breaches) -> None:
    """A panel of a single date has no past and no future."""
    if frame["ds"].min() == frame["ds"].max():
        date = moment(frame["ds"][0])
        breaches.add(
            f"the panel has a single date, {date}",
            f"give at least two dates (is {breaches.say('columns.ds')} the right column?)",
        )


def find_gaps(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Stretches in which an id is absent while others trade. Calendars differ, so this is a note and no breach.

    A date counts if at least half of the ids that are between their own first and last row trade on it; more than
    GAP_DATES such dates are a gap. A panel of one id has no others: more than GAP_DAYS calendar days are one.

    Returns:
        {"unique_id", "after", "before", "dates"} for each, the longest first; `dates` counts what was missed.
    """
    ids = frame["unique_id"]
    same_id = (ids == ids.shift()).fill_null(False).to_numpy()
    ds = frame["ds"].cast(pl.Datetime("us")).to_physical().to_numpy()
    dates = frame["ds"].unique().sort().cast(pl.Datetime("us")).to_physical().to_numpy()
    index = np.searchsorted(dates, ds)
    first = np.flatnonzero(~same_id)
    last = np.append(first[1:], len(ds)) - 1
    if len(first) == 1:
        missed = np.diff(ds, prepend=ds[0]) // DAY - 1
        limit = GAP_DAYS
    else:
        trading = np.bincount(index, minlength=len(dates))
        active = np.bincount(index[first], minlength=len(dates)).cumsum()
        active -= np.concatenate([[0], np.bincount(index[last], minlength=len(dates)).cumsum()[:-1]])
        busy = np.cumsum(2 * trading >= active)
        missed = np.diff(busy[index], prepend=0) - (2 * trading >= active)[index]
        limit = GAP_DATES
    rows = np.flatnonzero((missed > limit) & same_id)
    rows = rows[np.argsort(-missed[rows], kind="stable")]
    return [
        {
            "unique_id": ids[int(row)],
            "after": moment(frame["ds"][int(row) - 1]),
            "before": moment(frame["ds"][int(row)]),
            "dates": int(missed[row]),
        }
        for row in rows
    ]


def value_columns(frame: pl.DataFrame) -> tuple[str, ...]:
    """Columns that are neither a key nor the row number."""
    return tuple(c for c in frame.columns if c not in ("unique_id", "ds", "known_at", ROW))


def to_dates(frame: pl.DataFrame, closes: Closes | None, label: str, say: Wording = KEYWORDS) -> pl.DataFrame:
    """ds and known_at as Date if no ds has a time of day; else both stay Datetime("us").

    A `known_at` with a time of day beside plain dates needs to know when those dates end: what is known later than
    `closes` (on the same wall clock) counts for the next day.

    Raises:
        InputError: known_at has times of day, ds has none, and when its dates end is not given, or differs between ids.
    """
    if (frame["ds"].to_physical() % DAY != 0).any():
        return frame
    frame = frame.with_columns(pl.col("ds").cast(pl.Date))
    if "known_at" not in frame.columns:
        return frame
    known = frame["known_at"]
    of_day = known.to_physical() % DAY
    if (of_day != 0).any():
        if closes is None:
            first = known.filter(of_day != 0)[0]
            raise InputError(
                f"known_at of {label} has a time of day, {first}, and ds is a plain date; say when a date ends with "
                f"{say('closes', AN_HOUR)}, or give known_at as dates."
            )
        if closes.by_id:
            raise InputError(
                f"known_at of {label} has a time of day, and {say('closes.by_id')} names several clocks, "
                f"{sorted(closes.by_id)}; give known_at as dates, each by the clock of its own id."
            )
        limit = (closes.time.hour * 3600 + closes.time.minute * 60 + closes.time.second) * 1_000_000
        day = known.to_physical() // DAY + (of_day > limit).cast(pl.Int64)
        return frame.with_columns(day.cast(pl.Int32).cast(pl.Date).alias("known_at"))
    return frame.with_columns(pl.col("known_at").cast(pl.Date))


def _value(name: str) -> Any:
    return lambda row: repr(row[name])
