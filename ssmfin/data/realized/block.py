"""Owns sampled sessions of equal length: what every estimator is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Block:
    """D sessions with m fine intervals each.

    Attributes:
        log_price: (D, m + 1) at the grid points of the fine interval, the open and the close included; no NaN.
        step: fine intervals a sampling interval.
        minutes: of a fine interval.
        prepend_zero: put a return of zero before each session's, as one reference package does.
        jump_level: of the jump test.
        market: (D, n) returns of the market on the same grid and days, NaN where it has none; or None.
    """

    log_price: np.ndarray
    step: int
    minutes: float
    prepend_zero: bool = False
    jump_level: float = 0.999
    market: np.ndarray | None = None
    _done: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def returns(self) -> np.ndarray:
        """(D, n) log returns at the sampling interval; the last one may be shorter."""
        m = self.log_price.shape[1] - 1
        points = self.log_price[:, :: self.step]
        if m % self.step:
            points = np.concatenate([points, self.log_price[:, -1:]], axis=1)
        returns = np.diff(points, axis=1)
        if self.prepend_zero:
            returns = np.concatenate([np.zeros((len(returns), 1)), returns], axis=1)
        return returns

    @property
    def n(self) -> int:
        """Returns of a session."""
        return int(self.returns.shape[1])

    @property
    def slow(self) -> int:
        """Fine intervals in about 20 minutes, but at least a sampling interval and at most half a session."""
        m = int(self.log_price.shape[1]) - 1
        return max(1, min(max(round(20.0 / self.minutes), self.step), m // 2))

    def __getitem__(self, name: str) -> np.ndarray:
        """(D,) the estimator of that name; computed once."""
        if name not in self._done:
            from ssmfin.data.realized.estimators import ESTIMATORS

            self._done[name] = ESTIMATORS[name].compute(self)
        return self._done[name]
