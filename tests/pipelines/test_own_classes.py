"""A user's own features and models on the command line: explained, run, refused when they look ahead."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssmfin_pipelines import keys
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.prepare import prepare
from ssmfin_pipelines.study import read_study

STUDY = """\
name: small
data:
  source: {kind: csv, path: rv.csv}
target: {column: rv, horizons: [1]}
walk_forward: {train: {size: 60}, validation: {size: 10}, test: {size: 20}}
features:
  har: {kind: har_lags, windows: [1, 5]}
  mine: {kind: "own_features:Momentum", window: 3}
  scaled: {kind: "own_features:Scaled", refit: 2}
execution: {backend: inline}
output: {report: none}
"""
CLASSES = '''
import numpy as np
import polars as pl


class Momentum:
    """Sum of the logs of the last rows.

    Args:
        window: rows.
    """

    def __init__(self, column: str = "rv", window: int = 21):
        self.column, self.window = column, window

    def transform(self, X):
        return X.select(momentum=pl.col(self.column).log().rolling_sum(self.window).over("unique_id"))


class Scaled:
    def __init__(self, column=None):
        self.column = column

    def fit(self, X):
        self.mean = X[self.column].mean()

    def transform(self, X):
        return X[self.column].to_numpy() / self.mean


class Tomorrow(Momentum):
    def transform(self, X):
        return X.select(m=pl.col(self.column).shift(-1).over("unique_id"))


class Analogue:
    """The mean outcome of the k most similar days."""

    def __init__(self, k: int = 10, random_state=None):
        self.k = k

    def fit(self, X, y):
        self.X, self.y = X, y

    def predict(self, X):
        return np.full(len(X), self.y.mean())
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a study, its data and classes of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "own_features", raising=False)
    keys.external_code_version.cache_clear()
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 6, 1), eager=True)
    values = [1.0 + (index * 37 % 23) / 10 for index in range(len(days))]
    pl.DataFrame({"unique_id": ["a"] * len(days), "ds": days, "rv": values}).write_csv(tmp_path / "rv.csv")
    (tmp_path / "own_features.py").write_text(CLASSES)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def ridge_keys() -> dict[str, str]:
    study = read_study("study.yaml", allow_imports=True)
    return {item.task.model: item.key for item in prepare(study).everything}


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_own_features_reach_the_models_in_every_backend(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "study.yaml", "--allow-imports", "--set", f"execution.backend={backend}"]) == 0
    run = Path(re.search(r"^run: (.*)$", capsys.readouterr().out, flags=re.MULTILINE).group(1))  # type: ignore[union-attr]
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["features"]["scaled"]["fits"] == 3
    assert facts["config"]["features"]["mine"] == {"kind": "own_features:Momentum", "window": 3}
    assert (
        read_study(run / "study.yaml", allow_imports=True).features
        == read_study("study.yaml", allow_imports=True).features
    )
    plain = ["--set", "features.mine=null", "--set", "features.scaled=null"]
    assert main(["run", "study.yaml", *plain]) == 0
    without = Path(re.search(r"^run: (.*)$", capsys.readouterr().out, flags=re.MULTILINE).group(1))  # type: ignore[union-attr]
    ours, theirs = (
        pl.read_parquet(path / "predictions.parquet").filter(pl.col("model") == "ridge")["y_hat"]
        for path in (run, without)
    )
    assert (ours != theirs).any()


def test_the_report_says_how_to_run_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "study.yaml", "--allow-imports", "--set", "output.report=html"]) == 0
    run = Path(re.search(r"^run: (.*)$", capsys.readouterr().out, flags=re.MULTILINE).group(1))  # type: ignore[union-attr]
    assert "study.yaml --allow-imports" in (run / "report.html").read_text()


def test_keys_follow_the_source_of_own_features(folder: Path) -> None:
    before = ridge_keys()
    assert ridge_keys() == before
    (folder / "own_features.py").write_text(CLASSES.replace(".log()", ".sqrt()"))
    keys.external_code_version.cache_clear()
    after = ridge_keys()
    assert set(before) == set(after)
    assert not set(before.values()) & set(after.values())  # any feature decides which rows all models share


def test_what_sees_the_future_is_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["--allow-imports", "--set", 'features.bad={kind: "own_features:Tomorrow"}']
    for command in (["run", "study.yaml"], ["features", "study.yaml", "-o", "f.parquet"]):
        assert main([*command, *bad]) == 2
        err = capsys.readouterr().err
        assert "error: feature 'bad' sees the future, column 'm' at (a, 2020-" in err
        assert len([line for line in err.splitlines() if "error" in line]) == 1
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "own_features.py", "rv.csv", "study.yaml"
    ]  # fmt: skip


def test_a_failure_names_the_feature_and_the_line_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    bad = ["--allow-imports", "--set", 'features.bad={kind: "own_features:Momentum", column: vr}']
    for command in (["run", "study.yaml"], ["validate", "study.yaml", "--data"]):
        assert main([*command, *bad]) == 2
        err = capsys.readouterr().err
        assert "error: feature 'bad': own_features:Momentum failed in transform (own_features.py, line " in err
        assert "Traceback" not in err


def test_the_features_command_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "study.yaml", "-o", "f.parquet", "--allow-imports"]) == 0
    frame = pl.read_parquet("f.parquet")
    assert {"mine__momentum", "scaled__0", "scaled__status"} <= set(frame.columns)


@pytest.mark.parametrize(
    "entry, message",
    [
        ("{kind: 'own_features:Momentum', windw: 3}", "features.bad has no key 'windw'; did you mean 'window'?"),
        ("{kind: 'own_features:Momentum', window: five}", "features.bad.window is 'five', not a whole number; give a"),
        ("{kind: 'own_features:Momentum', window: '5'}", "features.bad.window is '5', text and not a number; remove"),
        ("{kind: 'own_features:Momentum', refit: 3}", "features.bad has no key 'refit'; known: column, window."),
        ("{kind: 'own_features:Scaled', refit: 0}", "features.bad.refit is 0; give at least 1."),
        ("{kind: 'own_features:Moment'}", "has no class 'Moment'; did you mean 'Momentum'?"),
        ("{kind: 'own_features.py:Momentum'}", "write own_features:Momentum."),
        ("{kind: 'own_features:Analogue'}", "is no feature, it has no transform; name it under models."),
    ],
)
def test_a_wrong_entry_names_key_value_and_remedy(entry: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "study.yaml", "--allow-imports", "--set", f"features.bad={entry}"]) == 2
    assert message in capsys.readouterr().err


def test_code_is_not_imported_unasked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own_features.py").write_text("raise SystemExit('imported')")
    assert main(["validate", "study.yaml"]) == 2
    assert "study.yaml, line 8: the kind 'own_features:Momentum' would import and run code" in capsys.readouterr().err


def explained(kind: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["models", f"own_features:{kind}", *options]) == 0
    return capsys.readouterr().out


def test_an_own_model_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained("Analogue", capsys)
    assert out.startswith("own_features:Analogue (class with fit and predict, own_features.py)\n")
    assert "The mean outcome of the k most similar days." in out
    assert 'models: {my_name: {kind: "own_features:Analogue", k: 10, random_state: null}}' in out
    assert re.search(r"^  k = 10 +int$", out, flags=re.MULTILINE)
    assert "(rows, features) float64" in out
    assert "its log with `transform: log`" in out
    assert "random_state is set" in out
    assert "--allow-imports" in out


def test_an_own_feature_is_explained_and_its_example_is_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained("Scaled", capsys)
    assert out.startswith("own_features:Scaled (class with transform that learns, own_features.py)\n")
    assert re.search(r"^  column = null +the target's column unless given$", out, flags=re.MULTILINE)
    assert "refit (learn at every k-th fold)" in out
    out = explained("Momentum", capsys)
    assert "    window: rows." in out
    entry = re.search(r"features: \{my_name: (.*)\}$", out, flags=re.MULTILINE).group(1)  # type: ignore[union-attr]
    assert main(["validate", "study.yaml", "--allow-imports", "--set", f"features.mine={entry}"]) == 0


def test_it_is_data_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(explained("Momentum", capsys, "--json"))
    assert (found["family"], found["learns"], found["interface"]) == ("feature", False, "class with transform")
    assert [item["name"] for item in found["parameters"]] == ["column", "window"]


@pytest.mark.parametrize(
    "kind, message",
    [
        ("own_features.Momentum", "write own_features:Momentum."),
        ("own_features.py", "write own_features:MyClass."),
        ("own_features:Moment", "did you mean 'Momentum'?"),
        ("own_feature:Momentum", "put own_feature.py into the study's folder or the current one"),
        (
            "pathlib:Path",
            "neither a model nor a feature; give it fit(X, y) and predict(X), or, as a feature, transform",
        ),
    ],
)
def test_what_cannot_be_explained_gets_a_remedy(kind: str, message: str, capsys: pytest.CaptureFixture[Any]) -> None:
    assert main(["models", kind]) == 2
    assert message in capsys.readouterr().err
