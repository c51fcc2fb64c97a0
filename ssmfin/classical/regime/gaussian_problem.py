"""Owns the fit of the Gaussian hidden Markov model: columns in units of their standard deviation, EM, free parameters.

Free parameters: the logits of the chain, means, and the lower triangle of C (logarithms on the diagonal) in
Sigma = floor I + C C'. Where columns are missing, EM completes them by their regression on those that are seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssmfin.classical.regime.chain import free_from_transition, transition_from_free
from ssmfin.classical.regime.gaussian_hmm import densities, vectors
from ssmfin.classical.regime.guesses import groupings
from ssmfin.classical.regime.problem import GaussianProblem

if TYPE_CHECKING:
    from ssmfin.classical.regime.gaussian_hmm import GaussianHMM


class VectorProblem(GaussianProblem):
    """The problem of a `GaussianHMM` for y (B, T, P); a model is means (K P) and covariances (K P P) in a row."""

    def __init__(self, spec: GaussianHMM, y: np.ndarray) -> None:
        self._spec, self.regimes, self.order, self.floor = spec, spec.regimes, 0, spec.variance_floor
        self._diagonal = spec.covariance == "diagonal"
        B, _, P = y.shape
        self._shift, self._scale = np.zeros((B, P)), np.ones((B, P))
        self.observations, self.constant = np.zeros(B, dtype=np.int64), np.zeros(B)
        self.reason: dict[int, str] = {}
        whitened = np.full(y.shape, np.nan)
        for b in range(B):
            self._standardise(b, y[b], whitened)
        self.z, self.pattern, self._patterns = vectors(whitened)

    def model(self, free: np.ndarray) -> np.ndarray:
        N, K, P = len(free), self.regimes, self._spec.components
        mean, C = free[:, : K * P], self._factor(free)
        covariance = np.matmul(C, C.swapaxes(2, 3)) + self.floor * np.eye(P)
        return np.concatenate([mean, covariance.reshape(N, -1)], 1)

    def free_model(self, model: np.ndarray) -> np.ndarray:
        N = len(model)
        mean, covariance = self._split(model)
        values, directions = np.linalg.eigh(covariance)
        values = np.maximum(values - self.floor, 1e-3 * self.floor)
        C = np.linalg.cholesky(np.matmul(directions * values[:, :, None, :], directions.swapaxes(2, 3)))
        columns = [np.log(C[:, :, i, i]) if i == j else C[:, :, i, j] for i, j in self._places()]
        return np.concatenate([mean.reshape(N, -1), np.stack(columns, 2).reshape(N, -1)], 1)

    def pull_back(self, free: np.ndarray, model: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        N, K, P = len(free), self.regimes, self._spec.components
        C = self._factor(free)
        by_factor = 2 * np.matmul(gradient[:, K * P :].reshape(N, K, P, P), C)
        columns = [by_factor[:, :, i, j] * (C[:, :, i, i] if i == j else 1.0) for i, j in self._places()]
        return np.concatenate([gradient[:, : K * P], np.stack(columns, 2).reshape(N, -1)], 1)

    def emission(self, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return densities(*self._split(model), self._patterns)

    def gradient(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        mean, covariance = self._split(model)
        P = mean.shape[2]
        by_mean, by_covariance = np.zeros_like(mean), np.zeros_like(covariance)
        for q, seen in enumerate(self._patterns):
            at = np.flatnonzero(seen)
            inverse = np.linalg.inv(covariance[:, :, at[:, None], at])
            m, n = mean[:, :, at], weight[:, q, :, None]
            first = moments[:, q][:, :, at, P]
            second = moments[:, q][:, :, at[:, None], at]
            about = first[..., :, None] * m[..., None, :]
            second = second - about - about.swapaxes(2, 3) + n[..., None] * m[..., :, None] * m[..., None, :]
            by_mean[:, :, at] += np.matmul(inverse, (first - n * m)[..., None])[..., 0]
            middle = np.matmul(np.matmul(inverse, second), inverse) - n[..., None] * inverse
            by_covariance[:, :, at[:, None], at] += 0.5 * middle
        return np.concatenate([by_mean.reshape(len(model), -1), by_covariance.reshape(len(model), -1)], 1)

    def maximise(self, model: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        mean, covariance = self._split(model)
        N, K, P = mean.shape
        total, first, second = np.full((N, K), 1e-8), np.zeros((N, K, P)), np.zeros((N, K, P, P))
        for q, seen in enumerate(self._patterns):
            at = np.flatnonzero(seen)
            n, S = weight[:, q], moments[:, q]
            cross = covariance[:, :, :, at]
            slope = np.matmul(cross, np.linalg.inv(covariance[:, :, at[:, None], at]))  # (N, K, P, seen)
            complete = np.zeros((N, K, P, P + 1))  # y given what is seen, linear in z = (y, 1)
            complete[:, :, :, at] = slope
            complete[:, :, :, P] = mean - np.matmul(slope, mean[:, :, at, None])[..., 0]
            total += n
            first += np.matmul(complete, S[..., P, None])[..., 0]
            left = covariance - np.matmul(slope, cross.swapaxes(2, 3))
            left = n[..., None, None] * left
            second += np.matmul(np.matmul(complete, S), complete.swapaxes(2, 3)) + left
        mean = first / total[..., None]
        covariance = second / total[..., None, None] - mean[..., :, None] * mean[..., None, :]
        if self._diagonal:
            covariance = covariance * np.eye(P)
        values, directions = np.linalg.eigh(0.5 * (covariance + covariance.swapaxes(2, 3)))
        values = np.maximum(values, 1.001 * self.floor)
        covariance = np.matmul(directions * values[:, :, None, :], directions.swapaxes(2, 3))
        return np.concatenate([mean.reshape(N, -1), covariance.reshape(N, -1)], 1)

    def at_floor_model(self, model: np.ndarray) -> np.ndarray:
        least = np.linalg.eigvalsh(self._split(model)[1])[..., 0]
        return np.asarray((least < 1.05 * self.floor).any(1))

    def parameters(self, free: np.ndarray, index: np.ndarray) -> np.ndarray:
        K = self.regimes
        mean, covariance = self._split(self.model(free[:, K * (K - 1) :]))
        scale, shift = self._scale[index][:, None], self._shift[index][:, None]
        transition = transition_from_free(free[:, : K * (K - 1)], K)
        scaled = covariance * scale[..., :, None] * scale[..., None, :]
        return self._spec.whole(transition, shift + scale * mean, scaled)

    def free(self, parameters: np.ndarray, index: np.ndarray) -> np.ndarray:
        mean, covariance = self._spec.moments(parameters)
        N = len(parameters)
        scale, shift = self._scale[index][:, None], self._shift[index][:, None]
        covariance = covariance / (scale[..., :, None] * scale[..., None, :])
        model = np.concatenate([((mean - shift) / scale).reshape(N, -1), covariance.reshape(N, -1)], 1)
        return np.concatenate([free_from_transition(self._spec.transition(parameters)), self.free_model(model)], 1)

    def guesses(self, series: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        K, P = self.regimes, self._spec.components
        Q, D = len(self._patterns), P + 1
        moves, weight, moments = [], [], []
        for b in series:
            rows = self.pattern[b] >= 0
            z, pattern = self.z[b, rows], self.pattern[b, rows]
            size = np.sqrt((z[:, :P] ** 2).sum(1) / P)
            ones, none = np.ones((len(z), 1)), np.zeros((len(z), 0))
            lists = [groupings(size, none, K, sizes=True, count=count)]
            lists += [groupings(z[:, j], ones, K, sizes=False, count=count) for j in range(P)]
            ideas = [group for same_rank in zip(*lists, strict=False) for group in same_rank]
            for group in ideas[:count]:
                moved = np.ones((K, K))
                np.add.at(moved, (group[:-1], group[1:]), 1.0)
                n, S = np.zeros((Q, K)), np.zeros((Q, K, D, D))
                for q in np.unique(pattern):
                    for k in range(K):
                        own = z[(group == k) & (pattern == q)]
                        n[q, k], S[q, k] = len(own), own.T @ own
                moves.append(moved / moved.sum(1, keepdims=True))
                weight.append(n)
                moments.append(S)
        n_series, S_count = len(series), len(moves) // len(series)
        start = np.concatenate([np.zeros(K * P), np.tile(np.eye(P).ravel(), K)])
        model = np.repeat(start[None], len(moves), 0)
        for _ in range(2):  # the second completes missing columns by the means of their group
            model = self.maximise(model, np.array(weight), np.array(moments))
        model = self._widened(model)
        return np.array(moves).reshape(n_series, S_count, K, K), model.reshape(n_series, S_count, -1)

    def _widened(self, model: np.ndarray) -> np.ndarray:
        """Covariances a little towards that of all columns: no regime starts as a spike."""
        mean, covariance = self._split(model)
        wider = 0.98 * covariance + 0.02 * np.eye(mean.shape[2])
        return np.concatenate([mean.reshape(len(model), -1), wider.reshape(len(model), -1)], 1)

    def _split(self, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        N, K, P = len(model), self.regimes, self._spec.components
        return model[:, : K * P].reshape(N, K, P), model[:, K * P :].reshape(N, K, P, P)

    def _places(self) -> list[tuple[int, int]]:
        P = self._spec.components
        return [(i, j) for i in range(P) for j in range(i + 1) if not self._diagonal or i == j]

    def _factor(self, free: np.ndarray) -> np.ndarray:
        """C (N, K, P, P)."""
        N, K, P = len(free), self.regimes, self._spec.components
        stored = free[:, K * P :].reshape(N, K, -1)
        C = np.zeros((N, K, P, P))
        for place, (i, j) in enumerate(self._places()):
            C[:, :, i, j] = np.exp(np.minimum(stored[:, :, place], 25.0)) if i == j else stored[:, :, place]
        return C

    def _standardise(self, b: int, y: np.ndarray, whitened: np.ndarray) -> None:
        P, names = y.shape[1], self._spec.columns
        if np.isinf(y).any():
            self.reason[b] = "holds infinite values; replace them by NaN (missing) or repair them."
            return
        n = int((~np.isnan(y)).any(1).sum())
        self.observations[b] = n
        least = self._spec.free_count + 1
        if n == 0:
            self.reason[b] = "has no observation (all missing); leave it out."
            return
        if n < least:
            self.reason[b] = f"has {n} observations for {least - 1} parameters; give at least {least}."
            return
        for j in range(P):
            seen = y[~np.isnan(y[:, j]), j]
            size = float(np.sqrt(np.mean((seen - seen.mean()) ** 2))) if len(seen) else 0.0
            if not size > 1e-10 * float(np.abs(seen).max(initial=0.0)):
                what = "is constant" if len(seen) else "has no value"
                self.reason[b] = f"has a column that {what}, {names[j]!r}; leave the column or the series out."
                return
            self._shift[b, j], self._scale[b, j] = seen.mean(), size
            self.constant[b] -= len(seen) * np.log(size)
        whitened[b] = (y - self._shift[b]) / self._scale[b]
        complete = whitened[b][~np.isnan(whitened[b]).any(1)]
        if len(complete) > P and np.linalg.eigvalsh(np.cov(complete.T).reshape(P, P))[0] < 1e-9:
            self.reason[b] = "has columns that are combinations of each other (collinear); leave one out."
