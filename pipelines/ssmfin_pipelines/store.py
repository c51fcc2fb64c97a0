"""Owns what a run leaves of its tasks: finished ones, failed ones, nothing half done.

<run>/tasks/<key>/predictions.parquet, done      a finished task of a model; of a combination also weights.parquet,
                                                 of a model with memory memory.parquet
<run>/tasks/<key>/state.json, done               what a feature learned in one training window
<run>/tasks/<key>/failed                         a failed one, tried again by the next run
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from ssmfin_pipelines.atomic import (
    clean_folder,
    json_bytes,
    parquet_bytes,
    storage,
    sync_folder,
    temporary,
    write_through,
)

FINAL_FILES = (
    "manifest.json",  # first: without it the others are not taken for a finished run
    "predictions.parquet",
    "weights.parquet",
    "memory.parquet",
    "leaderboard.parquet",
    "leaderboard.csv",
    "leaderboard_by_id.parquet",
    "probabilistic.parquet",
    "probabilistic.csv",
    "probabilistic_by_id.parquet",
    "folds.parquet",
    "study.yaml",
    "report.html",
)

PREDICTIONS, STATE, WEIGHTS, MEMORY = "predictions.parquet", "state.json", "weights.parquet", "memory.parquet"


@dataclass(frozen=True)
class Mark:
    """What the `done` file of a task says.

    Attributes:
        seconds: wall clock of the whole task. `fit_seconds`, `predict_seconds`: its two parts.
        notes: plain facts of the model. `versions`: numeric packages that computed it.
        digest, size: of the result, so that a damaged file is noticed. `file`: its name.
    """

    model: str
    seed: int
    fits: int
    rows: int
    seconds: float
    fit_seconds: float
    predict_seconds: float
    notes: dict[str, Any]
    versions: dict[str, str]
    device: str
    digest: str = ""
    size: int = 0
    file: str = PREDICTIONS


class TaskStore:
    """The tasks of one run folder. Any number of processes may use one folder at the same time."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.tasks = self.directory / "tasks"

    def create(self) -> None:
        """Make the folders and prove that they can be written.

        Raises:
            StorageError: a file is in the way, or the folder cannot be written.
        """
        with storage(self.directory):
            self.tasks.mkdir(parents=True, exist_ok=True)
            probe = temporary(self.directory, "probe")
            probe.write_bytes(b"")
            probe.unlink()

    def is_done(self, key: str) -> bool:
        """Whether the task is finished and its result is whole; a damaged task is taken away and is missing."""
        mark = self.mark(key)
        if mark is None:
            return False
        with contextlib.suppress(OSError):
            data = (self.tasks / key / mark.file).read_bytes()
            if len(data) == mark.size and _digest(data) == mark.digest:
                return True
        self.discard(key)
        return False

    def mark(self, key: str) -> Mark | None:
        """The `done` mark, or None where there is none that can be read."""
        try:
            return Mark(**json.loads((self.tasks / key / "done").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def predictions(self, key: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO((self.tasks / key / PREDICTIONS).read_bytes()))

    def weights(self, key: str) -> pl.DataFrame:
        """Of a combination: what its task wrote beside its predictions."""
        return pl.read_parquet(io.BytesIO((self.tasks / key / WEIGHTS).read_bytes()))

    def memory(self, key: str) -> pl.DataFrame | None:
        """What a task's model remembers by, fit by fit; None where it has no memory."""
        file = self.tasks / key / MEMORY
        return pl.read_parquet(io.BytesIO(file.read_bytes())) if file.is_file() else None

    def state(self, key: str) -> str:
        """What a feature learned, as it was written."""
        return (self.tasks / key / STATE).read_text(encoding="utf-8")

    def failure(self, key: str) -> dict[str, Any] | None:
        """What the `failed` file of a task says, or None."""
        try:
            loaded = json.loads((self.tasks / key / "failed").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return loaded if isinstance(loaded, dict) else None

    def write_done(
        self,
        key: str,
        predictions: pl.DataFrame,
        mark: Mark,
        *,
        weights: pl.DataFrame | None = None,
        memory: pl.DataFrame | None = None,
    ) -> None:
        """Put a finished task of a model in place, all at once; with its weights over time, and its fits' memory."""
        tables = {WEIGHTS: weights, MEMORY: memory}
        more = {name: parquet_bytes(table) for name, table in tables.items() if table is not None}
        self._write_done(key, PREDICTIONS, parquet_bytes(predictions), mark, more)

    def write_state(self, key: str, state: str, mark: Mark) -> None:
        """Put what a feature learned in place, all at once."""
        self._write_done(key, STATE, state.encode(), mark)

    def write_failure(self, key: str, failure: dict[str, Any]) -> None:
        """Record why a task failed; a finished task (another process got through) is left as it is."""
        self._put(key, {"failed": json_bytes(failure)})

    def discard(self, key: str) -> None:
        """Take one task away: first out of sight by a rename, then for good."""
        with storage(self.tasks), contextlib.suppress(FileNotFoundError):
            away = temporary(self.tasks, key)
            os.rename(self.tasks / key, away)
            shutil.rmtree(away, ignore_errors=True)

    def discard_all(self) -> None:
        """Take all tasks and final files away; log.jsonl stays."""
        with storage(self.directory):
            for name in FINAL_FILES:
                (self.directory / name).unlink(missing_ok=True)
            if self.tasks.is_dir():
                away = temporary(self.directory, "tasks")
                os.rename(self.tasks, away)
                shutil.rmtree(away, ignore_errors=True)
            self.tasks.mkdir(parents=True, exist_ok=True)

    def clean(self) -> int:
        """Remove what killed writers left behind; returns how many. Live writers are not touched."""
        return clean_folder(self.directory) + clean_folder(self.tasks)

    def _write_done(
        self, key: str, name: str, data: bytes, mark: Mark, more: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        said = {**mark.__dict__, "digest": _digest(data), "size": len(data), "file": name}
        self._put(key, {**more, name: data, "done": json_bytes(said)})

    def _put(self, key: str, files: dict[str, bytes]) -> None:
        target = self.tasks / key
        with storage(self.tasks):
            self.tasks.mkdir(parents=True, exist_ok=True)
            filled = temporary(self.tasks, key)
            try:
                filled.mkdir()
                for name, data in files.items():
                    write_through(filled / name, data)
                sync_folder(filled)
                while True:
                    try:
                        os.rename(filled, target)
                        break
                    except OSError as error:
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
                    if self.is_done(key):  # the same result by another process: keep the first
                        return
                    self.discard(key)  # an older failure, or damaged
                sync_folder(self.tasks)
            finally:
                shutil.rmtree(filled, ignore_errors=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
