"""Owns the promises of the store: whole or absent, whoever dies when; every refusal of the disk in words."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ssmfin_pipelines import atomic
from ssmfin_pipelines import store as store_module
from ssmfin_pipelines.atomic import PREFIX, StorageError, _host, append_line, parquet_bytes, temporary, write_atomically
from ssmfin_pipelines.store import Mark, TaskStore

FRAME = pl.DataFrame({"unique_id": ["a", "b"], "y_hat": [1.0, float("nan")]})
MARK = Mark("har", 0, 1, 2, 0.5, 0.4, 0.1, {"insanity_filter": 3, "loss": float("nan")}, {"numpy": "2"}, "cpu")


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    made = TaskStore(tmp_path / "run")
    made.create()
    return made


def leftovers(store: TaskStore) -> list[Path]:
    return list(store.directory.rglob(PREFIX + "*"))


def test_a_finished_task_is_read_as_it_was_written(store: TaskStore) -> None:
    assert not store.is_done("k")
    store.write_done("k", FRAME, MARK)
    assert store.is_done("k")
    assert store.predictions("k").equals(FRAME)
    mark = store.mark("k")
    assert mark is not None
    assert (mark.model, mark.seconds, mark.notes) == ("har", 0.5, {"insanity_filter": 3, "loss": None})
    assert leftovers(store) == []


@pytest.mark.parametrize("where", ["write_through", "sync_folder"])
@pytest.mark.parametrize("nth", [0, 1])
def test_a_write_that_stops_anywhere_leaves_no_task(
    store: TaskStore, where: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(store_module, where), []

    def stops(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == nth + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(store_module, where, stops)
    with pytest.raises(StorageError, match=r"full, .*No space left on device.*free some space"):
        store.write_done("k", FRAME, MARK)
    monkeypatch.undo()
    whole = where == "sync_folder" and nth == 1  # already renamed: the task is there, and is whole
    assert store.is_done("k") == whole
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "no_predictions", "no_mark", "half_mark", "alien_mark"])
def test_a_damaged_task_is_not_taken_for_done_and_can_be_written_again(store: TaskStore, damage: str) -> None:
    store.write_done("k", FRAME, MARK)
    data, mark = store.tasks / "k" / "predictions.parquet", store.tasks / "k" / "done"
    content = data.read_bytes()
    if damage == "truncate":
        data.write_bytes(content[:-5])
    elif damage == "flip":
        data.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    elif damage == "no_predictions":
        data.unlink()
    elif damage == "no_mark":
        mark.unlink()
    elif damage == "half_mark":
        mark.write_text(mark.read_text()[:30])
    else:
        mark.write_text('{"model": "har", "of": "another program"}')
    assert not store.is_done("k")
    store.write_done("k", FRAME, MARK)
    assert store.is_done("k")


def test_a_failure_is_kept_until_the_task_is_done(store: TaskStore) -> None:
    store.write_failure("k", {"error": "first"})
    store.write_failure("k", {"error": "second"})
    assert store.failure("k") == {"error": "second"}
    assert not store.is_done("k")
    store.write_done("k", FRAME, MARK)
    assert store.failure("k") is None
    store.write_failure("k", {"error": "too late"})
    assert store.is_done("k")


def test_of_two_writers_of_one_task_the_first_stays(store: TaskStore) -> None:
    store.write_done("k", FRAME, MARK)
    before = (store.tasks / "k" / "done").stat().st_mtime_ns
    store.write_done("k", FRAME, MARK)
    assert (store.tasks / "k" / "done").stat().st_mtime_ns == before
    assert leftovers(store) == []


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(store: TaskStore) -> None:
    mine = temporary(store.tasks, "k")
    mine.mkdir()
    script = (
        "import sys, pathlib; from ssmfin_pipelines.atomic import temporary;"
        "p = temporary(pathlib.Path(sys.argv[1]), 'k'); p.mkdir(); (p / 'predictions.parquet').touch();"
        "temporary(pathlib.Path(sys.argv[1]).parent, 'manifest.json').touch()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(store.tasks)], env=environment, check=True)
    foreign = store.tasks / f"{PREFIX}another-machine~1~1~0~k"
    foreign.mkdir()
    assert len(leftovers(store)) == 4
    assert store.clean() == 2
    assert sorted(leftovers(store)) == sorted([mine, foreign])
    os.utime(foreign, (0, 0))
    assert store.clean() == 1
    assert leftovers(store) == [mine]


def test_a_killed_writer_that_nobody_reaped_is_dead(store: TaskStore) -> None:
    script = (
        "import os, signal, sys, pathlib; from ssmfin_pipelines.atomic import temporary;"
        "temporary(pathlib.Path(sys.argv[1]), 'k').mkdir(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen([sys.executable, "-c", script, str(store.tasks)], env=environment)
    try:
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert len(leftovers(store)) == 1
        assert store.clean() == 1
    finally:
        writer.wait()


def test_a_recycled_process_number_is_not_taken_for_the_writer(store: TaskStore) -> None:
    old = store.tasks / f"{PREFIX}{_host()}~{os.getpid()}~12345~0~k"
    old.mkdir()
    assert store.clean() == 1


def test_a_file_in_place_of_the_output_directory_is_answered_in_words(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StorageError, match=r"something else stands where the run should be, .*runs"):
        TaskStore(tmp_path / "runs" / "vol-1").create()
    assert (tmp_path / "runs").read_text() == "not a folder"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_answered_in_words(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"cannot be written, .*change its permissions"):
        TaskStore(tmp_path / "vol-1").create()


def test_a_replaced_file_is_old_or_new_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leaderboard.csv"
    write_atomically(path, b"old")

    def half(path: Path, data: bytes) -> None:
        path.write_bytes(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write_through", half)
    with pytest.raises(StorageError):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["leaderboard.csv"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_log_survives_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"event": "a"})
    with path.open("a") as file:
        file.write('{"event": "b"')
    append_line(path, {"event": "c", "value": float("inf")})
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]) == {"event": "a"}
    assert json.loads(lines[2]) == {"event": "c", "value": None}


def test_a_fresh_start_keeps_the_log_only(store: TaskStore) -> None:
    store.write_done("k", FRAME, MARK)
    append_line(store.directory / "log.jsonl", {"event": "a"})
    write_atomically(store.directory / "manifest.json", b"{}")
    store.discard_all()
    assert not store.is_done("k")
    assert sorted(os.listdir(store.directory)) == ["log.jsonl", "tasks"]


def test_a_frame_has_the_same_bytes_however_it_was_put_together() -> None:
    frame = pl.DataFrame({"x": range(1000), "s": [f"id{i % 7}" for i in range(1000)]})
    pieces = pl.concat([frame[:100], frame[100:333], frame[333:]], rechunk=False)
    assert parquet_bytes(frame) == parquet_bytes(pieces)
