"""The fused loops give the bits of their twins in array operations, step by step and over whole ugly sources."""

import datetime
import inspect
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin import realized_measures
from ssmfin.data.intraday import arrays, flow, loops, sessions, ticks
from ssmfin.data.intraday.calendars import calendar_named
from ssmfin.data.intraday.sampling import grid
from ssmfin.data.realized import sampled

seeds = st.integers(0, 10**6)
modest = settings(max_examples=40, deadline=None)


def agree(name, *arguments):
    """Both twins, on copies of the arguments, give and leave behind the same."""
    left, right = ([a.copy() if isinstance(a, np.ndarray) else a for a in arguments] for _ in range(2))
    found, expected = getattr(loops, name)(*left), getattr(arrays, name)(*right)
    for one, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)
    return found


def groups(generator, rows):
    """(G + 1,) edges of groups of 1 to 7 rows."""
    edges = np.concatenate([[0], np.cumsum(generator.integers(1, 8, rows))])
    return np.append(edges[edges < rows], rows)


def some_rows(seed):
    """Times that rise, repeat and jump within groups, and log prices of which some repeat, jump or are missing."""
    generator = np.random.default_rng(seed)
    rows = int(generator.integers(1, 60))
    starts = groups(generator, rows)
    elapsed = np.empty(rows, np.int64)
    for first, end in pairwise(starts):
        elapsed[first:end] = np.sort(generator.integers(0, 30, end - first))
    steps = generator.standard_normal(rows) * (generator.random(rows) < 0.6)
    log_price = np.cumsum(steps * np.where(generator.random(rows) < 0.1, 50.0, 1.0))
    return generator, starts, elapsed, log_price


def test_the_twins_have_the_same_steps():
    loop_names = {name for name, value in vars(loops).items() if hasattr(value, "py_func")}
    assert loop_names == {name for name, _ in inspect.getmembers(arrays, inspect.isfunction)}
    for name in loop_names:
        fast, plain = getattr(loops, name).py_func, getattr(arrays, name)
        assert list(inspect.signature(fast).parameters) == list(inspect.signature(plain).parameters)


@modest
@given(seeds, st.sampled_from(["XNYS", "XTKS", "24/7", "18:00-17:00 America/New_York"]), st.booleans())
def test_rows_are_placed_alike(seed, calendar, ends):
    generator = np.random.default_rng(seed)
    table = calendar_named(calendar).of_years(2019, 2020)
    rows = int(generator.integers(1, 200))
    shift = 60_000_000 * int(ends and generator.integers(0, 2))
    near = generator.choice(np.concatenate([table.open, table.close, table.break_start, table.break_end]), rows)
    off = generator.choice([0, 1, -1, 60_000_000, -60_000_000, 7_200_000_000, -(10**14)], rows)
    time = near + off - shift * generator.integers(0, 2, rows)
    if generator.random() < 0.5:
        time = np.sort(time)
    index, elapsed, inside = agree("find_sessions", time, shift, table.open, not ends)
    code = generator.integers(0, 3, rows)
    key, _ = agree(
        "trading_time",
        code,
        index,
        elapsed,
        inside,
        table.close - table.open,
        table.length,
        table.break_start - table.open,
        table.break_end - table.break_start,
        table.label,
        20,
        shift,
        ends,
    )
    agree("split_held", code, key, inside, 4)
    agree("in_order", key, elapsed)
    agree("group_edges", np.sort(key))


@modest
@given(seeds)
def test_rows_are_checked_alike(seed):
    generator, starts, elapsed, log_price = some_rows(seed)
    log_price[generator.random(len(log_price)) < 0.1] = np.nan
    root, count, _ = agree("root_moves", log_price, elapsed, starts)
    agree("wild_moves", log_price, starts, np.add.reduceat(root, starts[:-1]) / np.maximum(count, 1))


@modest
@given(seeds, st.booleans())
def test_ranges_of_bars_are_judged_alike(seed, ugly):
    generator, starts, _, log_price = some_rows(seed)
    opened, close = np.exp(log_price / 100), np.exp(np.roll(log_price, 1) / 100)
    high, low = np.maximum(opened, close) * 1.001, np.minimum(opened, close) / 1.001
    if ugly:
        for column in (opened, high, low, close):
            column[generator.random(len(column)) < 0.02] = generator.choice([np.nan, 0.0, -1.0, np.inf, 2.0])
    factor = generator.choice([1.0005, 1.5, np.inf], len(starts) - 1)
    agree("odd_ranges", opened, high, low, close, starts, 1.0 + 1e-9, factor)


@modest
@given(seeds)
def test_sessions_are_judged_and_sampled_alike(seed):
    generator, starts, elapsed, log_price = some_rows(seed)
    length = np.full(len(starts) - 1, 30)
    agree("session_quality", elapsed, log_price, starts, length, int(generator.integers(0, 4)))
    which = np.flatnonzero(generator.random(len(length)) < 0.7)
    points = grid(30, int(generator.integers(1, 12)))
    first = generator.standard_normal(len(which))
    agree("previous_tick", elapsed, log_price, starts, which, first, points, int(generator.integers(1, 4)))
    agree("signed_volume", np.exp(log_price), generator.random(len(log_price)), starts)


# whole sources


def ugly(seed, start, days, ids, zone=None, around_the_clock=False):
    """A price a minute of a few assets over some days and every defect there is."""
    generator = np.random.default_rng(seed)
    parts = []
    for name in ids:
        for day in range(days):
            date = start + datetime.timedelta(days=day)
            hours = (0, 24) if around_the_clock else (9, 17)
            first = datetime.datetime.combine(date, datetime.time(hours[0]))
            stamps = np.datetime64(first, "us") + np.arange((hours[1] - hours[0]) * 60) * np.timedelta64(60, "s")
            count = len(stamps)
            price = 100 * np.exp(np.cumsum(5e-4 * generator.standard_normal(count)))
            kept = np.flatnonzero(generator.random(count) < generator.choice([1.0, 0.9, 0.3, 0.01]))
            if generator.random() < 0.15:
                price[generator.integers(0, count, 3)] *= generator.choice([1.05, 0.0, -1.0, np.nan, np.inf])
            if generator.random() < 0.15:
                price[100 : 100 + generator.integers(1, 90)] = price[100]
            if generator.random() < 0.15:
                kept = np.sort(np.append(kept, generator.integers(0, count, 4)))  # the same row, or stamp, twice
            if generator.random() < 0.15 and len(kept) > 40:
                kept[10:30] = generator.permutation(kept[10:30])
            noise = 1 + 1e-3 * (generator.random(len(kept)) < 0.01)
            parts.append(
                pl.DataFrame(
                    {
                        "unique_id": [name] * len(kept),
                        "ds": stamps[kept],
                        "close": price[kept] * noise,
                        "volume": np.where(generator.random(len(kept)) < 0.05, np.nan, 1.0 + kept % 7),
                    }
                )
            )
    frame = pl.concat(parts)
    high = pl.col("close") * (1 + 1e-4 * (pl.col("volume").fill_nan(1.0) % 3))
    frame = frame.with_columns(high=high, low=pl.col("close") * 0.9999, open=pl.col("close").shift(1).fill_null(1.0))
    if zone:
        frame = frame.with_columns(pl.col("ds").dt.replace_time_zone(zone))
    return frame


def measured(frame, kind, **options):
    if kind == "quotes":
        frame = frame.select("unique_id", "ds", bid=pl.col("low"), ask=pl.col("high") - 5e-5 * pl.col("close"))
    elif kind != "bars":
        frame = frame.select("unique_id", "ds", "volume", price="close")
    return realized_measures(frame, input=kind, **options)


CASES = {
    "half day": ({"start": datetime.date(2019, 11, 25), "days": 8, "ids": "AB"}, {"calendar": "XNYS"}),
    "lunch": ({"start": datetime.date(2020, 1, 6), "days": 5, "ids": "AB"}, {"calendar": "XTKS"}),
    "skipped hour": (
        {"start": datetime.date(2020, 3, 7), "days": 4, "ids": "A", "around_the_clock": True},
        {"calendar": "00:00-24:00 America/New_York", "bad_ticks": "drop"},
    ),
    "hour twice": (
        {"start": datetime.date(2020, 10, 31), "days": 6, "ids": "A", "around_the_clock": True},
        {"calendar": "18:00-17:00 America/New_York"},
    ),
    "moments": (
        {"start": datetime.date(2020, 10, 30), "days": 5, "ids": "ABC", "zone": "UTC", "around_the_clock": True},
        {"calendar": "XNYS", "sampling": "10min", "fine": "2min"},
    ),
}


@pytest.mark.parametrize("kind", ["bars", "prices", "trades", "quotes"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by_time, batch_rows", [(False, 137), (True, 391), (False, 1 << 16)])
def test_whole_sources_give_the_same_bits(monkeypatch, kind, case, by_time, batch_rows):
    data, options = CASES[case]
    frame = ugly(len(case) + batch_rows, **data)
    if by_time:
        frame = frame.sort("ds", maintain_order=True)
    found = measured(frame, kind, batch_rows=batch_rows, min_coverage=0.0, max_gap="10h", max_stale="10h", **options)
    for module in (sessions, ticks, flow, sampled):
        monkeypatch.setattr(module, "loops", arrays)
    plain = measured(frame, kind, batch_rows=batch_rows, min_coverage=0.0, max_gap="10h", max_stale="10h", **options)
    assert found.frame.equals(plain.frame)
    for name in ("days", "flags", "signature", "periodicity"):
        assert getattr(found.quality, name).equals(getattr(plain.quality, name)), name
    assert found.frame["usable"].any()
    assert len(found.quality.flags)
