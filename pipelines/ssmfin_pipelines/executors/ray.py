"""Owns running tasks on actors of a Ray cluster: the one that RAY_ADDRESS names, else one made on this machine.

Each actor has one thread and takes one item at a time; one that dies takes only its item with it. Results are not sent:
actors store them, so all machines of a cluster must see the run folder under the same path, and have the same
packages. An actor takes one CPU of the cluster and no GPU of its own: those it sees, it shares.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssmfin.errors import InputError
from ssmfin_pipelines.executors.answers import Answer, event_of, perform, prepare
from ssmfin_pipelines.executors.contract import Event, Item, Waiting, Work
from ssmfin_pipelines.executors.machine import THREAD_VARIABLES


class Hand:
    """The actor: what it is sent by a message, it answers."""

    def __init__(self) -> None:
        self._do: Any = None

    def prepare(self, pickled: bytes) -> Answer:
        self._do, answer = prepare(pickled)
        return answer

    def perform(self, item: Item) -> Answer:
        return perform(self._do, item)


@dataclass
class _Actor:
    handle: Any
    answer: Any  # a reference to what it is about to answer
    ready: bool = False
    item: Item | None = field(default=None)


def run_ray(work: Work, items: Sequence[Item], workers: int) -> Generator[Event]:
    """Do all items on up to `workers` actors, costly ones first.

    Raises:
        InputError: Ray is not installed; an actor found the input wrong while preparing.
        StorageError: a result could not be stored.
        RuntimeError: an actor could not prepare, or died before its first item.
    """
    if not items:
        return
    waiting = Waiting(items)
    with _cluster(workers) as ray:
        pickled = ray.put(pickle.dumps(work))
        crew = [_hire(ray, pickled) for _ in range(min(workers, len(waiting)))]
        try:
            while crew:
                pending = [actor.answer for actor in crew if actor.answer is not None]
                said, _ = ray.wait(pending, num_returns=1)
                actor = next(actor for actor in crew if actor.answer == said[0])
                yield from _heard(ray, actor, waiting)
                if actor.handle is None:
                    crew.remove(actor)
                    if waiting:
                        crew.append(_hire(ray, pickled))
                yield from _hand_out(ray, waiting, crew)
        finally:
            for actor in crew:
                if actor.handle is not None:
                    ray.kill(actor.handle)


def _hire(ray: Any, pickled: Any) -> _Actor:
    environment = {**dict.fromkeys(THREAD_VARIABLES, "1"), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    handle = ray.remote(Hand).options(num_cpus=1, runtime_env={"env_vars": environment}).remote()
    return _Actor(handle, handle.prepare.remote(pickled))


def _heard(ray: Any, actor: _Actor, waiting: Waiting) -> Iterator[Event]:
    """What an actor has answered, or that it is dead: then it has no handle any more."""
    item, actor.item, reference, actor.answer = actor.item, None, actor.answer, None
    if item is not None:
        waiting.ended(item)
    try:
        event = event_of(item, ray.get(reference))
    except ray.exceptions.RayActorError as error:
        actor.handle = None
        cause = " ".join(str(error).split())
        if not actor.ready:
            raise RuntimeError(f"an actor of Ray died before its first task: {cause}") from None
        if item is not None:
            yield Event("failed", item.key, error="WorkerDied: the actor of this task died", traceback=cause)
        return
    actor.ready = True
    if event is not None:
        yield event


def _hand_out(ray: Any, waiting: Waiting, crew: list[_Actor]) -> Iterator[Event]:
    """Give every idle actor an item that may start; let go who has none, those too for whom there is no room yet."""
    for actor in [actor for actor in crew if actor.item is None]:
        item = waiting.take() if actor.ready else None
        if item is not None:
            actor.item, actor.answer = item, actor.handle.perform.remote(item)
            yield Event("started", item.key)
        elif not waiting:
            crew.remove(actor)
            ray.kill(actor.handle)


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, connected. A cluster of this machine alone ends with the block; one that was there stays."""
    try:
        import ray
    except ImportError:
        raise InputError(
            "execution.backend is 'ray', which is not installed; pip install 'ssmfin[ray]', or use 'local'."
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    size: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,  # what libraries print is in Ray's own logs
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            **size,
        )
    except ConnectionError as error:
        raise InputError(
            f"RAY_ADDRESS is {address!r}, where no Ray cluster answers ({error}); start one, or unset it."
        ) from None
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints what dies; standard output carries results only
            yield ray
    finally:
        ray.shutdown()
