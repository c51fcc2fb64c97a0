"""Joins as of the moment of knowledge: the last value known, never one from the future, daylight saving included."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.data.synthetic import business_days
from ssmfin.errors import InputError

NEW_YORK = {"time": "16:00", "zone": "America/New_York"}
LONDON = {"time": "16:30", "zone": "Europe/London"}
TOKYO = {"time": "15:00", "zone": "Asia/Tokyo"}


def series(name: str, dates: np.ndarray, values: np.ndarray | None = None, column: str = "close") -> pl.DataFrame:
    values = np.arange(len(dates), dtype=float) if values is None else values
    return pl.DataFrame({"unique_id": pl.Series([name]).new_from_index(0, len(dates)), "ds": dates, column: values})


def stored(frame: pl.DataFrame, folder: Path, name: str = "other") -> dict[str, str]:
    frame.write_parquet(folder / f"{name}.parquet")
    return {"kind": "parquet", "path": str(folder / f"{name}.parquet")}


def join(panel: pl.DataFrame, other: pl.DataFrame, folder: Path, **keys: Any) -> pl.DataFrame:
    closes = keys.pop("closes", None)
    return load_panel(panel, exogenous=[{"name": "x", "source": stored(other, folder), **keys}], closes=closes).frame


DATES = business_days(60, datetime.date(2021, 2, 15))  # both changes to summer time lie within: 14 and 28 March


@pytest.mark.parametrize(
    ("panel_clock", "other_clock", "same_date"),
    [
        (NEW_YORK, TOKYO, True),
        (NEW_YORK, LONDON, True),
        (LONDON, TOKYO, True),
        (LONDON, NEW_YORK, False),
        (TOKYO, NEW_YORK, False),
        (TOKYO, LONDON, False),
        (NEW_YORK, {"time": "16:15", "zone": "America/New_York"}, False),
        (NEW_YORK, {"time": "16:00", "zone": "America/New_York"}, True),
    ],
)
def test_market_that_closes_later_that_day_is_not_known_yet(
    tmp_path: Path, panel_clock: dict[str, str], other_clock: dict[str, str], same_date: bool
) -> None:
    joined = join(series("p", DATES), series("o", DATES), tmp_path, known_at=other_clock, closes=panel_clock)
    lag = 0 if same_date else 1
    assert joined["x__close"].to_list() == [None] * lag + [float(k) for k in range(60 - lag)]


def test_daylight_saving_decides_what_is_known(tmp_path: Path) -> None:
    """Noon in New York is 17:00 in London, after the close, but 16:00 while only New York has summer time."""
    noon = {"time": "12:00", "zone": "America/New_York"}
    joined = join(series("ftse", DATES), series("fix", DATES), tmp_path, known_at=noon, closes=LONDON)
    fortnight = pl.col("ds").is_between(datetime.date(2021, 3, 15), datetime.date(2021, 3, 26))
    position = pl.int_range(60).cast(pl.Float64)
    assert (
        joined.with_columns(position.alias("k"))
        .filter(fortnight)
        .select((pl.col("x__close") == pl.col("k")).all())
        .item()
    )
    outside = joined.with_columns(position.alias("k")).filter(~fortnight & (pl.col("k") > 0))
    assert outside.select((pl.col("x__close") == pl.col("k") - 1).all()).item()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_joined_value_is_the_last_one_known_by_brute_force(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    def draw_dates() -> np.ndarray:
        picks = data.draw(st.lists(st.integers(0, 80), min_size=2, max_size=30, unique=True))
        return np.datetime64("2021-10-15") + np.sort(picks)

    def draw_clock() -> dict[str, str]:
        zone = data.draw(
            st.sampled_from(["America/New_York", "Europe/London", "Asia/Tokyo", "Australia/Sydney", "UTC"])
        )
        return {"time": f"{data.draw(st.integers(4, 23)):02d}:{data.draw(st.sampled_from(['00', '30']))}", "zone": zone}

    def moments(dates: np.ndarray, clock: dict[str, str]) -> list[datetime.datetime]:
        time, zone = datetime.time.fromisoformat(clock["time"]), ZoneInfo(clock["zone"])
        return [datetime.datetime.combine(date, time, zone).astimezone(datetime.UTC) for date in dates.tolist()]

    ours, theirs = draw_dates(), draw_dates()
    known_at, closes = draw_clock(), draw_clock()
    folder = tmp_path_factory.mktemp("join")
    joined = join(series("p", ours), series("o", theirs), folder, known_at=known_at, closes=closes)
    known = moments(theirs, known_at)
    for row, origin in enumerate(moments(ours, closes)):
        usable = [k for k, moment in enumerate(known) if moment <= origin]
        expected = float(usable[-1]) if usable else None
        assert joined["x__close"][row] == expected
        if usable:
            assert joined["x__age"][row] == (ours[row] - theirs[usable[-1]]) / np.timedelta64(1, "D")


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 59),
    st.sampled_from(["next_day", "same_day", "clock", "column"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_values_known_after_t_never_change_a_bit_at_t(
    tmp_path_factory: pytest.TempPathFactory, t: int, mode: str, by_id: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    names = ["a", "b"] if by_id else ["o"]
    panel = pl.concat([series(name, DATES) for name in ("a", "b")])
    other = pl.concat([series(name, DATES, generator.normal(size=60)) for name in names])
    known_at: Any = mode
    known = pl.col("ds") + datetime.timedelta(days=int(mode == "next_day"))
    if mode == "clock":
        known_at, known = TOKYO, pl.col("ds")  # Tokyo's close of a date is known at New York's of the same date
    if mode == "column":
        delays = np.maximum.accumulate(np.arange(60) + generator.integers(0, 6, 60)) - np.arange(60)
        other = other.with_columns(
            published=pl.col("ds") + pl.Series(np.tile(delays, len(names))).cast(pl.Duration("us")) * 86_400_000_000
        )
        known_at, known = {"column": "published"}, pl.col("published")
    future = known > DATES[t].item()
    noise = pl.Series(generator.normal(size=other.height) * 1e6)
    changed = other.with_columns(pl.when(future).then(noise).otherwise("close").alias("close"))
    folder = tmp_path_factory.mktemp("future")
    keys = {"known_at": known_at, "by_id": by_id, "closes": NEW_YORK}
    before, after = (
        join(panel, source, folder, **keys).filter(pl.col("ds") <= DATES[t].item()) for source in (other, changed)
    )
    assert before.equals(after, null_equal=True)


def test_default_is_the_next_day(tmp_path: Path) -> None:
    assert join(series("p", DATES), series("o", DATES), tmp_path)["x__close"].to_list() == [
        None,
        *map(float, range(59)),
    ]
    assert join(series("p", DATES), series("o", DATES), tmp_path, known_at="same_day")["x__close"].to_list() == [
        *map(float, range(60))
    ]


def test_age_tells_how_stale_a_value_is(tmp_path: Path) -> None:
    joined = join(series("p", DATES[:6]), series("o", DATES[[0, 1]]), tmp_path)
    # Monday 15 February 2021 to Monday 22
    assert joined["x__age"].to_list() == [None, 1.0, 1.0, 2.0, 3.0, 6.0]


def test_publication_dates_delay_a_value_until_it_was_known(tmp_path: Path) -> None:
    monthly = series("cpi", np.array(["2021-01-31", "2021-02-28"], dtype="datetime64[D]"))
    monthly = monthly.with_columns(published=pl.Series(["2021-02-17", "2021-03-16"]))
    joined = join(series("p", DATES), monthly, tmp_path, known_at={"column": "published"})
    first, second = datetime.date(2021, 2, 17), datetime.date(2021, 3, 16)
    expected = [None if ds < first else 0.0 if ds < second else 1.0 for ds in joined["ds"]]
    assert joined["x__close"].to_list() == expected


def test_publication_hours_are_compared_with_the_panels_close(tmp_path: Path) -> None:
    other = series("o", DATES).with_columns(at=pl.col("ds").cast(pl.Datetime("us")) + pl.duration(hours=20))
    keys = {"known_at": {"column": "at", "zone": "Europe/London"}}
    in_new_york = join(series("p", DATES), other, tmp_path, closes=NEW_YORK, **keys)  # 20:00 is 15:00 or 16:00 there
    assert in_new_york["x__close"].to_list() == [*map(float, range(60))]
    in_london = join(series("p", DATES), other, tmp_path, closes=LONDON, **keys)
    assert in_london["x__close"].to_list() == [None, *map(float, range(59))]
    for missing, words in [({}, "set closes="), ({"closes": LONDON, "known_at": {"column": "at"}}, '"zone":')]:
        with pytest.raises(InputError, match=words):
            join(series("p", DATES), other, tmp_path, **{**keys, **missing})


def test_by_id_gives_each_id_its_own_rows_and_others_none(tmp_path: Path) -> None:
    panel = pl.concat([series(name, DATES) for name in "abc"])
    other = pl.concat([series("a", DATES), series("c", DATES[::2], np.arange(30) + 100.0), series("z", DATES)])
    joined = join(panel, other, tmp_path, by_id=True, known_at="same_day")
    assert joined.filter(pl.col("unique_id") == "a")["x__close"].to_list() == [*map(float, range(60))]
    assert joined.filter(pl.col("unique_id") == "b")["x__close"].null_count() == 60
    assert joined.filter(pl.col("unique_id") == "c")["x__close"].to_list() == [100.0 + k // 2 for k in range(60)]


def test_ids_that_close_elsewhere_have_their_own_clock(tmp_path: Path) -> None:
    panel = pl.concat([series(name, DATES) for name in ("dax", "spx", "topix")])
    closes = NEW_YORK | {"by_id": {"topix": TOKYO, "dax": {"time": "17:30", "zone": "Europe/Berlin"}}}
    joined = join(panel, series("o", DATES), tmp_path, known_at=LONDON, closes=closes)
    lag = {"dax": 0, "spx": 0, "topix": 1}  # 16:30 in London is 17:30 in Berlin
    for name, expected in lag.items():
        assert joined.filter(pl.col("unique_id") == name)["x__close"].null_count() == expected


def test_intraday_panel_sees_daily_values_from_the_next_day_and_clocked_ones_at_their_hour(tmp_path: Path) -> None:
    hours = np.datetime64("2021-02-15T09:00", "us") + np.arange(72) * np.timedelta64(3600, "s").astype(
        "timedelta64[us]"
    )
    panel = series("p", hours)
    joined = join(panel, series("o", DATES), tmp_path)
    assert joined["x__close"].null_count() == 15  # until midnight
    clocked = join(panel, series("o", DATES), tmp_path, known_at=TOKYO, closes={"time": "00:00", "zone": "Asia/Tokyo"})
    assert clocked["x__close"].null_count() == 6  # until 15:00
    same = join(panel, panel.with_columns(pl.col("ds") + pl.duration(minutes=1)), tmp_path, known_at="same_day")
    assert same["x__close"].to_list() == [None, *map(float, range(71))]


def test_rows_without_any_value_do_not_hide_the_last_value(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 3.0])
    joined = join(series("p", DATES[:4]), series("o", DATES[:3], values), tmp_path)
    assert joined["x__close"].to_list() == [None, 1.0, 1.0, 3.0]


def test_selection_renaming_and_order_of_columns(tmp_path: Path) -> None:
    other = series("o", DATES).rename({"ds": "date", "close": "Close"}).with_columns(high=1.0)
    joined = join(series("p", DATES), other, tmp_path, columns={"ds": "date", "close": "Close"}, select=["close"])
    assert joined.columns == ["unique_id", "ds", "close", "x__close", "x__age"]


def test_rows_of_the_panel_stay_as_they_are(tmp_path: Path) -> None:
    panel = pl.concat([series(name, DATES) for name in "ab"])
    joined = join(panel, series("o", DATES[:0:-3][::-1]), tmp_path)
    assert joined.select(panel.columns).equals(panel)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"known_at": TOKYO}, ["'x'", "known at 15:00 Asia/Tokyo", "set closes="]),
        ({"known_at": {"time": "15:00", "zone": "Asia/Tokio"}}, ["Asia/Tokio", "did you mean 'Asia/Tokyo'?"]),
        ({"known_at": {"time": 900, "zone": "Asia/Tokyo"}}, ["in quotes"]),
        ({"known_at": {"time": "25:00", "zone": "Asia/Tokyo"}}, ["25:00"]),
        ({"known_at": "tomorrow"}, ["known_at", "'tomorrow'"]),
        ({"known_at": {"column": "published"}}, ["no column 'published'"]),
        ({"select": ["open"]}, ["lacks the column open"]),
        ({"select": ["ds"]}, ["no value column 'ds'", "known: close"]),
        ({"ids": ["q"]}, ["has no id 'q'"]),
        ({"name": "x__y"}, ["would overwrite"]),
        ({"name": "1x"}, ["name", "'1x'"]),
        ({"lag": 1}, ["exogenous.0.lag is no setting"]),
    ],
)
def test_wrong_specification_is_refused_with_its_remedy(tmp_path: Path, keys: dict[str, Any], words: list[str]) -> None:
    panel = series("p", DATES).with_columns(x__y__close=1.0)
    with pytest.raises(InputError) as caught:
        join(panel, series("o", DATES), tmp_path, **keys)
    for word in words:
        assert word in str(caught.value)


def test_several_series_for_one_panel_are_a_question(tmp_path: Path) -> None:
    other = pl.concat([series(name, DATES) for name in "ab"])
    with pytest.raises(InputError, match=r"holds 2 series.*by_id=True"):
        join(series("p", DATES), other, tmp_path)
    assert join(series("p", DATES), other, tmp_path, ids=["b"])["x__close"].null_count() == 1


def test_known_at_column_that_nobody_asked_for_is_a_question(tmp_path: Path) -> None:
    other = series("o", DATES).with_columns(known_at=pl.col("ds") + pl.duration(days=30))
    with pytest.raises(InputError, match=r'set known_at=\{"column": "known_at"\}'):
        join(series("p", DATES), other, tmp_path)


def test_breaches_of_the_panel_and_of_further_sources_come_in_one_message(tmp_path: Path) -> None:
    panel = series("p", DATES, np.r_[0.0, np.ones(59)])
    other = series("o", DATES, np.r_[1.0, np.inf, np.ones(58)])
    spec = {"name": "x", "source": stored(other, tmp_path)}
    with pytest.raises(InputError) as caught:
        load_panel(panel, exogenous=[spec], target="close", positive=True)
    assert "close is not positive" in str(caught.value)
    assert "exogenous 'x'" in str(caught.value)
    assert "close is infinite" in str(caught.value)
    panel = load_panel(panel, exogenous=[spec], target="close", positive=True, on_breach="drop")
    assert sum(sum(kinds.values()) for kinds in panel.notes["exogenous_dropped"].values()) == 1


def test_hour_that_daylight_saving_skips_is_refused(tmp_path: Path) -> None:
    skipped = {"time": "02:30", "zone": "America/New_York"}
    dates = np.arange("2021-03-10", "2021-03-20", dtype="datetime64[D]")
    with pytest.raises(InputError, match=r"2021-03-14 02:30:00 does not exist in America/New_York"):
        join(series("p", dates), series("o", dates), tmp_path, known_at=skipped, closes=NEW_YORK)


def test_repeated_hour_is_taken_late_for_knowledge_and_early_for_origins(tmp_path: Path) -> None:
    repeated = {"time": "01:30", "zone": "America/New_York"}
    dates = np.arange("2021-11-05", "2021-11-10", dtype="datetime64[D]")  # 7 November has 01:30 twice
    joined = join(series("p", dates), series("o", dates), tmp_path, known_at=repeated, closes=repeated)
    assert joined["x__close"].to_list() == [0.0, 1.0, 1.0, 3.0, 4.0]


def test_vix_of_the_package_beside_the_index() -> None:
    vix = {"name": "vix", "source": {"kind": "arch", "series": "vix"}, "select": ["close"]}
    panel = load_panel({"kind": "arch", "series": ["sp500"]}, exogenous=[vix], start="2014-01-03", end="2014-01-08")
    assert panel.frame["vix__close"].to_list() == [None, 13.76, 13.55, 12.92]
    assert panel.frame["vix__age"].to_list() == [None, 3.0, 1.0, 1.0]
