"""Owns running tasks on spawned processes of this machine.

Spawn, never fork: torch, LightGBM and polars keep threads and locks that a forked child inherits half-way. Each worker
has one thread and takes one item at a time. A worker that dies takes only its item with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ssmfin_pipelines.executors.answers import Answer, event_of
from ssmfin_pipelines.executors.contract import Event, Item, Waiting, Work
from ssmfin_pipelines.executors.machine import one_thread_environment
from ssmfin_pipelines.executors.worker import serve

PATIENCE = 2.0  # seconds a worker gets to go by itself before it is killed


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    ready: bool = False
    item: Item | None = field(default=None)


def run_local(work: Work, items: Sequence[Item], workers: int) -> Generator[Event]:
    """Do all items on up to `workers` processes, costly ones first.

    Raises:
        StorageError: a result could not be stored.
        InputError: a worker found the input wrong while preparing.
        RuntimeError: a worker could not prepare, or died before its first item.
    """
    waiting = Waiting(items)
    crew: list[_Worker] = []
    with _terminated_as_exit():
        try:
            for _ in range(min(workers, len(waiting))):
                crew.append(_hire(work))  # noqa: PERF401 (a worker must be in the crew before the next can fail to start)
            while crew:
                for worker in _speaking(crew):
                    answer, item = _answer_of(worker), worker.item
                    if item is not None:
                        waiting.ended(item)
                    if answer is None:
                        yield from _bury(worker, crew)
                        if waiting:
                            crew.append(_hire(work))
                    else:
                        yield from _heard(worker, answer)
                yield from _hand_out(waiting, crew)
        finally:
            for worker in crew:
                worker.process.terminate()
            for worker in crew:
                _end(worker)


def _hand_out(waiting: Waiting, crew: list[_Worker]) -> Iterator[Event]:
    """Give every idle worker an item that may start; let it go once none is left."""
    for worker in [worker for worker in crew if worker.ready and worker.item is None]:
        item = waiting.take()
        if item is not None:
            worker.item = item
            _send(worker, item)
            yield Event("started", item.key)
        elif not waiting:
            crew.remove(worker)
            _send(worker, None)
            _end(worker)


def _hire(work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), name="ssmfin-worker", daemon=True)
    with one_thread_environment():
        process.start()
    theirs.close()  # else the end of the worker would not end the pipe
    worker = _Worker(process, ours)
    _send(worker, work)
    return worker


def _speaking(crew: list[_Worker]) -> list[_Worker]:
    """Wait until some workers have an answer or have died."""
    by_handle: dict[Any, _Worker] = {worker.connection: worker for worker in crew}
    by_handle |= {worker.process.sentinel: worker for worker in crew}
    told = {id(by_handle[handle]) for handle in multiprocessing.connection.wait(list(by_handle))}
    return [worker for worker in crew if id(worker) in told]


def _answer_of(worker: _Worker) -> Answer | None:
    """The worker's next answer, None if it died without one."""
    try:
        answer: Answer | None = worker.connection.recv() if worker.connection.poll() else None
    except (EOFError, ConnectionError):
        return None
    return answer


def _heard(worker: _Worker, answer: Answer) -> Iterator[Event]:
    item, worker.item = worker.item, None
    event = event_of(item, answer)
    if event is not None:
        yield event
    else:
        worker.ready = True


def _bury(worker: _Worker, crew: list[_Worker]) -> Iterator[Event]:
    """A worker died: its item has failed, the others go on."""
    crew.remove(worker)
    _end(worker)
    cause = _cause_of_death(worker.process.exitcode)
    if not worker.ready:
        raise RuntimeError(
            f"a worker process {cause} before its first task; when this is called from a script, put the call under "
            f"`if __name__ == '__main__':` (a spawned process imports the script), or use execution.backend=inline."
        )
    if worker.item is not None:
        yield Event("failed", worker.item.key, error=f"WorkerDied: the process of this task {cause}")


def _cause_of_death(exitcode: int | None) -> str:
    """
    >>> _cause_of_death(-11)
    'was killed by SIGSEGV (a crash inside a compiled library)'
    """
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hints = {
        "SIGKILL": " (most often the system out of memory)",
        "SIGSEGV": " (a crash inside a compiled library)",
        "SIGBUS": " (a crash inside a compiled library)",
        "SIGABRT": " (a compiled library gave up)",
    }
    return f"was killed by {name}{hints.get(name, '')}"


def _send(worker: _Worker, message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionError):  # dead: its sentinel says so in the next round
        worker.connection.send(message)


def _end(worker: _Worker) -> None:
    worker.process.join(PATIENCE)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """SIGTERM unwinds the stack instead of ending the process on the spot, so that workers and temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
