"""Owns how far a run is: a meter in seconds of work, and its display on a terminal or in plain lines.

Tasks differ by orders of magnitude in cost, so counting them would mislead. The meter weighs each by its estimated
seconds and corrects the estimates of a model, while the run goes, by what its finished tasks really took.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TextIO

PRIOR_TASKS = 0.5  # weight of the first guess against one measured task
ALMOST = 0.95  # a running task counts at most this much of itself: it may take longer than thought
LINE_EVERY = 5.0  # seconds between plain lines
BAR_EVERY = 0.2


class Meter:
    """Expected work of a run, corrected by measurements. Safe to use from two threads.

    Args:
        tasks: (key, model, estimated seconds) of every task still to do.
        workers: how many run at the same time.
        opening: estimated seconds until the first task starts. closing: of what follows the tasks (tests, report).
        before: in words, what an earlier run has done already; shown once at the start.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: Iterable[tuple[str, str, float]],
        *,
        workers: int = 1,
        opening: float = 0.0,
        closing: float = 0.0,
        before: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.before = before
        self._tasks = {key: (model, max(seconds, 1e-3)) for key, model, seconds in tasks}
        self._workers = max(1, workers)
        self._opening = opening if self._tasks else 0.0
        self._closing = closing
        self._clock = clock
        self._began = clock()
        self._opened: float | None = None
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._closing_since: float | None = None
        self._finished = False
        self._lock = threading.RLock()
        self._highest = 0.0

    @property
    def total(self) -> int:
        return len(self._tasks)

    @property
    def done(self) -> int:
        return len(self._ended)

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    def start(self, key: str) -> None:
        with self._lock:
            now = self._clock()
            self._opened = now if self._opened is None else self._opened
            self._started[key] = now

    def end(self, key: str) -> None:
        """The task is done or has failed; either way its time is spent."""
        with self._lock:
            now = self._clock()
            self._ended[key] = max(now - self._started.pop(key, now), 1e-3)

    @contextlib.contextmanager
    def doing(self, key: str) -> Iterator[None]:
        """A task that this process does now."""
        self.start(key)
        yield
        self.end(key)

    def close(self) -> None:
        """All tasks are done; tests and report begin."""
        with self._lock:
            self._closing_since = self._clock()

    def finish(self) -> None:
        with self._lock:
            self._finished = True

    def running(self) -> list[str]:
        """Models that are being computed now."""
        with self._lock:
            return sorted({self._tasks[key][0] for key in self._started if key in self._tasks})

    def expected(self, key: str) -> float:
        """Seconds the task should take, by its model's measured tasks, else by those of all models, else as guessed."""
        with self._lock:
            model, seconds = self._tasks[key]
            return seconds * self._ratios().get(model, self._ratios()[""])

    def fraction(self) -> float:
        """Part of the run that is behind us, in [0, 1]; it never goes back."""
        with self._lock:
            if self._finished:
                return 1.0
            spent, left = self._spent_and_left()
            whole = spent + left
            self._highest = max(self._highest, min(spent / whole, 1.0) if whole > 0 else 0.0)
            return self._highest

    def remaining_seconds(self) -> float:
        """Wall clock still to come: the work shared among workers, at least the longest single task, and the close."""
        with self._lock:
            if self._finished:
                return 0.0
            lefts = list(self._lefts().values())
            shared = max(sum(lefts) / self._workers, max(lefts, default=0.0))
            return self._opening_left() + shared + self._closing_left()

    def _ratios(self) -> dict[str, float]:
        """Measured over guessed seconds, by model; "" over all models."""
        measured: dict[str, float] = defaultdict(float)
        guessed: dict[str, float] = defaultdict(float)
        count: dict[str, int] = defaultdict(int)
        for key, seconds in self._ended.items():
            model, guess = self._tasks[key]
            for name in (model, ""):
                measured[name] += seconds
                guessed[name] += guess
                count[name] += 1
        overall = measured[""] / guessed[""] if count[""] else 1.0
        ratios = {"": overall}
        for model, n in count.items():
            if model:
                weight = PRIOR_TASKS / (PRIOR_TASKS + n)
                ratios[model] = (1 - weight) * measured[model] / guessed[model] + weight * overall
        return ratios

    def _lefts(self) -> dict[str, float]:
        """Seconds of work left in each task that has not ended."""
        ratios, now = self._ratios(), self._clock()
        lefts = {}
        for key, (model, guess) in self._tasks.items():
            if key not in self._ended:
                whole = guess * ratios.get(model, ratios[""])
                ran = now - self._started[key] if key in self._started else 0.0
                lefts[key] = _tail(whole, ran)
        return lefts

    def _opening_left(self) -> float:
        if self._opened is not None or not self._opening:
            return 0.0
        return _tail(self._opening, self.elapsed)

    def _closing_left(self) -> float:
        if self._closing_since is None:
            return self._closing
        return _tail(self._closing, self._clock() - self._closing_since)

    def _spent_and_left(self) -> tuple[float, float]:
        now = self._clock()
        spent = sum(self._ended.values()) + sum(now - since for since in self._started.values())
        left = sum(self._lefts().values())
        if self._closing_since is not None:
            spent += (now - self._closing_since) * self._workers
        if self._opening:
            spent += ((now if self._opened is None else self._opened) - self._began) * self._workers
        return spent, left + (self._opening_left() + self._closing_left()) * self._workers


def _tail(whole: float, ran: float) -> float:
    """Seconds left of something that was to take `whole`; past that, a tail of what it has already taken."""
    return max(whole - ran, (1 - ALMOST) * max(whole, ran))


class Display(Protocol):
    """Shows a meter while a block runs."""

    def __call__(self, meter: Meter, title: str) -> contextlib.AbstractContextManager[None]: ...


def automatic(stream: TextIO | None = None) -> Display:
    """A bar if the stream (standard error) is a terminal, plain lines otherwise."""
    out = stream if stream is not None else sys.stderr
    return _Bar(out) if out.isatty() else _Lines(out)


@contextlib.contextmanager
def silent(meter: Meter, title: str) -> Iterator[None]:
    """Shows nothing."""
    yield


class _Bar:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextlib.contextmanager
    def __call__(self, meter: Meter, title: str) -> Iterator[None]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[state]}"),
            console=Console(file=self._stream),
            auto_refresh=False,
        )
        row = bar.add_task(title, total=1.0, state="")

        def show() -> None:
            bar.update(row, completed=meter.fraction(), state=_state(meter))
            bar.refresh()

        with bar:
            if meter.before:
                bar.console.print(f"{title}: {meter.before}", markup=False, highlight=False, soft_wrap=True)
            with _repeating(show, BAR_EVERY):
                yield
        self._stream.flush()


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextlib.contextmanager
    def __call__(self, meter: Meter, title: str) -> Iterator[None]:
        def show() -> None:
            print(f"{title}: {100 * meter.fraction():3.0f} %  {_state(meter)}", file=self._stream, flush=True)

        if meter.before:
            print(f"{title}: {meter.before}", file=self._stream, flush=True)
        with _repeating(show, LINE_EVERY):
            yield


@contextlib.contextmanager
def _repeating(show: Callable[[], None], every: float) -> Iterator[None]:
    """Call `show` from a thread of its own while the block runs, and once more when it ended well."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(every):
            show()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join()
        raise
    over.set()
    thread.join()
    show()


def _state(meter: Meter) -> str:
    if meter.remaining_seconds() == 0.0:
        return f"{meter.done} of {meter.total} tasks, {duration(meter.elapsed)}"
    doing = ", ".join(meter.running()) or ("tests and report" if meter.done == meter.total else "starting workers")
    return (
        f"{meter.done} of {meter.total} tasks, {duration(meter.elapsed)} so far, "
        f"about {duration(meter.remaining_seconds())} left ({doing})"
    )


def duration(seconds: float) -> str:
    """Seconds in the largest two units that say something.

    >>> duration(3.2), duration(75), duration(7300)
    ('3 s', '1 min 15 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
