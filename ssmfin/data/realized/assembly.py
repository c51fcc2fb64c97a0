"""Owns the tables at the end of a pass: pieces put together by asset and date, returns over the night, flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.intraday.calendars import Calendar
from ssmfin.data.intraday.durations import DAY
from ssmfin.data.intraday.rules import RULES
from ssmfin.data.intraday.sessions import SessionReader
from ssmfin.data.moments import MICROSECONDS
from ssmfin.data.realized.piece import Piece
from ssmfin.data.realized.result import Quality, RealizedPanel
from ssmfin.data.realized.settings import MINUTE, Settings
from ssmfin.data.rows import group_starts

_FLAGS = {"unique_id": pl.String, "ds": pl.Date, "rule": pl.String, "rows": pl.Int64, "spoils": pl.Boolean}


def assemble(
    pieces: Sequence[Piece], reader: SessionReader, settings: Settings, calendar: Calendar, notes: dict[str, Any]
) -> RealizedPanel:
    """One table of sessions by (id, date), whatever the order in which the source held them."""
    parts = [piece.sampled for piece in pieces]
    ids = np.array(reader.ids)
    code = np.concatenate([part.code for part in parts])
    label = np.concatenate([part.label for part in parts])
    order = np.lexsort((label, _ranks(reader.ids)[code]))
    twice = np.zeros(len(order), dtype=bool)
    twice[1:] = (np.diff(code[order]) == 0) & (np.diff(label[order]) == 0)
    order = order[~twice]
    code, label = code[order], label[order]

    def column(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(values))[order]

    usable = column([piece.usable for piece in pieces])
    counts = {
        rule: column([part.counts.get(rule, np.zeros(len(part.code), dtype=np.int64)) for part in parts])
        for rule in RULES
        if any(rule in part.counts for part in parts)
    }
    if reader.scattered:
        marks = {(one, day) for one, day in reader.scattered}
        counts["scattered"] = np.array([(int(c), int(d)) in marks for c, d in zip(code, label, strict=True)]).astype(
            int
        )
        usable &= counts["scattered"] == 0
    names = pl.Series("unique_id", ids[code].tolist() if len(ids) < 2 else pl.Series(reader.ids).gather(code))
    ds = pl.Series("ds", label.astype(np.int32)).cast(pl.Date)
    opened, last = column([part.open for part in parts]), column([part.last for part in parts])
    back = _returns(
        code,
        usable,
        opened + column([part.open_factor for part in parts]),
        last + column([part.last_factor for part in parts]),
    )
    values: dict[str, np.ndarray] = {"open": np.exp(opened), "close": np.exp(last), **back}
    values |= {name: column([piece.measures[name] for piece in pieces]) for name in settings.estimators}
    for name in dict.fromkeys(name for part in parts for name in part.flow):
        values[name] = column([part.flow.get(name, np.full(len(part.code), np.nan)) for part in parts])
    frame = pl.DataFrame(
        [
            names,
            ds,
            ds.alias("known_at"),
            pl.Series("session_close", column([part.close for part in parts]))
            .cast(MICROSECONDS)
            .dt.replace_time_zone("UTC"),
            pl.Series("usable", usable),
            *(
                pl.Series(name, np.where(usable & np.isfinite(numbers), numbers, np.nan), nan_to_null=True)
                for name, numbers in values.items()
            ),
        ]
    )
    days = pl.DataFrame(
        [
            names,
            ds,
            pl.Series("usable", usable),
            pl.Series("rows", column([part.rows for part in parts])).cast(pl.Int64),
            pl.Series("coverage", column([part.coverage for part in parts])),
            pl.Series("longest_gap_s", column([part.longest_gap for part in parts]) / 1e6),
            pl.Series("longest_stale_s", column([part.longest_stale for part in parts]) / 1e6),
        ]
    )
    flags = _flags(names, ds, counts, reader, calendar, code, label)
    quality = Quality(days, flags, _signature(pieces, reader.ids), _periodicity(pieces, reader.ids))
    facts = {
        "rows": reader.seen_rows,
        "sessions": frame.height,
        "ids": len(reader.ids),
        "unusable": int((~usable).sum()),
    }
    return RealizedPanel(frame, quality, notes | facts)


def _ranks(ids: list[str]) -> np.ndarray:
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def _returns(code: np.ndarray, usable: np.ndarray, opened: np.ndarray, last: np.ndarray) -> dict[str, np.ndarray]:
    """log_return and overnight_variance since the last usable close of the same asset; NaN on an asset's first."""
    rows = np.flatnonzero(usable)
    same = np.concatenate([[False], np.diff(code[rows]) == 0]) if len(rows) else np.zeros(0, bool)
    before = np.concatenate([[np.nan], last[rows][:-1]]) if len(rows) else np.zeros(0)
    before = np.where(same, before, np.nan)
    log_return, overnight = np.full(len(code), np.nan), np.full(len(code), np.nan)
    log_return[rows] = last[rows] - before
    overnight[rows] = (opened[rows] - before) ** 2
    return {"log_return": log_return, "overnight_variance": overnight}


def _flags(
    names: pl.Series,
    ds: pl.Series,
    counts: dict[str, np.ndarray],
    reader: SessionReader,
    calendar: Calendar,
    code: np.ndarray,
    label: np.ndarray,
) -> pl.DataFrame:
    tables = []
    for rule, count in counts.items():
        hit = np.flatnonzero(count)
        if len(hit):
            where = pl.Series(hit)
            tables.append(
                pl.DataFrame({"unique_id": names.gather(where), "ds": ds.gather(where), "rows": count[hit]}).select(
                    "unique_id", "ds", pl.lit(rule).alias("rule"), pl.col("rows").cast(pl.Int64)
                )
            )
    loose = [(name, day, rule, rows) for (name, rule, day), rows in reader.unplaced.items()]
    if calendar.knows_holidays:
        loose += _missing(reader.ids, calendar, code, label)
    if loose:
        found = pl.DataFrame(
            loose, schema={"unique_id": pl.String, "ds": pl.Int32, "rule": pl.String, "rows": pl.Int64}, orient="row"
        )
        tables.append(found.with_columns(pl.col("ds").cast(pl.Date)))
    if not tables:
        return pl.DataFrame(schema=_FLAGS)
    flags = pl.concat(tables)
    spoils = [name for name, rule in RULES.items() if rule.spoils]
    return flags.with_columns(pl.col("rule").is_in(spoils).alias("spoils")).sort("unique_id", "ds", "rule")


def _missing(
    ids: list[str], calendar: Calendar, code: np.ndarray, label: np.ndarray
) -> list[tuple[str, int, str, int]]:
    """Sessions of the calendar between an asset's first and last one on which it has no row."""
    if not len(code):
        return []
    open_days = calendar.between(int(label.min()) * DAY, (int(label.max()) + 1) * DAY).label
    out: list[tuple[str, int, str, int]] = []
    starts = group_starts(code)
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = label[first:end]
        expected = open_days[(open_days >= own[0]) & (open_days <= own[-1])]
        absent = np.setdiff1d(expected, own, assume_unique=True)
        out += [(ids[int(code[first])], int(day), "missing_session", 1) for day in absent]
    return out


def _signature(pieces: Sequence[Piece], ids: list[str]) -> pl.DataFrame:
    sums: dict[tuple[int, int], tuple[float, int]] = {}
    for piece in pieces:
        for key, (total, count) in piece.signature.items():
            before, days = sums.get(key, (0.0, 0))
            sums[key] = (before + total, days + count)
    rows = [
        (ids[code], length / MINUTE, total / count)
        for (code, length), (total, count) in sorted(sums.items(), key=lambda item: (ids[item[0][0]], item[0][1]))
        if count
    ]
    schema = {"unique_id": pl.String, "minutes": pl.Float64, "variance": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _periodicity(pieces: Sequence[Piece], ids: list[str]) -> pl.DataFrame:
    sums: dict[tuple[int, int], tuple[np.ndarray, int]] = {}
    for piece in pieces:
        for key, (total, count) in piece.periodicity.items():
            before, days = sums.get(key, (np.zeros(key[1]), 0))
            sums[key] = (before + total, days + count)
    tables = []
    for (code, n), (total, count) in sorted(sums.items(), key=lambda item: (ids[item[0][0]], item[0][1])):
        if count:
            factor = np.sqrt(total / total.mean())
            tables.append(
                pl.DataFrame({"position": np.arange(n), "factor": factor}).select(
                    pl.lit(ids[code]).alias("unique_id"),
                    pl.lit(n, dtype=pl.Int64).alias("intervals"),
                    pl.col("position").cast(pl.Int64),
                    "factor",
                    pl.lit(count, dtype=pl.Int64).alias("sessions"),
                )
            )
    schema = {
        "unique_id": pl.String,
        "intervals": pl.Int64,
        "position": pl.Int64,
        "factor": pl.Float64,
        "sessions": pl.Int64,
    }
    return pl.concat(tables) if tables else pl.DataFrame(schema=schema)
