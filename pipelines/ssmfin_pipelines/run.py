"""Owns running a study: plan, do what is missing, store, and write the results once everything is there.

A run may be interrupted at any moment, resumed, and split over processes that share the folder; the predictions have
the same bytes in every case, since a task's result depends on the task alone and tasks are put together in one order.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.data.levels import price_warning
from ssmfin.errors import InputError
from ssmfin.evaluation.causality import check_causality
from ssmfin.evaluation.leaderboard import SCHEMA
from ssmfin.evaluation.losses import losses_named
from ssmfin_pipelines import progress as progress_module
from ssmfin_pipelines.atomic import append_line, storage, temporary
from ssmfin_pipelines.executors import Item, executor
from ssmfin_pipelines.executors.contract import Work
from ssmfin_pipelines.executors.machine import one_thread_here
from ssmfin_pipelines.executors.study_work import HereWork, StudyWork, study_code, write_panel_file
from ssmfin_pipelines.finish import Results, finish, finished, rebuild_report
from ssmfin_pipelines.learned import StoredLearnings
from ssmfin_pipelines.manifest import now
from ssmfin_pipelines.prepare import Prepared, few_forecasts, label_of, learned_seconds, prepare
from ssmfin_pipelines.progress import Display, Meter, duration

if TYPE_CHECKING:
    from ssmfin_pipelines.study import Study

__all__ = ["Interrupted", "RunOutcome", "rebuild_report", "run_study"]

OPENING_SECONDS = {"inline": 0.0, "local": 3.0, "ray": 8.0}  # until workers have imported what they need
CHECKING = "checking the data, and that no feature sees the future"
CLOSING_SECONDS = 4.0  # tests, figures and report of a small study
CLOSING_SECONDS_PER_FORECAST = 8e-6


class Interrupted(KeyboardInterrupt):
    """A run was interrupted among its tasks; as text, how many of them are done."""


@dataclass(frozen=True)
class RunOutcome:
    """What a call of `run_study` ended with.

    Attributes:
        directory: the run folder.
        headline, paragraphs: the verdict; of an incomplete run, what is missing.
        leaderboard: pooled over ids; empty while the run is incomplete.
        failures: failed tasks: model, seed, folds, error, traceback.
        done, total: tasks of the whole study. tasks: how many of them each model has. seconds: wall clock of this call.
        complete: every task is done or has failed, and the results are written.
    """

    directory: Path
    headline: str
    paragraphs: tuple[str, ...]
    leaderboard: pl.DataFrame
    failures: list[dict[str, Any]]
    done: int
    total: int
    tasks: Mapping[str, int]
    seconds: float
    complete: bool

    def render(self) -> str:
        """The verdict as text for a terminal."""
        tasks = f"{self.done} of {self.total} tasks done" if self.done < self.total else f"{self.total} tasks"
        out = [self.headline, *self.paragraphs]
        out += self.failure_lines()
        out.append(f"{tasks}, {duration(self.seconds)}; {self.directory}")
        return "\n\n".join(out)

    def failure_lines(self) -> list[str]:
        """One line for every model with failed tasks: how many, the most frequent error, where the tracebacks are."""
        reported = self.complete and self.leaderboard.height > 0 and (self.directory / "report.html").is_file()
        where = "in the report, section Failures" if reported else f"in {self.directory / 'tasks'}/*/failed"
        lines = []
        for model in dict.fromkeys(failure["model"] for failure in self.failures):
            errors = Counter(failure["error"] for failure in self.failures if failure["model"] == model)
            failed, ((error, _), *others) = errors.total(), errors.most_common()
            more = f" and {len(others)} other error{'s' * (len(others) > 1)}" if others else ""
            total = max(failed, self.tasks.get(model, 0))
            tasks, tracebacks = "task" + "s" * (total > 1), "tracebacks are" if others else "traceback is"
            lines.append(f"{model}: {failed} of {total} {tasks} failed, {error}{more}; the {tracebacks} {where}.")
        return lines

    def __str__(self) -> str:
        return self.render()


def run_study(
    study: Study, *, fresh: bool = False, shard: tuple[int, int] | None = None, progress: Display | None = None
) -> RunOutcome:
    """Run what is missing of a study and write its results.

    Args:
        fresh: discard what is stored and do everything again.
        shard: (i, n), i from 1 to n: do the tasks i, i + n, i + 2 n, .. only. Whichever shard finds everything done
            writes the results.
        progress: shows how far it is; default: a bar on a terminal, plain lines elsewhere, on standard error.
    Raises:
        InputError: the data, the windows, a feature or a loss do not fit; StorageError: the disk refuses.
        Interrupted: a KeyboardInterrupt that says how many tasks are done.
    """
    began = time.monotonic()
    _check_shard(shard)
    prepared = prepare(study)
    if not fresh and (known := finished(prepared)) is not None:
        return _outcome(prepared, known, began, complete=True)
    store, total = prepared.store, len(prepared.everything)
    earlier = 0 if fresh else _done(prepared)  # counted first: `check` may learn something, too
    if progress is None and prepared.learnings:  # they are learned twice for it, which takes its time
        print(f"{study.name}: {CHECKING}", file=sys.stderr, flush=True)
    forecasts = check(prepared)  # before anything is written: wrong input leaves no file behind
    doubt = price_warning(prepared.panel, study.target.column, study.target.transform)
    for warning in (doubt, few_forecasts(prepared)):
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    store.create()
    store.clean()
    if fresh:
        store.discard_all()
    if isinstance(prepared.experiment.learnings, StoredLearnings):
        prepared.experiment.learnings.write_all()  # what `check` has learned
    missing = _missing(prepared, shard)
    last = [item for item in prepared.combinations if not store.is_done(item.key)]
    to_do = len(missing) + len(last)
    _log(prepared, "run_started", tasks=total, missing=to_do, shard=shard, fresh=fresh)
    meter = Meter(
        [(item.key, item.task.model, item.seconds) for item in [*missing, *last]],
        workers=min(prepared.workers, max(1, len(missing))),
        opening=OPENING_SECONDS[study.execution.backend] if missing else 0.0,
        closing=CLOSING_SECONDS + CLOSING_SECONDS_PER_FORECAST * forecasts,
        before=f"resuming: {earlier} of {total} tasks are done" if earlier else "",
    )
    show = progress if progress is not None else progress_module.automatic()
    try:
        with show(meter, study.name):
            stopped = _do(prepared, missing, meter) or _do(prepared, _ready(prepared, last), meter, here=True)
            state = _state(prepared)
            if stopped or state.open:
                meter.finish()
                results = _unfinished(prepared, state, stopped, shard)
            else:
                meter.close()
                results = finish(prepared, state.failures, seconds=time.monotonic() - began)
                meter.finish()
    except BaseException as error:
        _log(prepared, "run_interrupted", error=type(error).__name__)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"{_done(prepared)} of {total} tasks are done") from None
        raise
    finally:
        store.clean()  # what killed workers were writing
    complete = not stopped and not state.open
    outcome = _outcome(prepared, results, began, complete=complete)
    counts = {"done": outcome.done, "failed": len(outcome.failures), "seconds": outcome.seconds}
    _log(prepared, "run_ended", **counts, complete=complete, headline=outcome.headline)
    return outcome


def _missing(prepared: Prepared, shard: tuple[int, int] | None) -> list[Item]:
    """What there is to do before the combinations: this shard's share of the models' tasks, all that features learn.

    Learnings are not divided: models of every shard wait for them, and shards that share a folder skip what another has
    done meanwhile. Each begins with a part of its own.
    """
    store, seconds, last = prepared.store, learned_seconds(prepared), prepared.combinations

    def mine(number: int) -> bool:
        return shard is None or number % shard[1] == shard[0] - 1

    models = [
        item
        for number, item in enumerate(prepared.items)
        if mine(number) and item not in last and not store.is_done(item.key)
    ]
    awaited = frozenset().union(*(item.needs for item in models))
    missing = [replace(item, seconds=seconds[item.key]) for item in models]
    for number, item in enumerate(prepared.learnings):
        if store.is_done(item.key) or (models and item.key not in awaited and not mine(number)):
            continue
        store.discard(item.key)  # an earlier failure, which would be taken for an answer
        missing.append(replace(item, seconds=seconds[item.key] * (1.0 if mine(number) else 0.5)))
    return missing


def _ready(prepared: Prepared, combinations: list[Item]) -> list[Item]:
    """The combinations whose members' tasks have all ended, in this or another process.

    Whoever ends last finds them so; should two, both get the same bytes and the store keeps the first.
    """
    store = prepared.store
    return [
        item for item in combinations if all(store.is_done(key) or store.failure(key) is not None for key in item.needs)
    ]


def check(prepared: Prepared) -> int:
    """Find now what would otherwise fail in every task or only after hours of them; returns the number of forecasts.

    Raises:
        InputError: a feature sees the future, no row can be forecast or scored, a loss does not fit the target.
    """
    with one_thread_here():  # features that learn do so here for the first fold
        return _checked(prepared)


def _checked(prepared: Prepared) -> int:
    experiment, evaluate = prepared.experiment, prepared.study.evaluate
    rows = np.concatenate(experiment.test_rows)
    labels = experiment.design.labels[rows]
    known = np.isfinite(labels)
    if not known.any():
        raise InputError(
            f"no forecast can be scored, the panel ends before the first outcome is known (horizons "
            f"{list(experiment.target.horizons)}); use a smaller walk_forward.train.size or more data."
        )
    for loss in losses_named(evaluate.losses):
        bad = known & (labels <= 0) if loss.positive else np.zeros_like(known)
        if bad.any():
            one = int(bad.sum()) == 1
            raise InputError(
                f"evaluate.losses has {loss.name}, which needs a positive target, but {int(bad.sum())} "
                f"{'outcome' if one else 'outcomes'} of {experiment.target.column!r} {'is' if one else 'are'} zero or "
                f"negative, the lowest {labels[bad].min():g}; "
                f"take {loss.name} out of evaluate.losses, or choose a positive target."
            )
    check_causality(prepared.panel, experiment.target, experiment.features, experiment.folds)
    return int(labels.size * sum(len(entry.runs) for entry in experiment.models.values()))


@dataclass(frozen=True)
class _State:
    """How the tasks of the whole study stand on disk."""

    done: int
    failures: list[dict[str, Any]]
    open: int


def _do(prepared: Prepared, missing: list[Item], meter: Meter, *, here: bool = False) -> bool:
    """Do the tasks where the study says; returns whether one failed and `on_error: stop` ended it.

    `here`: in this process in any case, which is quicker for tasks that take less than a process takes to begin.
    """
    tasks = {item.key: item.task for item in missing}
    run = executor("inline" if here else prepared.study.execution.backend)
    with _work(prepared, bool(missing) and not here) as work, closing(run(work, missing, prepared.workers)) as events:
        for event in events:
            task = tasks[event.key]
            if event.kind == "started":
                meter.start(event.key)
                continue
            meter.end(event.key)
            if event.kind == "done":
                _log(prepared, "task_done", key=event.key, task=label_of(task), seconds=event.seconds)
                continue
            failure = {
                "model": task.model,
                "seed": task.seed,
                "folds": list(task.folds),
                "error": event.error,
                "traceback": event.traceback,
            }
            prepared.store.write_failure(event.key, failure)
            _log(prepared, "task_failed", key=event.key, task=label_of(task), error=event.error)
            if prepared.study.execution.on_error == "stop":
                return True
    return False


@contextmanager
def _work(prepared: Prepared, needed: bool) -> Iterator[Work]:
    """The work in the form that the backend needs; the panel file for other processes goes when they are done."""
    if prepared.study.execution.backend == "inline" or not needed:
        yield HereWork(prepared.experiment, prepared.store)
        return
    folder = temporary(prepared.directory, "panel")
    try:
        with storage(folder):
            folder.mkdir()
        write_panel_file(prepared.panel.frame, folder / "panel.arrow")
        directory = prepared.directory.absolute()
        panel_file, notes = folder.absolute() / "panel.arrow", dict(prepared.panel.notes)
        code = study_code(prepared.study)
        yield StudyWork(prepared.study, panel_file, notes, directory, code, prepared.data_fingerprint)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _state(prepared: Prepared) -> _State:
    store, failures, done = prepared.store, [], 0
    for item in prepared.everything:
        if store.is_done(item.key):
            done += 1
        elif (failure := store.failure(item.key)) is not None:
            failures.append(failure)
    return _State(done, failures, len(prepared.everything) - done - len(failures))


def _unfinished(prepared: Prepared, state: _State, stopped: bool, shard: tuple[int, int] | None) -> Results:
    total = len(prepared.everything)
    if stopped:
        failure = state.failures[0]
        why = f"{failure['model']}: {failure['error']}"
        headline = f"Stopped at the first failure ({why}); {state.done} of {total} tasks are done."
    else:
        part = f"Shard {shard[0]} of {shard[1]} is done; " if shard is not None else ""
        headline = f"{part}{state.done} of {total} tasks are done, {state.open} are still open."
    return Results(headline, (), pl.DataFrame(schema=SCHEMA), state.failures)


def _outcome(prepared: Prepared, results: Results, began: float, *, complete: bool) -> RunOutcome:
    return RunOutcome(
        directory=prepared.directory,
        headline=results.headline,
        paragraphs=results.paragraphs,
        leaderboard=results.leaderboard,
        failures=results.failures,
        done=_done(prepared),
        total=len(prepared.everything),
        tasks=Counter(item.task.model for item in prepared.everything),
        seconds=time.monotonic() - began,
        complete=complete,
    )


def _done(prepared: Prepared) -> int:
    return sum((prepared.store.tasks / item.key / "done").is_file() for item in prepared.everything)


def _check_shard(shard: tuple[int, int] | None) -> None:
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise InputError(f"the shard is out of range, {shard[0]} of {shard[1]}; count shards from 1 to n.")


def _log(prepared: Prepared, event: str, **facts: Any) -> None:
    append_line(prepared.directory / "log.jsonl", {"time": now(), "event": event, **facts})
