"""The keys in which studies differ are named once each, with the values as one would write them."""

from __future__ import annotations

from typing import Any

from ssmfin_pipelines.study_differences import study_differences

STUDY: dict[str, Any] = {
    "name": "one",
    "seed": 7,
    "walk_forward": {"train": {"kind": "rolling", "size": 1000}, "start": None},
    "features": {"har": {"kind": "har_lags", "windows": [1, 5, 22], "column": None, "transform": "auto"}},
    "models": {"s4d": {"kind": "s4d", "features": None, "seeds": [0], "refit": 4, "layers": 1}},
    "execution": {"workers": 1},
    "output": {"directory": "runs"},
}


def told(**changes: Any) -> dict[str, list[str]]:
    found = study_differences({"a": STUDY, "b": {**STUDY, **changes}})
    return {each.key: [each.text("a"), each.text("b")] for each in found}


def test_what_cannot_change_a_forecast_is_no_difference() -> None:
    assert told(name="two", execution={"workers": 8}, output={"directory": "elsewhere", "report": "none"}) == {}


def test_single_values_are_found_at_any_depth() -> None:
    walk_forward = {"train": {"kind": "rolling", "size": 750}, "start": "2004-01-01"}
    assert told(seed=8, walk_forward=walk_forward) == {
        "seed": ["7", "8"],
        "walk_forward.train.size": ["1000", "750"],
        "walk_forward.start": ["null", "'2004-01-01'"],
    }


def test_a_model_of_another_kind_is_one_difference_without_its_defaults() -> None:
    models = {"s4d": {"kind": "mamba", "features": None, "seeds": [0, 1], "refit": None, "layers": 2, "dropout": 0.1}}
    assert told(models=models) == {
        "models.s4d": ["{kind: s4d, seeds: [0], refit: 4, layers: 1}", "{kind: mamba, seeds: [0, 1]}"]
    }


def test_what_one_run_lacks_is_a_dash_and_null_is_not() -> None:
    ewma = {"kind": "ewma", "column": None, "centres_of_mass": [1.0, 5.0, 25.0, 125.0], "squared": True}
    found = told(features={**STUDY["features"], "ewma": ewma}, models={})
    assert found["features.ewma"] == ["-", "{kind: ewma, squared: true}"]
    assert found["models.s4d"][1] == "-"


def test_three_runs_are_one_line_for_each_key() -> None:
    studies = {
        "a": STUDY,
        "b": {**STUDY, "seed": 8},
        "c": {key: value for key, value in STUDY.items() if key != "seed"},
    }
    (only,) = study_differences(studies)
    assert [only.text(label) for label in "abc"] == ["7", "8", "-"]


def test_a_key_that_an_older_version_did_not_know_differs_only_from_its_default() -> None:
    def later(**more: Any) -> dict[str, list[str]]:
        return told(models={"s4d": {**STUDY["models"]["s4d"], **more}})

    assert later(dropout=0.1, features=None) == {}
    assert later(dropout=0.2) == {"models.s4d.dropout": ["-", "0.2"]}
    assert told(evaluate={"cross_section": None}, data={}) == {
        "evaluate": ["-", "{cross_section: null}"],
        "data": ["-", "{}"],
    }
    assert told(walk_forward={**STUDY["walk_forward"], "refit": None}) == {}
    assert told(walk_forward={**STUDY["walk_forward"], "refit": 1}) == {"walk_forward.refit": ["-", "1"]}


def test_kinds_that_are_unknown_here_keep_all_parameters() -> None:
    own = {"mine": {"kind": "my_model:Mine", "k": 3, "features": None}}
    assert told(models={**STUDY["models"], **own})["models.mine"][1] == "{kind: 'my_model:Mine', k: 3, features: null}"
