"""Owns what one fit of a model takes on this machine and these data, found by doing a short one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.models.interface import Forecaster, WalkForecaster
from ssmfin_pipelines.executors.machine import one_thread_here

FEW, MORE = 2, 6  # epochs of the two short trainings whose difference is what an epoch takes
WARM = 5.0  # seconds; a first fit that took less is done again, without what it imported and compiled


def worth_timing(experiment: Experiment) -> list[str]:
    """The models that fit one window after another: all but those that walk through all of them in seconds."""
    return [
        name
        for name, entry in experiment.models.items()
        if not isinstance(entry.forecaster, WalkForecaster) and not experiment.members(name)
    ]


def seconds_of_a_fit(
    experiment: Experiment, models: Iterable[str], *, tell: Callable[[str], None] = lambda name: None
) -> dict[str, float]:
    """Model -> seconds of one fit and its forecasts, on one core.

    A network trains for a few epochs only, and for a few more; early stopping is taken to end it as it does as a rule.

    Args:
        tell: is told the name of each model before it is timed.
    """
    found = {}
    with one_thread_here():
        for name in models:
            tell(name)
            forecaster = experiment.models[name].forecaster
            epochs = forecaster.typical_epochs
            if epochs is None or epochs <= MORE:
                found[name] = _steady(lambda model=name: _timed(experiment, model))  # type: ignore[misc]
                continue
            short, longer = (forecaster.model_copy(update={"epochs": n}) for n in (FEW, MORE))
            first = _steady(lambda model=name, used=short: _timed(experiment, model, used))  # type: ignore[misc]
            found[name] = extended(first, _timed(experiment, name, longer), epochs)
    return found


def extended(few: float, more: float, epochs: int) -> float:
    """Seconds of a training of so many epochs, given those of `FEW` and of `MORE`.

    >>> extended(1.0, 3.0, 36)
    18.0
    """
    return few + max(more - few, 0.0) / (MORE - FEW) * (epochs - FEW)


def _steady(timed: Callable[[], float]) -> float:
    first = timed()
    return first if first > WARM else min(first, timed())


def _timed(experiment: Experiment, name: str, forecaster: Forecaster | None = None) -> float:
    """Seconds of the first fit with anything to forecast; with another forecaster in the model's place, if given."""
    entry = experiment.models[name]
    if forecaster is not None:
        experiment = replace(experiment, models={**experiment.models, name: replace(entry, forecaster=forecaster)})
    k = experiment.refit(name)
    fit = next(number for number, rows in enumerate(experiment.test_rows) if len(rows)) // k
    folds = tuple(range(fit * k, min((fit + 1) * k, len(experiment.folds))))
    task = Task(name, entry.runs[0], (fit,), folds, 0.0)
    began = time.perf_counter()
    run_task(experiment, task)
    return time.perf_counter() - began
