"""Owns the filter, which uses rows up to t alone, the state it carries on, and the smoother, of another type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmfin.classical.regime.arrays import as_regressors, as_series
from ssmfin.classical.regime.model import Specification, State
from ssmfin.classical.regime.result import RegimeFit, nulls, numbers
from ssmfin.classical.smoothed import Smoothed
from ssmfin.errors import InputError


@dataclass(frozen=True)
class RegimeCarry:
    """All that a filter knows of the past of B series, by name.

    Attributes:
        state: name -> (B, ..): predicted probabilities of the next step, rows that later ones read as lags, and what
            else the model needs. NaN in series without parameters.
    """

    state: State

    def select(self, index: Sequence[int] | np.ndarray) -> RegimeCarry:
        """The series of an index, in its order."""
        return RegimeCarry({name: part[np.asarray(index)] for name, part in self.state.items()})

    def to_dict(self) -> dict[str, Any]:
        """Shapes and flat values, as JSON has them: NaN becomes null."""
        return {name: {"shape": list(part.shape), "values": nulls(part.ravel())} for name, part in self.state.items()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> RegimeCarry:
        """The inverse of `to_dict`.

        Raises:
            InputError: it is not what `to_dict` gave.
        """
        try:
            parts = {name: numbers(part["values"], tuple(part["shape"])) for name, part in saved.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the saved regime state is unreadable ({error}); filter the history again.") from None
        return cls(parts)


@dataclass(frozen=True)
class RegimeFiltered:
    """What is known of the regimes of B series at every t from rows up to t; NaN in series without parameters.

    Attributes:
        predicted: (B, T, K), P(s_t | rows before t).
        filtered: (B, T, K), P(s_t | rows up to t).
        log_score: (B, T), log p(y_t | rows before t), nats; NaN where the row is missing or its lags are.
        carry: where the next run goes on.
    """

    predicted: np.ndarray
    filtered: np.ndarray
    log_score: np.ndarray
    carry: RegimeCarry

    @property
    def log_likelihood(self) -> np.ndarray:
        """(B,) nats."""
        total: np.ndarray = np.where(np.isnan(self.log_score), 0.0, self.log_score).sum(1)
        return np.where(np.isnan(self.predicted).all((1, 2)), np.nan, total)


def filter_series(fit: RegimeFit, y: Any, x: Any = None, *, carry: RegimeCarry | None = None) -> RegimeFiltered:
    """Probabilities of regimes as the series go on (Hamilton's filter; Kim's for switching Kalman models).

        P(s_t = j | t) = P(s_t = j | t-1) f_j(y_t) / sum_i P(s_t = i | t-1) f_i(y_t),   P(s_{t+1} | t) = P(s_t | t) P

    Args:
        fit: parameters, one row a series.
        y: (B, T) or (B, T, P); NaN = missing: such a row says nothing. Rows before the first observed one leave the
            stationary distribution as it is.
        x: (B, T, X) or (T, X).
        carry: that of the run which this one continues; then the result equals that of one run over all rows.
    Returns:
        RegimeFiltered.
    Raises:
        InputError: shapes do not fit, a value is infinite, or the carry is of other series.
    References:
        Hamilton (1994), eq. 22.4.5 and 22.4.6.

    >>> from ssmfin.classical.regime import MarkovRegression
    >>> calm_or_wild = RegimeFit.at(MarkovRegression(mean="zero"), [0.9, 0.1, 0.1, 0.9, 1.0, 9.0])
    >>> filter_series(calm_or_wild, [[0.1, 5.0]]).filtered.round(3)
    array([[[0.749, 0.251],
            [0.   , 1.   ]]])
    """
    spec = fit.specification
    y, x = _given(fit, y, x)
    (B, T), K = y.shape[:2], spec.regimes
    rows = np.flatnonzero(fit.usable)
    state = None
    if carry is not None:
        _check_carry(spec, carry, B)
        state = carry.select(rows).state
    out = spec.run(fit.parameters[rows], y[rows], x[rows], state)
    predicted, filtered, steps = np.full((B, T, K), np.nan), np.full((B, T, K), np.nan), np.full((B, T), np.nan)
    predicted[rows], filtered[rows], steps[rows] = out.predicted, out.filtered, out.steps
    following = {}
    for name, part in out.state.items():
        following[name] = np.full((B, *part.shape[1:]), np.nan)
        following[name][rows] = part
    return RegimeFiltered(predicted, filtered, steps, RegimeCarry(following))


def smooth(fit: RegimeFit, y: Any, x: Any = None) -> Smoothed:
    """Probabilities of regimes given the whole series (Kim 1994): for exploration, never a feature.

    Arguments as for `filter_series`.

    Returns:
        Smoothed, whose mean (B, T, K) holds the probabilities.
    """
    spec = fit.specification
    y, x = _given(fit, y, x)
    rows = np.flatnonzero(fit.usable)
    probabilities = np.full((*y.shape[:2], spec.regimes), np.nan)
    probabilities[rows] = spec.smooth(fit.parameters[rows], y[rows], x[rows])
    likelihood = filter_series(fit, y, x if spec.regressors else None).log_likelihood
    return Smoothed(tuple(f"regime_{k}" for k in range(spec.regimes)), probabilities, None, likelihood)


def _given(fit: RegimeFit, y: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    spec = fit.specification
    y = as_series(spec, y)
    x = as_regressors(spec, x, (y.shape[0], y.shape[1]))
    if len(y) != len(fit.parameters):
        raise InputError(f"y has {len(y)} series, the fit {len(fit.parameters)}; give the series of the fit, in order.")
    for name, values in (("y", y), ("x", x)):
        where = np.argwhere(np.isinf(values))
        if len(where):
            b, t = (int(i) for i in where[0][:2])
            raise InputError(f"{name} is infinite in series {b} at step {t}; replace it by NaN (missing).")
    return y, x


def _check_carry(spec: Specification, carry: RegimeCarry, B: int) -> None:
    nothing = np.zeros((0, len(spec.parameter_names)))
    y = np.zeros((0, 1, spec.components)) if spec.vectors else np.zeros((0, 1))
    wanted = {
        name: part.shape[1:]
        for name, part in spec.run(nothing, y, np.zeros((0, 1, spec.regressors)), None).state.items()
    }
    if {name: part.shape for name, part in carry.state.items()} != {name: (B, *s) for name, s in wanted.items()}:
        raise InputError("carry is of other series or of another model; give the carry of a run of this fit.")
