"""Owns how tasks are scheduled, never what they compute: an executor only decides where and when.

    inline   one after another in this process
    local    spawned processes on this machine
    ray      actors of a Ray cluster (`pip install 'ssmfin[ray]'`)

All take the same arguments and yield the same events, and all give the same predictions, bit for bit on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from ssmfin.errors import InputError, nearest
from ssmfin_pipelines.executors.contract import Event, Item, Work
from ssmfin_pipelines.executors.inline import run_inline
from ssmfin_pipelines.executors.local import run_local
from ssmfin_pipelines.executors.machine import usable_cores
from ssmfin_pipelines.executors.ray import run_ray

Executor = Callable[[Work, Sequence[Item], int], Generator[Event]]
EXECUTORS: dict[str, Executor] = {"inline": run_inline, "local": run_local, "ray": run_ray}

__all__ = ["EXECUTORS", "Event", "Executor", "Item", "Work", "executor", "usable_cores"]


def executor(backend: str) -> Executor:
    """The executor of that name.

    Raises:
        InputError: there is none.
    """
    if backend not in EXECUTORS:
        raise InputError(f"execution.backend is not known, {backend!r}; {nearest(backend, EXECUTORS)}")
    return EXECUTORS[backend]
