"""Owns what a worker answers, wherever it runs, and what its parent makes of that.

An answer is a tuple: ("ready",) or, while preparing, ("refused", message) if the input is wrong, else
("broken", line, traceback); then for each item ("done", seconds), ("failed", line, traceback) or ("storage", message).
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ssmfin.errors import InputError
from ssmfin_pipelines.atomic import StorageError
from ssmfin_pipelines.executors.contract import Event, Item, Work

Answer = tuple[Any, ...]


def prepare(pickled: bytes) -> tuple[Callable[[Item], float] | None, Answer]:
    """Open pickled work: the function that does one item, None where there is none, and the answer.

    What is unpickled here comes from the parent of this worker, never from a file.
    """
    try:
        work: Work = pickle.loads(pickled)
        do = work.open()
    except InputError as error:
        return None, ("refused", str(error))
    except Exception as error:
        return None, ("broken", in_one_line(error), traceback.format_exc())
    cap_torch()
    return do, ("ready",)


def perform(do: Callable[[Item], float], item: Item) -> Answer:
    """Do one item with one thread."""
    try:
        cap_torch()
        return ("done", do(item))
    except StorageError as error:
        return ("storage", str(error))
    except Exception as error:
        return ("failed", in_one_line(error), traceback.format_exc())


def event_of(item: Item | None, answer: Answer) -> Event | None:
    """What the answer says of the item, None that a worker is ready.

    Raises:
        StorageError: a result could not be stored.
        InputError: the worker found the input wrong while preparing.
        RuntimeError: the worker could not prepare.
    """
    kind, *said = answer
    if kind == "storage":
        raise StorageError(said[0])
    if kind == "refused":
        raise InputError(said[0])
    if kind == "broken":
        raise RuntimeError(f"a worker could not prepare: {said[0]}\n{said[1]}")
    if kind == "ready" or item is None:
        return None
    if kind == "done":
        return Event("done", item.key, seconds=said[0])
    return Event("failed", item.key, error=said[0], traceback=said[1])


def in_one_line(error: BaseException) -> str:
    """The exception's type and the first line of what it says.

    >>> in_one_line(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def cap_torch() -> None:
    """torch reads OMP_NUM_THREADS when it loads; a model may since have asked for more."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
