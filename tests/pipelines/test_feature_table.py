"""The table of features: one row per id, date and fold, each what was known then, ready to join."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.features.kalman import KalmanFeatures
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.feature_table import feature_table
from ssmfin_pipelines.prepare import prepare
from ssmfin_pipelines.study import study_from

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import run, study_values, write_panel

FEATURES = {"har": {"kind": "har_lags"}, "kalman": {"kind": "kalman", "emit": ["level"], "refit": 2}}


def study(folder: Path, **changes: Any) -> Any:
    if not (folder / "panel.parquet").exists():
        write_panel(folder / "panel.parquet")
    return study_from({**study_values(folder, **changes), "models": {}, "features": changes.get("features", FEATURES)})


def test_rows_are_those_of_the_test_spans_as_learned_at_each_cutoff(tmp_path: Path) -> None:
    some = study(tmp_path)
    frame = feature_table(some).frame
    prepared = prepare(some)
    panel, folds = prepared.panel, prepared.experiment.folds
    assert frame.columns == [
        *("unique_id", "ds", "fold", "cutoff"),
        *("har__lag_1", "har__lag_5", "har__lag_22", "kalman__level", "kalman__status"),
    ]
    assert not frame.select("unique_id", "ds").is_duplicated().any()
    for fold in folds:
        first = folds[fold.number - fold.number % 2]
        window = panel.frame.filter(
            pl.col("ds").is_between(*(panel.dates[i].astype(object) for i in (first.train_start, first.cutoff)))
        )
        level = KalmanFeatures(column="rv", scale="log", emit=["level"]).fit(window).transform(panel)
        own = frame.filter(fold=fold.number)
        assert own["cutoff"].unique().to_list() == [panel.dates[fold.cutoff].astype(object)]
        assert own["ds"].min() == own["cutoff"][0]
        expected = own.select("unique_id", "ds").join(level, on=["unique_id", "ds"], maintain_order="left")
        np.testing.assert_array_equal(own["kalman__level"].to_numpy(), expected["level"].to_numpy())
    assert set(frame["kalman__status"]) == {"converged"}


def test_windows_hold_the_training_rows_of_every_fold_too(tmp_path: Path) -> None:
    some = study(tmp_path)
    short, wide = feature_table(some).frame, feature_table(some, windows=True).frame
    assert not wide.select("unique_id", "ds", "fold").is_duplicated().any()
    assert wide.join(short, on=["unique_id", "ds", "fold"], how="semi").equals(short)
    train = wide.filter(pl.col("ds") < pl.col("cutoff"))
    assert (train.group_by("fold").agg(pl.col("ds").n_unique())["ds"] == 59).all()  # and the cutoff itself


def test_a_study_in_which_nothing_learns_keeps_every_row(tmp_path: Path) -> None:
    some = study(tmp_path, features={"har": FEATURES["har"]})
    frame = feature_table(some).frame
    panel = some.load()
    assert frame.select("unique_id", "ds").equals(panel.frame.select("unique_id", "ds"))
    first = prepare(some).experiment.folds[0].cutoff
    before = frame.filter(pl.col("fold").is_null())
    assert before["ds"].max() == panel.dates[first - 1].astype(object)


def test_what_a_run_has_learned_is_not_learned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = study(tmp_path)
    alone = feature_table(some).frame
    run(some)
    fits = []
    learn = KalmanFeatures._learn
    monkeypatch.setattr(KalmanFeatures, "_learn", lambda *args: (fits.append(1), learn(*args))[1])
    assert feature_table(some).frame.equals(alone)
    assert len(fits) == 2  # the leak canary's own


def test_no_model_and_no_target_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_panel(tmp_path / "panel.parquet")
    text = """
name: columns-only
data: {source: {kind: parquet, path: panel.parquet}}
walk_forward: {train: {size: 60}, validation: {size: 15}, test: {size: 10}}
features:
  kalman: {kind: kalman, column: rv, transform: log, emit: [level, innovation]}
"""
    file = tmp_path / "study.yaml"
    file.write_text(text)
    out = tmp_path / "f.parquet"
    assert main(["features", str(file), "-o", str(out)]) == 0
    assert "2 features (kalman__level, kalman__innovation)" in capsys.readouterr().out
    frame = pl.read_parquet(out)
    assert frame["kalman__level"].is_finite().all()
    assert main(["features", str(file), "-o", str(out), "--force", "--windows"]) == 0
    assert pl.read_parquet(out).height > 3 * frame.height
    file.write_text(text.replace("column: rv, ", ""))
    assert main(["features", str(file), "-o", str(out), "--force"]) == 2
    assert "feature 'kalman' takes the target's column and the study has no target" in capsys.readouterr().err
    assert main(["validate", str(file)]) == 2  # anything else does need one
    assert "target" in capsys.readouterr().err


def test_series_that_were_not_fitted_are_flagged_in_the_table_and_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_panel(tmp_path / "panel.parquet")
    frame = pl.read_parquet(tmp_path / "panel.parquet")
    flat = frame.with_columns(other=pl.when(unique_id="A").then(1.0).otherwise("rv"))
    flat.write_parquet(tmp_path / "panel.parquet")
    table = feature_table(study(tmp_path, features={"kalman": {"kind": "kalman", "column": "other"}}))
    status = dict(table.frame.group_by("unique_id").agg(pl.col("kalman__status").first()).iter_rows())
    assert status == {"A": "failed", "B": "converged"}
    assert table.remarks[0].startswith("feature 'kalman', fold 0")
    assert "1 of 2 ids (A)" in table.remarks[0]


def test_a_feature_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks the column rvv \(features.kalman.column; did you mean 'rv'"):
        feature_table(study(tmp_path, features={"kalman": {"kind": "kalman", "column": "rvv"}}))
