"""Realized measures as a study's panel: unusable days are left out with a note, everything else goes on."""

import datetime

import numpy as np
import polars as pl
import pytest

from ssmfin import InputError, load_panel, realized_measures
from ssmfin.data.loading import DataSpec


@pytest.fixture
def bars(tmp_path):
    """Thirty days of two assets, one day of A frozen."""
    generator = np.random.default_rng(0)
    parts = []
    days = [datetime.date(2020, 1, 6) + datetime.timedelta(days=k) for k in range(45)]
    days = [d for d in days if d.weekday() < 5 and d not in (datetime.date(2020, 1, 20), datetime.date(2020, 2, 17))]
    for name in "AB":
        for k, day in enumerate(days):
            start = datetime.datetime.combine(day, datetime.time(9, 30))
            close = 100 * np.exp(np.cumsum(5e-4 * generator.standard_normal(390)))
            if name == "A" and k == 10:
                close[:] = 100.0
            stamps = [start + datetime.timedelta(minutes=i) for i in range(390)]
            parts.append(pl.DataFrame({"symbol": name, "timestamp": stamps, "close": close}))
    file = tmp_path / "bars.parquet"
    pl.concat(parts).write_parquet(file)
    return file


MEASURES = {"kind": "realized", "calendar": "XNYS", "estimators": ["rv", "bv"], "cache": False}


def test_a_study_gets_the_usable_days_and_the_notes_say_what_is_missing(bars):
    panel = load_panel(bars, measures=MEASURES, target="rv", positive=True)
    assert panel.ids == ("A", "B")
    assert panel.frame.schema["ds"] == pl.Date
    assert panel.frame["known_at"].equals(panel.frame["ds"].alias("known_at"))
    assert panel.value_columns[:4] == ("open", "close", "log_return", "overnight_variance")
    assert {"rv", "bv"} <= set(panel.value_columns)
    assert panel.notes["unusable_days"] == [{"unique_id": "A", "days": 1, "of": 31}]
    assert panel.notes["flagged"] == [{"rule": "one_price", "days": 1, "rows": 1, "unusable": True}]
    assert panel.frame.height == 61
    assert panel.notes["source"] == str(bars)


def test_ids_and_dates_choose_as_in_any_panel(bars):
    panel = load_panel(bars, measures=MEASURES, ids=["A"], start="2020-01-10", end="2020-01-17")
    assert panel.ids == ("A",)
    assert panel.frame["ds"].min() == datetime.date(2020, 1, 10)
    assert panel.frame["ds"].max() == datetime.date(2020, 1, 17)


def test_the_panel_of_a_result_is_that_of_a_study(bars):
    direct = realized_measures(bars, calendar="XNYS", estimators=["rv", "bv"], cache=False).panel()
    assert direct.frame.equals(load_panel(bars, measures=MEASURES).frame)
    assert direct.notes["unusable_days"] == [{"unique_id": "A", "days": 1, "of": 31}]


def test_the_written_file_is_a_source_of_its_own(bars, tmp_path):
    result = realized_measures(bars, calendar="XNYS", estimators=["rv", "bv"], cache=False)
    result.frame.write_parquet(tmp_path / "rv.parquet")
    with pytest.raises(InputError, match="rv is the target and is missing"):
        load_panel(tmp_path / "rv.parquet", target="rv", positive=True)
    panel = load_panel(tmp_path / "rv.parquet", target="rv", positive=True, on_breach="drop")
    same = ["unique_id", "ds", "rv", "bv", "log_return"]
    assert panel.frame.select(same).equals(result.panel().frame.select(same))


@pytest.mark.parametrize(
    "measures, message",
    [
        ({"kind": "realised"}, "kind: realized for prices within the day"),
        ({"kind": "realized"}, "calendar"),
        ({**MEASURES, "estimators": ["rvv"]}, "estimators"),
        ({**MEASURES, "samplin": "5min"}, "did you mean 'sampling'"),
        ({**MEASURES, "calendar": "XNYX"}, "no exchange that we know"),
    ],
)
def test_wrong_measures_are_refused_in_words(bars, measures, message):
    with pytest.raises(InputError, match=message):
        load_panel(bars, measures=measures)


def test_a_target_that_is_not_computed_is_refused(bars):
    with pytest.raises(InputError, match=r"target 'rk' is not in .*measures\.estimators"):
        load_panel(bars, measures=MEASURES, target="rk")


def test_measures_without_a_kind_are_of_the_range():
    spec = DataSpec.model_validate({"source": {"kind": "arch"}, "measures": {"estimators": ["parkinson"]}})
    assert spec.measures is not None
    assert spec.measures.kind == "range"


def test_daily_sources_are_refused():
    with pytest.raises(InputError, match="holds daily data"):
        load_panel({"kind": "arch", "series": ["sp500"]}, measures=MEASURES)
