"""Owns the promises of a study made ready: what its tasks are called and expected to take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssmfin.evaluation.learning import LearnTask
from ssmfin_pipelines.prepare import label_of, learned_seconds, prepare

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run


def test_estimates_follow_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMFIN_TOY_PAUSE", "0.15")
    study = make_study(tmp_path, models={"toy": {"kind": "toy_models:Toy"}})
    run(study, shard=(1, 2))
    prepared = prepare(study)
    toys = [item for item in prepared.items if item.task.model == "toy"]
    seconds = learned_seconds(prepared)
    assert all(0.15 <= seconds[item.key] < 0.5 for item in toys)
    assert all(item.seconds == pytest.approx(0.1) for item in toys)  # the class's guess for two ids


def test_a_learning_is_named_in_words() -> None:
    assert label_of(LearnTask("kalman", 2, (4, 5), 1.0, False)) == "feature kalman, folds 4-5"
