"""Previous-tick sampling and the facts of a session, against the plain definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.intraday.calendars import calendar_named, wall_clock
from ssmfin.data.intraday.durations import DAY
from ssmfin.data.intraday.sampling import grid, previous_tick, session_quality
from ssmfin.data.intraday.stamps import exact_utc

HOUR = 3_600_000_000


@st.composite
def some_sessions(draw):
    length = draw(st.integers(1, 60))
    groups = draw(st.integers(1, 4))
    stamps = [sorted(draw(st.lists(st.integers(0, length), min_size=1, max_size=12))) for _ in range(groups)]
    return length, draw(st.integers(1, 20)), stamps


@settings(max_examples=80, deadline=None)
@given(some_sessions())
def test_the_price_at_a_point_is_that_of_the_last_row_at_or_before_it(case):
    length, interval, stamps = case
    starts = np.concatenate([[0], np.cumsum([len(one) for one in stamps])])
    elapsed = np.concatenate(stamps).astype(np.int64)
    points = grid(length, interval)
    assert points[0] == 0
    assert points[-1] == length
    groups = np.arange(len(stamps))[:: 2 if len(stamps) > 2 else 1]
    rows = previous_tick(elapsed, starts, groups, points)
    for row, group in zip(rows, groups, strict=True):
        for point, found in zip(points, row, strict=True):
            known = [starts[group] + i for i, stamp in enumerate(stamps[group]) if stamp <= point]
            assert found == (known[-1] if known else -1)


@settings(max_examples=80, deadline=None)
@given(some_sessions(), st.integers(0, 2**32 - 1))
def test_gaps_and_stale_runs_are_their_definition(case, seed):
    length, _, stamps = case
    starts = np.concatenate([[0], np.cumsum([len(one) for one in stamps])])
    elapsed = np.concatenate(stamps).astype(np.int64)
    price = np.random.default_rng(seed).integers(0, 3, len(elapsed)).astype(float)
    found = session_quality(elapsed, price, starts, np.full(len(stamps), length), 0)
    for k, own in enumerate(stamps):
        mine = price[starts[k] : starts[k + 1]]
        assert found.longest_gap[k] == max(np.diff([0, *own, length]))
        stale = [own[j] - own[i] for i in range(len(own)) for j in range(i, len(own)) if len(set(mine[i : j + 1])) == 1]
        assert found.longest_stale[k] == max(stale)
        assert found.distinct[k] == (len(set(mine)) > 1)


def utc(text):
    return int(np.datetime64(text, "us").astype(np.int64))


def sessions_of(name, day):
    table = calendar_named(name).between(utc(day), utc(day) + DAY)
    row = int(np.flatnonzero(table.label == np.datetime64(day, "D").astype(int))[0])
    return [str(np.datetime64(int(getattr(table, part)[row]), "us"))[:16] for part in ("open", "close")]


def test_sessions_know_holidays_half_days_and_daylight_saving():
    assert sessions_of("XNYS", "2020-03-06") == ["2020-03-06T14:30", "2020-03-06T21:00"]
    assert sessions_of("XNYS", "2020-03-09") == ["2020-03-09T13:30", "2020-03-09T20:00"]
    assert sessions_of("XNYS", "2019-07-03") == ["2019-07-03T13:30", "2019-07-03T17:00"]
    table = calendar_named("XNYS").between(utc("2020-07-01"), utc("2020-07-10"))
    assert np.datetime64("2020-07-03").astype(int) not in table.label
    assert sessions_of("24/7", "2020-03-08") == ["2020-03-08T00:00", "2020-03-09T00:00"]


def test_fixed_hours_may_begin_on_the_eve():
    assert sessions_of("09:30-16:00 America/New_York", "2020-03-07") == ["2020-03-07T14:30", "2020-03-07T21:00"]
    assert sessions_of("18:00-17:00 America/New_York", "2020-03-04") == ["2020-03-03T23:00", "2020-03-04T22:00"]
    assert sessions_of("00:00-24:00 America/New_York", "2020-03-08") == ["2020-03-08T05:00", "2020-03-09T04:00"]


def test_local_times_in_doubt():
    local = np.array([utc(f"2020-11-01T{clock}") for clock in ("00:59", "01:00", "01:59", "02:00")])
    exact = exact_utc(local, "America/New_York")
    assert exact.ambiguous.tolist() == [False, True, True, False]
    assert ((exact.time - local) // HOUR).tolist() == [4, 4, 4, 5]
    spring = exact_utc(np.array([utc("2020-03-08T01:59"), utc("2020-03-08T02:00")]), "America/New_York")
    assert spring.skipped.tolist() == [False, True]
    assert wall_clock(np.array([utc("2020-03-08T06:59"), utc("2020-03-08T07:00")]), "America/New_York").tolist() == [
        utc("2020-03-08T01:59"),
        utc("2020-03-08T03:00"),
    ]
