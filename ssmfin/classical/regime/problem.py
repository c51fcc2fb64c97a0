"""Owns what a fit minimises: the negative log-likelihood of series in free parameters, and expectation maximisation.

`Problem` is what `fitting.py` sees. `GaussianProblem` gives its value and gradient by one call of the expectation of
`ssmfin_kernels` (Fisher's identity), and starting points by short runs of EM from several guesses (Hamilton 1990).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ssmfin.classical.regime.chain import (
    free_from_transition,
    free_gradient,
    stationary,
    transition_from_free,
    with_stationary_gradient,
)

_SAME = 0.7  # logits of staying this near are one maximum
FIRST, SECOND = 5, 10  # EM steps from every start; and from those that remain


class Problem(ABC):
    """Series in units of their own and free parameters (N, U) of each.

    Attributes:
        reason: why a series cannot be fitted, by its index.
        observations: (B,) int64.
    """

    reason: dict[int, str]
    observations: np.ndarray

    @abstractmethod
    def value_and_gradient(self, free: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood (N,) in the user's units and its gradient (N, U); job n is series index[n]."""

    @abstractmethod
    def starts(self, series: np.ndarray, count: int, follow: int) -> np.ndarray:
        """(len(series), follow, U): the best of `count` guesses, the best first."""

    @abstractmethod
    def parameters(self, free: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(N, P) in the user's units."""

    @abstractmethod
    def free(self, parameters: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The inverse."""

    @abstractmethod
    def at_floor(self, free: np.ndarray) -> np.ndarray:
        """(N,) bool, whether a regime's variance lies on its floor."""


class GaussianProblem(Problem):
    """A problem whose regimes are Gaussian; `model` parameters are a row of emission parameters in its own units.

    Attributes:
        regimes, order: K, p.
        z, pattern: observations in these units.
        floor: least variance in these units.
        constant: (B,), what the log-likelihood differs by from the one in the user's units.
    """

    regimes: int
    order: int
    z: np.ndarray
    pattern: np.ndarray
    floor: float
    constant: np.ndarray

    @abstractmethod
    def model(self, free: np.ndarray) -> np.ndarray:
        """Emission parameters (N, E) from the free ones (N, U - K (K - 1))."""

    @abstractmethod
    def free_model(self, model: np.ndarray) -> np.ndarray:
        """The inverse."""

    @abstractmethod
    def pull_back(self, free: np.ndarray, model: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Gradient for the free parameters from that for the emission parameters."""

    @abstractmethod
    def emission(self, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Constants and rows of the densities."""

    @abstractmethod
    def gradient(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """(N, E), from the expected statistics."""

    @abstractmethod
    def maximise(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """The M-step."""

    @abstractmethod
    def guesses(self, series: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Starting points of EM: transitions (n, S, K, K) and emission parameters (n, S, E)."""

    def value_and_gradient(self, free: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from ssmfin_kernels.hidden_markov_scan import gaussian

        moves = self.regimes * (self.regimes - 1)
        transition = transition_from_free(free[:, :moves], self.regimes)
        initial = stationary(transition)
        model = self.model(free[:, moves:])
        found = gaussian.expectation(
            self.z, self.pattern, index, *self.emission(model), transition, initial, order=self.order
        )
        by_chain = with_stationary_gradient(transition, initial, found.counts, found.start)
        by_model = self.gradient(model, found.weight, found.moments)
        gradient = [free_gradient(transition, by_chain), self.pull_back(free[:, moves:], model, by_model)]
        return found.log_likelihood + self.constant[index], np.concatenate(gradient, 1)

    def starts(self, series: np.ndarray, count: int, follow: int) -> np.ndarray:
        transition, model = self.guesses(series, count)
        n, S, E = model.shape
        K = self.regimes
        index, transition, model = np.repeat(series, S), transition.reshape(-1, K, K), model.reshape(-1, E)
        for steps, keep in ((FIRST, follow + 2), (SECOND, follow)):
            transition, model, value = self.improve(transition, model, index, steps)
            chosen = self.best(value, transition, model, n, min(S, keep))
            rows = (np.arange(n)[:, None] * S + chosen).ravel()
            transition, model, index, S = transition[rows], model[rows], index[rows], chosen.shape[1]
        free = np.concatenate([free_from_transition(transition), self.free_model(model)], 1)
        return free.reshape(n, S, -1)

    def improve(
        self, transition: np.ndarray, model: np.ndarray, index: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """EM; returns transitions, emission parameters and the log-likelihood of the last but one of them."""
        from ssmfin_kernels.hidden_markov_scan import gaussian

        value = np.full(len(index), -np.inf)
        for _ in range(steps):
            found = gaussian.expectation(
                self.z, self.pattern, index, *self.emission(model), transition, stationary(transition), order=self.order
            )
            value = found.log_likelihood
            model = self.maximise(model, found.weight, found.moments)
            counts = found.counts + 1e-3  # a regime never visited keeps a row that sums to one
            total = counts[:, :, 0].copy()
            for k in range(1, self.regimes):
                total += counts[:, :, k]
            transition = counts / total[:, :, None]
        return transition, model, value

    def best(self, value: np.ndarray, transition: np.ndarray, model: np.ndarray, n: int, keep: int) -> np.ndarray:
        """(n, keep) indices of the best starts; those on their way to the same place, or to a spike, last.

        Args:
            value: (n S,), transition: (n S, K, K), model: (n S, E) of S starts of each of n series.
        """
        value = np.where(np.isfinite(value), value, -1e300) - np.where(self.at_floor_model(model), 1e200, 0.0)
        stay = np.clip(np.diagonal(transition, axis1=1, axis2=2), 1e-6, 1 - 1e-6)
        # how long regimes last tells maxima apart, whatever the regimes are called
        place = np.sort(np.log(stay / (1 - stay)), axis=1)
        value, place = value.reshape(n, -1), place.reshape(n, len(value) // n, -1)
        chosen = np.empty((n, keep), dtype=np.int64)
        for row in range(n):
            order = np.argsort(-value[row], kind="stable")
            first: list[int] = []
            again: list[int] = []
            for s in order:
                near = any(np.abs(place[row, s] - place[row, other]).max() < _SAME for other in first)
                (again if near else first).append(int(s))
            chosen[row] = (first + again)[:keep]
        return chosen

    @abstractmethod
    def at_floor_model(self, model: np.ndarray) -> np.ndarray:
        """(N,) bool, whether a regime's variance lies on its floor."""

    def at_floor(self, free: np.ndarray) -> np.ndarray:
        return self.at_floor_model(self.model(free[:, self.regimes * (self.regimes - 1) :]))
