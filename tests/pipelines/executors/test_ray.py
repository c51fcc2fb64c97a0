"""Owns the promises of the Ray executor; one cluster is made for several of them, since that takes seconds."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.atomic import StorageError
from ssmfin_pipelines.executors import Item, executor

from small_study import make_study, run  # isort: skip
from toy_work import ToyWork  # isort: skip


def with_ray(tests: type) -> type:
    """Skip the class where Ray is not installed, and let Ray's own warnings pass."""
    missing = find_spec("ray") is None
    skip = pytest.mark.skipif(missing, reason="ray is not installed (pip install 'ssmfin[ray]')")
    marked: type = skip(pytest.mark.filterwarnings("ignore")(tests))
    return marked


def items_of(*tasks: tuple[str, object]) -> list[Item]:
    return [Item(f"k{i}", task, 1.0) for i, task in enumerate(tasks)]


@pytest.fixture(scope="class")
def cluster() -> Iterator[None]:
    import ray

    paths = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@with_ray
class TestItsOwnCluster:
    def test_a_study_has_the_bytes_of_a_run_in_one_process(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import ray

        here = run(make_study(tmp_path, output={"directory": str(tmp_path / "inline")}))
        capfd.readouterr()
        there = run(
            make_study(
                tmp_path, execution={"backend": "ray", "workers": 2}, output={"directory": str(tmp_path / "ray")}
            )
        )
        assert capfd.readouterr().out == ""
        assert not ray.is_initialized()
        assert there.failures == []
        assert (here.directory / "predictions.parquet").read_bytes() == (
            there.directory / "predictions.parquet"
        ).read_bytes()


@with_ray
@pytest.mark.usefixtures("cluster")
class TestOnACluster:
    def test_what_fails_or_dies_takes_only_its_item_along_and_all_have_one_thread(self, tmp_path: Path) -> None:
        before = dict(os.environ)
        tasks = [("raise", "no pivot"), ("kill", signal.SIGKILL), ("note", 0), ("note", 0), ("note", 0)]
        events = list(executor("ray")(ToyWork(tmp_path), items_of(*tasks), 2))
        kinds = {key: [event.kind for event in events if event.key == key] for key in ("k0", "k1", "k2", "k3", "k4")}
        assert all(kinds[key] == ["started", "failed"] for key in ("k0", "k1"))
        assert all(kinds[key] == ["started", "done"] for key in ("k2", "k3", "k4"))
        said = {event.key: event for event in events if event.kind == "failed"}
        assert said["k0"].error == "ArithmeticError: no pivot"
        assert "toy_work.py" in said["k0"].traceback
        assert said["k1"].error.startswith("WorkerDied")
        process, variable, threads, _ = (tmp_path / "k2").read_text().splitlines()
        assert (variable, threads) == ("1", "1")
        assert process != str(os.getpid())
        assert dict(os.environ) == before

    def test_a_full_disk_ends_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="disk of the run is full"):
            list(executor("ray")(ToyWork(tmp_path), items_of(("full", 0), ("note", 0)), 1))
        assert not (tmp_path / "k1").exists()

    def test_an_actor_that_cannot_prepare_says_why(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="the panel is gone"):
            list(executor("ray")(ToyWork(tmp_path, refuses=True), items_of(("note", 0)), 2))

    def test_more_workers_than_the_cluster_has_room_for_do_not_wait_for_room(self, tmp_path: Path) -> None:
        events = list(executor("ray")(ToyWork(tmp_path), items_of(*[("note", 0)] * 5), 4))
        assert sum(event.kind == "done" for event in events) == 5

    def test_items_wait_for_what_they_need(self, tmp_path: Path) -> None:
        items = [Item("after", ("note", 0), 9.0, frozenset({"first"})), Item("first", ("sleep", 0.2), 1.0)]
        seen = [(event.kind, event.key) for event in executor("ray")(ToyWork(tmp_path), items, 2)]
        assert seen == [("started", "first"), ("done", "first"), ("started", "after"), ("done", "after")]


def test_without_ray_the_backend_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'ssmfin\[ray\]', or use 'local'"):
        list(executor("ray")(ToyWork(tmp_path), items_of(("note", 0)), 1))
