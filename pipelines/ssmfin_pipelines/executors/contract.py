"""Owns what an executor is given (Work, Item) and what it says (Event)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Item:
    """One task to do. `seconds` is an estimate, used for the order only; `task` must survive a spawn.

    `needs` are keys of items that must have ended (done or failed) before it starts; those not in the run count as
    ended.
    """

    key: str
    task: Any
    seconds: float
    needs: frozenset[str] = frozenset()


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
    """The order that ends soonest on several workers: what others wait for, then costly ones; ties by key, so that the
    order is the same every time."""
    awaited = {key for item in items for key in item.needs}
    return sorted(items, key=lambda item: (item.key not in awaited, -item.seconds, item.key))


class Waiting:
    """Items that have not started, in the order of `costly_first`, each held back until what it needs has ended."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = costly_first(list(items))
        self._open = {item.key for item in self._items}

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> Item | None:
        """The next item that may start, None while all wait for items that are running."""
        for position, item in enumerate(self._items):
            if not item.needs & self._open:
                return self._items.pop(position)
        return None

    def ended(self, item: Item) -> None:
        """The item is done or has failed: what needs it may start."""
        self._open.discard(item.key)
