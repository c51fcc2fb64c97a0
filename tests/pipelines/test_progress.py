"""Owns the promise that progress tells the truth: in seconds of work, corrected by what was measured."""

from __future__ import annotations

import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin_pipelines import progress
from ssmfin_pipelines.progress import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_one(meter: Meter, clock: Clock, key: str, seconds: float) -> None:
    meter.start(key)
    clock.now += seconds
    meter.end(key)


def test_a_costly_task_counts_for_its_cost_not_as_one_of_many() -> None:
    clock = Clock()
    meter = Meter([("a", "har", 1.0), ("b", "s4d", 99.0)], clock=clock)
    run_one(meter, clock, "a", 1.0)
    assert meter.fraction() == pytest.approx(0.01)
    assert meter.remaining_seconds() == pytest.approx(99.0)


def test_measured_times_of_a_model_correct_its_other_tasks() -> None:
    clock = Clock()
    meter = Meter([*((f"s{i}", "s4d", 1.0) for i in range(10)), ("h", "har", 10.0)], clock=clock)
    run_one(meter, clock, "h", 10.0)
    for i in range(5):
        run_one(meter, clock, f"s{i}", 20.0)
    assert meter.expected("s9") == pytest.approx(20.0, rel=0.15)
    assert meter.remaining_seconds() == pytest.approx(100.0, rel=0.15)


def test_a_slow_machine_is_learned_from_any_model() -> None:
    clock = Clock()
    meter = Meter([("h", "har", 1.0), ("s", "s4d", 10.0)], clock=clock)
    run_one(meter, clock, "h", 3.0)
    assert meter.expected("s") == pytest.approx(30.0)


def test_several_workers_share_what_is_left_but_one_task_is_not_split() -> None:
    meter = Meter([(f"k{i}", "har", 10.0) for i in range(4)], workers=2, clock=Clock())
    assert meter.remaining_seconds() == pytest.approx(20.0)
    assert Meter([("k", "har", 10.0)], workers=8, clock=Clock()).remaining_seconds() == pytest.approx(10.0)


def test_the_time_until_workers_are_ready_is_part_of_the_whole() -> None:
    clock = Clock()
    meter = Meter([("a", "har", 5.0)], opening=5.0, clock=clock)
    assert meter.remaining_seconds() == pytest.approx(10.0)
    clock.now += 4.0
    assert meter.remaining_seconds() == pytest.approx(6.0)
    clock.now += 2.0
    meter.start("a")
    assert meter.remaining_seconds() == pytest.approx(5.0)
    assert meter.fraction() == pytest.approx(6 / 11)


def test_the_closing_work_is_part_of_the_whole() -> None:
    clock = Clock()
    meter = Meter([("a", "har", 10.0)], closing=10.0, clock=clock)
    run_one(meter, clock, "a", 10.0)
    assert meter.fraction() == pytest.approx(0.5)
    meter.close()
    clock.now += 5.0
    assert meter.fraction() == pytest.approx(0.75)
    assert meter.remaining_seconds() == pytest.approx(5.0)
    meter.finish()
    assert (meter.fraction(), meter.remaining_seconds()) == (1.0, 0.0)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 100.0), st.floats(0.01, 100.0)), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_progress_never_goes_back_and_is_not_complete_before_the_end(
    tasks: list[tuple[str, float, float]], workers: int
) -> None:
    clock = Clock()
    meter = Meter([(str(i), model, guess) for i, (model, guess, _) in enumerate(tasks)], workers=workers, clock=clock)
    seen = [meter.fraction()]
    for i, (_, _, seconds) in enumerate(tasks):
        meter.start(str(i))
        for _ in range(3):
            clock.now += seconds / 3
            seen.append(meter.fraction())
            assert seen[-1] < 1.0
            assert meter.remaining_seconds() > 0.0
        meter.end(str(i))
        seen.append(meter.fraction())
    assert all(later >= earlier for earlier, later in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(1.0)


def test_elsewhere_than_on_a_terminal_there_are_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 60.0)
    out = io.StringIO()
    meter = Meter([("a", "har", 1.0)])
    with progress.automatic(out)(meter, "vol"):
        meter.start("a")
        meter.end("a")
        meter.finish()
    assert out.getvalue().startswith("vol: 100 %  1 of 1 tasks")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_there_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    meter = Meter([("a", "har", 1.0)])
    with progress.automatic(out)(meter, "vol"):
        meter.start("a")
        meter.end("a")
        meter.finish()
    assert "100 %" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_an_earlier_run_has_done_is_said_once_and_first(terminal: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    out = Stream()
    meter = Meter([("a", "har", 1.0)], before="resuming: 22 of 39 tasks are done")
    with progress.automatic(out)(meter, "vol [a]"):
        meter.finish()
    said = out.getvalue()
    assert said.count("vol [a]: resuming: 22 of 39 tasks are done") == 1
    assert said.index("resuming") < said.index("100 %")


def test_an_interrupted_run_does_not_claim_the_end() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress.automatic(out)(Meter([("a", "har", 1.0)]), "vol"):
        raise KeyboardInterrupt
    assert "100 %" not in out.getvalue()
