"""A study whose quantiles learn from matured outcomes: what is written, what the tasks keep, what the report says."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from ssmfin.evaluation.columns import merged
from ssmfin.evaluation.judging import issued

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run

NET = {"kind": "s4d", "layers": 1, "width": 4, "segment": 64, "context": 16, "epochs": 1, "device": "cpu"}
MODELS = {"net": {**NET, "head": "quantiles"}}


def test_what_is_written_has_learned_and_what_the_tasks_keep_has_not(tmp_path: Path) -> None:
    plain = make_study(tmp_path, models=MODELS)
    learning = make_study(tmp_path, models=MODELS, evaluate={"recalibrate": {"rate": 0.2}})
    first, second = run(plain), run(learning)
    assert first.directory != second.directory
    raw = merged([pl.read_parquet(file) for file in sorted(second.directory.glob("tasks/*/predictions.parquet"))])
    assert raw.equals(pl.read_parquet(first.directory / "predictions.parquet"))
    written = pl.read_parquet(second.directory / "predictions.parquet")
    experiment = learning.experiment(learning.load())
    assert written.equals(issued(experiment, raw, learning.evaluate.scoring()))
    assert not written.equals(raw)
    assert "learned from the outcomes known at each origin" in second.render()
    assert "learned from the outcomes" not in first.render()


def test_without_settings_the_usual_ones_hold(tmp_path: Path) -> None:
    scoring = make_study(tmp_path, models=MODELS, evaluate={"recalibrate": {}}).evaluate.scoring()
    assert (scoring.recalibrate.rate, scoring.recalibrate.bound) == (0.05, 1.0)
    assert make_study(tmp_path, models=MODELS).evaluate.scoring().recalibrate is None
