"""Owns which column of a file names its series, and the refusal of files whose rows share dates without one."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from ssmfin.data.date_formats import formats_of, is_iso
from ssmfin.data.moments import parse_text
from ssmfin.errors import InputError, nearest

_NAMES = ("unique_id", "symbol", "ticker", "id", "asset", "instrument", "permno", "ric", "isin", "name")
# words that name series in some files and something else in others: believed where they tell rows of one date apart
_LOOSE_NAMES = (
    "index", "series", "code", "market", "cusip", "sedol", "figi", "gvkey", "permco", "wkn", "bbg_ticker", "stock",
    "security", "fund", "pair", "currency", "ccy", "commodity", "contract", "country", "item",
)  # fmt: skip
# columns that tell apart rows of one date within one series
_TIMES = {"time", "hour", "minute", "second", "hh", "bar", "session", "uhrzeit", "stunde", "zeit", "horizon", "lag"}
_CLOCK = re.compile(r"\d{1,2}:\d{2}.*")
FEW = 10  # rows for each value that a column has on average, at least, to be taken for the names of series
_SHOWN = 12  # columns named in a message


def id_column(path: Path, frame: pl.DataFrame, dates: str, given: str | None = None) -> tuple[str | None, bool]:
    """The column that names the series, None for a file of one series; and whether its values gave it away, not its
    name.

    Args:
        dates: the date column. given: what the user says the column is.
    Raises:
        InputError: `given` is no column, or the date column.
    """
    return _found(_bare(frame, dates), dates) if given is None else (_given(path, frame, dates, given), False)


def _bare(frame: pl.DataFrame, dates: str) -> pl.DataFrame:
    """The frame with nothing where a date is blank."""
    text = frame.schema[dates] == pl.String
    return frame.with_columns(pl.col(dates).str.strip_chars().replace("", None)) if text else frame


def _given(path: Path, frame: pl.DataFrame, dates: str, given: str) -> str:
    known = {column.lower().strip(): column for column in frame.columns}
    found = given if given in frame.columns else known.get(given.lower().strip())
    if found is None:
        raise InputError(f"--id is {given!r}, which is no column of {path}; {nearest(given, frame.columns)}.")
    if found == dates:
        raise InputError(f"--id is {given!r}, which holds the dates of {path}; name the column that names the series.")
    return found


def _found(frame: pl.DataFrame, dates: str) -> tuple[str | None, bool]:
    rest = [name for name in frame.columns if name != dates and name.strip()]
    known = {name.lower().strip(): name for name in rest}
    # as many values as rows: these are numbers of rows
    named = [known[name] for name in _NAMES if name in known]
    named = [name for name in named if frame.height < 2 or frame[name].n_unique() < frame.height]
    loose = [known[name] for name in _LOOSE_NAMES if name in known]
    if frame[dates].drop_nulls().is_unique().all():
        one = [name for name in loose if frame.schema[name] == pl.String and frame[name].n_unique() == 1]
        return next(iter([*named, *one]), None), False
    most = int(frame[dates].drop_nulls().value_counts()["count"].max())  # type: ignore[arg-type]
    loose = [name for name in loose if _names_series(frame[name], most)]
    for name in (*named, *loose):
        if not _repeats(frame, [dates, name]):
            return name, False
    others = [name for name in rest if name.lower().strip() not in _TIMES and _names_series(frame[name], most)]
    for name in sorted(others, key=lambda name: frame.schema[name].is_integer()):  # text first
        if not _repeats(frame, [dates, name]):
            return name, True
    return next(iter(named), None), False


def _names_series(column: pl.Series, most: int) -> bool:
    """Whether values can be names: text or integers, few of them, neither numbers, dates nor times of day.

    Args:
        most: rows of one date; codes of series are not many more, other integers (volumes, counts) are.
    """
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    distinct = column.drop_nulls().unique()
    if not 2 <= len(distinct) <= len(column) / FEW:
        return False
    if column.dtype == pl.String:
        text = distinct.str.strip_chars()
        text = text.filter(text != "")
        number = text.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        if number.null_count() == 0:
            return bool((number == number.round()).all()) and len(distinct) <= 2 * most
        return not (is_iso(text) or formats_of(text) or all(_CLOCK.fullmatch(value) for value in text))
    return column.dtype.is_integer() and len(distinct) <= 2 * most


def _repeats(frame: pl.DataFrame, keys: list[str]) -> int:
    """Rows whose keys an earlier row has."""
    known = frame.select(keys).drop_nulls()
    return known.height - known.n_unique()


def require_one_row(path: Path, frame: pl.DataFrame, dates: str, date_format: str | None, ids: str | None) -> None:
    """Refuse two rows of one date and series: which of them is right, nobody could say.

    Args:
        date_format: how dates are written, None: ISO. ids: the column that names the series.
    Raises:
        InputError: there are such rows; says how many.
    """
    frame = _bare(frame, dates)
    count = _repeats(frame, [dates] if ids is None else [dates, ids])
    if not count:
        return
    others = [name for name in frame.columns if name not in (dates, ids)]
    names = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
    rows = f"{count:,} of {frame.height:,} rows repeat the date of another row"
    if ids is not None:
        raise InputError(
            f"{path}: {rows} of the same {ids!r}; keep one row for each date, or if another column names the series, "
            f"give it: --id NAME (columns: {names})."
        )
    over = _starts_over(frame[dates], date_format)
    what = f"dates start over {over:,} time{'' if over == 1 else 's'} in the file, {rows}" if over else rows
    raise InputError(
        f"{path}: {what}; if a column names the series, give it: --id NAME (columns: {names}); else keep one row for "
        "each date."
    )


def _starts_over(dates: pl.Series, date_format: str | None) -> int:
    """How often dates turn back against their usual direction."""
    if dates.dtype.is_integer():
        dates = dates.cast(pl.String)
    moments = parse_text(dates, date_format)[0] if dates.dtype == pl.String else dates
    steps = moments.drop_nulls().to_physical().diff().drop_nulls()
    return min(int((steps < 0).sum()), int((steps > 0).sum()))
