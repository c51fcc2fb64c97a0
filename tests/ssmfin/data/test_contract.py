"""The panel contract: every breach named with id, date, value and remedy, all in one message."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.data.synthetic import simulate_prices, simulate_volatility_panel
from ssmfin.errors import InputError


def days(count: int, first: datetime.date = datetime.date(2020, 1, 1)) -> list[datetime.date]:
    return [first + datetime.timedelta(days=k) for k in range(count)]


@pytest.fixture
def frame() -> pl.DataFrame:
    """Two ids, five days each, values 1 to 10."""
    return pl.DataFrame(
        {"unique_id": ["a"] * 5 + ["b"] * 5, "ds": days(5) * 2, "rv": np.arange(1.0, 11.0), "x": np.arange(10.0)}
    )


def put(frame: pl.DataFrame, row: int, **cells: Any) -> pl.DataFrame:
    """The frame with other values in one row."""
    here = pl.int_range(frame.height) == row
    return frame.with_columns(
        pl.when(here).then(pl.lit(value, frame[name].dtype)).otherwise(pl.col(name)).alias(name)
        for name, value in cells.items()
    )


def message(frame: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_panel(frame, **{"target": "rv", "positive": True, **options})
    return str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), None])
def test_missing_target_is_a_breach_and_a_missing_other_value_is_not(frame: pl.DataFrame, value: float | None) -> None:
    said = message(put(frame, 6, rv=value))
    assert "rv is the target and is missing" in said
    assert "'b' on 2020-01-02 (row 7): NaN" in said
    assert load_panel(put(frame, 6, x=value), target="rv").frame["x"].null_count() == 1


@pytest.mark.parametrize("name", ["rv", "x"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_infinite_value_is_a_breach_in_any_column(frame: pl.DataFrame, name: str, value: float) -> None:
    said = message(put(frame, 6, **{name: value}), positive=False)
    assert f"{name} is infinite" in said
    assert f"'b' on 2020-01-02 (row 7): {value!r}" in said


@pytest.mark.parametrize("value", [1e308, -1e200])
def test_value_whose_square_overflows_is_a_breach(frame: pl.DataFrame, value: float) -> None:
    said = message(put(frame, 2, x=value))
    assert "x is too large to be squared" in said
    assert repr(value) in said
    assert load_panel(put(frame, 2, x=1e150)).frame["x"].max() == 1e150


@pytest.mark.parametrize("value", [0.0, -0.0, -1.5])
def test_target_without_a_logarithm_is_a_breach_only_under_a_log(frame: pl.DataFrame, value: float) -> None:
    said = message(put(frame, 3, rv=value))
    assert "rv is not positive and a log is taken of it" in said
    assert f"'a' on 2020-01-04 (row 4): {value!r}" in said
    assert "use positive=False" in said
    assert load_panel(put(frame, 3, rv=value), target="rv", positive=False).frame.height == 10


def test_target_that_is_empty_everywhere_is_one_breach(frame: pl.DataFrame) -> None:
    said = message(frame.with_columns(rv=pl.lit(None, pl.Float64)))
    assert "rv is the target and has no value at all, 10 empty rows" in said
    assert "NaN" not in said


def test_contradicting_rows_of_one_key_are_a_breach(frame: pl.DataFrame) -> None:
    said = message(put(frame, 7, ds=datetime.date(2020, 1, 2)))
    assert "(unique_id, ds) is not unique in 2 rows" in said
    assert "'b' on 2020-01-02 (row 7): rv = 7.0" in said
    assert "'b' on 2020-01-02 (row 8): rv = 8.0" in said


def test_exact_copies_are_a_breach_of_their_own(frame: pl.DataFrame) -> None:
    said = message(pl.concat([frame, frame[4:5]]))
    assert "a row is stored twice" in said
    assert "'a' on 2020-01-05 (row 11)" in said
    dropped = load_panel(pl.concat([frame, frame[4:5]]), on_breach="drop")
    assert dropped.frame.height == 10
    assert dropped.fingerprint() == load_panel(frame).fingerprint()


def test_missing_id_and_missing_date_are_named_by_row(frame: pl.DataFrame) -> None:
    said = message(put(put(frame, 1, unique_id=None), 8, ds=None))
    assert "unique_id is missing" in said
    assert "ds is missing" in said
    assert "row 2: null" in said
    assert "'b' (row 9): null" in said


@pytest.mark.parametrize(
    ("dtype", "a_day"),
    [(pl.Date, 1), (pl.Datetime("ms"), 86_400_000), (pl.Datetime("us", "Asia/Tokyo"), 86_400_000_000)],
)
def test_date_of_no_calendar_is_a_breach(frame: pl.DataFrame, dtype: Any, a_day: int) -> None:
    number = pl.when(pl.int_range(10) == 3).then(10_000_000).otherwise(pl.col("ds").to_physical().cast(pl.Int64))
    said = message(frame.with_columns(ds=(number * a_day).cast(dtype)))
    assert "ds is not a date" in said
    assert f"'a' (row 4): {10_000_000 * a_day}" in said


def test_empty_id_is_a_missing_id(frame: pl.DataFrame) -> None:
    assert "unique_id is missing" in message(put(frame, 1, unique_id=" "))


def test_dates_that_jump_back_within_an_id_are_a_breach_that_dropping_cannot_mend(frame: pl.DataFrame) -> None:
    swapped = frame[[0, 1, 3, 2, 4, 5, 6, 7, 8, 9]]
    for on_breach in ("error", "drop"):
        said = message(swapped, on_breach=on_breach)
        assert "dates within an id are not in order" in said
        assert "'a' on 2020-01-03 (row 4): comes after 2020-01-04" in said
        assert "sort the file by date" in said


@pytest.mark.parametrize("order", [[*range(9, -1, -1)], [0, 5, 1, 6, 2, 7, 3, 8, 4, 9], [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]])
def test_order_that_hides_nothing_is_sorted(frame: pl.DataFrame, order: list[int]) -> None:
    panel = load_panel(frame[order])
    assert panel.frame.equals(load_panel(frame).frame)
    assert panel.notes.get("newest_first", False) == (order[0] == 9)


def test_single_date_is_no_panel(frame: pl.DataFrame) -> None:
    said = message(frame.filter(pl.col("ds") == datetime.date(2020, 1, 1)))
    assert "the panel has a single date, 2020-01-01" in said
    assert "on_breach" not in said


@pytest.mark.parametrize(
    ("known", "wrong"),
    [
        (datetime.date(2019, 12, 31), "known_at is before ds"),
        (None, "known_at is missing"),
        (datetime.date(2020, 1, 9), "known_at is earlier than that of an older row"),
    ],
)
def test_known_at_follows_ds_and_never_sinks(frame: pl.DataFrame, known: datetime.date | None, wrong: str) -> None:
    known_at = frame.with_columns(known_at=pl.col("ds"))
    assert load_panel(known_at, target="rv").frame["known_at"].dtype == pl.Date
    assert wrong in message(put(known_at, 1, known_at=known))


def test_known_at_with_hours_beside_plain_dates_needs_the_hour_at_which_dates_end(frame: pl.DataFrame) -> None:
    timed = frame.with_columns(known_at=pl.col("ds").cast(pl.Datetime("us")) + pl.duration(hours=16, minutes=15))
    assert 'with closes={"time": "16:00", "zone": "America/New_York"}' in message(timed)
    closes = {"time": "16:15", "zone": "America/New_York"}
    same, late = (load_panel(timed, closes=closes | {"time": time}).frame for time in ("16:15", "16:00"))
    assert (same["known_at"] == same["ds"]).all()
    assert (late["known_at"] == late["ds"] + datetime.timedelta(days=1)).all()


def test_zones_of_ds_and_known_at_must_agree(frame: pl.DataFrame) -> None:
    zoned = frame.with_columns(
        ds=pl.col("ds").cast(pl.Datetime("us")).dt.replace_time_zone("America/New_York"),
        known_at=pl.col("ds").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
    )
    said = message(zoned)
    assert "mixes time zones" in said
    assert "America/New_York" in said
    assert load_panel(zoned.drop("known_at")).notes["time_zone"] == "America/New_York"


def test_all_breaches_come_in_one_message(frame: pl.DataFrame) -> None:
    broken = put(put(put(put(frame, 0, rv=0.0), 4, rv=float("nan")), 6, x=float("inf")), 9, x=1e308)
    said = message(broken)
    for wrong in ("not positive", "missing (NaN)", "x is infinite", "too large"):
        assert wrong in said
    assert "in 4 places" in said
    assert 'on_breach="drop"' in said


def test_long_list_is_cut_with_the_count_of_the_rest_and_where_most_are() -> None:
    frame = simulate_volatility_panel(3, 100, seed=1).frame.with_columns(
        rv=pl.when(pl.col("unique_id") == "market_1").then(0.0).otherwise("rv")
    )
    count = frame.filter(pl.col("rv") == 0).height
    said = message(frame)
    assert f"in {count:,} rows" in said
    assert f"and {count - 10:,} more" in said
    assert said.count("'market_1' on") == 10


def test_drop_leaves_out_offending_rows_and_counts_them(frame: pl.DataFrame) -> None:
    broken = put(put(put(frame, 0, rv=0.0), 4, rv=float("nan")), 6, x=float("inf"))
    panel = load_panel(broken, target="rv", positive=True, on_breach="drop")
    assert panel.frame["rv"].to_list() == [2.0, 3.0, 4.0, 6.0, 8.0, 9.0, 10.0]
    assert sum(panel.notes["dropped"].values()) == 3
    assert load_panel(frame, target="rv").notes["dropped"] == {}


def test_drop_that_would_leave_nothing_is_refused(frame: pl.DataFrame) -> None:
    said = message(frame.with_columns(rv=-1.0), on_breach="drop")
    assert "no row left" in said
    assert "rv is not positive" in said
    assert "on_breach" not in said


def test_under_drop_only_what_it_does_not_mend_is_told(frame: pl.DataFrame) -> None:
    broken = put(frame, 1, rv=-1.0)[[0, 2, 1, 3, 4, 4, 5, 6, 7, 8, 9]]
    said = message(broken, on_breach="drop")
    assert 'in 1 place; correct the data (on_breach="drop" does not mend this).' in said
    assert "dates within an id are not in order" in said
    assert "twice" not in said
    assert "not positive" not in said
    said = message(broken)
    assert "in 3 places" in said
    assert 'drop" leaves rows out, but does not mend "dates within an id are not in order".' in said


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_drop_gives_exactly_the_panel_of_the_rows_without_breach(data: st.DataObject) -> None:
    clean = simulate_volatility_panel(3, 30, seed=2).frame
    spoiled = data.draw(st.lists(st.integers(0, clean.height - 1), unique=True, max_size=12))
    values = data.draw(
        st.lists(
            st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e308, None]),
            min_size=len(spoiled),
            max_size=len(spoiled),
        )
    )
    broken = clean
    for row, value in zip(spoiled, values, strict=True):
        broken = put(broken, row, rv=value)
    kept = clean.filter(~pl.int_range(clean.height).is_in(spoiled))
    panel = load_panel(broken, target="rv", positive=True, on_breach="drop")
    assert panel.fingerprint() == load_panel(kept).fingerprint()
    if spoiled:
        said = message(broken)
        for row in sorted(spoiled)[:10]:
            assert f"(row {row + 1})" in said


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ({"high": 1.0}, "high is below low"),
        ({"close": 1e6}, "close is outside the range from low to high"),
        ({"open": 1e-3}, "open is outside the range from low to high"),
        ({"low": 0.0}, "low is not a positive price"),
        ({"open": 0.0}, "open is not a positive price"),
        ({"close": -5.0}, "close is not a positive price"),
    ],
)
def test_impossible_prices_are_breaches(cells: dict[str, float], wrong: str) -> None:
    prices = simulate_prices(10, seed=3).frame
    broken = put(prices, 4, **cells)
    said = message(broken, target=None, positive=False, measures={"kind": "range", "estimators": ["garman_klass"]})
    assert wrong in said
    assert f"on {prices['ds'][4]} (row 5)" in said
    assert load_panel(broken).frame.height == 10  # not looked at as long as nothing is computed from them


def test_prices_of_single_precision_are_no_breach() -> None:
    prices = simulate_prices(200, seed=3).frame
    single = prices.with_columns(pl.col("open", "high", "low", "close").cast(pl.Float32))
    touching = single.with_columns(close=pl.col("high").cast(pl.Float64) * (1 + 1e-7))
    assert load_panel(touching, measures={"kind": "range", "estimators": ["garman_klass"]}).frame.height == 200


def test_day_without_range_has_no_log_variance() -> None:
    prices = simulate_prices(10, seed=3).frame
    flat = put(prices, 4, **dict.fromkeys(["open", "high", "low", "close"], 100.0))
    said = message(flat, target="parkinson", measures={"kind": "range"})
    assert "parkinson is not positive" in said
    assert "0.0" in said


def test_long_absence_is_a_note_and_different_calendars_are_not() -> None:
    panel = load_panel(simulate_volatility_panel(31, 400, seed=4).frame, target="rv", positive=True)
    assert panel.notes["gaps"] == []
    start, end = panel.dates[[200, 260]]
    inside = (pl.col("ds") > start) & (pl.col("ds") < end) & (pl.col("unique_id") == "market_07")
    gap = load_panel(panel.frame.filter(~inside)).notes["gaps"]
    assert [item["unique_id"] for item in gap] == ["market_07"]
    assert gap[0]["dates"] >= 55
    assert str(start)[:7] in gap[0]["after"] or gap[0]["after"] <= str(start)


def test_hole_in_a_single_series_is_noted_by_calendar() -> None:
    frame = simulate_volatility_panel(1, 300, seed=5).frame
    hole = frame.filter((pl.col("ds") < datetime.date(2000, 5, 1)) | (pl.col("ds") > datetime.date(2000, 7, 1)))
    assert load_panel(frame).notes["gaps"] == []
    assert [item["before"] for item in load_panel(hole).notes["gaps"]] == ["2000-07-03"]
