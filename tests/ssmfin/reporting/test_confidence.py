"""The example beside the leaderboard is one of the study, with its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from ssmfin.evaluation.comparison import diebold_mariano
from ssmfin.evaluation.leaderboard import make_leaderboard
from ssmfin.reporting import summaries
from ssmfin.reporting.confidence import confidence_example, membership_text
from ssmfin.reporting.data import ReportData

MakeData = Callable[..., ReportData]
MODELS = {"log_har": ("baseline", 0.1), "steady": ("baseline", 0.1), "wild": ("baseline", 0.1)}


def study(make_data: MakeData, *, jump: float) -> ReportData:
    """`steady` is a little worse on every date, `wild` far worse on two neighbours of 600."""
    whole = make_data(1, dates=600, models=MODELS, losses=("mse",), transform="none")
    rng = np.random.default_rng(0)
    y = rng.standard_normal(600)
    error = 0.1 * rng.standard_normal(600)
    dates = whole.predictions["ds"].unique().sort()
    wild = np.where((np.arange(600) // 2) == 150, jump, 0.0)
    frames = []
    for model, forecast in (("log_har", y + error), ("steady", y + 1.2 * error), ("wild", y + error + wild)):
        rows = whole.predictions.filter(pl.col("model") == model).sort("ds")
        frames.append(rows.with_columns(y=pl.Series(y), y_hat=pl.Series(forecast)))
    assert len(dates) == 600
    predictions = pl.concat(frames)
    board = make_leaderboard(predictions, losses=("mse",)).pooled
    columns = {name: pl.Series(name, [0.0] * board.height) for name in ("fit_seconds", "predict_seconds")}
    return dataclasses.replace(whole, predictions=predictions, leaderboard=board.with_columns(**columns))


def test_a_far_and_uncertain_member_is_set_against_a_near_and_certain_one(make_data: MakeData) -> None:
    data = study(make_data, jump=2.0)
    board = {row["model"]: row for row in data.leaderboard.iter_rows(named=True)}
    assert board["wild"]["in_mcs"]
    assert not board["steady"]["in_mcs"]
    assert board["wild"]["value"] > board["steady"]["value"]
    scored = summaries.scored_rows(data)
    text = confidence_example(data, scored, "day")
    assert text.startswith(f"1 day ahead, wild ({board['wild']['ratio_to_reference']:.3f}) is in the set and steady (")
    (series,) = summaries.loss_series(scored, "mse")  # type: ignore[arg-type]
    for model in ("wild", "steady"):
        gap = board[model]["value"] - board["log_har"]["value"]
        error = gap / diebold_mariano(series.of(model), series.of("log_har"), horizon=1).statistic
        said = text.split(f" {model} is ")[1].split(" above")[0].split(" ± ")
        assert float(said[0]) == pytest.approx(gap, rel=0.05)
        assert float(said[1]) == pytest.approx(error, rel=0.05)


def test_without_such_a_pair_the_farthest_member_is_the_example_and_else_there_is_none(make_data: MakeData) -> None:
    data = study(make_data, jump=2.0)
    scored = summaries.scored_rows(data)
    alone = data.leaderboard.filter(pl.col("model") != "steady")
    text = confidence_example(dataclasses.replace(data, leaderboard=alone), scored, "day")
    assert "wild (" in text
    assert "chance could do that" in text
    harmless = alone.with_columns(in_mcs=pl.col("model") == "log_har")
    assert confidence_example(dataclasses.replace(data, leaderboard=harmless), scored, "day") == ""
    assert confidence_example(data, None, "day") == ""


def test_a_cell_says_whether_its_model_is_in_the_set() -> None:
    row = {"model": "log_har", "mcs_p_value": 0.05, "in_mcs": False, "dm_p_value": None, "n": 4010}
    assert membership_text(row, "log_har") == "confidence set: out (p 0.050); 4,010 dates"
    untested = {**row, "model": "har", "mcs_p_value": float("nan"), "in_mcs": True, "n": 12}
    assert membership_text(untested, "log_har") == "confidence set: not tested; against log_har: DM p –; 12 dates"
