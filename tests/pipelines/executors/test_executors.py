"""Owns the promises of every executor: all items answered, one thread each, a failure stays with its item."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.atomic import StorageError
from ssmfin_pipelines.executors import Event, Item, executor, usable_cores
from ssmfin_pipelines.executors.contract import costly_first

from toy_work import ToyWork  # isort: skip


def items_of(*tasks: tuple[str, object]) -> list[Item]:
    return [Item(f"k{i}", task, 1.0) for i, task in enumerate(tasks)]


def ends(events: Iterator[Event]) -> dict[str, Event]:
    return {event.key: event for event in events if event.kind != "started"}


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "timed out"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # killed, and left to be reaped by whoever inherits it


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_every_item_is_started_once_then_ended_once(backend: str, tmp_path: Path) -> None:
    events = list(executor(backend)(ToyWork(tmp_path), items_of(*[("note", 0)] * 5), 2))
    for key in ("k0", "k1", "k2", "k3", "k4"):
        assert [event.kind for event in events if event.key == key] == ["started", "done"]
    assert {event.seconds for event in events if event.kind == "done"} == {0.25}


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_items_run_with_one_thread_and_the_caller_gets_its_own_back(backend: str, tmp_path: Path) -> None:
    before = dict(os.environ)
    list(executor(backend)(ToyWork(tmp_path), items_of(("note", 0)), 2))
    _, variable, threads, _ = (tmp_path / "k0").read_text().splitlines()
    assert (variable, threads) == ("1", "1")
    assert dict(os.environ) == before


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_an_exception_fails_its_item_only(backend: str, tmp_path: Path) -> None:
    found = ends(executor(backend)(ToyWork(tmp_path), items_of(("note", 0), ("raise", "no pivot"), ("note", 0)), 1))
    assert [found[key].kind for key in ("k0", "k1", "k2")] == ["done", "failed", "done"]
    assert found["k1"].error == "ArithmeticError: no pivot"
    assert "toy_work.py" in found["k1"].traceback


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_a_full_disk_ends_the_run(backend: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk of the run is full"):
        list(executor(backend)(ToyWork(tmp_path), items_of(("full", 0), ("note", 0)), 1))
    assert not (tmp_path / "k1").exists()


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_nothing_to_do_starts_nothing(backend: str, tmp_path: Path) -> None:
    assert list(executor(backend)(ToyWork(tmp_path, refuses=True), [], 4)) == []


@pytest.mark.parametrize("backend", ["inline", "local"])
def test_what_a_task_prints_stays_off_standard_output(
    backend: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    list(executor(backend)(ToyWork(tmp_path), items_of(("print", "chatter")), 1))
    said = capfd.readouterr()
    assert "chatter" not in said.out
    assert "chatter" in said.err


def test_a_dead_worker_fails_its_item_with_the_signal_and_the_pool_goes_on(tmp_path: Path) -> None:
    tasks = [("kill", signal.SIGKILL), ("exit", 7), ("note", 0), ("note", 0), ("note", 0)]
    found = ends(executor("local")(ToyWork(tmp_path), items_of(*tasks), 2))
    assert [found[f"k{i}"].kind for i in range(5)] == ["failed", "failed", "done", "done", "done"]
    assert "SIGKILL" in found["k0"].error
    assert "exit code 7" in found["k1"].error


def test_workers_share_the_items_and_prepare_once_each(tmp_path: Path) -> None:
    list(executor("local")(ToyWork(tmp_path), items_of(*[("sleep", 0.3)] * 6), 2))
    pids = {(tmp_path / f"k{i}").read_text().splitlines()[0] for i in range(6)}
    assert len(pids) == 2
    assert {path.name for path in tmp_path.glob("opened-*")} == {f"opened-{pid}" for pid in pids}
    assert str(os.getpid()) not in pids


def test_a_worker_that_cannot_prepare_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the panel is gone"):
        list(executor("local")(ToyWork(tmp_path, refuses=True), items_of(("note", 0)), 2))


def test_leaving_early_leaves_no_process_behind(tmp_path: Path) -> None:
    with closing(executor("local")(ToyWork(tmp_path), items_of(*[("sleep", 60.0)] * 2), 2)) as events:
        next(events)
        wait_for(lambda: any(path.read_text() for path in tmp_path.glob("sleeping-*")))
        pids = [int(path.read_text()) for path in tmp_path.glob("sleeping-*")]
    assert all(gone(pid) for pid in pids)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at other processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent_however_it_dies(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-m", "toy_work", str(tmp_path)],
        env=environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len([path for path in tmp_path.glob("sleeping-*") if path.read_text()]) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("sleeping-*")]
        assert not any(gone(pid) for pid in pids)
        parent.send_signal(number)
        parent.wait(20)
        wait_for(lambda: all(gone(pid) for pid in pids))
    finally:
        parent.kill()
        parent.wait()
    assert (tmp_path / "unwound").exists() == (number != signal.SIGKILL)


def test_an_unknown_backend_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'local'"):
        executor("locale")


def test_costly_items_come_first_whatever_order_they_are_given_in() -> None:
    items = [Item("b", None, 1.0), Item("a", None, 1.0), Item("c", None, 5.0)]
    assert [item.key for item in costly_first(items)] == ["c", "a", "b"]
    assert costly_first(items[::-1]) == costly_first(items)


def test_what_others_wait_for_comes_first_and_they_wait_until_it_has_ended(tmp_path: Path) -> None:
    items = [
        Item("after", ("sleep", 0.0), 9.0, frozenset({"first", "gone"})),
        Item("other", ("sleep", 0.0), 5.0),
        Item("first", ("raise", "no"), 1.0),
    ]
    assert [item.key for item in costly_first(items)] == ["first", "after", "other"]
    for backend, workers in (("inline", 1), ("local", 2)):
        seen = [(event.kind, event.key) for event in executor(backend)(ToyWork(tmp_path), items, workers)]
        assert seen.index(("failed", "first")) < seen.index(("started", "after"))
        assert {key for kind, key in seen if kind == "done"} == {"after", "other"}


def test_a_container_quota_limits_the_cores(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    unlimited = usable_cores(tmp_path)
    (tmp_path / "cpu.max").write_text("6400000 100000\n")
    assert usable_cores(tmp_path) == unlimited >= 1
