"""What the plots show is chosen honestly and has the sign that the words say."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from ssmfin.reporting import summaries
from ssmfin.reporting.data import ReportData

MakeData = Callable[..., ReportData]


def test_cumulative_difference_falls_below_zero_for_the_better_model(make_data: MakeData) -> None:
    models = {"log_har": ("baseline", 0.3), "s4d": ("ssm", 0.01), "har": ("baseline", 0.6)}
    data = make_data(3, dates=300, models=models)
    scored = summaries.scored_rows(data)
    assert scored is not None
    (series,) = summaries.loss_series(scored, "qlike")
    assert series.cumulative_difference("s4d", "log_har")[-1] < 0 < series.cumulative_difference("har", "log_har")[-1]
    value = data.leaderboard.filter((pl.col("loss") == "qlike") & (pl.col("model") == "s4d"))["value"].item()
    assert series.of("s4d").mean() == pytest.approx(value, rel=1e-12)


def test_years_together_are_the_whole(make_data: MakeData) -> None:
    scored = summaries.scored_rows(make_data(2, dates=700))
    assert scored is not None
    (series,) = summaries.loss_series(scored, "mse")
    years = summaries.yearly(series)
    assert [year for year, _, _ in years] == [2004, 2005, 2006]
    total = sum(n * values["ridge"] for _, n, values in years) / sum(n for _, n, _ in years)
    assert total == pytest.approx(series.of("ridge").mean(), rel=1e-12)


def test_shown_ids_run_from_the_best_to_the_worst(make_data: MakeData) -> None:
    data = make_data(12, dates=80)
    model = summaries.challengers(data, 1)[-1]
    assert data.families[model] == "ssm"
    of_model = data.leaderboard_by_id.filter((pl.col("model") == model) & (pl.col("loss") == "qlike"))
    ratios = of_model["ratio_to_reference"]
    shown = summaries.shown_ids(data, 1)
    assert len(shown) == summaries.SHOWN_IDS
    assert shown[0].ratio == ratios.min()
    assert shown[-1].ratio == ratios.max()


def test_recent_forecasts_are_the_last_ones_and_the_mean_over_seeds(make_data: MakeData) -> None:
    data = make_data(1, dates=700, seeds=2)
    frame = summaries.recent_forecasts(data, 1, [".IDX00"], ["s4d"])
    assert frame.height == summaries.SHOWN_ORIGINS
    assert frame["ds"].max() == data.predictions["ds"].max()
    last = data.predictions.filter((pl.col("model") == "s4d") & (pl.col("ds") == pl.col("ds").max()))
    assert last.height == 2
    assert frame["model:s4d"][-1] == pytest.approx(last["y_hat"].mean(), rel=1e-12)
    assert frame["y"][-1] is None
