"""Owns the promises of a run: the same bytes in every way of running, only what is missing, nothing half-written."""

from __future__ import annotations

import errno
import json
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.models.registry import BENCHMARKS
from ssmfin_pipelines import finish as finish_module
from ssmfin_pipelines import run as run_module
from ssmfin_pipelines.atomic import PREFIX, StorageError
from ssmfin_pipelines.plan import plan_study
from ssmfin_pipelines.prepare import prepare

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run, write_panel

FILES = {
    "predictions.parquet",
    "leaderboard.parquet",
    "leaderboard.csv",
    "leaderboard_by_id.parquet",
    "folds.parquet",
    "study.yaml",
    "manifest.json",
    "log.jsonl",
    "tasks",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one uninterrupted inline run; tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("reference")
    outcome = run(make_study(folder))
    assert outcome.complete
    return outcome.directory


def predictions(directory: Path) -> bytes:
    return (directory / "predictions.parquet").read_bytes()


def events(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def done_times(directory: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.glob("tasks/*/done")}


def test_a_run_leaves_the_files_of_the_contract_and_nothing_else(reference: Path) -> None:
    assert {path.name for path in reference.iterdir()} == FILES
    assert {path.name for path in (reference / "tasks").iterdir()} == set(
        json.loads((reference / "manifest.json").read_text())["tasks"]
    )
    assert reference.name.startswith("small-")


def test_every_model_forecasts_the_same_rows_sorted_and_once(reference: Path) -> None:
    frame = pl.read_parquet(reference / "predictions.parquet")
    assert frame.columns == ["unique_id", "ds", "horizon", "fold", "cutoff", "model", "seed", "y", "y_hat"]
    assert frame.equals(frame.sort("model", "seed", "unique_id", "ds", "horizon"))
    groups = frame.group_by("model", "seed")
    rows = {tuple(key): part.select("unique_id", "ds", "horizon").rows() for key, part in groups}
    assert set(rows) == {*((name, 0) for name in BENCHMARKS), ("toy", 0), ("toy", 1)}
    assert all(part == rows["har", 0] for part in rows.values())
    assert len(set(rows["har", 0])) == len(rows["har", 0]) == 2 * 2 * 81


def test_the_manifest_says_what_was_run_on_what(reference: Path) -> None:
    manifest = json.loads((reference / "manifest.json").read_text())
    assert manifest["config"]["target"]["column"] == "rv"
    assert manifest["data"]["rows"] == 280
    assert manifest["data"]["ids"] == ["A", "B"]
    assert len(manifest["data"]["fingerprint"]) == 32
    assert set(manifest["environment"]["packages"]) >= {"numpy", "polars", "torch", "ssmfin"}
    assert manifest["seeds"] == {
        "study": 3,
        "models": {**{name: [0] for name in BENCHMARKS}, "toy": [0, 1]},
    }
    assert manifest["device"] == ["cpu"]
    assert manifest["models"]["toy"]["tasks"] == 18
    assert manifest["models"]["toy"]["notes"] == {"fitted": 18}
    assert manifest["timings"]["task_seconds"] > 0
    assert manifest["verdict"]["headline"]


def test_a_second_call_answers_at_once_with_the_same_verdict(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    first = run(study)
    before = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    began = time.monotonic()
    second = run(study)
    assert time.monotonic() - began < 2.0
    assert {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")} == before
    assert (second.headline, second.paragraphs, second.done) == (first.headline, first.paragraphs, first.total)
    assert second.leaderboard.equals(first.leaderboard)


def test_inline_and_local_give_the_same_bytes_deep_models_included(tmp_path: Path) -> None:
    deep = {"kind": "s4d", "context": 16, "width": 4, "state": 4, "epochs": 2, "refit": 9}
    found = []
    for backend in ("inline", "local"):
        place = {"directory": str(tmp_path / backend), "report": "none"}
        study = make_study(tmp_path, models={"s4d": deep}, output=place, execution={"backend": backend, "workers": 2})
        found.append(run(study))
    assert [outcome.failures for outcome in found] == [[], []]
    assert found[0].directory.name == found[1].directory.name
    assert predictions(found[0].directory) == predictions(found[1].directory)
    assert "s4d" in set(found[0].leaderboard["model"])


def test_workers_refuse_to_store_under_the_keys_of_other_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "study_code", lambda study: "another")
    with pytest.raises(InputError, match="or of the study's own classes changed while the run was going"):
        run(make_study(tmp_path, execution={"backend": "local", "workers": 1}))
    assert done_times(next((tmp_path / "runs").iterdir())) == {}


def test_only_what_is_missing_is_done_again(reference: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path)
    directory = run(study).directory
    times = done_times(directory)
    lost = sorted(times)[::3]
    for key in lost:
        (directory / "tasks" / key / "done").unlink()
    damaged = sorted(times)[1]
    (directory / "tasks" / damaged / "predictions.parquet").write_bytes(b"PAR1")
    (directory / "leaderboard.csv").unlink()
    run(study)
    again = done_times(directory)
    assert {key for key in times if again[key] != times[key]} == {*lost, damaged}
    assert predictions(directory) == predictions(reference)
    assert (directory / "leaderboard.csv").exists()


def test_a_fresh_run_does_everything_again_and_ends_the_same(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    first = run(study)
    content, times = predictions(first.directory), done_times(first.directory)
    run(study, fresh=True)
    again = done_times(first.directory)
    assert set(again) == set(times)
    assert all(again[key] != times[key] for key in times)
    assert predictions(first.directory) == content


def test_shards_one_after_another_give_the_same_bytes_and_the_last_one_writes_them(
    reference: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    parts = [run(study, shard=(i, 3)) for i in (2, 3, 1)]
    assert [part.complete for part in parts] == [False, False, True]
    assert "still open" in parts[0].headline
    assert not parts[0].leaderboard.height
    assert sum(event["event"] == "task_done" for event in events(parts[0].directory)) == parts[0].total
    assert predictions(parts[2].directory) == predictions(reference)


SPREAD = ("probabilistic.parquet", "probabilistic.csv", "probabilistic_by_id.parquet")


def test_quantiles_and_events_are_stored_scored_and_the_same_after_a_resume(tmp_path: Path) -> None:
    small = {"kind": "s4d", "context": 16, "width": 4, "state": 4, "epochs": 2, "refit": 9, "seeds": [0, 1]}
    models = {
        "quantiles": {**small, "head": "quantiles", "levels": [0.1, 0.5, 0.9]},
        "spikes": {**small, "head": "event"},
        "kalman": {"kind": "kalman"},
    }
    study = make_study(tmp_path, models=models, output={"report": "html"})
    directory = run(study).directory
    frame = pl.read_parquet(directory / "predictions.parquet")
    assert frame.columns[9:] == ["q05", "q10", "q25", "q50", "q75", "q90", "q95", "event", "event_threshold"]
    told = dict(frame.group_by("model"))
    assert told[("quantiles",)]["q10"].null_count() == told[("spikes",)]["event"].null_count() == 0
    assert told[("quantiles",)]["q05"].null_count() == told[("quantiles",)].height
    assert told[("har",)].select(frame.columns[9:]).null_count().sum_horizontal()[0] == 9 * told[("har",)].height
    assert told[("kalman",)].filter(horizon=1)["q05"].null_count() == 0
    scores = pl.read_parquet(directory / SPREAD[0])
    assert {"quantiles", "spikes", "kalman"} <= set(scores["model"])
    assert "Intervals and events" in (directory / "report.html").read_text()
    manifest = json.loads((directory / "manifest.json").read_text())
    assert any(paragraph.startswith("Beyond the mean, spikes") for paragraph in manifest["verdict"]["paragraphs"])

    before = {name: (directory / name).read_bytes() for name in ("predictions.parquet", *SPREAD)}
    lost = sorted(done_times(directory))[::4]
    for key in lost:
        (directory / "tasks" / key / "done").unlink()
    (directory / SPREAD[1]).unlink()
    run(study)
    assert {name: (directory / name).read_bytes() for name in before} == before
    (directory / SPREAD[1]).unlink()
    with pytest.raises(InputError, match=r"the run lacks probabilistic\.csv"):
        finish_module.rebuild_report(directory)
    run(study)  # a file that is missing is written again
    report = (directory / "report.html").read_bytes()
    finish_module.rebuild_report(directory)
    assert (directory / "report.html").read_bytes() == report


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_a_shard_out_of_range_is_refused(shard: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shard is out of range"):
        run(make_study(tmp_path), shard=shard)


@pytest.mark.parametrize("fails", ["raise", "kill"])
def test_a_failing_task_is_recorded_the_rest_go_on_and_it_is_tried_again(
    fails: str, reference: Path, tmp_path: Path
) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    models = {"toy": {"kind": "toy_models:Toy", "seeds": [0], "fails": fails, "trouble": str(trouble)}}
    backend = "local" if fails == "kill" else "inline"
    first = run(make_study(tmp_path, models=models, execution={"backend": backend, "workers": 1}))
    assert first.complete
    assert len(first.failures) == 1
    assert first.done == first.total - len(first.failures)
    failure = first.failures[0]
    assert (failure["model"], failure["seed"], len(failure["folds"])) == ("toy", 0, 1)
    assert ("SIGKILL" if fails == "kill" else "the toy is broken") in failure["error"]
    assert ("toy_models.py" in failure["traceback"]) == (fails == "raise")
    assert set(first.leaderboard["model"]) == set(BENCHMARKS)
    times = done_times(first.directory)

    trouble.unlink()
    second = run(make_study(tmp_path, models=models))
    assert second.failures == []
    assert second.done == second.total
    assert "toy" in set(second.leaderboard["model"])
    assert {key: time for key, time in done_times(first.directory).items() if key in times} == times


def test_on_error_stop_ends_at_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / "trouble").touch()
    models = {"toy": {"kind": "toy_models:Toy", "fails": "raise", "trouble": str(tmp_path / "trouble")}}
    outcome = run(make_study(tmp_path, models=models, execution={"backend": "inline", "on_error": "stop"}))
    assert not outcome.complete
    assert len(outcome.failures) == 1
    assert outcome.headline.startswith("Stopped at the first failure (toy: ArithmeticError")
    assert not (outcome.directory / "manifest.json").exists()


@pytest.mark.parametrize("nth", [0, 1, 3, 6])
def test_a_disk_that_fills_while_results_are_written_leaves_whole_files_and_can_be_resumed(
    nth: int, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = finish_module.write_atomically, []

    def fills(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > nth:
            raise StorageError("the disk of the run is full")
        real(path, data)

    monkeypatch.setattr(finish_module, "write_atomically", fills)
    monkeypatch.setattr(finish_module, "write_manifest", lambda directory, facts: fills(directory, b""))
    study = make_study(tmp_path)
    with pytest.raises(StorageError):
        run(study)
    monkeypatch.undo()
    (directory,) = (tmp_path / "runs").iterdir()
    assert not (directory / "manifest.json").exists()
    times = done_times(directory)
    assert run(study).complete
    assert done_times(directory) == times
    assert predictions(directory) == predictions(reference)


def test_a_disk_that_is_full_in_a_worker_ends_the_run_with_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssmfin_pipelines import store as store_module

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "write_through", full)
    with pytest.raises(InputError, match="free some space"):
        run(make_study(tmp_path))
    monkeypatch.undo()
    (directory,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in directory.iterdir()} == {"tasks", "log.jsonl"}
    assert list((directory / "tasks").iterdir()) == []


def test_a_file_in_place_of_the_output_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(InputError, match="something else stands where the run should be"):
        run(make_study(tmp_path))
    assert (tmp_path / "runs").read_text() == "mine"


def test_wrong_input_leaves_no_file(tmp_path: Path) -> None:
    for changes in (
        {"walk_forward": {"train": {"size": 500}}},
        {"target": {"column": "vr", "horizons": [1]}},
        {"walk_forward": {"train": {"size": 60, "min_rows": 59}}},
    ):
        with pytest.raises(InputError):
            run(make_study(tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_cannot_score_the_target_is_refused_before_the_work(tmp_path: Path) -> None:
    write_panel(tmp_path / "panel.parquet")
    frame = pl.read_parquet(tmp_path / "panel.parquet")
    frame.with_columns(rv=pl.col("rv") - 1e-4).write_parquet(tmp_path / "panel.parquet")
    with pytest.raises(InputError, match=r"qlike, which needs a positive target.*take qlike out"):
        run(make_study(tmp_path, target={"transform": "none"}, evaluate={"reference": "har"}))
    assert not (tmp_path / "runs").exists()


def test_a_benchmark_without_meaning_for_the_target_is_left_out_by_name(tmp_path: Path) -> None:
    write_panel(tmp_path / "panel.parquet")
    frame = pl.read_parquet(tmp_path / "panel.parquet")
    frame.with_columns(rv=pl.col("rv") - 1e-4).write_parquet(tmp_path / "panel.parquet")
    evaluate = {"reference": "har", "losses": ["mse"]}
    study = make_study(tmp_path, target={"transform": "none"}, evaluate=evaluate)
    outcome = run(study)
    assert "log_har" not in set(outcome.leaderboard["model"])
    assert any(paragraph.startswith("log_har is left out: it needs a positive") for paragraph in outcome.paragraphs)
    assert run(study).paragraphs == outcome.paragraphs
    assert "left out: log_har, which needs a positive target" in plan_study(study).render()


def test_the_folder_depends_on_the_study_and_the_data_not_on_where_or_how(tmp_path: Path) -> None:
    base = prepare(make_study(tmp_path)).directory.name
    assert prepare(make_study(tmp_path, execution={"backend": "local"})).directory.name == base
    assert prepare(make_study(tmp_path, output={"directory": str(tmp_path / "x")})).directory.name == base
    assert prepare(make_study(tmp_path, seed=4)).directory.name != base
    write_panel(tmp_path / "panel.parquet", scale=2e-4)
    assert prepare(make_study(tmp_path)).directory.name != base


def test_the_report_can_be_written_again_from_the_run_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, output={"directory": str(tmp_path / "runs"), "report": "html"})
    directory = run(study).directory
    report = (directory / "report.html").read_bytes()
    (directory / "report.html").unlink()
    (tmp_path / "panel.parquet").unlink()
    assert run_module.rebuild_report(directory) == directory / "report.html"
    assert (directory / "report.html").read_bytes() == report
    assert run_module.rebuild_report(directory).read_bytes() == report


@pytest.mark.parametrize("kind", ["missing", "empty", "no_manifest", "broken", "other"])
def test_a_report_of_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if kind != "missing":
        folder.mkdir()
    if kind == "no_manifest":
        (folder / "tasks").mkdir()
    if kind in ("broken", "other"):
        (folder / "manifest.json").write_text({"broken": "{", "other": "[1]"}[kind])
    with pytest.raises(InputError, match=r"run"):
        run_module.rebuild_report(folder)


def test_nothing_temporary_stays(reference: Path) -> None:
    assert list(reference.rglob(PREFIX + "*")) == []
