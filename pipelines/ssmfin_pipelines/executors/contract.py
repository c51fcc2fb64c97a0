"""Owns what an executor is given (Work, Item) and what it says (Event)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Item:
    """One task to do. `seconds` is an estimate, used for the order only; `task` must survive a spawn."""

    key: str
    task: Any
    seconds: float


@dataclass(frozen=True)
class Event:
    """What happened to an item.

    Attributes:
        kind: "started", "done" or "failed".
        seconds: what the task took by its own account, 0 when it has only started.
        error: one line. `traceback`: the rest, empty where there is none (a killed process leaves none).
    """

    kind: Literal["started", "done", "failed"]
    key: str
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""


class Work(Protocol):
    """What to do with items. It is sent to each process once, so it must survive a spawn and be small."""

    def open(self) -> Callable[[Item], float]:
        """Prepare once per process (load the panel) and answer the function that does one item.

        That function stores its result itself and returns the seconds it took. A `StorageError` of it ends the run,
        any other exception is a failure of the item.
        """
        ...


def costly_first(items: list[Item]) -> list[Item]:
    """The order that ends soonest on several workers; ties by key, so that the order is the same every time."""
    return sorted(items, key=lambda item: (-item.seconds, item.key))
