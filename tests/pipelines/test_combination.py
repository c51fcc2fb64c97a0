"""A combination in a run: it reads what its members have left, in every way of running, and follows their changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.models.registry import BENCHMARKS
from ssmfin_pipelines.plan import plan_study
from ssmfin_pipelines.prepare import prepare

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run

ROLLING = {"kind": "combination", "members": ["toy", "ridge", "log_har"], "weights": "rolling", "min_periods": 20}
TOY = {"kind": "toy_models:Toy", "seeds": [0, 1]}


def study(folder: Path, **changes):
    return make_study(folder, **{"models": {"average": ROLLING, "toy": TOY}, **changes})  # before its member on purpose


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome = run(study(tmp_path_factory.mktemp("reference")))
    assert outcome.complete
    assert outcome.failures == []
    return outcome.directory


def table(directory: Path, name: str = "predictions") -> bytes:
    return (directory / f"{name}.parquet").read_bytes()


def done_times(directory: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in directory.glob("tasks/*/done")}


def test_its_forecasts_are_the_weighted_means_of_its_members_seeds_averaged_first(reference: Path) -> None:
    frame, weights = pl.read_parquet(reference / "predictions.parquet"), pl.read_parquet(reference / "weights.parquet")
    assert set(frame["model"]) == {*BENCHMARKS, "toy", "average"}  # the members stay
    keys = ["unique_id", "ds", "horizon"]
    means = frame.group_by(*keys, "model").agg(pl.col("y_hat").mean())
    both = means.join(weights.drop("model").rename({"member": "model"}), on=["ds", "horizon", "model"])
    made = both.group_by(keys).agg((pl.col("weight") * pl.col("y_hat").log()).sum().exp().alias("made"), pl.len())
    own = frame.filter(model="average").join(made, on=keys)
    assert own.height == frame.filter(model="har").height
    assert own["len"].unique().to_list() == [3]
    np.testing.assert_allclose(own["y_hat"], own["made"], rtol=1e-12)
    assert weights.columns == ["model", "unique_id", "ds", "horizon", "member", "weight", "learned"]
    learned = weights.group_by("ds", "horizon").agg(
        pl.col("learned").first(), pl.col("weight").sum(), pl.col("weight").std().alias("spread")
    )
    np.testing.assert_allclose(learned["weight"], 1.0, rtol=1e-12)
    assert learned.filter("learned")["spread"].min() > 0
    assert learned.filter(~pl.col("learned"))["spread"].max() < 1e-15
    assert 0.3 < learned["learned"].mean() < 0.9


@pytest.mark.parametrize("way", ["local", "shards", "killed before the end"])
def test_every_way_of_running_ends_with_the_same_bytes(way: str, reference: Path, tmp_path: Path) -> None:
    if way == "local":
        outcome = run(study(tmp_path, execution={"backend": "local", "workers": 2}))
    elif way == "shards":
        parts = [run(study(tmp_path), shard=(i, 3)) for i in (2, 3, 1)]
        assert [part.complete for part in parts] == [False, False, True]
        outcome = parts[-1]
    else:
        outcome = run(study(tmp_path))
        times = done_times(outcome.directory)
        prepared = prepare(study(tmp_path))
        (average,) = (item.key for item in prepared.combinations)
        lost = [average, prepared.items[0].key]
        for key in lost:
            (outcome.directory / "tasks" / key / "done").unlink()
        outcome = run(study(tmp_path))
        again = done_times(outcome.directory)
        assert {key for key in times if times[key] != again[key]} == set(lost)
    assert outcome.failures == []
    for name in ("predictions", "weights"):
        assert table(outcome.directory, name) == table(reference, name)


def test_a_changed_member_changes_it_and_a_model_that_is_none_does_not(tmp_path: Path) -> None:
    def key(**changes):
        (item,) = prepare(study(tmp_path, **changes)).combinations
        return item.key

    base = key()
    assert key(models={"toy": {**TOY, "seeds": [0, 2]}, "average": ROLLING}) != base
    assert key(benchmarks={"ridge": {"penalties": [0.01]}}) != base
    assert key(models={"toy": TOY, "average": {**ROLLING, "shrink": 0.1}}) != base
    assert key(benchmarks={"lightgbm": {"max_rounds": 6, "min_child_samples": 5}}) == base


def test_with_a_failed_member_it_fails_by_name_and_is_done_once_the_member_is(tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    broken = {**TOY, "fails": "raise", "trouble": str(trouble)}
    models = {"average": ROLLING, "toy": broken}
    first = run(study(tmp_path, models=models))
    assert first.complete
    assert {failure["model"] for failure in first.failures} == {"toy", "average"}
    (failure,) = (failure for failure in first.failures if failure["model"] == "average")
    assert "combination 'average' needs all forecasts of 'toy'" in failure["error"]
    assert "average" not in set(first.leaderboard["model"])
    assert not (first.directory / "weights.parquet").exists()
    trouble.unlink()
    second = run(study(tmp_path, models=models))
    assert second.failures == []
    assert "average" in set(second.leaderboard["model"])
    assert (second.directory / "weights.parquet").exists()


def test_the_plan_and_the_manifest_say_what_it_is(reference: Path, tmp_path: Path) -> None:
    row = plan_study(study(tmp_path)).models.row(by_predicate=pl.col("model") == "average", named=True)
    assert (row["family"], row["features"], row["tasks"], row["fits"]) == ("combination", "toy, ridge, log_har", 1, 0)
    from ssmfin_pipelines.manifest import read_manifest

    facts = read_manifest(reference)["models"]
    assert facts["average"]["members"] == ["toy", "ridge", "log_har"]
    assert "log_har 0." in facts["average"]["notes"]["mean weights at horizon 5"]
    assert facts["ridge"]["members"] == []


@pytest.mark.parametrize(
    "entry, message",
    [
        (
            {"members": ["toy", "rige"]},
            r"average.members names 'rige', not a model of this study; did you mean 'ridge'",
        ),
        ({"members": ["ridge"]}, "members"),
        ({"members": ["ridge", "ridge"]}, "'ridge' is named twice"),
        ({"members": ["ridge", "average"]}, "the combination itself"),
        ({"members": ["ridge", "other"]}, "names 'other', a combination itself"),
        ({"members": ["ridge", "har"], "refit": 2}, "refit says nothing to a combination"),
        ({"members": ["ridge", "har"], "features": ["har"]}, "features says nothing to a combination"),
        ({"members": ["ridge", "har"], "seeds": [0, 1]}, "combination has no randomness"),
    ],
)
def test_a_combination_that_cannot_be_is_refused(entry: dict, message: str, tmp_path: Path) -> None:
    other = {"kind": "combination", "members": ["har", "ridge"]}
    with pytest.raises(InputError, match=message):
        study(tmp_path, models={"average": {"kind": "combination", **entry}, "other": other, "toy": TOY})


def test_a_target_that_is_not_positive_has_no_geometric_mean_and_no_log_har(tmp_path: Path) -> None:
    study(tmp_path)
    frame = pl.read_parquet(tmp_path / "panel.parquet")
    frame.with_columns(rv=pl.col("rv") - 1e-4).write_parquet(tmp_path / "panel.parquet")
    about = {"target": {"transform": "none"}, "evaluate": {"reference": "har", "losses": ["mse"]}}
    for entry, message in (
        (ROLLING, "names 'log_har', which needs a positive target"),
        ({**ROLLING, "members": ["har", "ridge"], "mean": "geometric"}, "mean is geometric, but the least rv is -"),
        ({**ROLLING, "members": ["har", "ridge"], "loss": "qlike"}, "loss is qlike, but the least rv is -"),
    ):
        with pytest.raises(InputError, match=message):
            run(study(tmp_path, models={"average": entry}, **about))
    outcome = run(study(tmp_path, models={"average": {**ROLLING, "members": ["har", "ridge"]}}, **about))
    assert outcome.failures == []
    assert "average" in set(outcome.leaderboard["model"])
