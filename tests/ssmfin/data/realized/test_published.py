"""Published values and other data at hand."""

from pathlib import Path

import polars as pl
import pytest

from ssmfin import realized_covariances, realized_measures

DATA = Path(__file__).resolve().parents[5] / "shared/data"


def data(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared data")
    return path


@pytest.mark.parametrize(
    "column, medrv, minrv",
    [("STOCK", 0.003387052289, 0.003344205602), ("MARKET", 0.001451676499, 0.001438168861)],
)
def test_two_stocks_at_five_minutes_as_the_reference_package_has_them(column, medrv, minrv):
    """It prepends a zero return to each day: named, not the default."""
    source = data("reference/one_minute_two_stocks.parquet")
    sums = {}
    for switch in ("prepend_zero_return", "none"):
        found = realized_measures(
            source,
            calendar="09:30-16:00 America/New_York",
            columns={"price": column},
            estimators="medrv,minrv",
            compatibility=switch,
            cache=False,
        )
        assert found.frame["usable"].all()
        assert found.frame.height == 22
        sums[switch] = found.frame.select(pl.col("medrv").sum(), pl.col("minrv").sum()).row(0)
    assert sums["prepend_zero_return"] == (pytest.approx(medrv, rel=1e-9), pytest.approx(minrv, rel=1e-9))
    assert sums["none"][0] != pytest.approx(medrv, rel=1e-4)


def spy(**options):
    # a row is the price at the end of its minute, stamped with the start: a bar's close
    return realized_measures(
        data("spy_bars_1min.parquet"), calendar="XNYS", columns={"close": "price"}, cache=False, **options
    )


def test_five_minute_variance_of_spy_agrees_with_the_index_library_on_clean_days():
    ours = spy(estimators="rv", max_stale="10min").frame.filter("usable")
    library = pl.read_parquet(data("oxford_rv5_panel21.parquet")).filter(pl.col("symbol") == ".SPX")
    both = ours.join(library.with_columns(pl.col("date").cast(pl.Date)), left_on="ds", right_on="date")
    assert both.height > 270
    assert both.select(pl.corr(pl.col("rv").log(), pl.col("rv5").log())).item() > 0.99
    assert both.select((pl.col("rv") / pl.col("rv5")).median()).item() == pytest.approx(1.0, abs=0.03)


def test_stale_stretches_of_spy_are_those_that_its_quality_table_lists():
    ours = spy(estimators="rv", max_stale="10min").quality.days
    listed = pl.read_parquet(data("spy_bars_1min_quality.parquet")).with_columns(pl.col("date").cast(pl.Date))
    both = ours.join(listed, left_on="ds", right_on="date")
    # half days are cut at their close by us, so that what was filled in after it does not count
    assert both.filter(pl.col("usable") != pl.col("clean")).height <= 6
    same = both.select(((pl.col("longest_stale_s") / 60 + 1) - pl.col("max_stale_run_min")).abs() <= 1).to_series()
    assert same.mean() > 0.99


def test_half_days_of_spy_end_at_one_o_clock():
    found = spy(estimators="rv")
    day = found.frame.filter(pl.col("ds") == pl.date(2019, 7, 3)).row(0, named=True)
    assert day["session_close"].strftime("%H:%M") == "17:00"  # UTC
    outside = found.quality.flags.filter(pl.col("rule") == "outside_session")
    assert outside.filter(pl.col("ds") == pl.date(2019, 7, 3))["rows"].item() == 180


def test_gaps_of_bitcoin_are_gaps_and_days_are_whole():
    found = realized_measures(data("btcusd_bars_1min.parquet"), calendar="24/7", cache=False)
    assert found.frame.height == 274
    assert found.quality.days["longest_gap_s"].max() == 6 * 3600 + 24 * 60 - 60
    assert {"gap", "spike", "stale"} <= set(found.quality.by_rule["rule"])
    assert {"volume", "turnover", "order_imbalance"} <= set(found.frame.columns)


def test_splits_and_dividends_leave_no_return_and_factors_are_found():
    source = data("us_equity_bars_hour.parquet")
    found = realized_measures(source, calendar="XNYS", sampling="1h", estimators="rv", ids="AAPL", cache=False)
    split = found.frame.filter(pl.col("ds") == pl.date(2020, 8, 31)).row(0, named=True)  # four for one
    assert found.notes["factors"] == ["split_factor", "price_factor"]
    assert split["log_return"] == pytest.approx(0.0334, abs=0.005)
    assert split["close"] < 140 < found.frame.filter(pl.col("ds") == pl.date(2020, 8, 28))["close"].item()
    raw = realized_measures(
        source, calendar="XNYS", sampling="1h", estimators="rv", ids="AAPL", cache=False, factors=()
    )
    assert raw.frame.filter(pl.col("ds") == pl.date(2020, 8, 31))["log_return"].item() < -1.3


def test_covariances_of_stocks_with_the_market():
    source = data("us_equity_bars_hour.parquet")
    options = {"calendar": "XNYS", "sampling": "1h"}
    table = realized_covariances(source, ids=["SPY", "AAPL", "IBM"], **options)
    day = table.filter(pl.col("ds") == pl.date(2020, 3, 16))
    assert day.height == 9
    assert day.filter(pl.col("id_1") == pl.col("id_2"))["correlation"].to_list() == pytest.approx([1.0] * 3)
    single = realized_measures(
        source, ids=["SPY", "AAPL"], market="SPY", estimators=["rv", "cov_market", "beta"], cache=False, **options
    ).frame
    pair = day.filter((pl.col("id_1") == "AAPL") & (pl.col("id_2") == "SPY")).row(0, named=True)
    own = single.filter((pl.col("ds") == pl.date(2020, 3, 16)) & (pl.col("unique_id") == "AAPL")).row(0, named=True)
    assert own["beta"] == pytest.approx(pair["beta"])
    assert own["cov_market"] == pytest.approx(pair["covariance"])
    market = single.filter((pl.col("unique_id") == "SPY") & pl.col("usable"))
    assert market["beta"].to_list() == pytest.approx([1.0] * market.height)
