"""Owns the promises of the plan: it tells what a run will do and what is done, and writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.plan import plan_study

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run


def test_a_plan_counts_folds_fits_and_tasks_and_writes_nothing(tmp_path: Path) -> None:
    study = make_study(tmp_path, walk_forward={"refit": 2})
    plan = plan_study(study)
    assert plan.folds.height == 9  # cutoffs at dates 59, 69, .., 139
    assert plan.folds["n_test_rows"].sum() == 2 * 81
    by_model = {row["model"]: row for row in plan.models.iter_rows(named=True)}
    assert list(by_model) == ["random_walk", "har", "log_har", "ridge", "lightgbm", "toy"]
    assert (by_model["toy"]["fits"], by_model["toy"]["tasks"], by_model["toy"]["seeds"]) == (10, 10, "0, 1")
    assert by_model["har"]["fits"] == 5
    assert plan.fits == plan.models["fits"].sum()
    assert plan.cached == 0
    assert plan.seconds > 0
    assert not (tmp_path / "runs").exists()


def test_a_plan_knows_what_is_done(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    directory = run(study, shard=(1, 2)).directory
    plan = plan_study(study)
    assert plan.directory == directory
    assert plan.cached == -(-plan.tasks // 2)
    run(study)
    plan = plan_study(study)
    assert plan.cached == plan.tasks
    assert plan.seconds == 0
    assert f"{plan.tasks} tasks, all done already." in plan.render()


def test_the_rendered_plan_shows_every_model_and_shortens_a_long_fold_table(tmp_path: Path) -> None:
    plan = plan_study(make_study(tmp_path, walk_forward={"test": {"size": 1}, "validation": {"size": 10}}))
    text = plan.render()
    assert plan.folds.height == 81
    assert len(text.splitlines()) < 60
    assert all(name in text for name in plan.models["model"])
    assert " 80 " in text
    assert max(map(len, text.splitlines())) <= 140
    assert str(plan) == text


def test_an_id_that_is_never_forecast_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    frame = pl.read_parquet(tmp_path / "panel.parquet")
    short = frame.filter(pl.col("unique_id") == "A").head(20).with_columns(unique_id=pl.lit("short"))
    pl.concat([frame, short]).write_parquet(tmp_path / "panel.parquet")
    plan = plan_study(study)
    assert list(plan.never_forecast) == ["short"]
    assert "never forecast: short" in plan.render()


def test_a_window_longer_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"walk_forward.train.size is 500, longer than the panel"):
        plan_study(make_study(tmp_path, walk_forward={"train": {"size": 500}}))
