"""Owns forecasters for the tests of runs: quick, seeded, and able to fail in chosen folds."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, TrainingSet


class ToyFitted(Fitted):
    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.notes: dict[str, Any] = {"fitted": 1}

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return np.repeat(self.factor * design.lag_means[rows, 1:2], len(design.target.horizons), axis=1)


class Toy(Forecaster):
    """The five-day mean times a factor drawn from the seed, one fit a task.

    fails: how it ends while the file `trouble` exists, "raise" or "kill"; in one fold only. The environment's
    SSMFIN_TOY_PAUSE makes each fit take as many seconds, without a change of any key.
    """

    kind: ClassVar[str] = "toy"
    stochastic: ClassVar[bool] = True
    fits_per_task: ClassVar[int] = 1
    seconds_per_fit: ClassVar[float] = 0.05

    fails: str = ""
    trouble: str = ""

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        time.sleep(float(os.environ.get("SSMFIN_TOY_PAUSE", "0")))
        if self.fails and Path(self.trouble).exists() and training.window.cutoff == 79:
            if self.fails == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ArithmeticError("the toy is broken")
        return ToyFitted(float(np.random.default_rng(seed).uniform(0.8, 1.2)))
