"""Owns the quantiles of a model in use as they learn: what was said of each id, until its outcome is there."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import NamedTuple

import numpy as np

from ssmfin.evaluation.recalibration import Recalibration, Tracker
from ssmfin.models.interface import Target


class Pending(NamedTuple):
    """Quantiles said at the row of this number of an id."""

    row: int
    said: list[float]


class LiveRecalibration:
    """One `Tracker` for each id and horizon, and the forecasts whose outcomes are still to come."""

    def __init__(self, target: Target, levels: tuple[float, ...], how: Recalibration) -> None:
        self._target, self._levels, self._how = target, levels, how
        log = target.transform == "log"
        self._trackers: dict[tuple[str, int], Tracker] = defaultdict(lambda: Tracker(levels, how, log=log))
        self._pending: dict[tuple[str, int], deque[Pending]] = defaultdict(deque)
        self._values: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=max(target.horizons)))
        self._rows: dict[str, int] = defaultdict(int)

    def see(self, name: str, value: float) -> None:
        """The target of an id's next row, from which the forecasts that it ends are learned."""
        self._values[name].append(value)
        self._rows[name] += 1
        for h in self._target.horizons:
            waiting = self._pending[name, h]
            while waiting and waiting[0].row + h <= self._rows[name]:
                last = list(self._values[name])[-h:]
                total = math.fsum(last)
                outcome = {"mean": total / h, "sum": total, "last": last[-1]}[self._target.aggregate]
                self._trackers[name, h].learn(outcome, waiting.popleft().said)

    def say(self, name: str, quantiles: np.ndarray) -> np.ndarray:
        """What to say at the id's newest row instead of the model's quantiles, (H, Q) each."""
        out = []
        for h, own in zip(self._target.horizons, quantiles.tolist(), strict=True):
            said = self._trackers[name, h].shifted(own)
            self._pending[name, h].append(Pending(self._rows[name], said))
            out.append(said)
        return np.array(out)
