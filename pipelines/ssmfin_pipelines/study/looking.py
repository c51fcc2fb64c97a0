"""Owns what a data file seems to hold: which column is the date, the id, prices, returns, a variance, and how it is
written."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.date_formats import choices, formats_of, in_order_of_time, is_iso
from ssmfin.data.levels import is_price_level
from ssmfin.data.moments import parse_text
from ssmfin.data.sources import CsvSource
from ssmfin.errors import InputError
from ssmfin_pipelines.study.opening import source_of
from ssmfin_pipelines.study.series import id_column, require_one_row

_DATE_NAMES = ("ds", "date", "datetime", "timestamp", "time", "day", "trade_date", "datum", "fecha", "index")
_TARGET_NAMES = (
    "rv5", "rv", "realized_variance", "realised_variance", "rvar", "variance", "rv5_ss", "parkinson", "bv", "rk",
)  # fmt: skip
# how data vendors and exchanges name the four prices, without accents and signs, the best name first
_PRICES = {
    "open": (
        "open", "px_open", "open_price", "price_open", "opening_price", "openprice", "eroffnung", "eroeffnung",
        "eroffnungskurs", "eroeffnungskurs", "erster", "ouverture", "apertura", "abertura",
    ),
    "high": (
        "high", "px_high", "high_price", "price_high", "highprice", "hoch", "tageshoch", "hochst", "hoechst",
        "hochstkurs", "hoechstkurs", "plus_haut", "haut", "maximo", "massimo", "alto",
    ),
    "low": (
        "low", "px_low", "low_price", "price_low", "lowprice", "tief", "tagestief", "tiefst", "tiefstkurs", "plus_bas",
        "bas", "minimo", "bajo",
    ),
    "close": (
        "close", "px_last", "px_close", "close_price", "price_close", "closing_price", "closeprice", "close_last",
        "schluss", "schlusskurs", "schlusspreis", "last", "last_price", "px_settle", "settle", "cloture", "cierre",
        "chiusura", "fechamento", "kurs", "price", "adj_close", "adjclose", "adjusted_close", "close_adj",
        "close_adjusted",
    ),
}  # fmt: skip
_ADJUSTABLE = ("open", "close")  # adjusted for dividends where high and low are not, they fall outside of these
_PRICE_WORDS = {
    "open", "high", "low", "close", "price", "last", "settle", "adj", "adjusted", "adjclose", "kurs", "px", "nav",
    *(name for names in _PRICES.values() for name in names if "_" not in name),
}  # fmt: skip
_VOLUMES = ("volume", "px_volume", "volumen", "umsatz", "stuck", "stucke", "stuecke", "turnover")
_RETURN = re.compile(r"(log_?)?(ret|rets|return|returns)(_.*)?|.*_(ret|return|returns)|r")
LEAST_DATES = 60
SAMPLE = 2_000  # rows that are enough to tell in which order they stand


@dataclass(frozen=True)
class Facts:
    """What a file's columns seem to mean.

    Attributes:
        name: of the study. source: its `data.source`. columns: our names to the file's, where they differ.
        target: column to forecast. positive: a log can be taken of it. dates: number of distinct dates, roughly.
        measures: the target is computed from open, high, low, close. others: columns that could be targets instead.
        returns: column of returns, if there is one. date_format: how dates that are not ISO are written.
        first_date: as the file has it.
        ids: how many. id_guessed: the id column, where its values gave it away and not its name.
        minutes: between two rows, of data within the day; 0: daily or longer.
        rows: of the file, 0: unknown.
        dropped: what is wrong with how many rows, which on_breach: drop leaves out. left_out: how many these are.
    """

    name: str
    source: dict[str, Any]
    columns: dict[str, str]
    target: str
    positive: bool
    dates: int
    measures: bool = False
    others: tuple[str, ...] = field(default=())
    returns: str | None = None
    date_format: str | None = None
    first_date: str = ""
    ids: int = 1
    id_guessed: str | None = None
    minutes: float = 0.0
    rows: int = 0
    dropped: tuple[tuple[str, int], ...] = ()
    left_out: int = 0

    @property
    def of_returns(self) -> bool:
        return self.returns is not None and self.target == self.returns


def embedded_facts() -> Facts:
    """The S&P 500 that the package `arch` ships."""
    source = {"kind": "arch", "series": ["sp500"]}
    return Facts("sp500-volatility", source, {}, "parkinson", True, 5_000, measures=True, returns="log_return")


def look_at(path: Path, date_format: str | None = None, id_name: str | None = None) -> Facts:
    """Facts about a csv or parquet file.

    Args:
        date_format: how dates are written (strftime); None: found out from all of them.
        id_name: the column that names the series; None: found out.
    Raises:
        InputError: it cannot be read, has too few rows, no column can be a date or a target, or rows share a date.
    """
    source = source_of(path)
    frame = next(iter(source.parts())).frame
    named = {name.lower().strip(): name for name in frame.columns}
    try:
        dates, date_format, first = _date_column(path, frame, named, date_format)
    except InputError as error:
        if frame.height >= LEAST_DATES:
            raise
        raise InputError(f"{too_few(path, frame.height, 'row')} Besides, {error}") from None
    ids, guessed = id_column(path, frame, dates, id_name)
    count = frame[dates].n_unique()
    if count >= LEAST_DATES:  # else too few: settle says so
        require_one_row(path, frame, dates, date_format, ids)
    mark = source.decimal if isinstance(source, CsvSource) else "."
    numbers = {name: _numbers(frame[name], mark) for name in frame.columns if name not in (dates, ids) and name.strip()}
    values = {name: column for name, column in numbers.items() if column is not None}
    if not values:
        used = sorted({dates, *([ids] if ids else [])})
        raise InputError(f"{path} has no column of numbers beside {used}; add one to forecast.")
    columns = {"ds": dates, **({"unique_id": ids} if ids is not None else {})}
    prices = _prices(values)
    returns = next((name for name in values if _RETURN.fullmatch(name.lower().strip())), None)
    wanted = next((named[name] for name in _TARGET_NAMES if named.get(name) in values), None)
    measures = wanted is None and {"high", "low"} <= set(prices)
    if measures:
        columns |= prices
        target, positive = "parkinson", True
        returns = "log_return" if "close" in prices else returns
    else:
        target = wanted or returns or _some_target(path, values, None if ids is None else frame[ids])
        positive = target != returns and _positive(values[target])
    columns = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    taken = set(prices.values()) if measures else set()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.split(".")[0]).strip("-_")[:64] or "study"
    spec = {key: value for key, value in source.model_dump(mode="json", exclude_defaults=True).items() if key != "path"}
    return Facts(
        name=name,
        source={"kind": source.kind, "path": str(path), **spec},
        columns=columns,
        target=target,
        positive=positive,
        dates=count,
        measures=measures,
        others=tuple(name for name in values if name != target and name not in taken),
        returns=returns,
        date_format=date_format,
        first_date=first,
        ids=1 if ids is None else frame[ids].drop_nulls().n_unique(),
        id_guessed=ids if guessed else None,
        rows=frame.height,
    )


def too_few(where: object, count: int, what: str) -> str:
    """That a study needs more dates."""
    return (
        f"{where} has {count} {what}{'' if count == 1 else 's'}, too few for a study; give at least {LEAST_DATES} "
        "dates (a few hundred to learn anything)."
    )


def _plain(name: str) -> str:
    """Small letters, digits and single underscores alone: `Eröffnung` as eroffnung, `Adj Close**` as adj_close."""
    bare = unicodedata.normalize("NFKD", name.lower().replace("ß", "ss"))
    return re.sub(r"[^a-z0-9]+", "_", bare.encode("ascii", "ignore").decode()).strip("_")


def _prices(values: dict[str, pl.Series]) -> dict[str, str]:
    """Our names of the prices to the file's; open and close under another name only where high and low contain them."""
    known: dict[str, str] = {}
    for name in values:
        known.setdefault(_plain(name), name)
    found: dict[str, str] = {}
    for ours in ("high", "low", *_ADJUSTABLE):
        for name in (known[name] for name in _PRICES[ours] if name in known):
            if ours not in _ADJUSTABLE or _plain(name) == ours or _within(values, found, name):
                found[ours] = name
                break
    return {ours: found[ours] for ours in _PRICES if ours in found}


def _within(values: dict[str, pl.Series], found: dict[str, str], name: str) -> bool:
    """Whether nearly all of a column lies between low and high."""
    if not {"high", "low"} <= set(found):
        return True
    price, high, low = (values[column].to_numpy() for column in (name, found["high"], found["low"]))
    known = np.isfinite(price) & np.isfinite(high) & np.isfinite(low)
    inside = (price <= high * 1.0001) & (price * 1.0001 >= low)
    return bool(known.any()) and float(inside[known].mean()) > 0.99


def _some_target(path: Path, values: dict[str, pl.Series], ids: pl.Series | None) -> str:
    """The first column that can be a variance, else the first that is no price.

    Raises:
        InputError: there are prices alone, whose level is no variance and no return.
    """
    rest = {name: column for name, column in values.items() if not _is_price(name) and _plain(name) not in _VOLUMES}
    levels = [name for name, column in rest.items() if is_price_level(name, _one_id(column, ids))]
    rest = {name: column for name, column in rest.items() if name not in levels}
    if levels and not any(map(_positive, rest.values())):
        raise InputError(
            f"{path} column {levels[0]!r} looks like a price, not a variance, {_median(values[levels[0]]):.6g} in the "
            "median and small steps; name the columns of the day's highest and lowest price `high` and `low`, or add a "
            "column of a variance, `rv`, or of returns, `ret`."
        )
    if not rest and any(_is_price(name) for name in values):
        raise InputError(
            f"{path} has prices, {list(values)}, but neither high and low, nor a variance, nor returns; add one of "
            "them (log returns: polars pl.col('close').log().diff(), pandas np.log(df.close).diff())."
        )
    rest = rest or values
    return next((name for name, column in rest.items() if _positive(column)), next(iter(rest)))


def _one_id(column: pl.Series, ids: pl.Series | None) -> np.ndarray:
    """The values of the first id, in the file's order."""
    known = None if ids is None else ids.drop_nulls()
    return (column if known is None or known.is_empty() else column.filter(ids == known[0])).to_numpy()


def _median(column: pl.Series) -> float:
    return float(np.nanmedian(column.drop_nulls().to_numpy()))


def _is_price(name: str) -> bool:
    return bool(set(re.split(r"[^a-z]+", _plain(name))) & _PRICE_WORDS)


def _date_column(
    path: Path, frame: pl.DataFrame, named: dict[str, str], date_format: str | None
) -> tuple[str, str | None, str]:
    """The date column, how it is written (None: ISO, or typed) and its first date: by its name, else by what is in it.

    Raises:
        InputError: no column holds dates, or their day and month cannot be told apart.
    """
    by_name = [named[name] for name in _DATE_NAMES if name in named]
    typed = [name for name in frame.columns if frame.schema[name].is_temporal()]
    text = [name for name in frame.columns if frame.schema[name] == pl.String]
    candidates = list(dict.fromkeys([*by_name, *typed, *text]))
    for name in candidates:
        dtype = frame.schema[name]
        if dtype.is_temporal():
            return name, None, ""
        if dtype == pl.String or (dtype.is_integer() and name in by_name):
            written = frame[name].cast(pl.String).drop_nulls().str.strip_chars()
            written = written.filter(written != "")
            found = _format(path, name, written, date_format)
            if found is not None:
                return name, found or None, written[0]
    if date_format is not None:
        raise InputError(
            f"{path} has no column that --date-format {date_format!r} reads, {frame.columns}; leave it out, or give "
            "the form of the dates (%d day, %m month, %Y year: '%d/%m/%Y' reads 31/12/2020)."
        )
    raise InputError(
        f"{path} has no column that looks like a date, {frame.columns}; rename the date column to `date`, write its "
        "dates as YYYY-MM-DD, or say with --date-format how they are written."
    )


def _format(path: Path, name: str, text: pl.Series, date_format: str | None) -> str | None:
    """How dates are written; "" for ISO, None for no dates at all."""
    if text.is_empty():
        return None
    if date_format is not None:
        return date_format if parse_text(text.unique(), date_format)[0].null_count() == 0 else None
    if is_iso(text):
        return ""
    known = formats_of(text)
    if len(known) > 1:
        known = in_order_of_time(text.head(SAMPLE), known)
    if len(known) > 1:
        options = " or ".join(f"--date-format {choices(text[0], [form])}" for form in known)
        raise InputError(
            f"{path} column {name} can be read in more than one way, {text[0]!r}; say which with {options} "
            "(data.date_format of a study), or write its dates as YYYY-MM-DD."
        )
    return known[0] if known else None


def _numbers(column: pl.Series, mark: str) -> pl.Series | None:
    """The column as numbers, None if it is mostly something else."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    if column.dtype != pl.String:
        return None
    text = column.str.strip_chars().replace("", None)
    number = (text.str.replace(",", ".", literal=True) if mark == "," else text).cast(pl.Float64, strict=False)
    return number if 2 * (len(number) - number.null_count()) > max(len(text) - text.null_count(), 1) else None


def _positive(column: pl.Series) -> bool:
    known = column.drop_nulls().drop_nans()
    return len(known) > 0 and bool((known > 0).all())


def scalar(value: str) -> str:
    """Text as a YAML scalar that reads back as the same text."""
    return value if re.fullmatch(r"[A-Za-z_/.][A-Za-z0-9_./-]*", value) and value.lower() not in (
        "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    ) else json.dumps(value, ensure_ascii=False)  # fmt: skip
