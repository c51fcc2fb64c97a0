"""The study: defaults, benchmarks that cannot be removed, and a resolved form that reads back as the same study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssmfin.errors import InputError
from ssmfin.models.registry import BENCHMARKS
from ssmfin_pipelines.study import Study, read_study, study_from

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"source": {"kind": "arch", "series": ["sp500"]}, "measures": {"kind": "range"}, "end": "2005-12-31"},
    "target": {"column": "parkinson"},
}
FULL: dict[str, Any] = {
    "name": "full",
    "seed": 3,
    "data": {
        "source": {"kind": "csv", "path": "a/*.csv", "delimiter": ";", "decimal": ","},
        "columns": {"unique_id": "symbol", "ds": "date"},
        "ids": ["NO", "000001"],
        "start": "2001-01-01",
        "closes": {"time": "16:00", "zone": "America/New_York"},
        "exogenous": [{"name": "vix", "source": {"kind": "arch", "series": ["vix"]}, "known_at": "same_day"}],
        "on_breach": "drop",
    },
    "target": {"column": "1e-3", "transform": "none", "horizons": [2, 10], "aggregate": "sum"},
    "walk_forward": {
        "train": {"kind": "expanding", "size": 300, "min_rows": 100},
        "validation": {"size": 60},
        "test": {"size": 21},
        "embargo": 2,
        "refit": 3,
        "start": "2003-06-01",
    },
    "features": {
        "har": {"kind": "har_lags", "windows": [1, 10]},
        "vix": {"kind": "columns", "columns": ["vix__close"]},
    },
    "models": {"s4d": {"kind": "s4d", "features": ["har"], "seeds": [4, 2], "context": 32, "refit": 2}},
    "benchmarks": {"lightgbm": {"num_leaves": 7}, "slow": {"kind": "ewma", "decay": 0.99}, "garch": None},
    "evaluate": {"losses": ["mae"], "reference": "slow", "mcs_size": 0.25},
    "execution": {"backend": "inline", "workers": 3, "on_error": "stop"},
    "output": {"directory": "out", "report": "none"},
}


@pytest.mark.parametrize("values", [SMALL, FULL], ids=["small", "full"])
def test_the_resolved_study_reads_back_as_the_same_study(values: dict[str, Any], tmp_path: Path) -> None:
    study = study_from(values)
    assert study_from(study.resolved()) == study
    path = tmp_path / "study.yaml"
    path.write_text(study.to_yaml(), encoding="utf-8")
    again = read_study(path)
    assert again == study
    assert again.to_yaml() == study.to_yaml()


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_resolve_to_themselves(config: Path) -> None:
    study = read_study(config)
    assert study_from(study.resolved()) == study


def test_what_was_given_is_kept() -> None:
    study = study_from(FULL)
    resolved = study.resolved()

    def contained(given: Any, found: Any, place: str) -> None:
        if isinstance(given, dict):
            for key, value in given.items():
                contained(value, found[key], f"{place}.{key}")
        elif isinstance(given, list) and given and isinstance(given[0], dict):
            for index, value in enumerate(given):
                contained(value, found[index], f"{place}[{index}]")
        elif place.endswith((".path", ".garch")):
            assert found
        elif place.endswith(".time"):
            assert found.startswith(given)
        else:
            assert found == given, place

    contained(FULL, resolved, "study")


def test_defaults_are_filled_in_down_to_the_parameters_of_models() -> None:
    resolved = study_from(SMALL).resolved()
    assert resolved["walk_forward"]["train"] == {"kind": "rolling", "size": 1000, "min_rows": None}
    assert resolved["benchmarks"]["lightgbm"]["num_leaves"] == 15
    assert resolved["features"]["har"]["windows"] == [1, 5, 22]
    assert "horizons" not in resolved["walk_forward"]


@pytest.mark.parametrize("benchmarks", [None, {}, {"ewma": {}}, {"lightgbm": {"num_leaves": 3}}, {"har": None}])
def test_every_benchmark_is_always_there(benchmarks: dict[str, Any] | None) -> None:
    study = study_from({**SMALL, "benchmarks": benchmarks})
    assert tuple(study.benchmarks)[: len(BENCHMARKS)] == BENCHMARKS
    assert all(study.benchmarks[name].kind == name for name in BENCHMARKS)
    assert set(benchmarks or {}) <= set(study.benchmarks)


def test_a_section_that_is_commented_out_is_left_out() -> None:
    empty = dict.fromkeys(("walk_forward", "models", "evaluate", "execution", "output", "benchmarks"))
    assert study_from({**SMALL, **empty}) == study_from(SMALL)
    with pytest.raises(InputError, match="features is empty"):
        study_from({**SMALL, "features": None})
    assert study_from({**SMALL, "features": {}}).features == {}


def test_a_study_cannot_be_changed() -> None:
    study = study_from(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        study.seed = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        study.target.column = "x"  # type: ignore[misc]


def test_every_setting_has_a_description() -> None:
    def sections(cls: type[Any]) -> list[type[Any]]:
        return [
            cls,
            *(info.annotation for info in cls.model_fields.values() if hasattr(info.annotation, "model_fields")),
        ]

    for section in sections(Study):
        if section.__module__.startswith("ssmfin_pipelines"):
            for name, info in section.model_fields.items():
                assert info.description, f"{section.__name__}.{name}"


def test_the_experiment_is_what_the_study_says() -> None:
    values = {
        **SMALL,
        "seed": 5,
        "target": {"column": "parkinson", "horizons": [1, 5], "aggregate": "sum"},
        "walk_forward": {"train": {"size": 800}, "refit": 2},
        "models": {"deep": {"kind": "s4d", "features": ["har"], "seeds": [3, 1], "context": 16, "refit": 6}},
    }
    study = study_from(values)
    panel = study.load()
    experiment = study.experiment(panel)
    assert experiment.panel is panel
    assert experiment.seed == 5
    assert (experiment.target.column, experiment.target.horizons, experiment.target.aggregate) == (
        "parkinson",
        (1, 5),
        "sum",
    )
    assert list(experiment.models) == [*BENCHMARKS, "deep"]
    entry = experiment.models["deep"]
    assert (entry.features, entry.seeds, entry.refit) == (("har",), (3, 1), 6)
    assert (entry.forecaster.kind, entry.forecaster.context) == ("s4d", 16)  # type: ignore[attr-defined]
    assert experiment.refit("har") == 2
    tasks = experiment.tasks()
    assert {task.seed for task in tasks if task.model == "deep"} == {1, 3}


def test_windows_that_cannot_hold_a_label_are_refused() -> None:
    with pytest.raises(InputError, match=r"validation\.size is 30, too short for horizon 30"):
        study_from({**SMALL, "target": {"column": "parkinson", "horizons": [30]}, "walk_forward": {"validation": 30}})
