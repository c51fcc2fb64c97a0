"""The result does not depend on how the data lie in files, in which pieces they are read, or what comes after."""

import datetime

import numpy as np
import polars as pl
import pytest

from ssmfin import InputError, realized_measures
from ssmfin.data.realized.estimators import ESTIMATORS

ALL = tuple(ESTIMATORS)


def bars(ids=4, days=12, seed=0, width=1):
    """OHLCV bars of a few assets in New York, with a half day (2019-11-29) and the change of clocks among them."""
    generator = np.random.default_rng(seed)
    dates = [datetime.date(2019, 10, 28) + datetime.timedelta(days=k) for k in range(40)]
    dates = [day for day in dates if day.weekday() < 5 and day != datetime.date(2019, 11, 28)][-days:]
    parts = []
    for k in range(ids):
        for day in dates:
            count = (210 if day == datetime.date(2019, 11, 29) else 390) // width
            start = datetime.datetime.combine(day, datetime.time(9, 30))
            close = 50 * np.exp(np.cumsum(5e-4 * generator.standard_normal(count)))
            open_ = np.concatenate([[close[0] * np.exp(5e-4 * generator.standard_normal())], close[:-1]])
            parts.append(
                pl.DataFrame(
                    {
                        "symbol": f"S{k}",
                        "timestamp": [start + datetime.timedelta(minutes=width * i) for i in range(count)],
                        "open": open_,
                        "high": np.maximum(open_, close) * 1.0001,
                        "low": np.minimum(open_, close) * 0.9999,
                        "close": close,
                        "volume": generator.integers(1, 1000, count).astype(float),
                    }
                )
            )
    return pl.concat(parts)


def measured(source, **options):
    keywords = {"calendar": "XNYS", "estimators": ALL, "market": "S1", "cache": False} | options
    return realized_measures(source, **keywords)


@pytest.fixture(scope="module")
def frame():
    return bars()


@pytest.fixture(scope="module")
def whole(frame):
    return measured(frame)


def same(found, whole):
    assert found.frame.equals(whole.frame)  # bit for bit
    for name in ("days", "flags"):
        assert getattr(found.quality, name).equals(getattr(whole.quality, name)), name
    for name in ("signature", "periodicity"):
        table, other = getattr(found.quality, name), getattr(whole.quality, name)
        assert table.select(pl.exclude("variance", "factor")).equals(other.select(pl.exclude("variance", "factor")))
        values = table.to_series(2 if name == "signature" else 3)
        np.testing.assert_allclose(values, other.to_series(2 if name == "signature" else 3), rtol=1e-12)


@pytest.mark.parametrize("batch_rows", [1, 100, 391, 5000])
@pytest.mark.parametrize("order", [["symbol", "timestamp"], ["timestamp", "symbol"]])
def test_batches_and_order_of_rows_change_no_bit(frame, whole, batch_rows, order):
    few = (
        frame if batch_rows > 1 else frame.filter(pl.col("symbol") == "S1", pl.col("timestamp") < pl.date(2019, 11, 25))
    )
    expected = whole if batch_rows > 1 else measured(few)
    same(measured(few.sort(order), batch_rows=batch_rows), expected)


def test_one_file_an_asset_named_for_it(frame, whole, tmp_path):
    for (name,), part in frame.group_by("symbol"):
        part.drop("symbol").write_parquet(tmp_path / f"{name}.parquet")
    same(measured(tmp_path), whole)


def test_one_file_a_day_and_csv(frame, whole, tmp_path):
    for (day,), part in frame.group_by(pl.col("timestamp").dt.date()):
        part.write_csv(tmp_path / f"{day}.csv")
    found = measured(tmp_path, batch_rows=3000)
    assert found.frame.select("unique_id", "ds", "usable").equals(whole.frame.select("unique_id", "ds", "usable"))
    np.testing.assert_allclose(found.frame["rv"], whole.frame["rv"], rtol=1e-12)
    same(found, measured(str(tmp_path / "*.csv")))


def test_days_as_files_without_ids_are_not_taken_for_assets(frame, tmp_path):
    one = frame.filter(pl.col("symbol") == "S1").drop("symbol")
    for (day,), part in one.group_by(pl.col("timestamp").dt.date()):
        part.write_parquet(tmp_path / f"{day}.parquet")
    with pytest.raises(InputError, match="no column of ids and files named by date"):
        measured(tmp_path, market=None, estimators=["rv"])


def test_pandas_and_lazy_frames(frame, whole):
    same(measured(frame.to_pandas()), whole)
    same(measured(frame.lazy()), whole)


def test_future_rows_do_not_change_past_measures(frame, whole):
    """Nor do rows of the days to come change a bit of any column, flags included."""
    end = datetime.date(2019, 12, 2)
    past = measured(frame.filter(pl.col("timestamp").dt.date() <= end))
    kept = pl.col("ds") <= end
    assert past.frame.equals(whole.frame.filter(kept))
    assert past.quality.days.equals(whole.quality.days.filter(kept))
    wild = frame.with_columns(
        pl.when(pl.col("timestamp").dt.date() > end).then(pl.col("close") * 7).otherwise("close").alias("close")
    )
    assert measured(wild).frame.filter(kept).equals(whole.frame.filter(kept))


def test_other_assets_do_not_change_an_asset(frame, whole):
    alone = measured(frame.filter(pl.col("symbol").is_in(["S1", "S3"])))
    assert alone.frame.equals(whole.frame.filter(pl.col("unique_id").is_in(["S1", "S3"])))
    assert (
        measured(frame, ids=["S3"], estimators=["rv"], market=None)
        .frame["rv"]
        .equals(whole.frame.filter(unique_id="S3")["rv"])
    )


def test_measures_are_those_of_the_days_returns(frame, whole):
    """Against the plain definition, day by day."""
    for (name, day), part in frame.group_by("symbol", pl.col("timestamp").dt.date(), maintain_order=True):
        log_price = np.log(np.concatenate([part["open"].head(1), part["close"]]))
        returns = np.diff(log_price[::5])
        row = whole.frame.filter(unique_id=name, ds=day).row(0, named=True)
        assert row["rv"] == pytest.approx(np.sum(returns**2))
        assert row["bv"] == pytest.approx(
            np.pi / 2 * np.sum(np.abs(returns[1:] * returns[:-1])) * len(returns) / (len(returns) - 1)
        )
        assert row["close"] == pytest.approx(part["close"][-1])
        assert row["open"] == pytest.approx(part["open"][0])
        assert row["volume"] == pytest.approx(part["volume"].sum())
        assert row["known_at"] == day
        assert row["session_close"].hour == {4: 20}.get(0, 21 - 3 * (len(part) == 210))


def test_bars_stamped_with_their_end_and_quotes_of_given_width_are_the_same_sessions(frame, whole):
    ends = frame.with_columns(pl.col("timestamp") + pl.duration(minutes=1))
    same(measured(ends, bar_label="end"), whole)
    snapshots = frame.select("symbol", "timestamp", bid="close", ask="close")
    found = measured(snapshots, bar="1min", estimators=["rv"], market=None)
    assert found.notes["kind"] == "quotes"
    # without opens the first return starts at the first close
    ratio = (found.frame["rv"] / whole.frame["rv"]).to_numpy()
    assert np.all((ratio > 0.9) & (ratio < 1.1))


def test_order_flow_of_trades(frame):
    trades = frame.select(
        "symbol",
        "timestamp",
        price="close",
        size="volume",
        side=pl.when(pl.col("volume") > 500).then(pl.lit("B")).otherwise(pl.lit("S")),
    )
    found = measured(trades, estimators=["rv"], market=None)
    assert found.notes["kind"] == "trades"
    first = frame.filter(pl.col("symbol") == "S0", pl.col("timestamp").dt.date() == found.frame["ds"][0])
    sign = np.where(first["volume"] > 500, 1.0, -1.0)
    row = found.frame.row(0, named=True)
    assert row["order_imbalance"] == pytest.approx(np.sum(sign * first["volume"].to_numpy()) / first["volume"].sum())
    assert row["vwap"] == pytest.approx((first["close"] * first["volume"]).sum() / first["volume"].sum())


def test_a_lunch_break_takes_no_trading_time():
    """Tokyo before November 2024: 09:00-11:30 and 12:30-15:00."""
    day = datetime.datetime(2020, 1, 6)
    morning = pl.datetime_range(day.replace(hour=9), day.replace(hour=11, minute=29), interval="1m", eager=True)
    afternoon = pl.datetime_range(
        day.replace(hour=12, minute=30), day.replace(hour=14, minute=59), interval="1m", eager=True
    )
    lunch = pl.datetime_range(day.replace(hour=11, minute=35), day.replace(hour=12), interval="1m", eager=True)
    close = 100 * np.exp(np.cumsum(5e-4 * np.random.default_rng(0).standard_normal(300)))
    frame = pl.DataFrame({"ds": pl.concat([morning, afternoon]), "close": close})
    found = measured(frame, calendar="XTKS", estimators=["rv"], market=None)
    assert found.quality.days["longest_gap_s"].item() == 0.0
    log_price = np.log(np.concatenate([close[:1], close]))
    assert found.frame["rv"].item() == pytest.approx(np.sum(np.diff(log_price[::5]) ** 2))
    odd = pl.DataFrame({"ds": lunch, "close": 500.0})
    noted = measured(pl.concat([frame, odd]).sort("ds"), calendar="XTKS", estimators=["rv"], market=None)
    assert noted.frame.equals(found.frame)
    assert noted.quality.flags.select("rule", "rows").rows() == [("outside_session", 26)]


def test_a_cached_result_is_the_same_and_any_change_makes_another(frame, whole, tmp_path):
    file, folder = tmp_path / "bars.parquet", tmp_path / "cache"
    frame.write_parquet(file)
    first = measured(file, cache=folder)
    assert len(list(folder.iterdir())) == 1
    again = measured(file, cache=folder)
    assert len(list(folder.iterdir())) == 1
    same(again, first)
    assert again.notes == first.notes
    measured(file, cache=folder, max_gap="20min")
    assert len(list(folder.iterdir())) == 2
    frame.with_columns(pl.col("close") * 2).write_parquet(file)
    changed = measured(file, cache=folder)
    assert len(list(folder.iterdir())) == 3
    assert not changed.frame.equals(first.frame)


def test_a_damaged_cache_entry_is_computed_again(frame, tmp_path):
    file, folder = tmp_path / "bars.parquet", tmp_path / "cache"
    frame.write_parquet(file)
    first = measured(file, cache=folder)
    entry = next(folder.iterdir())
    (entry / "frame.parquet").write_bytes(b"PAR1 cut off")
    same(measured(file, cache=folder), first)
    assert pl.read_parquet(entry / "frame.parquet").height == first.frame.height


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(frame, tmp_path):
    file = tmp_path / "bars.parquet"
    frame.write_parquet(file)
    (tmp_path / "taken").write_text("a file")
    assert measured(file, cache=tmp_path / "taken").frame.height


@pytest.mark.parametrize(
    "content, message",
    [(b"", "is empty"), (b"PAR1 cut", "is truncated"), (b"a,b\n1,2\n", "is no parquet")],
)
def test_damaged_files_are_refused_in_words(tmp_path, content, message):
    (tmp_path / "bars.parquet").write_bytes(content)
    with pytest.raises(InputError, match=message):
        measured(tmp_path / "bars.parquet")


def test_csv_with_semicolons_and_decimal_commas(tmp_path):
    day = bars(ids=1, days=1)
    text = day.select(
        pl.all().exclude(pl.Float64), pl.col(pl.Float64).cast(pl.String).str.replace(".", ",", literal=True)
    )
    text.write_csv(tmp_path / "bars.csv", separator=";")
    source = {"kind": "csv", "path": str(tmp_path / "bars.csv"), "delimiter": ";", "decimal": ","}
    found = measured(source, market=None, estimators=["rv"])
    np.testing.assert_allclose(found.frame["rv"], measured(day, market=None, estimators=["rv"]).frame["rv"], rtol=1e-12)
