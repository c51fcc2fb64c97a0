"""Owns the promises of a comparison across runs: common rows, one target, every model under one clear name."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.compare import compare_runs

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run, write_panel


def directory_of(folder: Path, **changes: Any) -> Path:
    return run(make_study(folder, **changes)).directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    return directory_of(folder, name="first")


@pytest.fixture(scope="module")
def other(folder: Path) -> Path:
    """Other windows, another horizon, another toy."""
    models = {"toy": {"kind": "toy_models:Toy", "seeds": [5]}, "extra": {"kind": "toy_models:Toy", "seeds": [9]}}
    walk_forward = {"train": {"size": 70}, "validation": {"size": 25}, "test": {"size": 20}}
    target = {"horizons": [5, 22]}
    return directory_of(folder, name="other", models=models, walk_forward=walk_forward, target=target)


@pytest.fixture
def copied(first: Path, tmp_path: Path) -> Path:
    """The first run under another name and place, to be changed."""
    target = tmp_path / "copied"
    shutil.copytree(first, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["name"] = "copied"
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def change(directory: Path, expression: pl.Expr) -> None:
    path = directory / "predictions.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(expression).write_parquet(path)


def test_runs_are_compared_on_their_common_rows_only(folder: Path, tmp_path: Path) -> None:
    walk_forward = {"train": {"size": 80}, "validation": {"size": 15}, "test": {"size": 10}}
    a = directory_of(folder, name="first")
    b = directory_of(folder, name="later", walk_forward=walk_forward)
    found = compare_runs([a, b])
    assert found.rows < found.rows_of["first"]
    assert found.rows == found.rows_of["later"]
    assert found.leaderboard["n"].max() == 60  # dates 79..138 have a known outcome one day ahead
    assert found.leaderboard["horizon"].unique().sort().to_list() == [1, 5]


def test_models_that_clash_are_prefixed_and_those_that_agree_appear_once(first: Path, copied: Path) -> None:
    change(copied, pl.when(pl.col("model") == "toy").then(1.01 * pl.col("y_hat")).otherwise("y_hat").alias("y_hat"))
    found = compare_runs([first, copied])
    shared = {"random_walk", "har", "log_har", "ridge", "lightgbm"}
    assert set(found.leaderboard["model"]) == shared | {"first:toy", "copied:toy"}
    assert found.models["har"] == (("first", "har"), ("copied", "har"))
    assert found.models["copied:toy"] == (("copied", "toy"),)
    assert found.headline
    assert "common rows" in found.render()


@pytest.mark.parametrize("factor, agrees", [(1 + 1e-12, True), (1 + 1e-6, False)])
def test_models_that_differ_by_rounding_are_the_same_model(
    factor: float, agrees: bool, first: Path, copied: Path
) -> None:
    change(copied, pl.col("y_hat") * factor)
    assert ("har" in compare_runs([first, copied]).models) == agrees


def test_only_common_horizons_are_compared(first: Path, other: Path) -> None:
    found = compare_runs([first, other])
    assert set(found.leaderboard["horizon"]) == {5}
    assert {"extra", "first:toy", "other:toy", "random_walk"} <= set(found.leaderboard["model"])
    counts = found.leaderboard.group_by("loss").agg(pl.col("n").n_unique())
    assert counts["n"].to_list() == [1, 1, 1]


def test_a_run_compared_with_its_copy_tells_the_same_as_alone(first: Path, copied: Path) -> None:
    alone = pl.read_parquet(first / "leaderboard.parquet")
    assert (
        compare_runs([first, copied])
        .leaderboard.drop("fit_seconds", "predict_seconds")
        .equals(alone.drop("fit_seconds", "predict_seconds"))
    )


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("column", "vol", r"target.column is 'rv' in first and 'vol' in copied"),
        ("aggregate", "sum", r"target.aggregate is 'mean' in first and 'sum' in copied"),
        ("horizons", [2, 3], r"target.horizons are \[1, 5\] in first and \[2, 3\] in copied, with none in common"),
    ],
)
def test_other_targets_are_refused_with_the_difference(
    key: str, value: object, said: str, first: Path, copied: Path
) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["config"]["target"][key] = value
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=said):
        compare_runs([first, copied])


def test_another_transform_is_no_other_target(first: Path, copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["config"]["target"]["transform"] = "none"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert compare_runs([first, copied]).rows


def test_other_outcomes_are_refused_with_the_first_of_them(first: Path, copied: Path) -> None:
    change(copied, (pl.col("y") * (1 + 1e-6)).alias("y"))
    with pytest.raises(InputError, match=r"outcomes are not the same, the first \(A, 2020-\d\d-\d\d, horizon 1\)"):
        compare_runs([first, copied])


def test_outcomes_that_differ_by_rounding_are_accepted(first: Path, copied: Path) -> None:
    change(copied, (pl.col("y") * (1 + 1e-13)).alias("y"))
    assert compare_runs([first, copied]).rows


def test_runs_without_a_common_row_are_refused(first: Path, tmp_path: Path) -> None:
    write_panel(tmp_path / "panel.parquet", ids=("C",))
    with pytest.raises(InputError, match=r"no row .* in common, first: 2 ids, .*; elsewhere: 1 ids"):
        compare_runs([first, directory_of(tmp_path, name="elsewhere")])


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "truncated"])
def test_what_is_not_a_run_is_refused(kind: str, first: Path, copied: Path, tmp_path: Path) -> None:
    path = tmp_path / "not-a-run"
    if kind == "file":
        path.write_text("x")
    elif kind == "empty":
        path.mkdir()
    elif kind == "truncated":
        (copied / "predictions.parquet").write_bytes(b"PAR1")
        path = copied
    with pytest.raises(InputError, match=str(path.name)):
        compare_runs([first, path])


def test_one_run_or_the_same_run_twice_is_refused(first: Path) -> None:
    with pytest.raises(InputError, match="needs two runs or more, 1 given"):
        compare_runs([first])
    with pytest.raises(InputError, match="named twice"):
        compare_runs([first, first.parent / "." / first.name])
