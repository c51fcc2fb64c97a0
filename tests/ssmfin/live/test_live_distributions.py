"""Quantiles and events of a model in use: the columns, and the numbers, of the same model in an evaluation."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.evaluation.columns import distribution_columns
from ssmfin.evaluation.design import build_design
from ssmfin.evaluation.recalibration import Recalibration, recalibrated
from ssmfin.evaluation.walk_forward import derived_seed

SMALL = {"layers": 1, "width": 8, "segment": 64, "context": 32, "epochs": 3, "device": "cpu", "precision": "float64"}
TRAIN, VALIDATION, CUTOFF = 300, 60, 400
QUANTILES = ["q05", "q25", "q50", "q75", "q95"]
HEADS = {
    "point": [],
    "lognormal": QUANTILES,
    "gaussian": QUANTILES,
    "quantiles": QUANTILES,
    "event": ["event", "event_threshold"],
}


@pytest.fixture(scope="module")
def panel() -> sf.Panel:
    return sf.load_panel(simulate_volatility_panel(ids=3, dates=430, late_starts=0.2, seed=3).frame)


@pytest.fixture(scope="module")
def past(panel) -> sf.Panel:
    return sf.Panel(panel.frame.filter(pl.col("ds") <= pl.lit(panel.dates[CUTOFF])))


@pytest.fixture(scope="module", params=HEADS)
def judged_and_trained(request, panel, past) -> tuple[pl.DataFrame, sf.live.Trained, list[str]]:
    """Forecasts of one walk-forward fit, and the same model fitted for use at the same moment with the same seed."""
    model = sf.S4D(**SMALL, head=request.param, residual="none", ensemble=2, pooled=request.param != "gaussian")
    start = str(panel.dates[CUTOFF])[:10]
    folds = sf.WalkForward(train=TRAIN, validation=VALIDATION, test=500, horizons=[1, 5], start=start)
    result = sf.evaluate({"mine": model}, panel, target="rv", folds=folds, seed=11)
    judged = result.predictions.filter(pl.col("model") == "mine")
    trained = sf.fit(
        model,
        past,
        target="rv",
        horizons=[1, 5],
        train=TRAIN,
        validation=VALIDATION,
        seed=derived_seed(11, 0, 0),
    )
    assert not trained.stayed_at_base
    return judged, trained, HEADS[request.param]


def compared(judged: pl.DataFrame, used: pl.DataFrame, columns: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    assert distribution_columns(used.columns) == columns
    assert used.columns == ["unique_id", "ds", "horizon", "y_hat", *columns]
    both = judged.join(used, on=["unique_id", "ds", "horizon"], suffix="_used")
    assert len(both) == len(used) > 100
    return [(both[f"{name}_used"].to_numpy(), both[name].to_numpy()) for name in ("y_hat", *columns)]


def test_all_at_once_they_are_those_of_the_evaluation_to_the_bit(judged_and_trained, panel) -> None:
    judged, trained, columns = judged_and_trained
    for used, expected in compared(judged, trained.forecast(panel), columns):
        np.testing.assert_array_equal(used, expected)


def test_row_by_row_they_are_those_of_the_evaluation(judged_and_trained, panel, past) -> None:
    judged, trained, columns = judged_and_trained
    live = trained.live(past)
    future = panel.frame.filter(pl.col("ds") > pl.lit(past.dates[-1])).sort("ds", "unique_id")
    streamed = [live.update(rows) for _, rows in future.group_by("ds", maintain_order=True)]
    for used, expected in compared(judged, pl.concat(streamed), columns):
        np.testing.assert_allclose(used, expected, rtol=1e-12)


def test_without_a_forecast_the_columns_are_there_all_the_same(judged_and_trained, panel, past) -> None:
    _, trained, columns = judged_and_trained
    nothing = trained.live(past).update(panel.frame.clear())
    assert nothing.is_empty()
    assert nothing.columns == ["unique_id", "ds", "horizon", "y_hat", *columns]


@pytest.mark.parametrize("target", [sf.Target("rv", (1, 5)), sf.Target("log_return", (1, 3), "none", "sum")])
def test_quantiles_that_learn_row_by_row_learn_as_they_do_in_an_evaluation(target, panel, past) -> None:
    model = sf.S4D(**SMALL, head="quantiles" if target.transform == "log" else "gaussian", residual="none")
    trained = sf.fit(model, past, target=target, train=TRAIN, validation=VALIDATION)
    future = panel.frame.filter(pl.col("ds") > pl.lit(past.dates[-1])).sort("ds", "unique_id")
    days = [rows for _, rows in future.group_by("ds", maintain_order=True)]
    plain, learning = trained.live(past), trained.live(past, keep=40, recalibrate={"rate": 0.3})
    raw, learned = (pl.concat([live.update(rows) for rows in days]) for live in (plain, learning))

    design = build_design(sf.Panel(future.sort("unique_id", "ds")), target, {})
    keys = future.sort("unique_id", "ds").select("unique_id", "ds").with_columns(origin=pl.Series(design.date_index))
    known = pl.concat(
        keys.with_columns(
            horizon=pl.lit(h, dtype=pl.Int32),
            known=pl.Series(design.label_known[:, j]),
            y=pl.Series(design.labels[:, j]),
        )
        for j, h in enumerate(target.horizons)
    ).with_columns(pl.col("y").fill_nan(None))
    told = raw.join(known.select("unique_id", "ds", "horizon", "y"), on=["unique_id", "ds", "horizon"])
    told = told.with_columns(model=pl.lit("s4d"), seed=0)
    expected = recalibrated(told, known.drop("y"), Recalibration(rate=0.3), log=target.transform == "log")
    both = learned.join(expected, on=["unique_id", "ds", "horizon"], suffix="_expected")
    assert len(both) == len(raw) > 100
    np.testing.assert_array_equal(learned["y_hat"], raw["y_hat"])
    for name in QUANTILES:
        np.testing.assert_allclose(both[name], both[f"{name}_expected"], rtol=1e-12)
    assert (learned["q95"] != raw["q95"]).mean() > 0.8

    again = trained.live(past, recalibrate=Recalibration(rate=0.3))
    np.testing.assert_allclose(again.update(future)["q95"], learned["q95"], rtol=1e-9)  # many dates in one call


def test_there_must_be_quantiles_to_recalibrate(past) -> None:
    with pytest.raises(sf.InputError, match="recalibrate shifts quantiles, and log_har gives none; fit a model with"):
        sf.fit(sf.LogHAR(), past, target="rv", train=TRAIN).live(past, recalibrate={})
