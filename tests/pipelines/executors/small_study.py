"""Owns a small study on synthetic variances, in memory or run by a process of its own that a test may kill."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssmfin_pipelines.run import RunOutcome, run_study
from ssmfin_pipelines.study import Study, study_from

HERE = Path(__file__).parent


def write_panel(path: Path, *, dates: int = 140, ids: tuple[str, ...] = ("A", "B"), scale: float = 1e-4) -> Path:
    """Log variances as persistent noise, one column `rv`, business days of 2020."""
    rng = np.random.default_rng(11)
    days = np.busday_offset("2020-01-01", np.arange(dates), roll="forward")
    frames = []
    for name in ids:
        level = np.zeros(dates)
        for t in range(1, dates):
            level[t] = 0.95 * level[t - 1] + 0.3 * rng.standard_normal()
        frames.append(pl.DataFrame({"unique_id": [name] * dates, "ds": days, "rv": scale * np.exp(level)}))
    pl.concat(frames).write_parquet(path)
    return path


def study_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """The study as plain data; `changes` replace whole sections, or keys of a section where both are mappings."""
    values: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "data": {"source": {"kind": "parquet", "path": str(folder / "panel.parquet")}},
        "target": {"column": "rv", "horizons": [1, 5]},
        "walk_forward": {"train": {"size": 60}, "validation": {"size": 15}, "test": {"size": 10}},
        "benchmarks": {"lightgbm": {"max_rounds": 5, "min_child_samples": 5}},
        "models": {"toy": {"kind": "toy_models:Toy", "seeds": [0, 1]}},
        "execution": {"backend": "inline"},
        "output": {"directory": str(folder / "runs"), "report": "none"},
    }
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = {**values[key], **value} if both else value
    return values


def make_study(folder: Path, **changes: Any) -> Study:
    if not (folder / "panel.parquet").exists():
        write_panel(folder / "panel.parquet")
    return study_from(study_values(folder, **changes), allow_imports=True)


@contextlib.contextmanager
def silent(meter: Any, title: str) -> Iterator[None]:
    yield


def run(study: Study, **options: Any) -> RunOutcome:
    return run_study(study, progress=silent, **options)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """A process group of its own that runs the study of the folder; options: KEY=VALUE and SHARD/OF."""
    if not (folder / "panel.parquet").exists():
        write_panel(folder / "panel.parquet")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(HERE / "small_study.py"), str(folder), *options]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    shard = next((tuple(map(int, option.split("/"))) for option in options if "/" in option), None)
    pause = next((float(option.partition("=")[2]) for option in options if option.startswith("pause=")), 0.0)
    os.environ["SSMFIN_TOY_PAUSE"] = str(pause)
    backend = next((option.partition("=")[2] for option in options if option.startswith("backend=")), "local")
    study = make_study(folder, execution={"backend": backend, "workers": 2})
    run_study(study, shard=shard, progress=silent)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
