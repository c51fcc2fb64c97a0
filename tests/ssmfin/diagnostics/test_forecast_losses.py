"""Where and when models win: the tables agree with the leaderboard, and the plots draw what the tables say."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.diagnostics import (
    confidence_sets,
    forecast_losses,
    plot_confidence_sets,
    plot_cumulative_loss,
    plot_loss_by_id,
    plot_loss_by_regime,
    plot_loss_by_year,
    ratios_by_id,
    ratios_by_regime,
    ratios_by_year,
)
from ssmfin.errors import InputError
from ssmfin.evaluation.leaderboard import make_leaderboard

DAYS, IDS = 400, ("a", "b", "c")
ERRORS = {"log_har": 0.30, "ridge": 0.25, "s4d": 0.28, "bad": 1.50}


@pytest.fixture(scope="module")
def predictions() -> pl.DataFrame:
    """Forecasts that differ by the size of their error; `ridge` is good in the second year alone."""
    generator = np.random.default_rng(0)
    dates = [dt.date(2020, 3, 1) + dt.timedelta(days=i) for i in range(DAYS)]
    parts = []
    for horizon in (1, 5):
        for name in IDS:
            y = np.exp(generator.standard_normal(DAYS) - 9)
            for model, error in ERRORS.items():
                size = np.where(np.arange(DAYS) < 306, 0.4, error) if model == "ridge" else error
                y_hat = y * np.exp(size * generator.standard_normal(DAYS))
                parts.append(
                    pl.DataFrame({"ds": dates, "y": y, "y_hat": y_hat}).with_columns(
                        unique_id=pl.lit(name), horizon=pl.lit(horizon, pl.Int32), model=pl.lit(model), seed=pl.lit(0)
                    )
                )
    return pl.concat(parts)


def test_mean_losses_are_those_of_the_leaderboard(predictions):
    board = make_leaderboard(predictions, losses=("qlike",)).pooled
    losses = forecast_losses(predictions)
    for model, horizon, value in board.select("model", "horizon", "value").iter_rows():
        assert losses.of(horizon, model).mean() == pytest.approx(value, rel=1e-12)
    assert losses.models[-1] == "bad"
    assert "log_har" not in losses.compared


def test_models_and_horizons_may_be_picked_and_the_reference_stays(predictions):
    losses = forecast_losses(predictions, models=["bad"], horizons=[5])
    assert losses.models == ("log_har", "bad")
    assert list(losses.by_horizon) == [5]
    many = pl.concat(
        [
            predictions,
            *(predictions.filter(pl.col("model") == "bad").with_columns(model=pl.lit(f"m{i}")) for i in range(9)),
        ]
    )
    assert len(forecast_losses(many).compared) == 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"models": ["ridg"]}, "model 'ridg' is not among those with every forecast; did you mean 'ridge'"),
        ({"reference": "har"}, "model 'har' is not among those"),
        ({"horizons": [22]}, "horizon 22 is not in the forecasts; known: 1, 5"),
    ],
)
def test_what_is_not_there_is_named(predictions, arguments, message):
    with pytest.raises(InputError, match=message):
        forecast_losses(predictions, **arguments)


def test_years_and_ids_average_to_the_whole(predictions):
    losses = forecast_losses(predictions)
    years = ratios_by_year(losses).filter(pl.col("horizon") == 1)
    base = np.array([losses.of(1, "log_har")[:306].mean(), losses.of(1, "log_har")[306:].mean()])
    own = years.filter(pl.col("model") == "ridge").sort("year")
    assert own["n"].to_list() == [306, 94]
    assert (own["ratio"].to_numpy() * base * own["n"].to_numpy()).sum() / DAYS == pytest.approx(
        losses.of(1, "ridge").mean(), rel=1e-12
    )
    assert own["ratio"][0] > 1.3 > 1 > own["ratio"][1]
    by_id = ratios_by_id(losses).filter((pl.col("horizon") == 1) & (pl.col("model") == "bad"))
    assert by_id["unique_id"].to_list() == list(IDS)
    assert set(ratios_by_id(losses).filter(pl.col("model") == "log_har")["ratio"]) == {1.0}
    assert ratios_by_regime(losses)["regime"].unique(maintain_order=True).to_list() == ["calm", "normal", "turbulent"]


def test_confidence_sets_of_windows_leave_out_the_bad_model_and_end_with_the_sample(predictions):
    table = confidence_sets(forecast_losses(predictions), window=200, step=100)
    assert table["ds"].max() == predictions["ds"].max()
    assert table["ds"].n_unique() == 3
    assert not table.filter(pl.col("model") == "bad")["in_set"].any()
    assert table.group_by("horizon", "ds").agg(pl.col("in_set").any())["in_set"].all()


def test_a_window_that_does_not_fit_is_refused(predictions):
    losses = forecast_losses(predictions)
    with pytest.raises(InputError, match="window is 500, longer than the 400 dates"):
        confidence_sets(losses, window=500)
    with pytest.raises(InputError, match="window is 10; 10 dates are too few"):
        confidence_sets(losses, window=10)


def test_a_folder_and_a_frame_say_the_same_and_the_folder_knows_families(predictions, tmp_path):
    predictions.write_parquet(tmp_path / "predictions.parquet")
    assert forecast_losses(tmp_path).families == {}
    (tmp_path / "manifest.json").write_text('{"models": {"s4d": {"family": "ssm"}}}')
    found = forecast_losses(tmp_path)
    assert found.families == {"s4d": "ssm"}
    np.testing.assert_array_equal(found.of(1, "s4d"), forecast_losses(predictions).of(1, "s4d"))
    with pytest.raises(InputError, match=r"holds no predictions\.parquet"):
        forecast_losses(tmp_path / "absent")
    with pytest.raises(InputError, match="forecasts is of type int"):
        forecast_losses(3)


def test_the_cumulative_plot_ends_at_the_sum_of_differences(predictions):
    losses = forecast_losses(predictions, models=["s4d"])
    figure = plot_cumulative_loss(predictions, models=["s4d"])
    assert len(figure.axes) == 2
    drawn = figure.axes[0].get_lines()[-1].get_ydata()
    assert drawn[-1] == pytest.approx((losses.of(1, "s4d") - losses.of(1, "log_har")).sum())


@pytest.mark.parametrize("draw", [plot_loss_by_year, plot_loss_by_regime, plot_loss_by_id])
def test_ratios_have_a_logarithmic_scale_where_one_model_would_squash_all_others(predictions, draw):
    which = "x" if draw is plot_loss_by_id else "y"
    for models, scale in ((["ridge", "s4d", "bad"], "log"), (["ridge", "s4d"], "linear")):
        figure = draw(predictions, models=models)
        assert {getattr(axes, f"get_{which}scale")() for axes in figure.axes} == {scale}
        label = getattr(figure.axes[0], f"get_{which}label")()
        assert ("log scale" in label) == (scale == "log")


@pytest.mark.parametrize("draw", [plot_loss_by_year, plot_loss_by_regime, plot_loss_by_id])
def test_a_panel_for_each_horizon_and_every_model_in_the_legend(draw, predictions):
    figure = draw(predictions, models=["s4d", "ridge"])
    assert len(figure.axes) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"s4d", "ridge"}
    assert draw(predictions, horizons=[1])._repr_png_()[0].startswith(b"\x89PNG")


def test_marks_of_the_confidence_plot_are_the_members_of_the_sets(predictions):
    figure = plot_confidence_sets(predictions, window=200, step=100, horizons=[1])
    inside = confidence_sets(forecast_losses(predictions, horizons=[1]), window=200, step=100)["in_set"].sum()
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == "s"]
    assert sum(len(line.get_xdata()) for line in marks) == inside
