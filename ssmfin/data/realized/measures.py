"""Owns the pass over intraday data: source to daily measures, streaming, with a cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ssmfin.data.intraday.calendars import Calendar, calendar_named
from ssmfin.data.intraday.durations import duration_text, microseconds
from ssmfin.data.intraday.scan import TickSource
from ssmfin.data.intraday.sessions import SessionReader, Sessions
from ssmfin.data.realized import cache as store
from ssmfin.data.realized.assembly import assemble
from ssmfin.data.realized.options import DEFAULT, RealizedMeasures
from ssmfin.data.realized.piece import Market, Piece, make_block, measure
from ssmfin.data.realized.result import RealizedPanel
from ssmfin.data.realized.sampled import sample, usable_grids
from ssmfin.data.realized.settings import Settings, resolve
from ssmfin.data.sources import Source
from ssmfin.errors import InputError, validation_message

WORKERS = 2
BATCH_ROWS = 1 << 16  # what is made of a batch stays in the processor's cache: a million rows take half as long again


def realized_measures(
    source: Any,
    *,
    calendar: str,
    sampling: str = "5min",
    estimators: Iterable[str] | str = DEFAULT,
    columns: Mapping[str, str] | None = None,
    ids: Iterable[str] | str | None = None,
    date_format: str | None = None,
    batch_rows: int = BATCH_ROWS,
    cache: bool | str | Path = True,
    **options: Any,
) -> RealizedPanel:
    """Daily realized measures from trades, quotes or bars, read in pieces so that the data may exceed the memory.

    Prices are sampled by previous tick on a regular grid of each session of the exchange's calendar; every measure is a
    function of one session alone and known at its close. Bad ticks and days are flagged, never silently removed.

    Args:
        source: a folder, a path or glob (parquet, csv), a polars or pandas frame, or a dict like a study's `source:`.
        calendar: exchange, `XNYS`, `XLON`, `24/7`; or fixed hours of every date, `09:30-16:00 America/New_York`.
        sampling: interval of the returns, `5min`.
        estimators: columns to compute; see `ssmfin.data.realized.estimators.ESTIMATORS`.
        columns: ours to the source's names: unique_id, ds, price, or bid and ask, or open, high, low, close;
            volume, side.
        ids: only these assets.
        date_format: strftime format of stamps that are text and not ISO.
        batch_rows: rows that are worked on at once; does not change the result.
        cache: True for the user's cache folder, a folder, or False. Frames are not cached.
        options: the other keys of `data.measures`: fine, input, bar_label, bar, time_zone, factors, bad_ticks, max_gap,
            max_stale, min_coverage, market, jump_level, compatibility.
    Returns:
        The measures (`frame`), what was found wrong (`quality`), and `panel()`.
    Raises:
        InputError: the source cannot be read, an option is wrong, or the exchange is unknown.
    Example:
        >>> import polars as pl
        >>> day = pl.datetime_range(
        ...     pl.datetime(2020, 1, 2, 9, 30), pl.datetime(2020, 1, 2, 16), interval="5m", eager=True
        ... )
        >>> price = [100.0 + i % 2 for i in range(len(day))]
        >>> bars = pl.DataFrame({"timestamp": day, "price": price})
        >>> measures = realized_measures(bars, calendar="XNYS", estimators=["rv", "bv"])
        >>> measures.frame.select("ds", pl.col("rv").round(6)).row(0)
        (datetime.date(2020, 1, 2), 0.007723)
    """
    chosen = estimators if isinstance(estimators, str) else tuple(estimators)
    options |= {"calendar": calendar, "sampling": sampling, "estimators": chosen, "cache": cache is not False}
    return measure_source(
        intraday_source(source),
        checked_options(options, "realized_measures"),
        columns=columns or {},
        ids=(ids,) if isinstance(ids, str) else None if ids is None else tuple(ids),
        date_format=date_format,
        batch_rows=batch_rows,
        folder=Path(cache) if isinstance(cache, str | Path) else None,
    )


def checked_options(options: Mapping[str, Any], what: str) -> RealizedMeasures:
    """The options of a call to `what`.

    Raises:
        InputError: one is unknown or wrong; says which.
    """
    try:
        return RealizedMeasures(**options)
    except ValidationError as error:
        raise InputError(validation_message(what, RealizedMeasures, error)) from None


def measure_source(
    source: Source,
    options: RealizedMeasures,
    *,
    columns: Mapping[str, str] | None = None,
    ids: tuple[str, ...] | None = None,
    date_format: str | None = None,
    batch_rows: int = BATCH_ROWS,
    folder: Path | None = None,
) -> RealizedPanel:
    """The one road from a source to measures, for Python, the command line and studies; see `realized_measures`."""
    calendar = calendar_named(options.calendar)
    if batch_rows < 1:
        raise InputError(f"batch_rows is {batch_rows}; give a positive number of rows.")
    wanted = ids
    if ids is not None and options.market is not None and options.market not in ids:
        ids = (*ids, options.market)
    ticks = TickSource(source, dict(columns or {}), options.input, ids, options.factors)
    key = store.key(ticks, options, date_format) if options.cache else None
    kept = store.load(key, folder) if key else None
    result = kept or _compute(ticks, options, calendar, date_format, batch_rows)
    if key and kept is None:
        store.save(key, result, folder)
    if ids is not None:
        _require_ids(ticks.describe(), wanted or ids, result)
    return result


def _compute(
    ticks: TickSource, options: RealizedMeasures, calendar: Calendar, date_format: str | None, batch_rows: int
) -> RealizedPanel:
    market: Market | None = None
    if options.market is not None:
        market = market_returns(ticks, options, calendar, date_format, batch_rows)
    reader = _reader(ticks, options, calendar, date_format, batch_rows)
    pieces: list[Piece] = []
    settings: Settings | None = None
    for settings, piece in _pieces(reader, options, market):  # noqa: B007 - the last one is used below
        pieces.append(piece)
    if settings is None or not any(len(piece.usable) for piece in pieces):
        raise InputError(
            f"{ticks.describe()} has no row within a session of {options.calendar}; "
            f"check calendar and time_zone ({reader.zone or calendar.zone})."
        )
    notes = {
        "source": ticks.describe(),
        "kind": reader.layout.kind,
        "calendar": options.calendar,
        "sampling": options.sampling,
        "fine": duration_text(settings.fine),
        "bar": duration_text(reader.spacing) if reader.spacing else None,
        "factors": list(reader.layout.factors),
        "bad_ticks": options.bad_ticks,
        "compatibility": options.compatibility,
    }
    return assemble(pieces, reader, settings, calendar, notes)


def _pieces(
    reader: SessionReader, options: RealizedMeasures, market: Market | None
) -> Iterator[tuple[Settings, Piece]]:
    """Measured lots in the order of the source. One thread reads and places rows, others measure; the order is kept."""
    settings: Settings | None = None
    waiting: deque[Future[Piece]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for sessions in reader:
            if settings is None:
                settings = resolve(options, reader.layout.kind, reader.spacing)
            waiting.append(pool.submit(measure, sessions, settings, market))
            del sessions
            if len(waiting) > WORKERS:
                yield settings, waiting.popleft().result()
        while waiting and settings is not None:
            yield settings, waiting.popleft().result()


def _reader(
    ticks: TickSource, options: RealizedMeasures, calendar: Calendar, date_format: str | None, batch_rows: int
) -> SessionReader:
    return SessionReader(
        ticks,
        calendar,
        bar_label=options.bar_label,
        bar=None if options.bar is None else microseconds(options.bar),
        zone=options.time_zone,
        date_format=date_format,
        rows=batch_rows,
    )


def sampled_returns(
    ticks: TickSource, options: RealizedMeasures, calendar: Calendar, date_format: str | None, batch_rows: int
) -> Iterator[tuple[str, int, int, np.ndarray]]:
    """(id, days since 1970, trading time, returns (n,)) of every usable session, in the order of the source."""
    reader = _reader(ticks, options, calendar, date_format, batch_rows)
    settings: Settings | None = None
    for sessions in reader:
        settings = settings or resolve(options, reader.layout.kind, reader.spacing)
        yield from _sampled_returns(sessions, settings, reader.ids)


def _sampled_returns(
    sessions: Sessions, settings: Settings, ids: list[str]
) -> Iterator[tuple[str, int, int, np.ndarray]]:
    sampled = sample(sessions, settings)
    for which, prices in usable_grids(sampled, ~sampled.spoiled(settings.drop)):
        returns = make_block(prices, settings).returns
        for row, group in enumerate(which.tolist()):
            yield ids[int(sampled.code[group])], int(sampled.label[group]), int(sampled.length[group]), returns[row]


def market_returns(
    ticks: TickSource, options: RealizedMeasures, calendar: Calendar, date_format: str | None, batch_rows: int
) -> Market:
    """The market's returns by date, from a first pass over its rows alone.

    Raises:
        InputError: it has no usable session.
    """
    only = TickSource(ticks.source, ticks.columns, ticks.input, (str(options.market),), ticks.factors)
    try:
        found = {
            label: (returns, length)
            for _, label, length, returns in sampled_returns(only, options, calendar, date_format, batch_rows)
        }
    except InputError as error:
        raise InputError(f"market is {options.market!r}: {error}") from None
    if not found:
        raise InputError(f"market {options.market!r} has no usable session in {ticks.describe()}; choose another id.")
    return found


def _require_ids(label: str, wanted: tuple[str, ...], result: RealizedPanel) -> None:
    have = set(result.frame["unique_id"].unique().to_list())
    missing = [name for name in wanted if name not in have]
    if missing:
        raise InputError(f"{label} has no session of {missing[0]!r}, named in ids; correct ids.")


def intraday_source(source: Any) -> Source:
    """As `load_panel` takes it; a folder stands for the parquet or csv files in it."""
    from ssmfin.data.loading import as_source

    if isinstance(source, str | Path) and Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        for kind, endings in (("parquet", ("parquet", "pq")), ("csv", ("csv", "csv.gz", "txt"))):
            patterns = [str(folder / "**" / f"*.{ending}") for ending in endings if any(folder.rglob(f"*.{ending}"))]
            if patterns:
                return as_source({"kind": kind, "path": patterns})
        raise InputError(f"{source} holds no parquet or csv files; check the folder.")
    try:
        return as_source(source)
    except ValidationError as error:
        raise InputError(f"source is wrong, {source!r:.80}; {error.errors()[0]['msg']}.") from None
