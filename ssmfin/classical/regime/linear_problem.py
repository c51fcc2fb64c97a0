"""Owns the fit of switching regressions: data in whitened units, free parameters, starting points.

Free parameters: the logits of the chain, coefficients in whitened units, u of phi (`autoregression.py`), and
log (sigma*^2 - floor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssmfin.classical.regime.autoregression import free_coefficients, stationary_coefficients
from ssmfin.classical.regime.chain import free_from_transition, transition_from_free
from ssmfin.classical.regime.guesses import groupings
from ssmfin.classical.regime.linear import Layout, Parts
from ssmfin.classical.regime.problem import FIRST, SECOND, GaussianProblem
from ssmfin.classical.regime.whitening import from_user, to_user, whiten

if TYPE_CHECKING:
    from ssmfin.classical.regime.regression import SwitchingRegression


class LinearProblem(GaussianProblem):
    """The problem of a `SwitchingRegression` for y (B, T) and x (B, T, X)."""

    def __init__(self, spec: SwitchingRegression, y: np.ndarray, x: np.ndarray) -> None:
        self.layout: Layout = spec.layout
        self.regimes, self.order, self.floor = spec.regimes, spec.layout.order, spec.variance_floor
        design = np.where(np.isnan(y)[:, :, None], np.nan, spec.design(y, x))
        switching = np.array(self.layout.switching, dtype=bool)
        self._white = whiten(y, design, self.layout.names, switching, spec.free_count + 1 + self.order)
        self.z, self.pattern = self.layout.vectors(self._white.residual, self._white.design)
        self.reason = self._white.reason
        self.observations = (self.pattern >= 0).sum(1)
        least = spec.free_count + 1
        for b in np.flatnonzero(self.observations < least):
            n = int(self.observations[b])
            short = f"has {n} observations with all lags for {least - 1} parameters; give at least {least}."
            self.reason.setdefault(int(b), short)
        with np.errstate(invalid="ignore"):
            self.constant = -self.observations * np.log(self._white.scale)

    def model(self, free: np.ndarray) -> np.ndarray:
        model = free.copy()
        if self.order:
            at = self._phi_columns()
            for columns in at:
                model[:, columns] = stationary_coefficients(free[:, columns])[0]
        first = int(self.layout.variance_at[0])
        model[:, first:] = self.floor + np.exp(np.minimum(free[:, first:], 50.0))
        return model

    def free_model(self, model: np.ndarray) -> np.ndarray:
        free = model.copy()
        for columns in self._phi_columns():
            free[:, columns] = free_coefficients(model[:, columns])
        first = int(self.layout.variance_at[0])
        free[:, first:] = np.log(np.maximum(model[:, first:] - self.floor, 1e-3 * self.floor))
        return free

    def pull_back(self, free: np.ndarray, model: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        result = gradient.copy()
        for columns in self._phi_columns():
            jacobian = stationary_coefficients(free[:, columns])[1]
            total = jacobian[:, 0] * gradient[:, columns[0], None]
            for j in range(1, len(columns)):
                total += jacobian[:, j] * gradient[:, columns[j], None]
            result[:, columns] = total
        first = int(self.layout.variance_at[0])
        result[:, first:] *= model[:, first:] - self.floor
        return result

    def emission(self, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.layout.emission(model)

    def gradient(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        return self.layout.gradient(model, weight[:, 0], moments[:, 0])

    def maximise(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        return self.layout.maximise(model, weight[:, 0], moments[:, 0], self.floor)

    def at_floor_model(self, model: np.ndarray) -> np.ndarray:
        return np.asarray((model[:, int(self.layout.variance_at[0]) :] < 1.05 * self.floor).any(1))

    def parameters(self, free: np.ndarray, index: np.ndarray) -> np.ndarray:
        moves = self.regimes * (self.regimes - 1)
        parts = self.layout.parts(self.model(free[:, moves:]))
        beta = to_user(self._white, index, parts.beta) if self.layout.names else parts.beta
        variance = parts.variance * (self._white.scale[index] ** 2)[:, None]
        transition = transition_from_free(free[:, :moves], self.regimes).reshape(len(free), -1)
        return np.concatenate([transition, self.layout.whole(Parts(beta, parts.phi, variance))], 1)

    def free(self, parameters: np.ndarray, index: np.ndarray) -> np.ndarray:
        K = self.regimes
        parts = self.layout.parts(parameters[:, K * K :])
        beta = from_user(self._white, index, parts.beta) if self.layout.names else parts.beta
        variance = parts.variance / (self._white.scale[index] ** 2)[:, None]
        model = self.layout.whole(Parts(beta, parts.phi, variance))
        logits = free_from_transition(parameters[:, : K * K].reshape(-1, K, K))
        return np.concatenate([logits, self.free_model(model)], 1)

    def starts(self, series: np.ndarray, count: int, follow: int) -> np.ndarray:
        if self.order == 0:
            return super().starts(series, count, follow)
        return self._autoregressive_starts(series, count, follow)

    def guesses(self, series: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        K, layout = self.regimes, self._base_layout()
        z, pattern = layout.vectors(self._white.residual, self._white.design)
        switching = [1 + j for j, switches in enumerate(layout.switching) if switches]
        counts, weights, moments = [], [], []
        for b in series:
            rows = z[b, pattern[b] >= 0]
            found = groupings(rows[:, 0], rows[:, switching], K, sizes=layout.variance_switching, count=count)
            for group in found:
                moves = np.zeros((K, K))
                np.add.at(moves, (group[:-1], group[1:]), 1.0)
                masks = [group == k for k in range(K)]
                counts.append(moves)
                weights.append([float(mask.sum()) for mask in masks])
                moments.append([rows[mask].T @ rows[mask] for mask in masks])
        n, S = len(series), len(counts) // max(len(series), 1)
        moves = np.array(counts).reshape(n * S, K, K) + 1.0
        weight, moment = np.array(weights).reshape(n * S, K), np.array(moments).reshape(n * S, K, *[z.shape[2]] * 2)
        unit = np.ones((n * S, len(layout.emission_names)))
        # twice: coefficients that are common are weighted by the variances found first
        model = layout.maximise(layout.maximise(unit, weight, moment, 0.02), weight, moment, 0.02)
        transition = moves / moves.sum(2, keepdims=True)
        return transition.reshape(n, S, K, K), model.reshape(n, S, -1)

    def _autoregressive_starts(self, series: np.ndarray, count: int, follow: int) -> np.ndarray:
        """Regimes of the model without lags, improved by EM, each with no autocorrelation and with that of y."""
        K, base = self.regimes, _Base(self)
        transition, model = self.guesses(series, count)
        n, S, E = model.shape
        transition, model, _ = base.improve(
            transition.reshape(-1, K, K), model.reshape(-1, E), np.repeat(series, S), FIRST + SECOND
        )
        parts = base.layout.parts(model)
        phi = np.array([_autocorrelation(self._white.residual[b], self.order) for b in series])
        logits, candidates = free_from_transition(transition), []
        for share in (0.0, 0.5, 1.0):
            full = Parts(parts.beta, np.repeat(np.repeat(share * phi, S, 0)[:, None], K, 1), parts.variance)
            candidates.append(np.concatenate([logits, self.free_model(self.layout.whole(full))], 1).reshape(n, S, -1))
        free = np.concatenate(candidates, 1)
        flat = free.reshape(-1, free.shape[2])
        value = self.value_and_gradient(flat, np.repeat(series, free.shape[1]))[0]
        chains, models = transition_from_free(flat[:, : K * (K - 1)], K), self.model(flat[:, K * (K - 1) :])
        chosen = self.best(value, chains, models, n, min(2 * follow, free.shape[1]))
        return np.take_along_axis(free, chosen[:, :, None], 1)

    def _base_layout(self) -> Layout:
        own = self.layout
        return Layout(own.regimes, 0, own.names, own.switching, own.constant, False, own.variance_switching)

    def _phi_columns(self) -> list[np.ndarray]:
        """Columns of phi among the emission parameters, one array a regime, or a single one where common."""
        if not self.order:
            return []
        return list(self.layout.phi_at) if self.layout.phi_switching else [self.layout.phi_at[0]]


class _Base(LinearProblem):
    """The same data without lags in deviations."""

    def __init__(self, full: LinearProblem) -> None:
        self.layout, self.regimes, self.order, self.floor = full._base_layout(), full.regimes, 0, full.floor
        self._white = full._white
        self.z, self.pattern = self.layout.vectors(self._white.residual, self._white.design)


def _autocorrelation(residual: np.ndarray, order: int) -> np.ndarray:
    """(p,) least-squares autoregression of a series on its own lags."""
    n = len(residual)
    rows = np.stack([residual[order - lag : n - lag] for lag in range(order + 1)], 1)
    rows = rows[~np.isnan(rows).any(1)]
    if len(rows) <= order:
        return np.zeros(order)
    phi: np.ndarray = np.linalg.lstsq(rows[:, 1:], rows[:, 0], rcond=None)[0]
    return phi
