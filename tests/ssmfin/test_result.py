"""The study in Python: benchmarks run whatever the caller asks for, and the result says what a run would say."""

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.evaluation.experiment import ModelEntry
from ssmfin.models.interface import Fitted, Forecaster

FOLDS = sf.WalkForward(train=150, validation=30, test=60, horizons=[1, 5])


@pytest.fixture(scope="module")
def frame():
    from ssmfin.data.synthetic import simulate_volatility_panel

    return simulate_volatility_panel(ids=2, dates=420, seed=3).frame


@pytest.fixture(scope="module")
def result(frame):
    mine = sf.S4D(context=16, width=4, state=4, epochs=3)
    return sf.evaluate({"s4d": mine}, frame, target="rv", folds=FOLDS)


def test_the_benchmarks_run_on_the_same_rows_whatever_the_caller_asks_for(result):
    models = {"random_walk", "har", "log_har", "ridge", "lightgbm", "s4d"}
    assert set(result.predictions["model"]) == models
    counts = result.predictions.group_by("model").agg(pl.len(), pl.col("y_hat").is_finite().all())
    assert counts["len"].n_unique() == 1
    assert counts["y_hat"].all()
    assert set(result.leaderboard["model"]) == models


def test_the_verdict_and_the_report_say_the_same(result, tmp_path):
    path = result.report(tmp_path / "vol.html")
    html = path.read_text(encoding="utf-8")
    assert result.verdict.headline.split(":")[0] in html
    assert str(result).startswith(result.verdict.headline)
    assert result.failures == []
    assert set(result.costs["fits"]) == {len(result.experiment.folds)}


def test_quantiles_are_scored_beside_a_naive_reference_and_said_in_words(frame, result, tmp_path):
    mine = sf.S4D(context=16, width=4, state=4, epochs=2, head="lognormal", levels=(0.1, 0.5, 0.9))
    found = sf.evaluate({"s4d": mine}, frame, target="rv", folds=FOLDS)
    assert found.predictions.columns[9:] == ["q10", "q50", "q90"]
    scores = found.probabilistic.pooled
    assert set(scores["model"]) == {"s4d", "log_har (past errors)"}
    assert set(scores["horizon"]) == {1, 5}
    assert (
        sum(
            paragraph.startswith("Beyond the mean, s4d: its 80 % intervals hold")
            for paragraph in str(found).split("\n")
        )
        == 1
    )
    assert "Intervals and events" in found.report(tmp_path / "vol.html").read_text(encoding="utf-8")
    assert result.probabilistic is None


class Fails(Forecaster):
    kind = "fails"

    def fit(self, training, *, seed) -> Fitted:
        raise ArithmeticError("no luck")


def test_a_model_that_raises_is_recorded_and_the_others_go_on(frame):
    result = sf.evaluate({"fails": ModelEntry(Fails())}, frame, target="rv", folds=FOLDS)
    assert {f["error"] for f in result.failures} == {"ArithmeticError: no luck"}
    assert "fails" not in set(result.leaderboard["model"])
    assert "Traceback" in result.failures[0]["traceback"]
    assert np.isfinite(result.leaderboard["value"].to_numpy()).all()


def test_a_model_may_not_take_the_name_of_a_benchmark(frame):
    with pytest.raises(sf.InputError, match="'har' is the name of a benchmark"):
        sf.evaluate({"har": sf.HAR()}, frame, target="rv", folds=FOLDS)


def test_a_regressor_and_a_mapping_are_taken_as_they_come(frame):
    from sklearn.linear_model import LinearRegression

    result = sf.evaluate(
        {"ols": LinearRegression()}, frame, target="rv", folds=FOLDS, features={"har": {"kind": "har_lags"}}
    )
    assert "ols" in result.leaderboard["model"].to_list()


@pytest.mark.parametrize(
    "models, features, words",
    [
        ({"mine": {"kind": "s4d"}}, None, "model 'mine' is {'kind': 's4d'}, no forecaster"),
        ({}, {"har": "har_lags"}, "feature 'har' is 'har_lags', no spec"),
        ({}, {"har": {"kind": "har_lag"}}, "did you mean 'har_lags'"),
        ({}, {"har": {"kind": "har_lags", "window": [1]}}, "window"),
    ],
)
def test_what_is_no_model_or_feature_is_refused_by_name(frame, models, features, words):
    with pytest.raises(sf.InputError, match=words):
        sf.evaluate(models, frame, target="rv", folds=FOLDS, features=features)
