"""Owns the promise that a run survives: killed at any moment, run again, the same bytes, and nothing done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run, start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills process groups")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The predictions of a run in one go, inline."""
    return (run(make_study(tmp_path_factory.mktemp("whole"))).directory / "predictions.parquet").read_bytes()


def done_times(folder: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in folder.glob("runs/*/tasks/*/done")
        if not path.parent.name.startswith(".")
    }


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()


def predictions(folder: Path) -> bytes:
    (path,) = folder.glob("runs/*/predictions.parquet")
    return path.read_bytes()


def alive_in_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            found.append(int(entry.parent.name))
    return found


def kill_rounds(folder: Path, rng: np.random.Generator, rounds: int) -> None:
    """Start the study and kill it, each time at a random moment after some further task is done.

    In turn the whole process group is killed, or the parent alone, whose workers must notice.
    """
    for number in range(rounds):
        before = done_times(folder)
        wanted = len(before) + int(rng.integers(0, 6))
        process = start(folder, "pause=0.05")
        limit = time.monotonic() + 60
        while len(done_times(folder)) < wanted and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0.0, 0.15)))
        with contextlib.suppress(ProcessLookupError):  # it may have come to its end
            if number % 2:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        limit = time.monotonic() + 20
        while alive_in_group(process.pid):
            assert time.monotonic() < limit, "workers outlive their parent"
            time.sleep(0.02)
        after = done_times(folder)
        assert {key: after[key] for key in before} == before


def test_killed_and_run_again_ends_with_the_same_bytes(uninterrupted: bytes, tmp_path: Path) -> None:
    kill_rounds(tmp_path, np.random.default_rng(20), 2)
    before = done_times(tmp_path)
    run(make_study(tmp_path))  # inline, after local: how the rest is run does not matter
    after = done_times(tmp_path)
    assert {key: after[key] for key in before} == before
    assert 0 < len(before) < len(after)
    assert predictions(tmp_path) == uninterrupted
    assert list(tmp_path.rglob(".tmp~*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_many_times_ends_with_the_same_bytes(seed: int, uninterrupted: bytes, tmp_path: Path) -> None:
    kill_rounds(tmp_path, np.random.default_rng(seed), 8)
    finish(start(tmp_path))
    assert predictions(tmp_path) == uninterrupted
    assert list(tmp_path.rglob(".tmp~*")) == []


@pytest.mark.slow
def test_killed_while_results_are_written_ends_with_the_same_bytes(uninterrupted: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for _ in range(8):
        process = start(tmp_path, "backend=inline")
        limit = time.monotonic() + 60
        while not list(tmp_path.glob("runs/*/log.jsonl")) and time.monotonic() < limit:
            time.sleep(0.005)
        while len(done_times(tmp_path)) < 26 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0.0, 0.4)))
        process.kill()
        process.communicate()
        for path in tmp_path.glob("runs/*/*.parquet"):
            pl.read_parquet(path)  # whole, whenever it is there
        for path in tmp_path.glob("runs/*/manifest.json"):
            path.unlink()  # so that the next round writes the results again
    finish(start(tmp_path))
    assert predictions(tmp_path) == uninterrupted


def test_runs_and_shards_at_once_on_one_folder_give_the_same_bytes(uninterrupted: bytes, tmp_path: Path) -> None:
    make_study(tmp_path)  # the data are there before them all
    together = [start(tmp_path, *options, "backend=inline") for options in (["1/2"], ["2/2"], [])]
    for process in together:
        finish(process)
    assert predictions(tmp_path) == uninterrupted
    assert list(tmp_path.rglob(".tmp~*")) == []
