"""Every kind of bad input is reported by asset, day and rule, with counts; its day is unusable rather than wrong."""

import datetime

import numpy as np
import polars as pl
import pytest

from ssmfin import InputError, realized_measures

DAYS = [datetime.date(2020, 1, day) for day in (2, 3, 6, 7, 8)]
BAD = DAYS[2]


def minutes(day, start=(9, 30), count=391, zone=None):
    first = datetime.datetime.combine(day, datetime.time(*start))
    stamps = pl.datetime_range(first, first + datetime.timedelta(minutes=count - 1), interval="1m", eager=True)
    return stamps.dt.replace_time_zone(zone) if zone else stamps


def prices(days=DAYS, ids=("A", "B"), seed=0):
    """One price a minute of two assets, five days, no defect."""
    generator = np.random.default_rng(seed)
    parts = []
    for name in ids:
        for day in days:
            stamps = minutes(day)
            price = 100 * np.exp(np.cumsum(5e-4 * generator.standard_normal(len(stamps))))
            parts.append(pl.DataFrame({"unique_id": name, "ds": stamps, "price": price}))
    return pl.concat(parts)


def measured(frame, **options):
    return realized_measures(frame, **({"calendar": "XNYS", "estimators": ["rv", "bv"]} | options))


def on(hour, minute, day=BAD):
    return pl.col("ds") == datetime.datetime.combine(day, datetime.time(hour, minute))


def of_a():
    return pl.col("unique_id") == "A"


def replace_price(where, value):
    return lambda frame: frame.with_columns(pl.when(of_a() & where).then(value).otherwise("price").alias("price"))


def swap_rows(frame):
    """Two rows of one day change places."""
    order = np.arange(frame.height)
    at = frame.with_row_index().filter(of_a() & on(11, 0))["index"].item()
    order[[at, at + 1]] = order[[at + 1, at]]
    return frame[order]


def contradict(frame):
    row = frame.filter(of_a() & on(11, 0)).with_columns(pl.col("price") * 1.01)
    return pl.concat([frame, row]).sort("unique_id", "ds", maintain_order=True)


def keep_only(count):
    def cut(frame):
        bad = frame.filter(of_a() & (pl.col("ds").dt.date() == BAD)).head(count)
        rest = frame.filter(~(of_a() & (pl.col("ds").dt.date() == BAD)))
        return pl.concat([rest, bad]).sort("unique_id", "ds")

    return cut


def repeat_one_price(frame):
    return replace_price(pl.col("ds").dt.date() == BAD, 100.0)(frame)


def cut_hours(frame):
    return frame.filter(~(of_a() & (pl.col("ds").dt.date() == BAD) & pl.col("ds").dt.hour().is_in([11, 12])))


def freeze_hour(frame):
    return replace_price((pl.col("ds").dt.date() == BAD) & (pl.col("ds").dt.hour() == 11), 100.0)(frame)


def spike(frame):
    return replace_price(on(11, 0), pl.col("price") * 1.1)(frame)


@pytest.mark.parametrize(
    "damage, rule, rows",
    [
        (replace_price(on(11, 0), 0.0), "not_a_price", 1),
        (replace_price(on(11, 0) | on(11, 5), -1.0), "not_a_price", 2),
        (replace_price(on(11, 0), None), "not_a_price", 1),
        (replace_price(on(11, 0), float("nan")), "not_a_price", 1),
        (replace_price(on(11, 0), float("inf")), "not_a_price", 1),
        (spike, "spike", 1),
        (swap_rows, "out_of_order", 1),
        (contradict, "duplicate_stamp", 1),
        (keep_only(1), "few_ticks", 1),
        (repeat_one_price, "one_price", 1),
        (cut_hours, "gap", 1),
        (freeze_hour, "stale", 1),
    ],
)
@pytest.mark.parametrize("batch_rows", [150, 1 << 20])
def test_a_defect_is_reported_by_asset_day_and_rule_and_touches_no_other_day(damage, rule, rows, batch_rows):
    clean = measured(prices(), batch_rows=batch_rows)
    assert clean.frame["usable"].all()
    found = measured(damage(prices()), batch_rows=batch_rows)
    flag = found.quality.flags.filter(pl.col("rule") == rule)
    assert flag.select("unique_id", "ds", "rows", "spoils").rows() == [("A", BAD, rows, True)]
    unusable = found.frame.filter(~pl.col("usable"))
    assert unusable.select("unique_id", "ds").rows() == [("A", BAD)]
    assert unusable.select("rv", "bv", "close", "log_return").row(0) == (None,) * 4
    others = pl.col("ds") != BAD
    assert (
        found.frame.filter(others)
        .select("unique_id", "ds", "rv")
        .equals(clean.frame.filter(others).select("unique_id", "ds", "rv"))
    )
    assert found.frame.filter(unique_id="B").equals(clean.frame.filter(unique_id="B"))


def test_returns_over_an_unusable_day_start_at_the_last_usable_close():
    clean, found = measured(prices()).frame, measured(spike(prices())).frame
    closes = clean.filter(unique_id="A")["close"].log()
    after = found.filter(unique_id="A", ds=DAYS[3])["log_return"].item()
    assert after == pytest.approx(closes[3] - closes[1], abs=1e-12)


def test_bad_ticks_can_be_left_out_and_are_counted_all_the_same():
    found = measured(spike(prices()), bad_ticks="drop")
    assert found.frame["usable"].all()
    assert found.quality.flags.select("unique_id", "ds", "rule", "rows").rows() == [("A", BAD, "spike", 1)]
    clean = measured(prices()).frame.filter(unique_id="A", ds=BAD)["rv"].item()
    assert found.frame.filter(unique_id="A", ds=BAD)["rv"].item() == pytest.approx(clean, rel=0.1)


def test_exact_copies_are_noted_and_change_nothing():
    frame = prices()
    doubled = pl.concat([frame, frame.filter(of_a() & on(11, 0))]).sort("unique_id", "ds")
    found = measured(doubled)
    assert found.quality.flags.select("rule", "rows", "spoils").rows() == [("repeated_row", 1, False)]
    assert found.frame.equals(measured(frame).frame)


def test_newest_first_is_no_disorder():
    found = measured(prices().reverse())
    assert found.quality.flags.is_empty()
    assert found.frame.equals(measured(prices()).frame)


def test_rows_of_a_session_that_lie_far_apart_spoil_it():
    frame = prices()
    late = frame.filter(of_a() & on(11, 0))
    apart = pl.concat([frame.filter(~(of_a() & on(11, 0))), late])
    found = measured(apart, batch_rows=200)
    assert found.quality.unusable.rows() == [("A", BAD, "scattered")]
    # held in one batch they are only out of place
    assert measured(apart).quality.unusable.rows() == [("A", BAD, "out_of_order")]


def quotes(crossed):
    frame = prices(ids=("A",))
    half = 0.005 * (1 - 2 * on(11, 0).cast(pl.Int8)) if crossed else pl.lit(0.005)
    return frame.select("unique_id", "ds", (pl.col("price") - half).alias("bid"), (pl.col("price") + half).alias("ask"))


def test_crossed_quotes():
    found = measured(quotes(crossed=True))
    assert found.notes["kind"] == "quotes"
    assert found.quality.flags.select("unique_id", "ds", "rule", "rows").rows() == [("A", BAD, "crossed_quote", 1)]
    assert not found.frame.filter(ds=BAD)["usable"].item()
    mid = measured(quotes(crossed=False)).frame
    assert mid["rv"].to_list() == pytest.approx(measured(prices(ids=("A",))).frame["rv"].to_list(), rel=1e-9)
    assert mid["quoted_spread"].to_list() == pytest.approx([1e-4] * 5, rel=0.1)


def test_unknown_exchange_and_unknown_zone_name_the_nearest():
    with pytest.raises(InputError, match="calendar 'XNYX' is no exchange that we know; did you mean"):
        measured(prices(), calendar="XNYX")
    with pytest.raises(InputError, match="names no time zone, 'America/New_Yok'"):
        measured(prices(), calendar="09:30-16:00 America/New_Yok")


def test_missing_sessions_are_counted_and_holidays_are_not_missing():
    days = [datetime.date(2020, 1, day) for day in (17, 21, 23)]  # Monday the 20th was a holiday
    flags = measured(prices(days)).quality.flags
    assert flags.select("unique_id", "ds", "rule").rows() == [
        (name, datetime.date(2020, 1, 22), "missing_session") for name in "AB"
    ]


def test_rows_outside_the_session_are_counted_and_not_used():
    frame = prices()
    evening = frame.filter(of_a()).with_columns(pl.col("ds") + pl.duration(hours=7), pl.col("price") * 2)
    both = pl.concat([frame, evening]).sort("unique_id", "ds")
    found = measured(both)
    assert found.frame.equals(measured(frame).frame)
    assert set(found.quality.flags["rule"]) == {"outside_session"}
    assert found.quality.flags.filter(ds=BAD)["rows"].to_list() == [391]


# clocks


def around_the_clock(first, last, zone):
    """A price a minute over local days of a zone, as moments with that zone."""
    stamps = pl.datetime_range(first, last, interval="1m", time_zone="UTC", closed="left", eager=True)
    price = 100 * np.exp(np.cumsum(5e-4 * np.random.default_rng(1).standard_normal(len(stamps))))
    return pl.DataFrame({"ds": stamps.dt.convert_time_zone(zone), "price": price})


@pytest.mark.parametrize("day, minutes_of_day", [((2020, 3, 8), 1380), ((2020, 11, 1), 1500)])
def test_days_on_which_the_clock_is_set_have_their_true_length(day, minutes_of_day):
    noon = datetime.datetime(*day, 12)
    frame = around_the_clock(noon - datetime.timedelta(days=3), noon + datetime.timedelta(days=3), "America/New_York")
    found = measured(frame, calendar="00:00-24:00 America/New_York", min_coverage=0.0, max_gap="24h")
    shown = found.quality.days.filter(ds=datetime.date(*day))
    assert shown["rows"].item() == minutes_of_day
    assert found.frame.filter(ds=datetime.date(*day))["usable"].item()


def test_a_local_time_that_exists_twice_spoils_the_day_unless_the_stamps_are_utc():
    noon = datetime.datetime(2020, 11, 1, 12)
    zoned = around_the_clock(noon - datetime.timedelta(days=3), noon + datetime.timedelta(days=3), "America/New_York")
    naive = zoned.with_columns(pl.col("ds").dt.replace_time_zone(None))
    found = measured(naive, calendar="00:00-24:00 America/New_York", max_gap="24h", min_coverage=0.0)
    flags = found.quality.flags.filter(rule="ambiguous_time")
    assert flags.select("ds", "rows").rows() == [(datetime.date(2020, 11, 1), 120)]
    assert not found.frame.filter(ds=datetime.date(2020, 11, 1))["usable"].item()
    right = measured(zoned, calendar="00:00-24:00 America/New_York", max_gap="24h", min_coverage=0.0).frame
    others = pl.col("ds") != datetime.date(2020, 11, 1)
    same = ["ds", "rv", "close"]
    assert found.frame.filter(others).select(same).equals(right.filter(others).select(same))


def test_a_local_time_that_does_not_exist_spoils_the_day():
    stamps = pl.datetime_range(
        datetime.datetime(2020, 3, 7), datetime.datetime(2020, 3, 9, 23), interval="1m", eager=True
    )
    price = 100 * np.exp(np.cumsum(5e-4 * np.random.default_rng(1).standard_normal(len(stamps))))
    found = measured(pl.DataFrame({"ds": stamps, "price": price}), calendar="00:00-24:00 America/New_York")
    flags = found.quality.flags.filter(rule="skipped_time")
    assert flags.select("ds", "rows").rows() == [(datetime.date(2020, 3, 8), 60)]


@pytest.mark.parametrize("day", [datetime.date(2020, 3, 6), datetime.date(2020, 3, 9)])
def test_stamps_in_any_zone_give_the_same_sessions(day):
    local = prices([day], ids=("A",))
    expected = measured(local).frame
    zoned = local.with_columns(pl.col("ds").dt.replace_time_zone("America/New_York"))
    tokyo = zoned.with_columns(pl.col("ds").dt.convert_time_zone("Asia/Tokyo"))
    text = tokyo.with_columns(pl.col("ds").dt.to_string("%Y-%m-%dT%H:%M:%S%:z"))
    utc = zoned.with_columns(pl.col("ds").dt.convert_time_zone("UTC").dt.replace_time_zone(None))
    for frame in (zoned, tokyo, text):
        assert measured(frame).frame.equals(expected)
    assert measured(utc, time_zone="UTC").frame.equals(expected)


def test_text_stamps_of_which_some_have_no_zone_spoil_their_day():
    frame = prices(ids=("A",)).with_columns(
        pl.when(on(11, 0))
        .then(pl.col("ds").dt.to_string("%Y-%m-%d %H:%M:%S"))
        .otherwise(pl.col("ds").dt.to_string("%Y-%m-%d %H:%M:%S-05:00"))
        .alias("ds")
    )
    found = measured(frame)
    assert found.quality.flags.select("unique_id", "ds", "rule", "rows").rows() == [("A", BAD, "no_time_zone", 1)]
    assert found.quality.unusable["ds"].to_list() == [BAD]


def test_stamps_that_cannot_be_read_are_counted_without_a_day():
    frame = prices(ids=("A",)).with_columns(pl.col("ds").dt.to_string("%Y-%m-%d %H:%M:%S"))
    frame = frame.with_columns(
        pl.when(pl.col("ds").str.ends_with("11:00:00")).then(pl.lit("noon")).otherwise("ds").alias("ds")
    )
    flags = measured(frame).quality.flags
    assert flags.select("unique_id", "ds", "rule", "rows").rows() == [("A", None, "unreadable_stamp", 5)]


def test_files_with_and_without_a_zone_are_refused(tmp_path):
    frame = prices(ids=("A",))
    frame.write_parquet(tmp_path / "a.parquet")
    frame.with_columns(pl.col("ds").dt.replace_time_zone("UTC")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="mixes time zones"):
        measured(tmp_path, cache=False)


@pytest.mark.parametrize(
    "frame, message",
    [
        (pl.DataFrame({"ds": minutes(BAD), "volume": 1.0}), "has no price; map one in columns"),
        (pl.DataFrame({"price": [1.0, 2.0]}), "lacks a column of times"),
        (pl.DataFrame({"date": DAYS, "price": 1.0}), "dates without a time of day"),
        (
            pl.DataFrame({"ds": [datetime.datetime.combine(d, datetime.time()) for d in DAYS], "price": 1.0}),
            "all are midnight",
        ),
        (pl.DataFrame({"ds": minutes(datetime.date(2020, 1, 4)), "price": 1.0}), "no row within a session of XNYS"),
        (pl.DataFrame({"ds": ["soon", "later"], "price": 1.0}), "holds no ISO time, 'soon'"),
        (pl.DataFrame({"ds": [1, 2], "price": 1.0}), "is of type Int64; give stamps as datetimes"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused_in_words(frame, message):
    with pytest.raises(InputError, match=message):
        measured(frame)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampling": "5 parsec"}, "write it as 5min, 30s"),
        ({"sampling": "30s"}, "shorter than the bars, 1min"),
        ({"fine": "2min"}, "does not divide sampling"),
        ({"estimators": ["tsrv"], "sampling": "1min"}, "needs prices more often"),
        ({"estimators": ["beta"]}, "needs a market"),
        ({"estimators": ["beta"], "market": "Z"}, "market is 'Z'"),
        ({"estimators": ["rvv"]}, "realized_measures.estimators"),
        ({"ids": "Z"}, "no rows that can be used"),
        ({"ids": ["A", "Z"]}, "no session of 'Z'"),
        ({"columns": {"price": "pryce"}}, "no column 'pryce' .did you mean 'price'"),
        ({"columns": {"prize": "price"}}, "have no use for"),
        ({"max_gaps": "1h"}, "did you mean 'max_gap'"),
        ({"factors": ["split"]}, "no column 'split' named in factors"),
        ({"batch_rows": 0}, "batch_rows is 0"),
    ],
)
def test_options_that_are_wrong_are_refused_in_words(options, message):
    with pytest.raises(InputError, match=message):
        measured(prices(), **options)


def test_a_panel_of_nothing_usable_says_why():
    found = measured(prices(), max_stale="1min", min_coverage=1.0, sampling="1min", estimators="rv")
    frozen = measured(prices().with_columns(pl.lit(5.0).alias("price")))
    assert found.frame.height == 10
    with pytest.raises(InputError, match=r"no usable session, flagged are one_price \(10 days"):
        frozen.panel()
