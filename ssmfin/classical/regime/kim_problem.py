"""Owns the fit of switching Kalman models: data in units of their changes, exact gradients.

Free parameters: the logits of the chain, drifts, atanh of the autoregression, and log (variance - floor): the floor of
the noise is variance_floor, that of states 1e-8, both of the variance of the changes of y (of y, for an
autoregression).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssmfin.classical.regime.chain import free_from_transition, stationary, transition_from_free
from ssmfin.classical.regime.guesses import groupings
from ssmfin.classical.regime.problem import Problem
from ssmfin.classical.regime.switching_kalman import first_observed

if TYPE_CHECKING:
    from ssmfin.classical.regime.switching_kalman import SwitchingKalman
    from ssmfin_kernels.hidden_markov_scan.switching import SwitchingModel

_STATE_FLOOR = 1e-8
_STEP = 1e-30  # of the complex step through the matrices: no difference is taken, so nothing cancels
_SHARES = (0.5, 0.1, 0.9)  # of the state in the variance, to start from


class KimProblem(Problem):
    """The problem of a `SwitchingKalman` for y (B, T)."""

    def __init__(self, spec: SwitchingKalman, y: np.ndarray) -> None:
        self._spec = spec
        self._level = spec.burn > 0
        B = len(y)
        self._origin, self._scale = np.zeros(B), np.ones(B)
        self.observations = (~np.isnan(y)).sum(1)
        self.reason: dict[int, str] = {}
        first = first_observed(y, self._level)
        least = spec.free_count + 1 + spec.burn
        for b in range(B):
            seen = y[b, ~np.isnan(y[b])]
            n = len(seen)
            if np.isinf(seen).any():
                self.reason[b] = "holds infinite values; replace them by NaN (missing) or repair them."
            elif n == 0:
                self.reason[b] = "has no observation (all missing); leave it out."
            elif n < least:
                self.reason[b] = f"has {n} observations for {least - 1} parameters; give at least {least}."
            else:
                moved = np.diff(seen) if self._level else seen
                size = float(np.sqrt(np.mean((moved - moved.mean()) ** 2)))
                if not size > 1e-10 * float(np.abs(seen).max()):
                    self.reason[b] = "is constant; there is nothing to tell regimes apart by: leave it out."
                else:
                    self._origin[b] = first[b] if self._level else seen.mean()
                    self._scale[b] = size
        self._y = (y - self._origin[:, None]) / self._scale[:, None]
        self._constant = -np.maximum(self.observations - spec.burn, 0) * np.log(self._scale)

    def value_and_gradient(self, free: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from ssmfin_kernels.hidden_markov_scan.switching import SwitchingModel, switching_gradient

        N, U = free.shape
        moved = self._model((free[:, None, :] + 1j * _STEP * np.eye(U)).reshape(N * U, U))
        parts = [part.reshape(N, U, *part.shape[1:]) for part in moved]
        model = SwitchingModel(*(part[:, 0].real for part in parts))
        tangents = SwitchingModel(*(np.moveaxis(part.imag, 1, -1) / _STEP for part in parts))
        value, gradient = switching_gradient(self._y, index, model, tangents, burn=self._spec.burn)
        return value + self._constant[index], gradient

    def starts(self, series: np.ndarray, count: int, follow: int) -> np.ndarray:
        K, spec = self._spec.regimes, self._spec
        free = []
        for b in series:
            seen = self._y[b, ~np.isnan(self._y[b])]
            moved = np.diff(seen) if self._level else seen
            sizes = "switching" in (spec.state_variance, spec.noise_variance)
            column = np.ones((len(moved), 1 if spec.drift == "switching" else 0))
            ideas = groupings(moved - moved.mean(), column, K, sizes=sizes, count=max(1, -(-count // len(_SHARES))))
            for group in ideas:
                moves = np.ones((K, K))
                np.add.at(moves, (group[:-1], group[1:]), 1.0)
                own = [moved[group == k] for k in range(K)]
                mean = np.array([part.mean() if len(part) else 0.0 for part in own])
                spread = np.array([np.mean((part - moved.mean()) ** 2) if len(part) else 1.0 for part in own])
                transition = moves / moves.sum(1, keepdims=True)
                free += [self._guess(transition, mean, spread, share) for share in _SHARES]
        n, S = len(series), len(free) // len(series)
        found = np.concatenate(free).reshape(n, S, -1)
        value = self._log_likelihood(found.reshape(n * S, -1), np.repeat(series, S)).reshape(n, S)
        order = np.argsort(-np.where(np.isfinite(value), value, -1e300), axis=1, kind="stable")[:, :follow]
        return np.take_along_axis(found, order[:, :, None], 1)

    def parameters(self, free: np.ndarray, index: np.ndarray) -> np.ndarray:
        transition, parts = self._natural(free)
        scale = self._scale[index][:, None]
        for name, part in parts.items():
            if name.endswith("variance"):
                parts[name] = part * scale**2
            elif name == "drift":
                parts[name] = part * scale + (0.0 if self._level else self._origin[index][:, None])
        return np.concatenate([transition.reshape(len(free), -1), self._spec.whole(parts)], 1)

    def free(self, parameters: np.ndarray, index: np.ndarray) -> np.ndarray:
        spec = self._spec
        parts = spec.by_regime(parameters[:, spec.regimes**2 :])
        scale = self._scale[index][:, None]
        for name, part in parts.items():
            if name.endswith("variance"):
                floor = self._floor(name)
                parts[name] = np.log(np.maximum(part / scale**2 - floor, 1e-3 * floor))
            elif name == "drift":
                parts[name] = (part - (0.0 if self._level else self._origin[index][:, None])) / scale
            else:
                parts[name] = np.arctanh(np.clip(part, -0.9999, 0.9999))
        return np.concatenate([free_from_transition(spec.transition(parameters)), spec.whole(parts)], 1)

    def at_floor(self, free: np.ndarray) -> np.ndarray:
        parts = self._natural(free)[1]
        spiked: np.ndarray = (parts["state_variance"] + parts["noise_variance"] < 2 * self._spec.variance_floor).any(1)
        return spiked

    def _guess(self, transition: np.ndarray, mean: np.ndarray, spread: np.ndarray, share: float) -> np.ndarray:
        """(1, U) free parameters; share of the state in the variance of each regime."""
        K, spec = self._spec.regimes, self._spec
        parts = {
            "drift": mean if spec.drift == "switching" else np.full(K, mean.mean()),
            "ar1": np.full(K, 0.9),
            "state_variance": spread * share * (1.0 if self._level else 1 - 0.9**2),
            "slope_variance": np.full(K, 1e-3 * spread.mean()),
            "noise_variance": spread * (1 - share) * (0.5 if self._level else 1.0),
        }
        for name in ("state_variance", "noise_variance"):
            if getattr(spec, name) == "common":
                parts[name] = np.full(K, parts[name].mean())
        row = {}
        for name, _ in spec.columns:
            part = parts[name][None]
            if name.endswith("variance"):
                part = np.log(np.maximum(part, 10 * self._floor(name)))
            row[name] = np.arctanh(part) if name == "ar1" else part
        return np.concatenate([free_from_transition(transition[None]), spec.whole(row)], 1)

    def _natural(self, free: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Transition matrix and emission parameters by name, in these units; real or complex."""
        spec = self._spec
        moves = spec.regimes * (spec.regimes - 1)
        parts = spec.by_regime(free[:, moves:])
        for name, part in parts.items():
            if name.endswith("variance"):
                parts[name] = self._floor(name) + np.exp(part)
            elif name == "ar1":
                parts[name] = np.tanh(part)
        return transition_from_free(free[:, :moves], spec.regimes), parts

    def _log_likelihood(self, free: np.ndarray, index: np.ndarray) -> np.ndarray:
        from ssmfin_kernels.hidden_markov_scan.switching import switching_log_likelihood

        return switching_log_likelihood(self._y, index, self._model(free), burn=self._spec.burn)

    def _model(self, free: np.ndarray) -> SwitchingModel:
        """Matrices in these units; real or complex."""
        transition, parts = self._natural(free)
        size = (parts["state_variance"] + parts["noise_variance"]).sum(1)
        return self._spec.model(transition, stationary(transition), parts, size)

    def _floor(self, name: str) -> float:
        return self._spec.variance_floor if name == "noise_variance" else _STATE_FLOOR
