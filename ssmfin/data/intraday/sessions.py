"""Owns the way from batches of rows to whole sessions: (asset, session) groups in time order, across batches.

Rows may be sorted by asset and then time, by time with assets mixed, or lie in one file an asset or a day. What is held
between batches is the last session of every asset, because the next batch may go on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeVar, cast

import numpy as np
import polars as pl

from ssmfin.data.intraday import loops
from ssmfin.data.intraday.calendars import Calendar
from ssmfin.data.intraday.durations import DAY, duration_text
from ssmfin.data.intraday.scan import ID, STAMP, Layout, TickSource, require_time_of_day
from ssmfin.data.intraday.stamps import Clock, exact_utc, on_clock
from ssmfin.errors import InputError

LABEL_BITS = 20  # days since 1970 fit: key = code << 20 | label
_SPACING_SAMPLE = 200_000
Item = TypeVar("Item")
_SNAPSHOT = 1_000_000  # rows that are closer together than a second are events, not a grid


class Sessions(NamedTuple):
    """G whole sessions of R rows, sorted by (asset, session, time).

    Attributes:
        code: (G,) number of the asset. label: (G,) days since 1970, the session's date.
        starts: (G + 1,) first row of each session, then R.
        length: (G,) microseconds of trading.
        close: (G,) int64, microseconds of UTC at which the session closes.
        elapsed: (R,) int64, microseconds of trading from the open to the moment at which the row was known.
        values: name -> (R,) float64, the source's columns; NaN where missing.
        flags: rule -> (R,) bool, found while rows were placed.
    """

    code: np.ndarray
    label: np.ndarray
    starts: np.ndarray
    length: np.ndarray
    close: np.ndarray
    elapsed: np.ndarray
    values: dict[str, np.ndarray]
    flags: dict[str, np.ndarray]


class _Rows(NamedTuple):
    """Rows in stored order; stamps on the source's clock."""

    code: np.ndarray
    time: np.ndarray
    unzoned: np.ndarray
    values: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> _Rows:
        return _Rows(
            self.code[rows], self.time[rows], self.unzoned[rows], {name: v[rows] for name, v in self.values.items()}
        )

    @staticmethod
    def join(parts: list[_Rows]) -> _Rows:
        """Always a copy: polars' own memory may not be written, and loops are compiled once more for such arrays."""
        return _Rows(
            np.concatenate([part.code for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.unzoned for part in parts]),
            {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        )


@dataclass
class SessionReader:
    """Reads a source session by session. State is kept between batches; use one reader for one pass.

    Attributes:
        ticks: the source.
        calendar: when the market trades.
        bar_label: whether bars are stamped with their start or their end.
        bar: width of a bar in microseconds; None to take the usual distance between two rows of the first batch.
        zone: whose wall clock naive stamps are; None for the calendar's.
        date_format: strftime format of text that is not ISO.
        ids: after reading, the assets by number.
        unplaced: after reading, (id, rule, date or None) -> rows that belong to no session.
        scattered: after reading, (code, label) of sessions whose rows lay too far apart.
    """

    ticks: TickSource
    calendar: Calendar
    bar_label: str = "start"
    bar: int | None = None
    zone: str | None = None
    date_format: str | None = None
    rows: int = 1 << 16
    ids: list[str] = field(default_factory=list)
    unplaced: dict[tuple[str, str, int | None], int] = field(default_factory=dict)
    scattered: set[tuple[int, int]] = field(default_factory=set)
    seen_rows: int = 0

    def __post_init__(self) -> None:
        self.layout: Layout = self.ticks.layout()
        self.spacing = 0 if self.bar is None else self.bar
        self._known: dict[str, int] = {}
        self._held: dict[int, _Rows] = {}
        self._done: dict[int, np.ndarray] = {}
        self._clock = Clock(self.ticks.describe(), self.zone or self.calendar.zone, self.date_format)

    @property
    def ends_bars(self) -> bool:
        """Whether a stamp, after the shift, says when a bar ended; else it is an instant.

        Quotes or prices of given width are bars too: their last values, stamped with the start or the end.
        """
        return self.layout.kind == "bars" or self.bar is not None

    def __iter__(self) -> Iterator[Sessions]:
        first: list[list[_Rows]] = []
        count = 0
        batches = self._batches()
        for parts in batches:
            first.append(parts)
            count += sum(len(part.code) for part in parts)
            if count >= _SPACING_SAMPLE:  # the same rows tell the spacing, however they are read
                break
        if not count:
            raise InputError(f"{self.ticks.describe()} has no rows that can be used; check ids and stamps.")
        start = _Rows.join([part for parts in first for part in parts]).take(np.arange(min(count, _SPACING_SAMPLE)))
        self._learn_spacing(start)
        require_time_of_day(pl.Series(start.time), self.ticks.describe())
        del start
        for parts in chain(first, batches):
            seen = sorted({code for part in parts for code in np.flatnonzero(np.bincount(part.code)).tolist()})
            held = [self._held.pop(code) for code in seen if code in self._held]
            yield from self._place(_Rows.join([*held, *parts]), last=False)
        if self._held:
            held = [self._held[code] for code in sorted(self._held)]
            self._held = {}
            yield from self._place(_Rows.join(held), last=True)

    def _batches(self) -> Iterator[list[_Rows]]:
        """Batches of at least `rows` rows (small files are put together), ids as numbers."""
        waiting: list[_Rows] = []
        count = 0
        for batch in ahead(self.ticks.batches(self.rows)):
            frame = batch.frame
            stamps = self._clock.read(batch)
            code = self._codes(frame[ID])
            lost = stamps.lost | (code < 0)
            values = {
                name: frame[name].to_numpy() for name in frame.columns if name not in (ID, STAMP)
            }  # null becomes NaN
            rows = _Rows(code, stamps.time, stamps.unzoned, values)
            self.seen_rows += frame.height
            if lost.any():
                for number, times in zip(*np.unique(code[lost], return_counts=True), strict=True):
                    self._count(int(number), "unreadable_stamp", None, int(times))
                rows = rows.take(np.flatnonzero(~lost))
            waiting.append(rows)
            count += len(rows.code)
            if count >= self.rows:
                yield waiting
                waiting, count = [], 0
        if count:
            yield waiting

    def _codes(self, column: pl.Series) -> np.ndarray:
        """(R,) number of each row's asset; -1 without an id."""
        if len(column) and not column.null_count() and (column == column[0]).all():
            return np.full(len(column), self._number(column[0]), dtype=np.int64)
        runs = column.rle()
        if len(runs) * 4 > len(column):
            coded = column.cast(pl.Categorical)
            names = coded.unique().cast(pl.String)
            table = pl.DataFrame({"id": names, "code": [self._number(name) for name in names]})
            joined = pl.DataFrame({"id": column}).join(
                table, on="id", how="left", nulls_equal=True, maintain_order="left"
            )
            return joined["code"].to_numpy().astype(np.int64)
        lengths, values = runs.struct.field("len"), runs.struct.field("value")
        return np.repeat(np.array([self._number(name) for name in values], dtype=np.int64), lengths.to_numpy())

    def _number(self, name: str | None) -> int:
        if name is None or not name.strip():
            return -1
        if name not in self._known:
            self._known[name] = len(self.ids)
            self.ids.append(name)
        return self._known[name]

    def _count(self, code: int, rule: str, label: int | None, rows: int) -> None:
        key = (self.ids[code] if code >= 0 else "(no id)", rule, label)
        self.unplaced[key] = self.unplaced.get(key, 0) + rows

    def _learn_spacing(self, rows: _Rows) -> None:
        """The usual distance between two rows of an asset, if there is one: what one bar covers."""
        if self.bar is not None:
            return
        order = np.argsort(rows.code, kind="stable")
        code, time = rows.code[order], rows.time[order]
        steps = np.diff(time)[(np.diff(code) == 0) & (np.diff(time) > 0)]
        if len(steps):
            lengths, counts = np.unique(steps, return_counts=True)
            usual = int(lengths[counts.argmax()])
            if counts.max() * 2 > len(steps) and (self.ends_bars or usual >= _SNAPSHOT):
                self.spacing = usual
        if self.ends_bars and not 0 < self.spacing <= DAY // 2:
            seen = duration_text(self.spacing) if self.spacing else "no usual distance between rows"
            raise InputError(
                f"{self.ticks.describe()} does not show how long its bars are, {seen}; say so with bar: 1min."
            )

    def _place(self, rows: _Rows, *, last: bool) -> Iterator[Sessions]:
        """Sessions that are whole now; the last session of each asset is held back unless `last`."""
        shift = self.spacing if self.ends_bars and self.bar_label == "start" else 0
        zone = self._clock.zone or self.calendar.zone
        on = on_clock(self.calendar, int(rows.time.min()) + shift, int(rows.time.max()) + shift, zone)
        index, elapsed, inside = loops.find_sessions(rows.time, shift, on.open, not self.ends_bars)
        skipped = ambiguous = None
        if on.shifts.any() and (doubtful := on.shifts[index]).any():
            where = np.flatnonzero(doubtful)
            exact = exact_utc(rows.time[where], zone)
            elapsed[where] = exact.time + shift - on.sessions.open[index[where]]
            skipped, ambiguous = np.zeros(len(index), bool), np.zeros(len(index), bool)
            skipped[where], ambiguous[where] = exact.skipped, exact.ambiguous
        length = on.sessions.length
        key, outside = loops.trading_time(
            rows.code,
            index,
            elapsed,
            inside,
            on.sessions.close - on.sessions.open,
            length,
            on.break_start,
            on.break_length,
            on.sessions.label,
            LABEL_BITS,
            shift,
            self.ends_bars,
        )
        if outside:
            self._count_outside(rows, ~inside)
        if last:
            keep = np.flatnonzero(inside)
        else:
            keep, held = loops.split_held(rows.code, key, inside, len(self.ids))
            self._hold(rows, held)
        if not len(keep):
            return
        flags = {"no_time_zone": rows.unzoned, "skipped_time": skipped, "ambiguous_time": ambiguous}
        chosen = _positions(keep)
        disorder = None
        if not loops.in_order(key[chosen], elapsed[chosen]):
            order, disorder = _sorted(key[chosen], elapsed[chosen])
            chosen = keep[order]
        key, index = key[chosen], index[chosen]
        starts = loops.group_edges(key)
        heads = starts[:-1]
        placed = {name: mask[chosen] for name, mask in flags.items() if mask is not None and mask.any()}
        if disorder is not None:
            placed["out_of_order"] = disorder
        sessions = Sessions(
            code=key[heads] >> LABEL_BITS,
            label=key[heads] & ((1 << LABEL_BITS) - 1),
            starts=starts,
            length=length[index[heads]],
            close=on.sessions.close[index[heads]],
            elapsed=elapsed[chosen],
            values={name: v[chosen] for name, v in rows.values.items()},
            flags=placed,
        )
        self._note_done(sessions)
        yield sessions

    def _hold(self, rows: _Rows, held: np.ndarray) -> None:
        """Keep the rows of each asset's last session, in stored order."""
        held = held[np.argsort(rows.code[held], kind="stable")]
        for part in np.split(held, np.flatnonzero(np.diff(rows.code[held])) + 1):
            if len(part):
                self._held[int(rows.code[part[0]])] = rows.take(part)

    def _count_outside(self, rows: _Rows, outside: np.ndarray) -> None:
        key = (rows.code[outside] << LABEL_BITS) | (rows.time[outside] // DAY)
        for one, times in zip(*np.unique(key, return_counts=True), strict=True):
            self._count(int(one) >> LABEL_BITS, "outside_session", int(one) & ((1 << LABEL_BITS) - 1), int(times))

    def _note_done(self, sessions: Sessions) -> None:
        """Remember what was given out; a session that comes twice is flagged."""
        position = 0
        for labels in np.split(sessions.label, np.flatnonzero(np.diff(sessions.code)) + 1):
            code = int(sessions.code[position])
            position += len(labels)
            done = self._done.get(code)
            size = int(labels.max()) + 1
            if done is None or len(done) < size:
                grown = np.zeros(size + 1024, dtype=bool)
                if done is not None:
                    grown[: len(done)] = done
                self._done[code] = done = grown
            for label in labels[done[labels]].tolist():
                self.scattered.add((code, label))
            done[labels] = True


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while this one is worked on."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = thread.submit(next, items, end)
            yield cast(Item, item)


def _positions(keep: np.ndarray) -> slice | np.ndarray:
    """The rising positions: as a slice, which copies nothing, if they are one stretch."""
    first, last = int(keep[0]), int(keep[-1]) + 1
    return slice(first, last) if last - first == len(keep) else keep


def _sorted(key: np.ndarray, elapsed: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The order that sorts by (key, elapsed); and the rows, sorted, that were stored too late.

    An asset whose rows fall in time throughout is stored newest first, which is no disorder.
    """
    by_key = np.argsort(key, kind="stable")
    key, elapsed = key[by_key], elapsed[by_key]
    same = np.diff(key) == 0
    later = np.diff(elapsed)
    falls = same & (later < 0)
    if not falls.any():
        return by_key, None
    code = key[1:] >> LABEL_BITS
    rising = np.bincount(code[same & (later > 0)], minlength=int(code.max()) + 1)
    newest_first = (rising[code] == 0) & (np.bincount(code[falls], minlength=len(rising))[code] > 1)
    late = np.concatenate([[False], falls & ~newest_first])
    position = np.arange(len(key))
    backwards = np.concatenate([[False], newest_first]) | np.concatenate([newest_first & same, [False]])
    order = np.lexsort((np.where(backwards, -position, position), elapsed, key))
    disorder = late[order]
    return by_key[order], disorder if disorder.any() else None
