"""Owns the lazy reading of intraday files: which columns mean what, and batches of rows in stored order.

Nothing is read before `batches` is iterated, and never more than a batch is held: polars' streaming engine decodes
only the columns that are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from ssmfin.data.intraday.durations import DAY
from ssmfin.data.sources import CsvSource, FrameSource, ParquetSource, Source
from ssmfin.data.sources.files import FileSource, stem
from ssmfin.data.sources.frame import to_polars
from ssmfin.errors import InputError, nearest

Kind = Literal["trades", "quotes", "bars", "prices"]
ID, STAMP = "unique_id", "ds"
_ID_NAMES = ("symbol", "ticker", "asset", "instrument", "id", "ric", "isin", "permno", "name")
_STAMP_NAMES = ("timestamp", "datetime", "time", "date", "dt", "ts", "date_time", "index")
# ours -> what others call it, tried in this order where the user maps nothing
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "price": ("price", "last", "trade_price", "mid"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "bid": ("bid", "bid_price", "bid_close"),
    "ask": ("ask", "ask_price", "offer", "ask_close"),
    "volume": ("volume", "size", "qty", "quantity", "trade_size", "tick_volume"),
    "bid_size": ("bid_size", "bidsize", "bid_qty"),
    "ask_size": ("ask_size", "asksize", "ask_qty"),
    "side": ("side", "aggressor", "sign"),
    "buy_volume": ("buy_volume", "taker_buy_volume"),
    "sell_volume": ("sell_volume", "taker_sell_volume"),
}
NAMES = tuple(_OTHER_NAMES)
FACTORS = ("split_factor", "price_factor")
_DATED = re.compile(r"(19|20)\d\d[-_.]?(0[1-9]|1[0-2])")
_TRADE_MARKS = ("side", "aggressor", "size", "qty", "quantity", "trade_size", "trade_price")


@dataclass(frozen=True)
class Layout:
    """What the columns of a source mean.

    Attributes:
        kind: trades, quotes, bars, or prices (one price a stamp).
        columns: ours -> the source's, of those that are used. The id is absent where the file's name gives it.
        factors: the source's columns whose product multiplies every price.
    """

    kind: Kind
    columns: dict[str, str]
    factors: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Rows in stored order: unique_id (String), ds (as stored, or text), values (Float64), of one file or several."""

    frame: pl.DataFrame
    zone: str | None  # of ds, where the type carries one


@dataclass(frozen=True)
class TickSource:
    """A source of intraday rows that is read in batches.

    Attributes:
        source: parquet or csv files, or a frame.
        columns: ours to the user's names; what is not mapped is found by its usual name.
        input: the kind of rows, `auto` to tell by the columns.
        ids: only these.
        factors: columns that adjust prices for splits and dividends; None takes split_factor and price_factor if there.
    """

    source: Source
    columns: Mapping[str, str] = field(default_factory=dict)
    input: Literal["auto", "trades", "quotes", "bars", "prices"] = "auto"
    ids: tuple[str, ...] | None = None
    factors: tuple[str, ...] | None = None

    def describe(self) -> str:
        return self.source.describe()

    @property
    def _comma(self) -> bool:
        return isinstance(self.source, CsvSource) and self.source.decimal == ","

    def layout(self) -> Layout:
        """What the columns mean, from the first file's header.

        Raises:
            InputError: no stamp, no price, a column that is not there, or a source without times of day.
        """
        label, frame, _ = next(self._files())
        return self._layout(label, _schema(label, frame))

    def batches(self, rows: int) -> Iterator[Batch]:
        """Batches of about `rows` rows, files in the order of their names.

        Raises:
            InputError: a file cannot be read, or has not the columns of the first.
        """
        layout: Layout | None = None
        for label, frame, file_id in self._files():
            schema = _schema(label, frame)
            own = self._layout(label, schema)
            if layout is None and ID not in own.columns:
                self._require_file_ids()
            layout = layout or own
            if own != layout:
                raise InputError(
                    f"{label} has other columns than the first file, {sorted(own.columns.values())} against "
                    f"{sorted(layout.columns.values())}; give the files the same columns."
                )
            yield from self._batches_of(label, frame, file_id, schema, own, rows)

    def _batches_of(
        self, label: str, frame: pl.LazyFrame, file_id: str | None, schema: pl.Schema, layout: Layout, rows: int
    ) -> Iterator[Batch]:
        names = layout.columns
        stamp = schema[names[STAMP]]
        zone = stamp.time_zone if isinstance(stamp, pl.Datetime) else None
        identity = pl.col(names[ID]).cast(pl.String) if ID in names else pl.lit(file_id)
        chosen = [identity.alias(ID), _stamp(label, names[STAMP], stamp).alias(STAMP)]
        for ours, theirs in names.items():
            if ours not in (ID, STAMP):
                chosen.append(_value(theirs, schema[theirs], ours, self._comma).alias(ours))
        if layout.factors:
            product = pl.lit(1.0)
            for factor in layout.factors:
                product = product * pl.col(factor).cast(pl.Float64, strict=False)
            chosen.append(product.alias("factor"))
        lazy = frame.select(chosen)
        if self.ids is not None:
            lazy = lazy.filter(pl.col(ID).is_in(list(self.ids)))
        try:
            for piece in lazy.collect_batches(chunk_size=rows, lazy=True, engine="streaming"):
                if piece.height:
                    yield Batch(piece, zone)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _unreadable(label, error) from None

    def _files(self) -> Iterator[tuple[str, pl.LazyFrame, str | None]]:
        """(name in messages, lazy frame, id by the file's name) of every file."""
        source = self.source
        if isinstance(source, FrameSource):
            lazy = source.frame if isinstance(source.frame, pl.LazyFrame) else to_polars(source.frame).lazy()
            yield source.describe(), lazy, source.default_id()
            return
        if not isinstance(source, ParquetSource | CsvSource):
            raise InputError(
                f"{source.describe()} holds daily data, and realized measures need prices within the day; "
                f"give parquet or csv files of trades, quotes or bars."
            )
        for file in source.files():
            yield str(file), _scan(source, file), stem(file)

    def _require_file_ids(self) -> None:
        """Without an id column each file is an asset, unless the names look like dates: then they are one asset's days.

        Raises:
            InputError: they do, and nobody said that they are ids.
        """
        if not isinstance(self.source, FileSource) or self.source.id_from_filename:
            return
        names = [stem(file) for file in self.source.files()]
        dated = [name for name in names if _DATED.search(name)]
        if len(names) > 1 and dated:
            raise InputError(
                f"{self.describe()} has no column of ids and files named by date, {dated[0]!r}; map one, "
                f"columns: {{unique_id: ...}}, or set id_from_filename: true if each file is an asset."
            )

    def _layout(self, label: str, schema: pl.Schema) -> Layout:
        have = schema.names()
        wrong = [f"{theirs!r} ({nearest(theirs, have)})" for theirs in self.columns.values() if theirs not in have]
        if wrong:
            raise InputError(f"{label} has no column {', no column '.join(wrong)}; correct columns, it has {have}.")
        unknown = [ours for ours in self.columns if ours not in (ID, STAMP, *NAMES)]
        if unknown:
            raise InputError(
                f"columns maps {unknown[0]!r}, which intraday data have no use for; {nearest(unknown[0], NAMES)}"
            )
        lower = {name.lower(): name for name in reversed(have)}
        by_file = isinstance(self.source, FileSource) and self.source.id_from_filename
        found: dict[str, str] = {}
        for ours, others in ((ID, _ID_NAMES), (STAMP, _STAMP_NAMES), *_OTHER_NAMES.items()):
            if ours == ID and by_file:
                continue
            name = self.columns.get(ours) or next((lower[n] for n in (ours, *others) if n in lower), None)
            if name is not None and (name not in self.columns.values() or ours in self.columns):
                found[ours] = name
        if STAMP not in found:
            raise InputError(f"{label} lacks a column of times; map one, columns: {{ds: ...}}, it has {have}.")
        kind = self._kind(label, found)
        found = _relevant(kind, found)
        factors = self.factors if self.factors is not None else tuple(name for name in FACTORS if name in have)
        missing = [name for name in factors if name not in have]
        if missing:
            raise InputError(f"{label} has no column {missing[0]!r} named in factors; {nearest(missing[0], have)}")
        return Layout(kind, found, factors)

    def _kind(self, label: str, found: Mapping[str, str]) -> Kind:
        """The kind of rows: as given, or by the columns that are there.

        Raises:
            InputError: the columns that the kind needs are missing.
        """
        needs: dict[Kind, tuple[str, ...]] = {
            "quotes": ("bid", "ask"),
            "bars": ("close",),
            "trades": ("price",),
            "prices": ("price",),
        }
        if self.input != "auto":
            missing = [name for name in needs[self.input] if name not in found]
            if missing:
                raise InputError(f"{label} has no column {missing[0]!r}, which {self.input} need; map it in columns.")
            return self.input
        mapped = set(self.columns)
        if {"bid", "ask"} <= set(found) and not mapped & {"price", "close"}:
            return "quotes"
        if "close" in found and "price" not in mapped:
            return "bars"
        if "price" in found:
            marks = {found.get("volume", "").lower(), found.get("side", "").lower(), found["price"].lower()}
            return "trades" if marks & set(_TRADE_MARKS) else "prices"
        raise InputError(
            f"{label} has no price; map one in columns, {{price: ...}}, {{close: ...}}, or {{bid: ..., ask: ...}}."
        )


def _relevant(kind: Kind, found: Mapping[str, str]) -> dict[str, str]:
    own = {
        "quotes": ("bid", "ask", "bid_size", "ask_size"),
        "bars": ("open", "high", "low", "close", "volume", "buy_volume", "sell_volume"),
        "trades": ("price", "volume", "side"),
        "prices": ("price", "volume"),
    }[kind]
    return {ours: theirs for ours, theirs in found.items() if ours in (ID, STAMP, *own)}


def _scan(source: Source, file: Path) -> pl.LazyFrame:
    if isinstance(source, CsvSource):
        try:
            return pl.scan_csv(
                file,
                separator=source.delimiter,
                infer_schema=False,  # all text: the id 007 survives, and a bad number is a bad tick, not an end
                truncate_ragged_lines=False,
                raise_if_empty=True,
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(str(file), error) from None
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(4)
        stream.seek(max(size - 4, 0))
        tail = stream.read(4)
    if head != b"PAR1" or tail != b"PAR1":
        state = "empty" if size == 0 else "truncated" if head == b"PAR1" else "no parquet"
        raise InputError(f"{file} is {state}, {size:,} bytes that start with {head!r}; copy or write it again.")
    return pl.scan_parquet(file, hive_partitioning=False)


def _schema(label: str, frame: pl.LazyFrame) -> pl.Schema:
    try:
        return frame.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _unreadable(label, error) from None


def _unreadable(label: str, error: BaseException) -> InputError:
    reason = re.sub(r"\s+", " ", str(error).strip() or type(error).__name__)[:200]
    return InputError(f"{label} cannot be read, {reason}; check the file, copy or write it again.")


def _stamp(label: str, name: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return pl.col(name).dt.cast_time_unit("us").to_physical()
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return pl.col(name).cast(pl.String)
    if dtype == pl.Date:
        raise InputError(
            f"{label} column {name!r} holds dates without a time of day; realized measures need prices within the day."
        )
    raise InputError(f"{label} column {name!r} is of type {dtype}; give stamps as datetimes or ISO text.")


def _value(name: str, dtype: pl.DataType, ours: str, comma: bool) -> pl.Expr:
    column = pl.col(name)
    if ours == "side" and dtype in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        buys, sells = ["b", "buy", "1", "+1", "bid"], ["s", "sell", "-1", "a", "ask"]
        return pl.when(text.is_in(buys)).then(1.0).when(text.is_in(sells)).then(-1.0)
    if dtype == pl.String:
        column = column.str.strip_chars()
        column = column.str.replace(",", ".", literal=True) if comma else column
    return column.cast(pl.Float64, strict=False)


def require_time_of_day(times: pl.Series, label: str) -> None:
    """Refuse stamps that are all midnight: daily data.

    Args:
        times: (R,) int64 microseconds of some clock.
    """
    known = times.drop_nulls()
    if len(known) > 1 and bool((known % DAY == 0).all()):
        raise InputError(f"the stamps of {label} have no time of day, all are midnight; give prices within the day.")
