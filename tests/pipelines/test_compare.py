"""Owns the promises of a comparison across runs: common rows, one target, every model under one clear name."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.compare import compare_runs, short_labels
from ssmfin_pipelines.comparison_files import comparison_facts, comparison_page

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
    left = {each.run: each for each in found.result.left_out}
    assert 0 < left["first"].left_out == left["first"].rows - found.result.rows
    assert re.match(r"at \d+ origins from 2020-", left["first"].why)
    assert (left["later"].rows, left["later"].left_out) == (found.result.rows, 0)
    assert found.result.leaderboard["n"].max() == 60  # dates 79..138 have a known outcome one day ahead
    assert found.result.leaderboard["horizon"].unique().sort().to_list() == [1, 5]
    assert f"common rows: {found.result.rows:,} on 60 dates" in found.render()
    assert str(left["first"]) in found.render().replace("\n", " ")
    assert not re.search(r"^later: \d", found.render(), flags=re.MULTILINE)  # nothing of it is left out


def test_models_that_clash_are_prefixed_and_those_that_agree_appear_once(first: Path, copied: Path) -> None:
    change(copied, pl.when(pl.col("model") == "toy").then(1.01 * pl.col("y_hat")).otherwise("y_hat").alias("y_hat"))
    found = compare_runs([first, copied]).result
    shared = {"random_walk", "har", "log_har", "ridge", "lightgbm"}
    assert set(found.leaderboard["model"]) == shared | {"first:toy", "copied:toy"}
    assert found.models["har"] == (("first", "har"), ("copied", "har"))
    assert found.models["copied:toy"] == (("copied", "toy"),)
    assert found.headline


@pytest.mark.parametrize("factor, agrees", [(1 + 1e-12, True), (1 + 1e-6, False)])
def test_models_that_differ_by_rounding_are_the_same_model(
    factor: float, agrees: bool, first: Path, copied: Path
) -> None:
    change(copied, pl.col("y_hat") * factor)
    assert ("har" in compare_runs([first, copied]).result.models) == agrees


def test_only_common_horizons_are_compared(first: Path, other: Path) -> None:
    found = compare_runs([first, other]).result
    assert set(found.leaderboard["horizon"]) == {5}
    assert {"extra", "first:toy", "other:toy", "random_walk"} <= set(found.leaderboard["model"])
    counts = found.leaderboard.group_by("loss").agg(pl.col("n").n_unique())
    assert counts["n"].to_list() == [1, 1, 1]


def test_a_run_compared_with_its_copy_tells_the_same_as_alone(first: Path, copied: Path) -> None:
    alone = pl.read_parquet(first / "leaderboard.parquet")
    assert (
        compare_runs([first, copied])
        .result.leaderboard.drop("fit_seconds", "predict_seconds")
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
    assert compare_runs([first, copied]).result.rows


def test_other_outcomes_are_refused_with_the_first_of_them(first: Path, copied: Path) -> None:
    change(copied, (pl.col("y") * (1 + 1e-6)).alias("y"))
    with pytest.raises(InputError, match=r"outcomes are not the same, the first \(A, 2020-\d\d-\d\d, horizon 1\)"):
        compare_runs([first, copied])


def test_outcomes_that_differ_by_rounding_are_accepted(first: Path, copied: Path) -> None:
    change(copied, (pl.col("y") * (1 + 1e-13)).alias("y"))
    assert compare_runs([first, copied]).result.rows


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


def test_an_unfinished_run_is_refused_with_what_to_do(first: Path, copied: Path) -> None:
    (copied / "manifest.json").unlink()
    with pytest.raises(InputError, match="its run has not ended; run its study again"):
        compare_runs([first, copied])


def test_keys_that_differ_are_told_with_the_value_of_each_run(first: Path, other: Path) -> None:
    found = compare_runs([first, other], ["base", "long"])
    told = {each.key: [each.text(label) for label in ("base", "long")] for each in found.differences}
    assert told == {
        "target.horizons": ["[1, 5]", "[5, 22]"],
        "walk_forward.train.size": ["60", "70"],
        "walk_forward.validation.size": ["15", "25"],
        "walk_forward.test.size": ["10", "20"],
        "models.toy.seeds": ["[0, 1]", "[5]"],
        "models.extra": ["-", "{kind: 'toy_models:Toy', features: null, seeds: [9], refit: null}"],
    }
    assert (found.other_data, found.other_program) == ("", "")
    text = found.render(80)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^walk_forward\.train\.size +60 +70$", text, flags=re.MULTILINE)
    assert "same data: yes\nsame program: yes\n" in text
    assert re.search(r"^toy +base +\d\.\d{3}\*?$\n^ +long +\d\.\d{3}", text, flags=re.MULTILINE)


def test_other_data_and_another_program_are_told(first: Path, copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["data"]["fingerprint"] = "0"
    manifest["environment"]["code_version"] = "0"
    manifest["environment"]["packages"]["torch"] = "0.1"
    (copied / "manifest.json").write_text(json.dumps(manifest))
    found = compare_runs([first, copied])
    assert found.other_data.startswith("values or columns differ, in the same 280 rows of 2 ids, 2020-01-01 to ")
    assert re.fullmatch(r"torch \S+ in first and 0\.1 in copied", found.other_program)
    manifest["environment"]["packages"] = json.loads((first / "manifest.json").read_text())["environment"]["packages"]
    manifest["data"]["rows"] = 1000
    (copied / "manifest.json").write_text(json.dumps(manifest))
    found = compare_runs([first, copied])
    assert found.other_program == "the code of ssmfin"
    assert re.match(r"first 280 rows of 2 ids, .*; copied 1,000 rows of 2 ids", found.other_data)
    assert "same program: no, the code of ssmfin" in found.render()


def test_a_table_too_wide_for_the_terminal_goes_on_below(folder: Path) -> None:
    target = {"horizons": [1, 2, 3, 4, 5, 6]}
    a, b = (directory_of(folder, name=f"wide-{size}", target=target, walk_forward=wide(size)) for size in (60, 70))
    found = compare_runs([a, b], ["a", "b"])
    for width in (60, 80, 120):
        lines = [line for line in found.render(width).splitlines() if str(folder) not in line]
        assert max(map(len, lines)) <= width
    assert sum(line.startswith("model  ") or line.startswith("model ") for line in found.render(60).splitlines()) > 2
    for horizon in range(1, 7):  # each once in the changes and once in the standings
        heads = [line for line in found.render(60).splitlines() if line.startswith("model ")]
        assert sum(len(re.findall(rf"\b{horizon} days?\b", line)) for line in heads) == 2


def wide(size: int) -> dict[str, Any]:
    return {"train": {"size": size}, "validation": {"size": 15}, "test": {"size": 10}}


@pytest.mark.parametrize(
    "labels, said",
    [
        (["a"], "--label is given once for 2 runs, a; give one for each run"),
        (["a", "b", "c"], "--label is given 3 times for 2 runs, a, b, c"),
        (["a", "a"], "names runs alike, a, a"),
        (["a", ""], "--label is '', no short name"),
        (["a", " b"], "--label is ' b', no short name"),
        (["a", "b:c"], "--label is 'b:c', no short name"),
        (["a", "b\n"], "no short name"),
        (["a", "b" * 25], "1 to 24 characters"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[str], said: str, first: Path, other: Path) -> None:
    with pytest.raises(InputError, match=said):
        compare_runs([first, other], labels)


@pytest.mark.parametrize(
    "names, labels",
    [
        (["vol-0123456789", "vol-0123999999"], ["01234", "01239"]),
        (["vol-0123456789", "vol-9123999999", "short-0123456789"], ["vol-0123", "vol-9123", "short"]),
        (["sp500-vol-0123456789", "sp500-vol_long-0123999999"], ["vol", "vol_long"]),
        (["one/base", "two/base"], ["base#1", "base#2"]),
        (["ä:b\n-0123456789", "c"], ["ä_b_", "c"]),
        (["a" * 40 + "-0123456789", "b"], ["a" * 24, "b"]),
        (["a" * 40 + "b-0123456789", "a" * 40 + "c-0123456789"], ["a" * 20 + "#1", "a" * 20 + "#2"]),
    ],
)
def test_runs_without_labels_get_short_distinct_ones(names: list[str], labels: list[str]) -> None:
    assert short_labels([Path(name) for name in names]) == labels


def test_the_page_and_the_json_hold_what_the_terminal_shows(first: Path, copied: Path) -> None:
    shift = pl.when(pl.col("model") == "toy").then(1.01 * pl.col("y_hat")).otherwise("y_hat")
    change(copied, shift.alias("y_hat"))
    found = compare_runs([first, copied], ["base", "<b>new"])
    page = comparison_page(found)
    assert "<b>new" not in page
    assert "&lt;b&gt;new" in page
    assert found.result.headline.split(".")[0].replace("<b>", "&lt;b&gt;") in page.replace("\xa0", " ")
    assert page.count("data:image/") >= 2 * 3  # horizons by losses
    assert "ssmfin compare" in page
    facts = json.loads(json.dumps(comparison_facts(found), allow_nan=False))
    assert facts["same_data"]
    assert [entry["label"] for entry in facts["runs"]] == ["base", "<b>new"]
    assert facts["differences"] == []
    assert {(row["model"], row["run"]) for row in facts["changes"]} == {("toy", "<b>new")}
    assert len(facts["leaderboard"]) == found.result.leaderboard.height
    assert facts["common"]["rows"] == found.result.rows


def test_one_run_or_the_same_run_twice_is_refused(first: Path) -> None:
    with pytest.raises(InputError, match="needs two runs or more, 1 given"):
        compare_runs([first])
    with pytest.raises(InputError, match="named twice"):
        compare_runs([first, first.parent / "." / first.name])
