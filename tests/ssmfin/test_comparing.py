"""Two evaluations in Python are compared like two runs."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

import ssmfin as sf


@pytest.fixture(scope="module")
def results() -> dict[str, sf.Result]:
    rng = np.random.default_rng(4)
    level = np.zeros(160)
    for t in range(1, 160):
        level[t] = 0.9 * level[t - 1] + 0.3 * rng.standard_normal()
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=i) for i in range(160)]
    panel = pl.DataFrame({"unique_id": ["A"] * 160, "ds": days, "rv": np.exp(level)})
    folds = sf.WalkForward(train=80, validation=15, test=20, horizons=[1, 2])
    few = {"lightgbm": sf.LightGBM(max_rounds=3, min_child_samples=5)}
    return {
        label: sf.evaluate({"mean": sf.EWMA(decay=decay)}, panel, target="rv", folds=folds, benchmarks=few)
        for label, decay in (("slow", 0.94), ("quick", 0.5))
    }


def test_a_changed_model_is_tested_and_the_others_are_the_same(results: dict[str, sf.Result]) -> None:
    found = sf.compare(results)
    assert set(found.changes["model"]) == {"mean"}
    assert found.changes.select("run", "against").unique().row(0) == ("quick", "slow")
    slow, quick = (
        result.leaderboard.filter(model="mean", loss="qlike", horizon=1)["value"][0] for result in results.values()
    )
    assert found.changes["ratio"][0] == pytest.approx(quick / slow)
    assert found.leaderboard.height == 7 * 2 * 3
    assert str(found).startswith(found.headline)
    assert [each.left_out for each in found.left_out] == [0, 0]


def test_one_result_is_no_comparison(results: dict[str, sf.Result]) -> None:
    with pytest.raises(sf.InputError, match="two results or more, 1 given"):
        sf.compare({"slow": results["slow"]})
