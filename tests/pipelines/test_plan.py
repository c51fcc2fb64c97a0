"""Owns the promises of the plan: it tells what a run will do and what is done, and writes nothing."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.evaluation.experiment import Experiment
from ssmfin.models.registry import forecaster_class
from ssmfin_pipelines import timing
from ssmfin_pipelines.plan import plan_study
from ssmfin_pipelines.prepare import prepare

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
    lines = text.splitlines()
    assert len(lines) < 30
    assert "... 76 more (--folds shows all)" in lines
    assert len(plan.render(all_folds=True).splitlines()) == len(lines) + 75
    assert text.index("tasks, 0 done already") < text.index("\nmodel ") < text.index("\nfold ")
    rows = {line.split()[0]: line for line in lines if line}
    assert [re.search(r" (\d+) +\d+ +\d+ +\d+ +0 ", rows[name])[1] for name in ("har", "toy")] == ["1", "2"]  # type: ignore[index]
    assert all(name in text for name in plan.models["model"])
    assert " 80 " in text
    assert max(map(len, text.splitlines())) <= 140
    assert str(plan) == text


def test_what_no_task_has_measured_is_a_range_and_said_to_be_a_guess(tmp_path: Path) -> None:
    plan = plan_study(make_study(tmp_path))
    assert plan.guessed == pytest.approx(plan.core_seconds)
    seconds = pl.DataFrame({"tasks": [10], "cached": [0], "fits": [10], "seconds": [60.0]})
    none = plan.features.clear()

    def last(**changes: object) -> str:
        shown = replace(plan, workers=2, **changes)  # type: ignore[arg-type]
        assert shown.range[0] <= shown.seconds <= shown.range[1]
        return shown._how_long()

    models = plan.models.head(1).drop(seconds.columns).hstack(seconds)
    same = {"models": models, "features": none}
    assert last(**same, guessed=60.0, strain=1.0) == (
        "10 s to 1 min 30 s on 2 workers, a guess before any such task was timed (--time measures)"
    )
    assert last(**same, guessed=30.0, strain=1.0) == "20 s to 1 min 00 s on 2 workers, partly guessed (--time measures)"
    assert last(**same, guessed=6.0, strain=1.0) == "about 30 s on 2 workers"
    assert last(**same, guessed=60.0, strain=4.0) == (
        "10 s to 6 min 00 s on 2 workers, a guess before any such task was timed (--time measures)"
    )
    assert (
        "\nbusy: other programs slow this machine down now, by a factor of 4.0." in replace(plan, strain=4.0).render()
    )
    assert "busy:" not in replace(plan, strain=1.0).render()


def test_a_measured_model_is_no_guess(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    run(study, shard=(1, 2))
    plan = plan_study(study)
    assert 0 < plan.cached < plan.tasks
    assert plan.guessed < plan.core_seconds  # toy and lightgbm have done some of their tasks


@pytest.mark.parametrize(
    "change, factor",
    [
        ({"layers": 4}, 2.0),
        ({"width": 64}, 4.0),
        ({"ensemble": 3}, 3.0),
        ({"epochs": 18}, 0.5),
        ({"early_stopping": False, "epochs": 72}, 2.0),
        ({"epochs": 1000}, 1.0),  # early stopping ends it long before
    ],
)
def test_the_guess_for_a_network_follows_what_is_trained(change: dict[str, object], factor: float) -> None:
    def training(**parameters: object) -> float:
        return forecaster_class("s4d")(**parameters).guessed_seconds(1000, 1) - 0.2

    assert training(**change) == pytest.approx(factor * training())


def test_the_guess_for_a_network_follows_rows_and_not_ids() -> None:
    s4d, ridge = forecaster_class("s4d")(), forecaster_class("ridge")()
    assert s4d.guessed_seconds(20_000, 20) == pytest.approx(20 * (s4d.guessed_seconds(1000, 1) - 0.2) + 0.2)
    assert s4d.guessed_seconds(1000, 20) == s4d.guessed_seconds(1000, 1)
    assert ridge.guessed_seconds(20_000, 20) == pytest.approx(20 * ridge.guessed_seconds(1000, 1))


def test_a_fit_that_was_timed_is_no_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_models.py").write_text(
        "import time\n\nclass Slow:\n    def fit(self, X, y):\n        time.sleep(0.03)\n        self.y = y.mean()\n\n"
        "    def predict(self, X):\n        return X[:, 0] * 0 + self.y\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    study = make_study(tmp_path, models={"slow": {"kind": "slow_models:Slow"}})
    told: list[str] = []
    guess, timed = plan_study(study), plan_study(study, time=told.append)
    assert told == ["lightgbm", "toy", "slow"]
    fits, seconds = timed.models.filter(pl.col("model") == "slow").select("fits", "seconds").row(0)
    assert seconds >= fits * 2 * 0.03  # a fit for each of two horizons
    assert timed.models.filter(pl.col("model") == "har").equals(guess.models.filter(pl.col("model") == "har"))
    assert timed.guessed < 0.2 * timed.core_seconds
    assert timed._how_long().startswith("about ")
    assert not (tmp_path / "runs").exists()


def test_a_network_is_timed_by_a_few_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def timed(experiment: Experiment, name: str, forecaster: Any = None) -> float:
        asked.append(forecaster.epochs)
        return 0.5 + 0.1 * float(forecaster.epochs)

    monkeypatch.setattr(timing, "_timed", timed)
    experiment = prepare(make_study(tmp_path, models={"net": {"kind": "s4d", "epochs": 30}})).experiment
    assert timing.seconds_of_a_fit(experiment, ["net"])["net"] == pytest.approx(0.5 + 0.1 * 30)
    assert max(asked) == timing.MORE


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
