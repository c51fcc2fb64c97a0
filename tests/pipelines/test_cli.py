"""The command line: quick to answer, results alone on standard output, and the right exit code."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ssmfin import __version__
from ssmfin.errors import InputError
from ssmfin_pipelines import cli
from ssmfin_pipelines import run as run_module
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.commands import run as run_command
from ssmfin_pipelines.study import read_study

HEAVY = ("torch", "pandas", "polars", "lightgbm", "statsmodels", "sklearn", "scipy", "matplotlib", "arch", "numpy")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDY = """\
name: small
data:
  source: {kind: csv, path: rv.csv}
target: {column: rv, horizons: [1]}
walk_forward: {train: {size: 60}, validation: {size: 10}, test: {size: 20}}
execution: {backend: inline}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a study and its data."""
    monkeypatch.chdir(tmp_path)
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 6, 1), eager=True)
    values = [1.0 + (index * 37 % 23) / 10 for index in range(len(days))]
    pl.DataFrame({"unique_id": ["a"] * len(days), "ds": days, "rv": values}).write_csv(tmp_path / "rv.csv")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def in_a_process(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=cwd, check=False)


LOADED = """
import sys
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.commands import run as run_command
code = main(sys.argv[1:])
print("LOADED", *sorted(set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def modules_after(*arguments: str, cwd: Path | None = None) -> set[str]:
    done = in_a_process(LOADED, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.partition("LOADED ")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["init", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not modules_after(*arguments) & set(HEAVY)


def test_validate_imports_no_model_library(folder: Path) -> None:
    loaded = modules_after("validate", "study.yaml", cwd=folder)
    assert not loaded & {"torch", "lightgbm", "statsmodels", "sklearn", "scipy", "matplotlib", "arch", "pandas"}


def test_help_and_validate_are_quick(folder: Path) -> None:
    """Processor time of the faster of two: wall clock would measure what else the machine does."""
    code = "import sys, time; from ssmfin_pipelines.cli import main; main(sys.argv[1:]); "
    code += "print(time.process_time(), file=sys.stderr)"

    def seconds(*arguments: str) -> float:
        return min(float(in_a_process(code, *arguments, cwd=folder).stderr.split()[-1]) for _ in range(2))

    assert seconds("--help") < 0.5
    assert seconds("validate", "study.yaml") < 1.0


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssmfin {__version__}\n"


def test_every_command_is_listed_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for command in ("run", "plan", "validate", "features", "compare", "report", "schema", "models", "init", "doctor"):
        assert re.search(rf"^  {command} ", listed, flags=re.MULTILINE)
        assert main([command, "--help"]) == 0
        assert "Usage: ssmfin " + command in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "--nonsense"], ["validate", "a", "b"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: ssmfin" in err


def test_validate_says_so_and_shows_the_resolved_study(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "study.yaml"]) == 0
    assert capsys.readouterr().out == (
        "study.yaml is valid: 5 models (5 benchmarks), 1 feature.\n"
        "the data were not looked at, only the study itself: keys, values, names; add --data to load them.\n"
    )
    assert main(["validate", "study.yaml", "--show", "--set", "seed=11"]) == 0
    (folder / "resolved.yaml").write_text(capsys.readouterr().out)
    assert read_study("resolved.yaml") == read_study("study.yaml", ["seed=11"])


def test_validate_names_data_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "study.yaml", "--set", "data.source.path=vr.csv"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("the data were not looked at")
    assert out[2] == f"warning: vr.csv does not exist in {str(folder)!r}; check the name."


def test_validate_with_data_says_what_it_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "study.yaml", "--data"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "study.yaml is valid: 5 models (5 benchmarks), 1 feature.",
        "data: 153 rows, 1 id, 153 dates from 2020-01-01 to 2020-06-01; each id and date once and in order, numbers "
        "finite, rv positive in every row.",
        "features: har (3 columns); none moved up to 2020-04-09 when all values after it were changed.",
        "folds: 5, 94 origins to forecast from, 470 forecasts in 5 tasks.",
        "warning: walk_forward leaves 5 folds and 94 origins to forecast from, few to compare models on; use a smaller "
        "walk_forward.train.size, or more data.",
    ]


def test_validate_with_data_refuses_what_run_would_refuse(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaking(*_: object) -> None:
        raise InputError("feature x sees the future")

    monkeypatch.setattr(run_module, "check_causality", leaking)
    assert main(["validate", "study.yaml"]) == 0
    assert main(["validate", "study.yaml", "--data"]) == 2
    assert "sees the future" in capsys.readouterr().err


def test_the_verdict_is_folded_on_a_terminal_and_left_alone_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = "No model beats random_walk at any horizon beyond chance (p = 0.03 at least). " * 4
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert run_command._folded(verdict) == verdict
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = run_command._folded(verdict).split("\n")
    assert len(lines) > 4
    assert max(map(len, lines)) <= 70
    assert " ".join(lines) == verdict.strip()


def test_few_folds_are_warned_of_before_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "study.yaml", "--set", "walk_forward.train.size=140"]) == 0
    assert "warning: walk_forward leaves 1 fold and 14 origins to forecast from" in capsys.readouterr().err


def test_plan_shows_every_fold_when_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = ["plan", "study.yaml", "--set", "walk_forward.test.size=5"]
    assert main(many) == 0
    assert "... 14 more (--folds shows all)" in capsys.readouterr().out
    assert main([*many, "--folds"]) == 0
    assert re.findall(r"^ +(\d+) +\d+  2020", capsys.readouterr().out, flags=re.MULTILINE) == [*map(str, range(19))]


def test_run_prints_the_verdict_and_leaves_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "study.yaml"]) == 0
    assert "5 tasks" in capsys.readouterr().out
    assert not (folder / "runs").exists()
    assert main(["run", "study.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "small: 100 %" in err
    assert "small:" not in out
    run = Path(re.search(r"^run: (.*)$", out, flags=re.MULTILINE).group(1))  # type: ignore[union-attr]
    assert (run / "report.html").is_file()
    for model in ("random_walk", "har", "log_har", "ridge", "lightgbm"):
        assert re.search(rf"^{model} +\d", out, flags=re.MULTILINE)
    predictions = (run / "predictions.parquet").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()
    assert main(["run", "study.yaml", "--resume"]) == 0
    assert (run / "predictions.parquet").read_bytes() == predictions
    capsys.readouterr()
    assert main(["run", "study.yaml", "--set", "walk_forward.refit=2"]) == 0
    other = re.search(r"^run: (.*)$", capsys.readouterr().out, flags=re.MULTILINE).group(1)  # type: ignore[union-attr]
    assert main(["compare", str(run), other]) == 0
    assert re.search(r"^walk_forward\.refit +1 +2$", capsys.readouterr().out, flags=re.MULTILINE)
    named = [str(run), other, "--label", "each", "--label", "second"]
    assert main(["compare", *named, "--report", "comparison.html"]) == 0
    out = capsys.readouterr().out
    assert "common rows" in out
    assert out.endswith("\nreport: comparison.html\n")
    page = Path("comparison.html").read_text()
    assert page.startswith("<!doctype html>")
    assert main(["compare", *named, "--report", "comparison.html"]) == 2
    assert "comparison.html exists" in capsys.readouterr().err
    assert main(["compare", *named, "--json", "--report", "comparison.html", "--force"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [entry["label"] for entry in facts["runs"]] == ["each", "second"]
    assert facts["differences"] == [
        {"key": "walk_forward.refit", "values": [{"run": "each", "value": 1}, {"run": "second", "value": 2}]}
    ]
    assert Path("comparison.html").read_text() == page  # the same bytes


OWN_MODEL = """
from ssmfin.models.interface import Forecaster


class Stubborn(Forecaster):
    def fit(self, training, *, seed):
        raise ArithmeticError("not today")
"""


def test_a_failed_task_gives_exit_code_1_and_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "stubborn_model.py").write_text(OWN_MODEL)
    added = 'models={mine: {kind: "stubborn_model:Stubborn"}}'
    assert main(["run", "study.yaml", "--allow-imports", "--set", added]) == 1
    err = capsys.readouterr().err
    (line,) = (line for line in err.splitlines() if "not today" in line)  # one for all tasks of the model
    assert re.fullmatch(
        r"mine: (\d+) of \1 tasks failed, ArithmeticError: not today; "
        r"the traceback is in the report, section Failures\.",
        line,
    )
    added = 'models={mine: {kind: "stubborn_model:Stubborn"}, ours: {kind: "stubborn_model:Stubborn"}}'
    assert main(["run", "study.yaml", "--allow-imports", "--set", added, "--set", "output.report=none"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "not today" in line]
    assert [line.partition(":")[0] for line in lines] == ["mine", "ours"]
    assert all(line.endswith("/failed.") for line in lines)
    pattern = re.search(r"traceback is in (.*)/\*/failed\.$", lines[0])[1]  # type: ignore[index]
    assert "not today" in next(Path(pattern).glob("*/failed")).read_text()


PLAIN_MODEL = """
import numpy as np


class Analogue:
    def __init__(self, k=10):
        self.k = k

    def fit(self, X, y):
        self.X, self.y = X, y

    def predict(self, X):
        nearest = [np.argsort(((self.X - x) ** 2).sum(axis=1))[: self.k] for x in X]
        return np.array([self.y[rows].mean() for rows in nearest])
"""


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_a_plain_class_beside_the_study_runs_and_is_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "analogue_model", raising=False)
    (folder / "studies").mkdir()
    (folder / "studies" / "analogue_model.py").write_text(PLAIN_MODEL)
    study = (folder / "study.yaml").rename(folder / "studies" / "study.yaml")
    added = 'models={mine: {kind: "analogue_model:Analogue", k: 30}}'
    changes = ["--set", added, "--set", f"execution.backend={backend}", "--set", "output.report=none"]
    assert main(["run", str(study), "--allow-imports", *changes]) == 0
    out, err = capsys.readouterr()
    assert "failed" not in err
    assert re.search(r"mine against the best baseline: at \d.*mine's QLIKE is .* log_har's.*\(p [=<] ", out)


LAG_MODEL = """
import numpy as np
from ssmfin.models.interface import Fitted, Forecaster


class Lag(Forecaster):
    def fit(self, training, *, seed):
        return FittedLag()


class FittedLag(Fitted):
    notes = {}

    def predict(self, design, rows):
        return np.repeat(design.lag_means[rows, :1], len(design.target.horizons), axis=1)
"""


def test_the_commands_of_the_report_find_the_same_run_from_any_folder(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "lag_model.py").write_text(LAG_MODEL)
    added = 'models={mine: {kind: "lag_model:Lag"}}'
    assert main(["run", "study.yaml", "--allow-imports", "--set", added, "--set", "output.directory=my runs"]) == 0
    (run,) = (folder / "my runs").iterdir()
    for _ in range(2):  # as the run writes them, then as `ssmfin report` does from elsewhere
        capsys.readouterr()
        page = html.unescape((run / "report.html").read_text())
        commands = re.search(r"<pre>(cd [^<]*)</pre>", page).group(1).splitlines()  # type: ignore[union-attr]
        assert [shlex.split(line) for line in commands] == [
            ["cd", str(folder)],
            ["ssmfin", "run", f"my runs/{run.name}/study.yaml", "--allow-imports"],
        ]
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        monkeypatch.chdir(shlex.split(commands[0])[1])
        assert main(shlex.split(commands[1])[1:]) == 0
        assert f"run: my runs/{run.name}" in capsys.readouterr().out
        assert [path.name for path in (folder / "my runs").iterdir()] == [run.name]
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert main(["report", str(run)]) == 0


def test_the_commands_of_the_report_name_a_folder_elsewhere_in_full(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("results")
    assert main(["run", "study.yaml", "--set", f"output.directory={place}"]) == 0
    (run,) = place.iterdir()
    assert f"ssmfin run {run}/study.yaml\n" in (run / "report.html").read_text().replace("</pre>", "\n")
    assert "--allow-imports" not in (run / "report.html").read_text()


def test_an_interrupted_run_says_how_to_go_on_and_the_next_that_it_resumes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, seen = run_module._log, []

    def second(prepared: object, event: str, **facts: object) -> None:
        log(prepared, event, **facts)  # type: ignore[arg-type]
        seen.append(event)
        if event == "task_done" and seen.count(event) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_log", second)
    assert main(["run", "study.yaml"]) == 130
    err = capsys.readouterr().err
    assert err.endswith("interrupted; run the same command again to go on (2 of 5 tasks are done)\n")
    assert "resuming" not in err
    assert main(["run", "study.yaml"]) == 0
    assert "small: resuming: 2 of 5 tasks are done\n" in capsys.readouterr().err
    seen.clear()
    assert main(["run", "study.yaml", "--fresh"]) == 130
    err = capsys.readouterr().err
    assert "run the same command again without --fresh to go on (2 of 5" in err
    assert "resuming" not in err


def test_a_run_interrupted_before_its_tasks_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "prepare", interrupted)
    assert main(["run", "study.yaml"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_features_are_keyed_and_complete(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "study.yaml", "-o", "out.parquet"]) == 0
    frame = pl.read_parquet("out.parquet")
    values = pl.read_csv("rv.csv", try_parse_dates=True)
    assert frame.columns[:4] == ["unique_id", "ds", "fold", "cutoff"]
    assert frame.select("unique_id", "ds").equals(values.select("unique_id", "ds"))
    lag = frame[next(name for name in frame.columns if name.endswith("lag_1"))]
    assert (lag.exp() - values["rv"]).abs().max() < 1e-12  # type: ignore[operator]
    assert "out.parquet" in capsys.readouterr().out
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert main(["features", "study.yaml", "-o", "out.parquet", "--force"]) == 0


def test_a_run_whose_features_learn_says_that_it_checks_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["validate", "study.yaml", "--data"], ["run", "study.yaml", "--set", "output.report=none"]):
        assert main([*command, "--set", "features.kalman={kind: kalman}"]) == 0
        assert capsys.readouterr().err.startswith("small: checking the data, and that no feature sees the future\n")


def test_features_that_learn_say_how_far_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added = ["--set", "features.kalman={kind: kalman}"]
    assert main(["features", "study.yaml", "-o", "out.parquet", *added]) == 0
    err = capsys.readouterr().err
    assert re.search(r"^small: 100 %  6 of 6 tasks, .* s$", err, flags=re.MULTILINE)  # the leak check and five fits
    assert main(["features", "study.yaml", "-o", "out.parquet", "--force"]) == 0
    assert capsys.readouterr().err == ""  # nothing to wait for


def test_features_leave_no_half_file_when_writing_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: pl.DataFrame, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out.parquet")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    assert main(["features", "study.yaml", "-o", "out.parquet"]) == 1
    out, err = capsys.readouterr()
    assert (out, "no space left on device" in err, "free some space" in err) == ("", True, True)
    assert sorted(path.name for path in folder.iterdir()) == ["rv.csv", "study.yaml"]


def test_an_interruption_exits_with_130_in_silence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssmfin_pipelines.commands.validate.open_study", interrupted)
    assert main(["validate", "study.yaml"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_error_worth_a_traceback(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = f"{sys.executable} -m ssmfin_pipelines.cli schema | true"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=60, env=environment, cwd=folder, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_system_errors_say_what_to_do() -> None:
    text = cli._system_error(PermissionError(errno.EACCES, "Permission denied", "/locked/run"))
    assert (
        text
        == "/locked/run cannot be read or written, permission denied; check its permissions, or choose another path."
    )


def test_models_lists_every_kind_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    found = {entry["kind"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {"random_walk", "har", "log_har", "ridge", "lightgbm", "ewma", "garch", "s4d", "har_lags"} <= set(found)
    assert {kind for kind, entry in found.items() if entry["benchmark"]} == {
        "random_walk", "har", "log_har", "ridge", "lightgbm",
    }  # fmt: skip
    assert all(entry["summary"] for entry in found.values())
    context = next(item for item in found["s4d"]["parameters"] if item["name"] == "context")
    assert context["default"] == 128
    assert context["description"]
    assert main(["models", "s4d"]) == 0
    assert "context = 128" in capsys.readouterr().out


def test_doctor_reports_versions_and_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("ssmfin", "python", "cores", "torch", "gpu", "output", "can be written", "all is well"):
        assert word in out
    assert sorted(folder.iterdir()) == before


def test_doctor_notices_where_nothing_can_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--output", "rv.csv/runs"]) == 1
    assert "rv.csv is a file" in capsys.readouterr().err


def test_init_writes_a_study_that_validates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "rv.csv", "-o", "new.yaml"]) == 0
    assert capsys.readouterr().out == "new.yaml\n"
    assert main(["validate", "new.yaml", "--data"]) == 0
    written = Path("new.yaml").read_text()
    Path("new.yaml").write_text("mine")
    assert main(["init", "rv.csv", "-o", "new.yaml", "--force"]) == 0
    assert Path("new.yaml").read_text() == written


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_are_valid(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(config)]) == 0


def test_validate_says_what_of_the_data_a_run_would_not_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A series that begins late silently shortens a study; a bad row, an id of few rows and log models drop out."""
    frame = pl.read_csv(folder / "rv.csv", try_parse_dates=True)
    late = frame.tail(60).select("ds", "unique_id", x="rv")
    late.write_csv(folder / "late.csv")
    few = frame.tail(20).with_columns(unique_id=pl.lit("b"))
    bad = frame.with_columns(rv=pl.when(pl.int_range(pl.len()) == 9).then(float("inf")).otherwise("rv"))
    pl.concat([bad, few]).write_csv(folder / "rv.csv")
    lines = STUDY.replace(
        "  source: {kind: csv, path: rv.csv}\n", "  source: {kind: csv, path: rv.csv}\n  on_breach: drop\n"
    )
    lines = lines.replace(
        "target:", "  exogenous: [{name: late, source: {kind: csv, path: late.csv}, ids: a, select: x}]\ntarget:"
    )
    lines = lines.replace("size: 60}", "size: 60, min_rows: 20}")
    (folder / "study.yaml").write_text(lines + "features: {late: {kind: columns, columns: [late__x]}}\n")
    assert main(["validate", "study.yaml", "--data"]) == 0
    out = capsys.readouterr().out
    assert "left out: 1 row, rv is infinite." in out
    assert re.search(r"not forecast from: \d+ rows, feature late__late__x is missing\.", out)
    assert "never forecast: b, which never has 20 complete training rows in a window (20 rows in all)." in out
