"""Owns the Gaussian hidden Markov model of several columns: which parameter is whose, densities, order of regimes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ssmfin.classical.regime.gaussian import GaussianSpecification
from ssmfin.classical.regime.model import check_choice, check_names, permuted_transition
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from ssmfin.classical.regime.gaussian_problem import VectorProblem


@dataclass(frozen=True)
class GaussianHMM(GaussianSpecification):
    """Vectors whose mean and covariance are those of the present regime.

        y_t ~ N(mu_{s_t}, Sigma_{s_t})

    A row with some columns missing counts by the density of the others. Regimes are numbered by the sum of the
    logarithms of their variances, which does not depend on units.

    Args:
        regimes, variance_floor: as for `Specification`; the floor is on the eigenvalues of the covariance of columns in
            units of their standard deviations.
        columns: names of the columns of y.
        covariance: "full" or "diagonal".
    References:
        Rabiner (1989), Proceedings of the IEEE 77, section IV.

    >>> GaussianHMM(columns=("ret", "rv"), covariance="diagonal").parameter_names[4:8]
    ('mean_0_ret', 'mean_0_rv', 'mean_1_ret', 'mean_1_rv')
    """

    kind = "gaussian_hmm"
    vectors = True
    columns: tuple[str, ...] = ("y",)
    covariance: Literal["full", "diagonal"] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("columns", self.columns)
        check_choice("covariance", self.covariance, ("full", "diagonal"))
        if not 1 <= len(self.columns) <= 12:
            raise InputError(f"columns has {len(self.columns)} names; give 1 to 12.")

    @property
    def components(self) -> int:
        return len(self.columns)

    @property
    def emission_names(self) -> tuple[str, ...]:
        K, names = self.regimes, self.columns
        means = [f"mean_{k}_{a}" for k in range(K) for a in names]
        if self.covariance == "diagonal":
            return (*means, *(f"variance_{k}_{a}" for k in range(K) for a in names))
        pairs = [f"{names[i]}_{names[j]}" for i, j in self._pairs]
        return (*means, *(f"covariance_{k}_{pair}" for k in range(K) for pair in pairs))

    @property
    def free_count(self) -> int:
        return self.regimes * (self.regimes - 1) + len(self.emission_names)

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """Rows and columns of what is stored of a covariance."""
        P = len(self.columns)
        return [(i, j) for i in range(P) for j in range(i, P) if self.covariance == "full" or i == j]

    def moments(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (B, K, P) and covariances (B, K, P, P)."""
        B, K, P = len(parameters), self.regimes, self.components
        emission = parameters[:, K * K :]
        mean = emission[:, : K * P].reshape(B, K, P)
        stored = emission[:, K * P :].reshape(B, K, len(self._pairs))
        covariance = np.zeros((B, K, P, P))
        for place, (i, j) in enumerate(self._pairs):
            covariance[:, :, i, j] = covariance[:, :, j, i] = stored[:, :, place]
        return mean, covariance

    def whole(self, transition: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The inverse: parameters (B, N) from a transition matrix (B, K, K) and these."""
        B = len(mean)
        stored = np.stack([covariance[:, :, i, j] for i, j in self._pairs], 2)
        return np.concatenate([part.reshape(B, -1) for part in (transition, mean, stored)], 1)

    def observations(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return vectors(y)

    def emission(self, parameters: np.ndarray, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return densities(*self.moments(parameters), patterns)

    def problem(self, y: np.ndarray, x: np.ndarray) -> VectorProblem:
        from ssmfin.classical.regime.gaussian_problem import VectorProblem

        return VectorProblem(self, y)

    def signature(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, covariance = self.moments(parameters)
        return mean, np.diagonal(covariance, axis1=2, axis2=3)

    def order_key(self, parameters: np.ndarray) -> np.ndarray:
        key: np.ndarray = np.log(self.signature(parameters)[1]).sum(2)
        return key

    def permute(self, parameters: np.ndarray, order: np.ndarray) -> np.ndarray:
        mean, covariance = self.moments(parameters)
        rows = np.arange(len(order))[:, None]
        K = self.regimes
        moved = permuted_transition(parameters, order).reshape(-1, K, K)
        return self.whole(moved, mean[rows, order], covariance[rows, order])


def vectors(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z = (y, 1) (B, T, P + 1) with zeros for NaN, pattern (B, T), and patterns (Q, P) bool: columns that are seen."""
    P = y.shape[2]
    seen = ~np.isnan(y)
    code = (seen * (1 << np.arange(P))).sum(2)
    known = np.unique(np.append(code[code > 0], (1 << P) - 1))
    patterns = (known[:, None] >> np.arange(P)) & 1 > 0
    pattern = np.where(code > 0, np.searchsorted(known, code), -1).astype(np.int16)
    z = np.concatenate([np.where(seen, y, 0.0), (code > 0)[:, :, None].astype(np.float64)], 2)
    return z, pattern, patterns


def densities(mean: np.ndarray, covariance: np.ndarray, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c (N, Q, K) and L (N, Q, K, P, P + 1): inverse Cholesky factors of what is seen, times (I, -mean)."""
    N, K, P = mean.shape
    constant, rows = np.zeros((N, len(patterns), K)), np.zeros((N, len(patterns), K, P, P + 1))
    for q, seen in enumerate(patterns):
        at = np.flatnonzero(seen)
        factor = np.linalg.cholesky(covariance[:, :, at[:, None], at])
        inverse = np.linalg.inv(factor)
        rows[:, q, :, : len(at), at] = np.moveaxis(inverse, 3, 0)
        rows[:, q, :, : len(at), P] = -np.matmul(inverse, mean[:, :, at, None])[..., 0]
        logs = np.log(np.diagonal(factor, axis1=2, axis2=3)).sum(2)
        constant[:, q] = -0.5 * len(at) * math.log(2 * math.pi) - logs
    return constant, rows
