"""The leaderboard against a plain recomputation, and what happens to forecasts that are missing or wrong."""

from __future__ import annotations

import datetime as dt
import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import diebold_mariano
from ssmfin.evaluation.leaderboard import (
    SCHEMA,
    loss_by_regime,
    loss_by_year,
    loss_panel,
    make_leaderboard,
    seed_spread,
)

START = dt.date(2019, 9, 2)
HORIZONS = (1, 5)
NOISE = {"log_har": 0.5, "har": 0.6, "s4d": 0.45}


def sample(ids=("A", "B"), n=120, seeds=2, noise=NOISE, rng_seed=0) -> pl.DataFrame:
    """Forecasts of lognormal outcomes; id k starts 10 k days late, and the last label of each id is unknown."""
    rng = np.random.default_rng(rng_seed)
    frames = []
    for k, unique_id in enumerate(ids):
        days = [START + dt.timedelta(days=i) for i in range(10 * k, n)]
        for h in HORIZONS:
            y = np.exp(rng.standard_normal(len(days)) - 9 + k)
            runs = [(m, s) for m in noise for s in range(seeds if m == "s4d" else 1)]
            columns = {
                "unique_id": unique_id,
                "ds": days,
                "horizon": h,
                "fold": 0,
                "cutoff": days[0],
                "y": [*y[:-1], None],
            }
            frames += [
                pl.DataFrame(columns).with_columns(
                    pl.col("horizon", "fold").cast(pl.Int32),
                    model=pl.lit(m),
                    seed=pl.lit(s, dtype=pl.Int64),
                    y_hat=pl.Series(y * np.exp(noise[m] * rng.standard_normal(len(days)))),
                )
                for m, s in runs
            ]
    return pl.concat(frames).sort("model", "seed", "unique_id", "ds", "horizon")


def plain_losses(predictions: pl.DataFrame, name: str) -> pl.DataFrame:
    """Row losses of the seed means, by polars expressions instead of aligned arrays."""
    formula = {
        "qlike": pl.col("y") / pl.col("y_hat") - (pl.col("y") / pl.col("y_hat")).log() - 1,
        "mse": (pl.col("y") - pl.col("y_hat")) ** 2,
        "mae": (pl.col("y") - pl.col("y_hat")).abs(),
    }
    ensemble = (
        predictions.drop_nulls("y")
        .group_by("model", "unique_id", "ds", "horizon")
        .agg(pl.col("y").first(), pl.col("y_hat").mean())
    )
    return ensemble.with_columns(formula[name].alias("value"))


@pytest.mark.parametrize("name", ["qlike", "mse", "mae"])
def test_values_equal_a_plain_recomputation_with_seeds_averaged_first_and_ids_averaged_by_date(name):
    predictions = sample()
    board = make_leaderboard(predictions, reps=50, by_id_reps=50)
    rows = plain_losses(predictions, name)
    by_date = rows.group_by("model", "horizon", "ds").agg(pl.col("value").mean())
    pooled = by_date.group_by("model", "horizon").agg(pl.col("value").mean().alias("plain"), pl.len().alias("days"))
    check = board.pooled.filter(pl.col("loss") == name).join(pooled, on=["model", "horizon"])
    assert check.height == 6
    np.testing.assert_allclose(check["value"], check["plain"], rtol=1e-12)
    assert check["n"].to_list() == check["days"].to_list() == [119] * 6

    single = rows.group_by("unique_id", "model", "horizon").agg(pl.col("value").mean().alias("plain"), pl.len())
    check = board.by_id.filter(pl.col("loss") == name).join(single, on=["unique_id", "model", "horizon"])
    assert check.height == 12
    np.testing.assert_allclose(check["value"], check["plain"], rtol=1e-12)
    assert check["n"].to_list() == check["len"].to_list()


def test_columns_are_those_of_the_contract_in_its_order():
    board = make_leaderboard(sample(), costs={"s4d": (12.5, 0.5)}, reps=20, by_id_reps=20)
    contract = ["model", "horizon", "loss", "value", "ratio_to_reference", "dm_statistic", "dm_p_value", "in_mcs"]
    contract += ["mcs_p_value", "n", "fit_seconds", "predict_seconds", "mz_intercept", "mz_slope", "mz_r2"]
    assert board.pooled.columns == contract
    assert board.by_id.columns == ["unique_id", *contract]
    assert dict(board.pooled.schema) == SCHEMA
    seconds = {row[0]: row[1:] for row in board.pooled.select("model", "fit_seconds", "predict_seconds").rows()}
    assert seconds == {"s4d": (12.5, 0.5), "log_har": (None, None), "har": (None, None)}


def test_rows_are_sorted_by_horizon_then_primary_loss_then_best_first():
    board = make_leaderboard(sample(), losses=("mae", "qlike"), reps=20, by_id_reps=20)
    order = [(h, ["mae", "qlike"].index(loss), value) for _, h, loss, value, *_ in board.pooled.iter_rows()]
    assert order == sorted(order)
    assert board.losses == ("mae", "qlike")
    assert_frame_equal(board.date_losses, loss_panel(sample(), "mae"))


def test_tests_compare_with_the_reference_on_losses_by_date():
    predictions = sample()
    board = make_leaderboard(predictions, reference="har", reps=50, by_id_reps=50)
    panel = loss_panel(predictions, "qlike").filter(pl.col("horizon") == 5)
    losses = {m: panel.filter(pl.col("model") == m).sort("ds")["value"].to_numpy() for m in NOISE}
    rows = {row["model"]: row for row in board.pooled.filter(horizon=5, loss="qlike").iter_rows(named=True)}
    for model in ("s4d", "log_har"):
        test = diebold_mariano(losses[model], losses["har"], horizon=5)
        assert rows[model]["dm_statistic"] == test.statistic < 0
        assert rows[model]["dm_p_value"] == test.p_value
        assert rows[model]["ratio_to_reference"] == pytest.approx(losses[model].mean() / losses["har"].mean())
    assert rows["har"]["ratio_to_reference"] == 1
    assert rows["har"]["dm_statistic"] is None
    assert rows["s4d"]["in_mcs"]
    assert not rows["har"]["in_mcs"]


def test_the_order_of_rows_and_the_number_of_runs_do_not_change_a_bit():
    predictions = sample()
    first = make_leaderboard(predictions, reps=50, by_id_reps=50)
    shuffled = make_leaderboard(predictions.sample(fraction=1, shuffle=True, seed=1), reps=50, by_id_reps=50)
    assert first.pooled.equals(shuffled.pooled)
    assert first.by_id.equals(shuffled.by_id)
    assert first.date_losses.equals(shuffled.date_losses)


def test_another_model_does_not_change_the_losses_and_tests_of_the_rest():
    predictions = sample()
    alone = make_leaderboard(predictions.filter(pl.col("model") != "s4d"), reps=20, by_id_reps=20).pooled
    beside = make_leaderboard(predictions, reps=20, by_id_reps=20).pooled.filter(pl.col("model") != "s4d")
    keep = [c for c in alone.columns if "mcs" not in c]
    assert alone.select(keep).equals(beside.select(keep))


def test_a_model_with_failed_tasks_is_left_out_and_the_others_keep_all_their_rows():
    predictions = sample()
    failed = (pl.col("model") == "har") & (pl.col("ds") > START + dt.timedelta(days=100))
    board = make_leaderboard(predictions.filter(~failed), models=["mamba"], reps=20, by_id_reps=20)
    expected = predictions.filter(model="har").drop_nulls("y").height
    left = predictions.filter(~failed).filter(model="har").drop_nulls("y").height
    assert 0 < left < expected
    assert board.incomplete.rows() == [("har", 0, left, expected), ("mamba", None, 0, expected)]
    assert set(board.pooled["model"]) == {"log_har", "s4d"}
    assert set(board.pooled["n"]) == {119}
    assert any("Left out: har, which has" in note for note in board.notes)
    assert any("mamba" in note for note in board.notes)


def test_a_failed_seed_is_left_out_of_its_ensemble():
    predictions = sample(seeds=3)
    failed = (pl.col("seed") == 1) & (pl.col("ds") == START + dt.timedelta(days=50))
    board = make_leaderboard(predictions.filter(~failed), reps=20, by_id_reps=20)
    without = make_leaderboard(predictions.filter(pl.col("seed") != 1), reps=20, by_id_reps=20)
    assert board.pooled.equals(without.pooled)
    assert board.seeds == {"har": 1, "log_har": 1, "s4d": 2}
    assert board.incomplete.select("model", "seed").rows() == [("s4d", 1)]


def test_an_incomplete_reference_leaves_the_ranking_but_no_ratios():
    predictions = sample()
    failed = (pl.col("model") == "log_har") & (pl.col("ds") == START + dt.timedelta(days=50))
    board = make_leaderboard(predictions.filter(~failed), reps=20, by_id_reps=20)
    assert board.pooled["ratio_to_reference"].null_count() == board.pooled.height == 12
    assert board.pooled["dm_p_value"].null_count() == 12
    assert board.pooled["in_mcs"].null_count() == 0
    assert any("reference log_har is left out" in note for note in board.notes)


def test_an_unknown_reference_is_answered_with_the_nearest_model():
    with pytest.raises(InputError, match=r"'log_hra' is not among the models; did you mean 'log_har'"):
        make_leaderboard(sample(), reference="log_hra")


def test_rows_without_an_outcome_do_not_count():
    predictions = sample()
    absurd = predictions.with_columns(pl.when(pl.col("y").is_null()).then(1e9).otherwise("y_hat").alias("y_hat"))
    assert make_leaderboard(predictions, reps=20, by_id_reps=20).pooled.equals(
        make_leaderboard(absurd, reps=20, by_id_reps=20).pooled
    )
    with pytest.raises(InputError, match="no forecast can be scored"):
        make_leaderboard(predictions.with_columns(pl.lit(None, dtype=pl.Float64).alias("y")))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p.drop("y_hat"), "lack the column"),
        (lambda p: pl.concat([p, p.filter(model="har").head(1)]), "there twice, first model har"),
        (
            lambda p: p.with_columns(pl.when(pl.col("model") == "har").then(pl.col("y") * 2).otherwise("y").alias("y")),
            "different outcomes",
        ),
        (
            lambda p: p.with_columns(
                pl.when(pl.col("model") == "har").then(math.nan).otherwise("y_hat").alias("y_hat")
            ),
            "not finite, first y_hat None.*model har, seed 0, unique_id A",
        ),
        (
            lambda p: p.with_columns(y=pl.col("y") - 1.0),
            r"y is not positive.*unique_id A.*take it out of evaluate.losses",
        ),
        (
            lambda p: p.remove((pl.col("ds") == START) & (pl.col("model") == "har")).remove(
                (pl.col("ds") > START) & (pl.col("ds") < START + dt.timedelta(days=2)) & (pl.col("model") != "har")
            ),
            "no model has a forecast for every row",
        ),
    ],
    ids=["column", "duplicate", "outcomes", "not finite", "not positive", "no complete model"],
)
def test_broken_predictions_are_refused_with_what_and_where(change, message):
    with pytest.raises(InputError, match=message):
        make_leaderboard(change(sample()), reps=20, by_id_reps=20)


def test_outcomes_that_are_not_positive_are_fine_for_other_losses():
    board = make_leaderboard(sample().with_columns(y=pl.col("y") - 1.0), losses=("mse",), reps=20, by_id_reps=20)
    assert board.pooled["value"].is_finite().all()


def test_a_negative_forecast_costs_a_model_its_rank_by_qlike_only():
    predictions = sample()
    one = (pl.col("model") == "har") & (pl.col("ds") == START + dt.timedelta(days=3)) & (pl.col("unique_id") == "A")
    board = make_leaderboard(
        predictions.with_columns(pl.when(one).then(-1e-5).otherwise("y_hat").alias("y_hat")), reps=50, by_id_reps=20
    )
    har = board.pooled.filter(model="har")
    by_loss = {row["loss"]: row for row in har.filter(horizon=1).iter_rows(named=True)}
    assert by_loss["qlike"]["value"] == math.inf
    assert by_loss["qlike"]["dm_p_value"] is None
    assert by_loss["qlike"]["in_mcs"] is False
    assert math.isfinite(by_loss["mse"]["value"])
    assert board.by_id.filter(unique_id="B")["value"].is_finite().all()
    assert any("har has an infinite QLIKE in 2 of" in note for note in board.notes)
    assert board.pooled.filter(model="s4d", loss="qlike")["in_mcs"].all()


def test_a_model_that_copies_the_reference_is_exactly_as_good():
    predictions = sample()
    copy = predictions.filter(model="log_har").with_columns(model=pl.lit("s4d_at_start"))
    rows = make_leaderboard(pl.concat([predictions, copy]), reps=50, by_id_reps=20).pooled.filter(model="s4d_at_start")
    assert set(rows["ratio_to_reference"]) == {1.0}
    assert set(rows["dm_statistic"]) == {0.0}
    assert set(rows["dm_p_value"]) == {1.0}


def test_short_samples_have_values_but_no_tests():
    board = make_leaderboard(sample(n=40), reps=20, by_id_reps=20)
    assert board.pooled.filter(horizon=5)["dm_p_value"].null_count() == 9
    assert board.pooled.filter(horizon=5)["in_mcs"].all()
    assert board.pooled.filter(horizon=1, model="har")["dm_p_value"].null_count() == 0
    assert any("39 dates are too few for a test at horizon 5" in note for note in board.notes)


def test_time_stamps_and_single_series_work_like_dates():
    one = sample(ids=("A",))
    stamped = one.with_columns(pl.col("ds").cast(pl.Datetime("us")))
    first, second = (make_leaderboard(p, reps=20, by_id_reps=20) for p in (one, stamped))
    assert first.pooled.equals(second.pooled)
    # with one id, pooled and by id are the same losses
    same = ["model", "horizon", "loss", "value", "ratio_to_reference", "dm_statistic", "dm_p_value", "n", "mz_r2"]
    assert_frame_equal(first.pooled.select(same), first.by_id.select(same), check_exact=True)


def test_loss_panel_adds_up_to_the_leaderboard():
    predictions = sample()
    board = make_leaderboard(predictions, reps=20, by_id_reps=20).pooled.filter(loss="mse")
    panel = loss_panel(predictions, "mse")
    assert panel.columns == ["horizon", "ds", "model", "value"]
    assert panel.rows() == sorted(panel.rows(), key=lambda row: row[:3])
    mean = panel.group_by("model", "horizon").agg(pl.col("value").mean().alias("mean"))
    check = board.join(mean, on=["model", "horizon"])
    np.testing.assert_allclose(check["value"], check["mean"], rtol=1e-12)


def test_years_weigh_up_to_the_leaderboard():
    predictions = sample(n=400)
    years = loss_by_year(predictions, "qlike")
    assert years.columns == ["model", "horizon", "year", "value", "n"]
    assert sorted(set(years["year"])) == [2019, 2020]
    total = years.group_by("model", "horizon").agg((pl.col("value") * pl.col("n")).sum() / pl.col("n").sum())
    board = make_leaderboard(predictions, reps=20, by_id_reps=20).pooled.filter(loss="qlike")
    check = board.join(total, on=["model", "horizon"], suffix="_years")
    np.testing.assert_allclose(check["value"], check["value_years"], rtol=1e-12)


def test_regimes_are_terciles_of_the_outcome_within_each_id_and_horizon():
    predictions = sample(n=100)
    regimes = loss_by_regime(predictions, "mae")
    assert regimes.columns == ["model", "horizon", "regime", "value", "n"]
    for h in HORIZONS:
        counts = regimes.filter(horizon=h, model="har")
        assert counts["regime"].to_list() == ["calm", "normal", "turbulent"]
        assert counts["n"].to_list() == [33 + 30, 33 + 30, 33 + 29]  # 99 rows of A and 89 of B
        # multiplicative errors: absolute errors grow with the outcome
        assert all(low < high for low, high in pairwise(counts["value"]))
    rows = plain_losses(predictions, "mae").filter(model="har", horizon=1)
    calm = rows.filter((3 * (pl.col("y").rank("ordinal").over("unique_id") - 1)) // pl.len().over("unique_id") == 0)
    assert regimes.row(0, named=True)["value"] == pytest.approx(calm["value"].mean())


def test_seed_spread_describes_single_seeds_beside_the_ensemble():
    predictions = sample(seeds=3)
    spread = seed_spread(predictions, "qlike")
    assert spread.select("model", "horizon", "seeds").rows() == [("s4d", 1, 3), ("s4d", 5, 3)]
    single = [
        make_leaderboard(
            predictions.filter((pl.col("model") != "s4d") | (pl.col("seed") == s)), reps=5, by_id_reps=5
        ).pooled.filter(model="s4d", horizon=5, loss="qlike")["value"][0]
        for s in range(3)
    ]
    row = spread.row(1, named=True)
    assert row["mean"] == pytest.approx(np.mean(single))
    assert row["std"] == pytest.approx(np.std(single, ddof=1))
    assert (row["min"], row["max"]) == (pytest.approx(min(single)), pytest.approx(max(single)))
    assert row["ensemble"] < row["min"]  # independent errors average out
    assert seed_spread(sample(seeds=1), "qlike").is_empty()
