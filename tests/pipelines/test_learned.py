"""Learnings of a run: stored before the models that need them, resumed, and the same bytes in every way of running."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.features.kalman import KalmanFeatures
from ssmfin_pipelines.plan import plan_study
from ssmfin_pipelines.prepare import prepare
from ssmfin_pipelines.study import read_study, study_from

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import run, study_values, write_panel

FEATURES = {
    "har": {"kind": "har_lags"},
    "kalman": {"kind": "kalman", "emit": ["level", "variance"]},
    "slow": {"kind": "kalman", "model": "local_linear_trend", "refit": 3, "warm_start": True},
}
FITS = {"kalman": 9, "slow": 3}


def study(folder: Path, **changes: Any) -> Any:
    if not (folder / "panel.parquet").exists():
        write_panel(folder / "panel.parquet")
    return study_from({**study_values(folder, **changes), "models": {}, "features": changes.get("features", FEATURES)})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    outcome = run(study(folder))
    assert outcome.complete
    assert not outcome.failures
    return outcome.directory


def predictions(directory: Path) -> bytes:
    return (directory / "predictions.parquet").read_bytes()


def states(directory: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in directory.glob("tasks/*/state.json")}


def test_every_fit_of_every_feature_is_a_task_of_its_own(reference: Path) -> None:
    marks = [json.loads((reference / "tasks" / key / "done").read_text()) for key in states(reference)]
    assert {name: sum(m["model"] == f"feature {name}" for m in marks) for name in FITS} == FITS
    facts = json.loads((reference / "manifest.json").read_text())
    assert {name: item["fits"] for name, item in facts["features"].items()} == FITS
    assert len(facts["tasks"]) == facts["done"] == len(list((reference / "tasks").iterdir()))


def test_learned_features_reach_the_models_that_see_them(reference: Path, tmp_path: Path) -> None:
    plain = run(study(tmp_path, features={"har": FEATURES["har"]})).directory
    with_states, without = (pl.read_parquet(d / "predictions.parquet") for d in (reference, plain))
    keys = ["unique_id", "ds", "horizon"]
    both = with_states.join(without, on=["model", "seed", *keys])
    moved = both.group_by("model").agg(moved=(pl.col("y_hat") != pl.col("y_hat_right")).any())
    assert dict(moved.iter_rows()) == {
        "ridge": True, "lightgbm": True, "har": False, "log_har": False, "random_walk": False
    }  # fmt: skip


def test_workers_shards_and_an_interrupted_run_give_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    local = run(study(tmp_path / "local", execution={"backend": "local", "workers": 2}))
    assert predictions(local.directory) == predictions(reference)
    assert states(local.directory) == states(reference)
    for i in (1, 2):
        outcome = run(study(tmp_path / "shards"), shard=(i, 2))
    assert outcome.complete
    assert predictions(outcome.directory) == predictions(reference)
    assert states(outcome.directory) == states(reference)

    broken = tmp_path / "resumed"
    broken.mkdir()
    shutil.copy(reference.parents[1] / "panel.parquet", broken / "panel.parquet")
    resumed = prepare(study(broken)).directory
    shutil.copytree(reference, resumed)
    keys = sorted(states(resumed))
    shutil.rmtree(resumed / "tasks" / keys[0])
    (resumed / "tasks" / keys[1] / "state.json").write_text("{}")  # damaged
    for mark in list(resumed.glob("tasks/*/predictions.parquet"))[:3]:
        shutil.rmtree(mark.parent)
    (resumed / "predictions.parquet").unlink()
    assert run(study(broken)).complete
    assert predictions(resumed) == predictions(reference)
    assert states(resumed) == states(reference)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("local", "shards"):
        (tmp_path / name).mkdir()


def test_a_model_waits_for_what_it_needs_and_a_warm_start_for_the_fit_before(tmp_path: Path) -> None:
    prepared = prepare(study(tmp_path))
    by_task = {(item.task.feature, item.task.fit): item for item in prepared.learnings}
    assert by_task["slow", 2].needs == {by_task["slow", 1].key}
    assert by_task["kalman", 2].needs == frozenset()
    ridge = next(item for item in prepared.items if item.task.model == "ridge")
    assert ridge.needs == {item.key for item in prepared.learnings}
    har = next(item for item in prepared.items if item.task.model == "har")
    assert har.needs == {by_task["kalman", 0].key, by_task["slow", 0].key}  # the rows that all models share


def test_the_plan_shows_what_is_learned_and_writes_nothing(tmp_path: Path) -> None:
    plan = plan_study(study(tmp_path))
    assert plan.features.select("feature", "kind", "refit", "tasks", "cached").rows() == [
        ("kalman", "kalman", 1, 9, 0), ("slow", "kalman", 3, 3, 0)
    ]  # fmt: skip
    assert "learns (kalman)" in plan.render()
    assert not (tmp_path / "runs").exists()
    assert run(study(tmp_path)).complete
    plan = plan_study(study(tmp_path))
    assert plan.cached == plan.tasks
    assert plan.features["cached"].to_list() == [9, 3]


def test_a_learning_that_fails_fails_its_models_alone_with_its_reason_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = KalmanFeatures._learn
    bad: set[str] = set()

    def fail(self: KalmanFeatures, panel: Any, starts: Any) -> None:
        if self.model == "local_level" and str(panel.dates[-1]) in bad:
            raise ArithmeticError("no luck today")
        learn(self, panel, starts)

    monkeypatch.setattr(KalmanFeatures, "_learn", fail)
    some = study(tmp_path)
    prepared = prepare(some)
    fold = prepared.experiment.folds[5]
    bad.add(str(prepared.panel.dates[fold.cutoff]))
    outcome = run(some)
    failed = {failure["model"]: failure["error"] for failure in outcome.failures}
    assert failed["feature kalman"] == "ArithmeticError: no luck today"
    assert "feature kalman could not be learned, fold 5: ArithmeticError: no luck today" in failed["ridge"]
    assert set(failed) == {"feature kalman", "ridge", "lightgbm"}
    assert len([f for f in outcome.failures if f["model"] == "lightgbm"]) == 1
    bad.clear()
    again = run(some)
    assert again.complete
    assert not again.failures


def test_nothing_learnable_at_the_first_fold_is_wrong_input(tmp_path: Path) -> None:
    write_panel(tmp_path / "panel.parquet")
    frame = pl.read_parquet(tmp_path / "panel.parquet").with_columns(flat=pl.lit(1.0))
    frame.write_parquet(tmp_path / "panel.parquet")
    flat = study(tmp_path, features={"kalman": {"kind": "kalman", "column": "flat"}})
    with pytest.raises(InputError, match="feature 'kalman' cannot be learned at fold 0: no id could be fitted"):
        run(flat)
    assert not (tmp_path / "runs").exists()


def test_unconverged_series_are_told_in_the_manifest_and_in_the_report(tmp_path: Path) -> None:
    write_panel(tmp_path / "panel.parquet")
    frame = pl.read_parquet(tmp_path / "panel.parquet").with_columns(
        other=pl.when(unique_id="A").then(1.0).otherwise("rv")
    )
    frame.write_parquet(tmp_path / "panel.parquet")
    features = {"har": FEATURES["har"], "kalman": {"kind": "kalman", "column": "other", "refit": 4}}
    outcome = run(study(tmp_path, features=features, output={"report": "html"}))
    remarks = json.loads((outcome.directory / "manifest.json").read_text())["features"]["kalman"]["remarks"]
    assert set(remarks) == {"kalman, folds 0-3", "kalman, folds 4-7", "kalman, fold 8"}
    assert "1 of 2 ids (A); is constant" in remarks["kalman, folds 0-3"]["failed"]
    page = (outcome.directory / "report.html").read_text()
    assert "1 of 2 ids (A); is constant (1)" in page
    assert "3 fits in" in page


def test_the_shipped_study_of_states_runs_on_a_cut_of_its_data(tmp_path: Path) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "kalman_features.yaml"
    cut = {
        "data.end": "2003-06-30",
        "data.ids": "[sp500]",
        "walk_forward.train.size": 500,
        "walk_forward.test.size": 250,
        "benchmarks.lightgbm.max_rounds": 10,
        "models.lightgbm_har.max_rounds": 10,
        "execution.backend": "inline",
        "output.directory": tmp_path,
        "output.report": "none",
    }
    outcome = run(read_study(config, [f"{key}={value}" for key, value in cut.items()]))
    assert outcome.complete
    assert not outcome.failures
    facts = json.loads((outcome.directory / "manifest.json").read_text())
    assert set(facts["features"]) == {"kalman", "memory", "volatility", "regime"}
    assert "kalman" in outcome.leaderboard["model"].unique().to_list()
