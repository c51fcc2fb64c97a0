"""From a source to a panel: renaming, subsets, pandas, the `data:` section, real files."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ssmfin.data.loading import DataSpec, load_panel
from ssmfin.data.synthetic import simulate_prices, simulate_volatility_panel
from ssmfin.errors import InputError

SHARED = Path(__file__).resolve().parents[3].parent / "shared/data"
MINE = {"unique_id": "symbol", "ds": "date"}


def needs(name: str) -> Any:
    return pytest.mark.skipif(not (SHARED / name).is_file(), reason=f"../shared/data/{name} is not here")


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return simulate_volatility_panel(5, 80, seed=0).frame


def test_panel_of_many_markets_with_their_own_holidays_and_first_days_is_the_normal_case() -> None:
    frame = simulate_volatility_panel(31, 600, seed=1).frame
    panel = load_panel(frame, target="rv", positive=True)
    assert len(panel.ids) == 31
    assert len(panel.dates) == frame["ds"].n_unique()
    assert frame.group_by("unique_id").agg(pl.col("ds").min())["ds"].n_unique() > 20
    assert panel.frame.equals(frame)
    assert panel.notes["gaps"] == []
    assert (panel.notes["rows"], panel.notes["ids"]) == (frame.height, 31)


def test_columns_are_renamed_from_ours_to_the_users(frame: pl.DataFrame) -> None:
    theirs = frame.rename({"unique_id": "symbol", "ds": "date", "rv": "variance"})
    assert load_panel(theirs, columns=MINE | {"rv": "variance"}).frame.equals(frame)


def test_names_can_be_swapped(frame: pl.DataFrame) -> None:
    swapped = load_panel(frame, columns={"rv": "log_return", "log_return": "rv"}).frame
    assert swapped["rv"].equals(frame["log_return"], check_names=False)


@pytest.mark.parametrize(
    ("rename", "columns", "words"),
    [
        ({}, {"rv": "variances"}, ["no column 'variances'", "correct columns"]),
        ({"rv": "variance"}, {"rv": "variances"}, ["did you mean 'variance'?"]),
        (
            {"ds": "Date", "unique_id": "Ticker"},
            {},
            ['set columns={"ds": "Date"}', 'set columns={"unique_id": "Ticker"}'],
        ),
        ({}, {"rv": "log_return"}, ["has a column 'rv' already"]),
        ({"rv": "v"}, {"rv": "v", "rw": "v"}, ["two names"]),
        ({}, {" ": "rv"}, ["gives no name"]),
    ],
)
def test_wrong_columns_are_answered_with_the_entry_to_write(
    frame: pl.DataFrame, rename: dict[str, str], columns: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load_panel(frame.rename(rename), columns=columns)
    for word in words:
        assert word in str(caught.value)


def test_missing_target_is_answered_with_the_nearest_column(frame: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="did you mean 'log_return'"):
        load_panel(frame, target="log_retrun")


def test_a_misspelled_measure_is_answered_with_what_data_measures_makes() -> None:
    source = {"kind": "arch", "series": ["sp500"]}
    with pytest.raises(InputError, match=r"parkinsn \(target; did you mean 'parkinson'\?\)"):
        load_panel(source, measures={"kind": "range"}, target="parkinsn")
    with pytest.raises(InputError, match=r"xyz \(target; known: .*log_return, .*parkinson"):
        load_panel(source, measures={"kind": "range"}, target="xyz")


def test_missing_measure_is_answered_with_the_section_that_computes_it() -> None:
    for measures in (None, {"kind": "range"}):
        with pytest.raises(InputError, match=r'to compute it, measures=\{.*\["yang_zhang"\]\}'):
            load_panel({"kind": "arch"}, measures=measures, target="yang_zhang")


def test_subset_of_ids_and_dates_includes_both_ends(frame: pl.DataFrame) -> None:
    start, end = frame["ds"][40], frame["ds"][60]
    panel = load_panel(frame, ids=["market_3", "market_0"], start=start, end=str(end))
    expected = frame.filter(pl.col("unique_id").is_in(["market_0", "market_3"]), pl.col("ds").is_between(start, end))
    assert panel.frame.equals(expected)


def test_end_includes_the_whole_last_day_of_intraday_data() -> None:
    ds = pl.datetime_range(datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 4), "6h", eager=True)
    frame = pl.DataFrame({"unique_id": "a", "ds": ds, "x": 1.0})
    panel = load_panel(frame, start="2020-01-02", end="2020-01-02")
    assert panel.frame["ds"].to_list() == [datetime.datetime(2020, 1, 2, hour) for hour in (0, 6, 12, 18)]


def test_rows_outside_the_subset_are_not_judged(frame: pl.DataFrame) -> None:
    bad = frame.with_columns(rv=pl.when(pl.col("ds") < frame["ds"][20]).then(0.0).otherwise("rv"))
    assert load_panel(bad, start=frame["ds"][20], target="rv", positive=True).notes["dropped"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": ["market_33"]}, ["has no id 'market_33'", "did you mean", "correct ids"]),
        ({"ids": []}, ["ids"]),
        ({"start": "2031-01-01"}, ["no rows from 2031-01-01", "runs from 2000-01-03"]),
        ({"start": "2000-02-01", "end": "2000-01-01"}, ["no rows from 2000-02-01 to 2000-01-01"]),
        ({"start": "01/02/2000"}, ["start", "'01/02/2000'", "YYYY-MM-DD"]),
        ({"start": 2010}, ["start", "2010", "YYYY-MM-DD"]),
        ({"end": "2000-02-31"}, ["end", "'2000-02-31'"]),
        ({"on_breach": "ignore"}, ["on_breach", "'ignore'"]),
        (
            {
                "closes": {
                    "time": "16:00",
                    "zone": "America/New_York",
                    "by_id": {"market_O": {"time": "15:00", "zone": "Asia/Tokyo"}},
                }
            },
            ["no id 'market_O'", "did you mean 'market_", "correct closes.by_id"],
        ),
    ],
)
def test_wrong_option_is_answered_with_value_and_remedy(
    frame: pl.DataFrame, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load_panel(frame, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"kind": "parqet", "path": "x"}, ["parqet"]),
        ({"path": "x"}, ["kind"]),
        ({"kind": "csv"}, ["path"]),
        ({"kind": "csv", "path": []}, ["path"]),
        ({"kind": "csv", "path": 3}, ["path", "3"]),
        ({"kind": "csv", "path": "x", "delimeter": ";"}, ["delimeter", "did you mean 'delimiter'?"]),
        ({"kind": "csv", "path": "x", "encoding": "latin-1"}, ["encoding", "latin-1"]),
        ({"kind": "arch", "series": ["sp5000"]}, ["sp5000"]),
        ("rv.xlsx", ["neither parquet nor csv"]),
        (42, ["of type int"]),
        (None, ["of type NoneType"]),
    ],
)
def test_wrong_source_is_answered_with_value_and_remedy(source: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_panel(source)
    for word in words:
        assert word in str(caught.value)


def test_pandas_frames_are_accepted_and_returned(frame: pl.DataFrame) -> None:
    pandas = load_panel(frame).to_pandas()
    assert list(pandas.columns) == frame.columns
    for form in (
        pandas,
        pandas.set_index(["unique_id", "ds"]),
        pandas.set_index("ds"),
        pandas.astype({"unique_id": "category"}),
    ):
        assert load_panel(form).frame.select(frame.columns).equals(frame)


def test_pandas_series_of_one_market_needs_no_id() -> None:
    import pandas as pd

    index = pd.bdate_range("2020-01-01", periods=5)
    panel = load_panel(pd.DataFrame({"rv": np.arange(1.0, 6.0)}, index=index))
    assert panel.ids == ("series",)
    assert str(panel.dates[0]) == "2020-01-01"


def test_pandas_frames_that_cannot_be_meant_are_refused(frame: pl.DataFrame) -> None:
    import pandas as pd

    pandas = load_panel(frame).to_pandas()
    with pytest.raises(InputError, match=r"repeats the column names \['rv'\]"):
        load_panel(pd.concat([pandas, pandas[["rv"]]], axis=1))
    with pytest.raises(InputError, match="several levels"):
        load_panel(pandas.pivot_table(index="ds", columns="unique_id", values=["rv", "log_return"]))
    with pytest.raises(InputError, match="no rows"):
        load_panel(pandas[:0])
    with pytest.raises(InputError, match="of type Series"):
        load_panel(pandas["rv"])
    mixed = pandas.astype({"rv": object})
    mixed.loc[3, "rv"] = "n.a."
    with pytest.raises(InputError, match="'rv'"):
        load_panel(mixed, target="rv")


def test_whole_numbers_that_pandas_made_floats_are_ids_still() -> None:
    frame = pl.DataFrame(
        {"unique_id": [10001.0, 10001.0, None], "ds": ["2020-01-01", "2020-01-02", "2020-01-02"], "x": 1.0}
    )
    assert load_panel(frame, on_breach="drop").ids == ("10001",)
    with pytest.raises(InputError, match="holds fractions"):
        load_panel(frame.with_columns(unique_id=pl.col("unique_id") + 0.5))


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.Boolean, pl.Time])
def test_dates_of_a_type_that_is_none_are_refused(frame: pl.DataFrame, dtype: Any) -> None:
    with pytest.raises(InputError, match=r"column ds is of type .*set date_format"):
        load_panel(frame.with_columns(ds=pl.lit(1).cast(pl.Int64).cast(dtype) if dtype != pl.Time else pl.time(1)))


def test_numbers_as_dates_are_read_with_a_format(frame: pl.DataFrame) -> None:
    numbers = frame.with_columns(ds=pl.col("ds").dt.strftime("%Y%m%d").cast(pl.Int64))
    assert load_panel(numbers, date_format="%Y%m%d").frame.equals(frame)


def test_section_of_a_study_loads_the_same_panel_as_the_function(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.rename({"unique_id": "symbol", "ds": "date"}).write_parquet(tmp_path / "rv.parquet")
    path = str(tmp_path / "rv.parquet")
    spec = DataSpec.model_validate(
        {"source": {"kind": "parquet", "path": path}, "columns": MINE, "start": datetime.date(2000, 2, 1)}
    )
    panel = spec.load(target="rv", positive=True)
    assert panel.fingerprint() == load_panel(path, columns=MINE, start="2000-02-01").fingerprint()
    assert DataSpec.model_validate_json(spec.model_dump_json()) == spec


def test_section_refuses_unknown_keys_and_describes_itself() -> None:
    with pytest.raises(ValidationError, match="colums"):
        DataSpec.model_validate({"source": {"kind": "arch"}, "colums": {}})
    schema = DataSpec.model_json_schema()
    assert {"source", "columns", "ids", "start", "end", "measures", "exogenous"} <= set(schema["properties"])


def test_ids_that_yaml_reads_as_numbers_are_text() -> None:
    frame = pl.DataFrame({"unique_id": ["600519"] * 2 + ["7"] * 2, "ds": ["2020-01-01", "2020-01-02"] * 2, "x": 1.0})
    assert load_panel(frame, ids=[600519]).ids == ("600519",)  # type: ignore[list-item]


@pytest.mark.parametrize(("target", "warm_up"), [("yang_zhang", 2 * 5), ("log_return", 2), ("parkinson", None)])
def test_first_days_on_which_a_measure_cannot_exist_are_left_out_and_counted(target: str, warm_up: int | None) -> None:
    frame = pl.concat([simulate_prices(30, seed=k, unique_id=name).frame for k, name in enumerate("ab")])
    measures = {"kind": "range", "estimators": ["parkinson", "yang_zhang"], "window": 5}
    panel = load_panel(frame, measures=measures, target=target)
    assert panel.notes.get("warm_up_rows") == warm_up
    assert panel.frame.height == 60 - (warm_up or 0)
    assert panel.frame[target].null_count() == 0


def test_target_of_a_further_source_starts_when_it_is_first_known(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.filter(pl.col("unique_id") == "market_0").write_csv(tmp_path / "other.csv")
    other = {"name": "other", "source": {"kind": "csv", "path": str(tmp_path / "other.csv")}}
    panel = load_panel(frame, exogenous=[other], target="other__rv", positive=True)
    assert panel.notes["warm_up_rows"] == 1
    with pytest.raises(InputError, match="'other__rw' is not in"):
        load_panel(frame, exogenous=[other], target="other__rw")


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(5)), st.integers(1, 5))
def test_order_and_split_of_the_rows_over_files_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], files: int
) -> None:
    frame = simulate_volatility_panel(5, 40, seed=3).frame
    folder = tmp_path_factory.mktemp("split")
    blocks = [frame.filter(pl.col("unique_id") == f"market_{k}") for k in order]
    for number, block in enumerate(np.array_split(np.arange(5), files)):
        pl.concat([blocks[k] for k in block]).write_parquet(folder / f"{number}.parquet")
    assert load_panel(f"{folder}/*.parquet").frame.equals(frame)


def test_one_id_in_files_by_year_whose_names_do_not_sort_by_year(tmp_path: Path, frame: pl.DataFrame) -> None:
    for name, half in {
        "old": pl.col("ds") < datetime.date(2000, 3, 1),
        "new": pl.col("ds") >= datetime.date(2000, 3, 1),
    }.items():
        frame.filter(half).write_csv(tmp_path / f"{name}.csv")
    assert load_panel(f"{tmp_path}/*.csv").frame.select(frame.columns).equals(frame)


@needs("oxford_rv5_panel21.parquet")
def test_oxford_panel_loads_and_its_hole_is_noted() -> None:
    path = SHARED / "oxford_rv5_panel21.parquet"
    panel = load_panel(path, columns=MINE, target="rv5", positive=True)
    assert (panel.frame.height, len(panel.ids)) == (99_253, 21)
    assert [gap["unique_id"] for gap in panel.notes["gaps"]] == [".STI", ".KSE"]
    with pytest.raises(InputError, match=r'set columns=\{"ds": "date"\}.*\{"unique_id": "symbol"\}'):
        load_panel(path)


@needs("us_equities100_ohlcv_day.parquet")
def test_defects_of_us_equities_are_all_told_and_can_be_dropped() -> None:
    options: dict[str, Any] = {
        "columns": MINE,
        "measures": {"kind": "range", "estimators": ["garman_klass"]},
        "target": "garman_klass",
        "positive": True,
    }
    path = SHARED / "us_equities100_ohlcv_day.parquet"
    with pytest.raises(InputError) as caught:
        load_panel(path, **options)
    for wrong in ("open is not a positive price in 1,104 rows", "outside the range", "garman_klass is not positive"):
        assert wrong in str(caught.value)
    panel = load_panel(path, on_breach="drop", **options)
    assert 440_000 < panel.frame.height < 450_000
    assert (panel.frame["garman_klass"] > 0).all()


@needs("futures122_adjusted_day.parquet")
def test_negative_adjusted_prices_have_no_log_but_load_without_one() -> None:
    path = SHARED / "futures122_adjusted_day.parquet"
    with pytest.raises(InputError, match=r"in 31,616 rows; .*use positive=False"):
        load_panel(path, columns=MINE, target="price", positive=True)
    assert len(load_panel(path, columns=MINE, target="price").ids) == 122


@needs("vix_day.parquet")
def test_vix_file_of_one_series_with_dates_as_text_loads_and_joins() -> None:
    path = SHARED / "vix_day.parquet"
    assert load_panel(path, columns={"ds": "date"}, target="close", positive=True).ids == ("vix_day",)
    vix = {
        "name": "vix",
        "source": {"kind": "parquet", "path": str(path)},
        "columns": {"ds": "date"},
        "select": ["close"],
        "known_at": {"time": "16:15", "zone": "America/New_York"},
    }
    closes = {"time": "16:00", "zone": "America/New_York"}
    frame = load_panel({"kind": "arch", "series": "sp500"}, exogenous=[vix], closes=closes).frame
    assert frame["vix__close"].null_count() == 0
    assert frame["vix__age"].min() == 1.0
