"""Owns the road from stored columns to typed ones: renaming, ids as text, dates without a zone, numbers as float64."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.data.breaches import ROW, Breaches
from ssmfin.data.date_formats import format_remedy, formats_of
from ssmfin.data.moments import MICROSECONDS, on_calendar, parse_text
from ssmfin.data.range_variance import NEEDS
from ssmfin.data.sources.base import Part, Source, require_same_columns
from ssmfin.data.wording import KEYWORDS, Wording
from ssmfin.errors import InputError, nearest

KEYS = ("unique_id", "ds", "known_at")
_ID_NAMES = ("symbol", "ticker", "id", "asset", "instrument", "permno", "ric", "isin", "name")
_DATE_NAMES = ("date", "datetime", "timestamp", "time", "day", "trade_date", "index")
# What stands for "no value" in text. Not applied to ids: NA and NULL are tickers.
_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "-", ".")


@dataclass(frozen=True)
class Table:
    """A source's rows in the order in which they are stored.

    Attributes:
        frame: unique_id (String), ds and maybe known_at (Datetime("us"), naive), value columns (Float64, missing is
            null, never NaN), ROW (UInt32). No null among the keys.
        breaches: what was wrong so far. Rows concerned are in `frame` still, unless a key of theirs was null.
        part_starts: (parts,) first ROW of every file.
        zone: the time zone whose wall clock the moments show, if the data named one.
        left_out: columns that hold no numbers, and why they are not values.
    """

    frame: pl.DataFrame
    breaches: Breaches
    part_starts: np.ndarray
    zone: str | None
    left_out: dict[str, str]


def read_table(
    source: Source,
    *,
    columns: Mapping[str, str],
    required: Iterable[str] = (),
    used: Mapping[str, str] | None = None,
    computed: Iterable[str] = (),
    date_format: str | None = None,
    label: str | None = None,
    say: Wording = KEYWORDS,
) -> Table:
    """Read every file of a source and give its columns their names and types.

    Args:
        columns: ours to the user's names, {"unique_id": "symbol"}; other columns keep theirs.
        required: value columns that must be there and hold numbers.
        used: further columns that must be there, and, of any of `required` too, the setting that names it.
        computed: columns that loading will add, which a required one could be a misspelling of.
        date_format: strftime format of dates that are text and not ISO.
        label: the source's name in messages. say: how they name settings.
    Raises:
        InputError: a file cannot be read, a column is missing or of a type that cannot be meant, time zones are mixed.
    """
    parts = list(source.parts())
    starts = np.cumsum([0] + [part.frame.height for part in parts[:-1]])
    breaches = Breaches(label or source.describe(), lambda row: _place(parts, starts, row), say)
    left_out: dict[str, str] = {}
    zones: dict[str, str] = {}
    frames: list[pl.DataFrame] = []
    default_id = None if len(parts) > 1 else source.default_id()
    for part, start in zip(parts, starts, strict=True):
        require_same_columns(parts[0], part)
        frame = _renamed(part, columns, frozenset(required), used or {}, frozenset(computed), default_id, say)
        frame = frame.with_columns(pl.int_range(int(start), int(start) + frame.height, dtype=pl.UInt32).alias(ROW))
        frames.append(_typed(part, frame, columns, frozenset(required), date_format, breaches, zones, left_out))
    if len(set(zones.values())) > 1:
        seen = ", ".join(f"{zone or 'no zone'} in {where}" for where, zone in list(zones.items())[:5])
        raise InputError(f"{breaches.label} mixes time zones, {seen}; convert all dates to one zone.")
    values = [c for c in frames[0].columns if c not in (*KEYS, ROW) and c not in left_out]
    keys = [c for c in KEYS if c in frames[0].columns]
    order = [*keys, *values, ROW]
    frame = pl.concat([frame.select(order) for frame in frames], rechunk=True)
    return Table(frame, breaches, starts, next(iter(zones.values()), None) or None, left_out)


def _place(parts: list[Part], starts: np.ndarray, row: int) -> str:
    index = bisect_right(starts, row) - 1
    place = parts[index].where(row - int(starts[index]))
    return place if len(parts) == 1 else f"{parts[index].label} {place}"


def _renamed(
    part: Part,
    columns: Mapping[str, str],
    required: frozenset[str],
    used: Mapping[str, str],
    computed: frozenset[str],
    default_id: str | None,
    say: Wording,
) -> pl.DataFrame:
    """The part's columns under our names, an id column added where one single series has none."""
    have = part.frame.columns
    wrong = [f"{theirs!r} ({nearest(theirs, have)})" for theirs in columns.values() if theirs not in have]
    if wrong:
        raise InputError(
            f"{part.label} has no column {', no column '.join(wrong)}; correct {say('columns')}, it has {have}."
        )
    theirs = list(columns.values())
    if len(set(theirs)) < len(theirs):
        raise InputError(f"{say('columns')} gives one column two names, {dict(columns)}; name each column once.")
    for ours, their in columns.items():
        if ours != their and ours in have and ours not in theirs:
            raise InputError(
                f"{say('columns')} renames {their!r} to {ours!r}, but {part.label} has a column {ours!r} already; "
                f"rename that one too."
            )
    if ROW in have or not all(ours.strip() for ours in columns):
        raise InputError(
            f"{say('columns')} gives no name, or {part.label} uses the reserved {ROW!r}; rename that column."
        )
    frame = part.frame.rename({their: ours for ours, their in columns.items()})
    missing = []
    if "ds" not in frame.columns:
        missing.append("ds (the date" + _offer("ds", frame.columns, _DATE_NAMES, say) + ")")
    if "unique_id" not in frame.columns:
        offer = _offer("unique_id", frame.columns, _ID_NAMES, say)
        if offer or default_id is None:
            from_name = say("source.id_from_filename", True)
            remedy = offer or f": map one in {say('columns')}, or set {from_name} for one file an id"
            missing.append("unique_id (which series a row belongs to" + remedy + ")")
        else:
            frame = frame.with_columns(pl.lit(default_id).alias("unique_id"))
    values = [name for name in frame.columns if name not in KEYS]
    for name in sorted((required | used.keys()) - {*frame.columns, *(computed - required)}):
        remedy = (
            f"to compute it, {say('measures', {'kind': 'range', 'estimators': [name]})}"
            if name in NEEDS and {"high", "low"} <= set(values)
            else nearest(name, {*values, *(computed - {name})})
        )
        # all that is known is in the list of columns that ends the message
        listed = remedy.startswith("known: ") and computed <= {*values, name}
        said = [used.get(name, ""), "" if listed else remedy]
        missing.append(name + (f" ({'; '.join(filter(None, said))})" if any(said) else ""))
    if missing:
        raise InputError(f"{part.label} lacks the column {', and '.join(missing)}; it has {part.frame.columns}.")
    return frame.drop([name for name in frame.columns if not name.strip()])  # the index that pandas writes into csv


def _offer(ours: str, have: list[str], names: tuple[str, ...], say: Wording) -> str:
    """A ready-made entry of `columns`, if a column's name suggests it."""
    found = next((c for name in names for c in have if c.lower() == name), None)
    return "" if found is None else f": set {say('columns', {ours: found})}"


def _typed(
    part: Part,
    frame: pl.DataFrame,
    columns: Mapping[str, str],
    required: frozenset[str],
    date_format: str | None,
    breaches: Breaches,
    zones: dict[str, str],
    left_out: dict[str, str],
) -> pl.DataFrame:
    """Convert column by column; rows without id or date are flagged and left out here, for nothing can place them.

    Messages name the keys' columns as the user does: `columns` is ours to theirs.
    """
    identity = _as_id(part, frame["unique_id"], columns.get("unique_id", "unique_id"))
    named = frame.select(ROW).with_columns(identity.alias("unique_id"))
    keys: dict[str, pl.Series] = {}
    lost = identity.is_null()
    breaches.flag(
        named, lost, f"{columns.get('unique_id', 'unique_id')} is missing", "give every row an id", lambda row: "null"
    )
    for key in ("ds", "known_at"):
        if key not in frame.columns:
            continue
        theirs = columns.get(key, key)
        moments, offsets = _as_moments(part, frame[key].rename(theirs), date_format, breaches.say)
        _note_zone(part, frame[key].rename(theirs), frame[ROW], moments, offsets, zones, breaches)
        keys[key] = moments
        # a number shows what no calendar has: year 29293 can be stored and not be said
        raw = frame[key].to_physical() if frame[key].dtype.is_temporal() else frame[key]
        empty = raw.is_null()
        if raw.dtype == pl.String:
            empty = empty | raw.str.strip_chars().is_in(list(_MISSING))
        if key == "known_at" and "ds" in keys:
            named = named.with_columns(keys["ds"].alias("ds"))
        breaches.flag(named, empty, f"{theirs} is missing", "give every row a date", lambda row: "null")
        unread = moments.is_null() & ~empty
        if unread.all() or (unread.any() and date_format is not None and _reads_otherwise(raw.filter(~empty))):
            what = "holds no ISO date" if date_format is None else f"is not written as {date_format!r} says"
            written = raw.cast(pl.String).str.strip_chars().filter(~empty)
            remedy = format_remedy(written, breaches.say("date_format"), sets=": " if breaches.say.study else "=")
            at = int(unread.arg_true()[0])
            raise InputError(f"{part.label} {part.where(at)} column {theirs} {what}, {raw[at]!r}; {remedy}.")
        shown = named.with_columns(raw.alias("__text"))
        form = "YYYY-MM-DD" if date_format is None else f"{breaches.say('date_format')} says, {date_format!r}"
        breaches.flag(shown, unread, f"{theirs} is not a date", f"write it as {form}", lambda row: repr(row["__text"]))
        lost = lost | moments.is_null()
    named = named.with_columns(keys["ds"].alias("ds"))
    values: list[pl.Series] = []
    for name in frame.columns:
        if name in (*KEYS, ROW):
            continue
        number = _as_number(part, frame[name], name in required, named, breaches)
        if isinstance(number, str):
            left_out.setdefault(name, number)
        else:
            values.append(number.alias(name))
    typed = frame.select(
        identity.alias("unique_id"),
        *(moments.alias(key) for key, moments in keys.items()),
        *values,
        pl.col(ROW),
    )
    return typed.filter(~lost) if lost.any() else typed


def _reads_otherwise(written: pl.Series) -> bool:
    """Whether another form than the one given reads the whole column."""
    return bool(formats_of(written.cast(pl.String).str.strip_chars()))


def _as_id(part: Part, column: pl.Series, theirs: str) -> pl.Series:
    """Ids as text; integers are welcome, 10001.0 too, because pandas makes that of 10001 beside a missing one."""
    if column.dtype.is_float():
        whole = column.fill_nan(None)
        if (whole % 1 != 0).any():
            raise InputError(f"{part.label} column {theirs} holds fractions, {column[0]}; is another column the id?")
        column = whole.cast(pl.Int64)
    elif not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise InputError(f"{part.label} column {theirs} is of type {column.dtype}; give ids as text or whole numbers.")
    text = column.cast(pl.String)
    blank = text.str.strip_chars() == ""
    return pl.select(pl.when(~blank).then(text)).to_series() if blank.any() else text


def _as_moments(
    part: Part, column: pl.Series, date_format: str | None, say: Wording
) -> tuple[pl.Series, pl.Series | str | None]:
    """Naive moments, and the zone: a name for the whole column, an offset a row, or None."""
    if isinstance(column.dtype, pl.Datetime):
        zone = column.dtype.time_zone
        column = on_calendar(column)
        if zone is not None:
            column = column.dt.replace_time_zone(None)
        return column.cast(MICROSECONDS), zone
    if column.dtype == pl.Date:
        return on_calendar(column).cast(MICROSECONDS), None
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return parse_text(column.cast(pl.String), date_format)
    if column.dtype.is_integer() and date_format is not None:
        return parse_text(column.cast(pl.String), date_format)
    if column.dtype == pl.Null:
        return column.cast(MICROSECONDS), None
    raise InputError(
        f"{part.label} column {column.name} is of type {column.dtype}, {column[0]!r} for example; give dates, or set "
        f"{say('date_format')} ('%Y%m%d' reads 20200131)."
    )


def _note_zone(
    part: Part,
    column: pl.Series,
    rows: pl.Series,
    moments: pl.Series,
    offsets: pl.Series | str | None,
    zones: dict[str, str],
    breaches: Breaches,
) -> None:
    """Note the zone of a column of moments; refuse two zones in one column, for their order would be a guess."""
    key = column.name
    if offsets is None or isinstance(offsets, str):
        zones[f"{part.label} ({key})"] = offsets or ""
        return
    read = pl.DataFrame({"row": rows, "text": column.cast(pl.String), "offset": offsets}).filter(moments.is_not_null())
    first = read.group_by("offset", maintain_order=True).first()
    if first.height > 1:
        seen = ", ".join(f"{text!r} ({breaches.locate(row)})" for _, row, text in first.head(3).rows())
        raise InputError(f"{part.label} column {key} mixes time zones, {seen}; convert all dates to one zone.")
    zones[f"{part.label} ({key})"] = str(first["offset"][0]) if first.height else ""


def _as_number(
    part: Part, column: pl.Series, required: bool, named: pl.DataFrame, breaches: Breaches
) -> pl.Series | str:
    """The column as Float64 with null for missing, or the reason why it is not a value column."""
    dtype = column.dtype
    if dtype == pl.Float64 or dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.Float64).fill_nan(None)
    if dtype not in (pl.String, pl.Categorical, pl.Enum):
        if required:
            raise InputError(f"{part.label} column {column.name} is of type {dtype}; give numbers.")
        return f"of type {dtype}"
    text = column.cast(pl.String).str.strip_chars()
    text = text.replace(dict.fromkeys(_MISSING, None)) if len(text) else text
    plain = text.str.replace(",", ".", literal=True) if part.decimal == "," else text
    number = plain.cast(pl.Float64, strict=False)
    if part.decimal == "," and (pointed := text.str.contains(".", literal=True)).any():
        # 1.234 would be a thousand in such a file: never read it as one and a bit
        number = pl.select(pl.when(~pointed).then(number)).to_series()
    wrong = number.is_null() & text.is_not_null()
    words, numbers = int(wrong.sum()), len(number) - number.null_count()
    if words > numbers and not required:
        return f"text, {text.filter(wrong)[0]!r} for example"
    remedy = "write a number, or leave the cell empty where there is none"
    if words and part.decimal == "." and text.filter(wrong).str.contains(r"^-?\d+,\d+$").any():
        remedy += " (set source.decimal: ',' if it marks decimals)"
    shown = named.with_columns(text.alias("__text"))
    breaches.flag(shown, wrong, f"{column.name} is not a number", remedy, lambda row: repr(row["__text"]))
    return number.fill_nan(None)
