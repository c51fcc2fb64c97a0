"""Owns the type of two-sided results: a smoothed state at t depends on data after t and can be no feature."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

WHY = (
    "a smoothed value at t is computed from data after t, so a backtest that uses it reads the future "
    "(a smoothed local level divides the loss of log-HAR by 2.5, a filtered one by 1.003); use filter_series"
)


@dataclass(frozen=True, repr=False)
class Smoothed:
    """Moments of states given the whole sample: for exploration, never for a forecast.

    The evaluation harness refuses this type wherever it looks for features (`WHY` is the reason it gives). It is no
    array and cannot be converted to one by accident: numpy is told so.

    Attributes:
        states: names of the state elements, or of the regimes.
        mean: (B, T, N), E(alpha_t | y_1 .. y_T), in the user's units; regime models: probabilities.
        covariance: (B, T, N, N), or None where there is none (regimes).
        log_likelihood: (B,), nats.
        outputs: name -> (mean, variance), each (B, T): the named quantities of the model, as in the filtered result.
    """

    states: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray | None
    log_likelihood: np.ndarray
    outputs: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __repr__(self) -> str:
        series, steps = self.mean.shape[:2]
        named = ", ".join(self.outputs or self.states)
        return f"{type(self).__name__}({series} series, {steps} steps, {named}; two-sided: no feature)"

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError(f"Smoothed is no array of features: {WHY}; take .mean to look at it.")
