"""Owns the algebra of switching regressions: the residual of each tuple of regimes as a linear form, and gradients.

    r_m = sum_{l=0..p} w_l (y_{t-l} - g_{t-l}' beta_{s_{t-l}}),   w_0 = 1, w_l = -phi_l(s_t),   m = (s_t, .., s_{t-p})
    log f_m = -1/2 log(2 pi sigma^2_{s_t}) - r_m^2 / (2 sigma^2_{s_t})

so r_m = a_m'z with z = (y_t, .., y_{t-p}, g_t, .., g_{t-p}), a constant regressor once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Parts(NamedTuple):
    """Emission parameters by regime: beta (N, K, J), phi (N, K, p), variance (N, K)."""

    beta: np.ndarray
    phi: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Which parameter is whose.

    Attributes:
        regimes: K.
        order: p, lags in deviations from their regimes' means.
        names: (J,) of the design columns.
        switching: (J,) whether each coefficient switches.
        constant: whether column 0 is the constant one.
        phi_switching, variance_switching: whether those switch.
    """

    regimes: int
    order: int
    names: tuple[str, ...]
    switching: tuple[bool, ...]
    constant: bool
    phi_switching: bool
    variance_switching: bool

    @cached_property
    def emission_names(self) -> tuple[str, ...]:
        ar = tuple(f"ar{lag}" for lag in range(1, self.order + 1))
        named = [*zip(self.names, self.switching, strict=True), *((name, self.phi_switching) for name in ar)]
        named.append(("variance", self.variance_switching))
        return tuple(
            text
            for name, switches in named
            for text in ([f"{name}_{k}" for k in range(self.regimes)] if switches else [name])
        )

    @cached_property
    def beta_at(self) -> np.ndarray:
        """(K, J) position of each coefficient among the emission parameters."""
        return self._places(self.switching, 0)

    @cached_property
    def phi_at(self) -> np.ndarray:
        """(K, p)."""
        return self._places((self.phi_switching,) * self.order, int(self.beta_at.max(initial=-1)) + 1)

    @cached_property
    def variance_at(self) -> np.ndarray:
        """(K,)."""
        used = max(int(self.beta_at.max(initial=-1)), int(self.phi_at.max(initial=-1))) + 1
        return self._places((self.variance_switching,), used)[:, 0]

    @cached_property
    def z_at(self) -> np.ndarray:
        """(p + 1, J) position of design column j of lag l in z."""
        p, J = self.order, len(self.names)
        places, free = np.zeros((p + 1, J), dtype=np.int64), p + 1
        for j in range(J):
            once = self.constant and j == 0
            places[:, j] = free + (0 if once else np.arange(p + 1))
            free += 1 if once else p + 1
        return places

    @cached_property
    def width(self) -> int:
        """D, size of z."""
        return int(self.z_at.max(initial=self.order)) + 1

    @cached_property
    def digits(self) -> np.ndarray:
        """(p + 1, M) regime of each lag in each tuple."""
        K, p = self.regimes, self.order
        return np.stack([(np.arange(K ** (p + 1)) // K ** (p - lag)) % K for lag in range(p + 1)])

    def parts(self, emission: np.ndarray) -> Parts:
        """Emission parameters (N, E) by regime."""
        return Parts(emission[:, self.beta_at], emission[:, self.phi_at], emission[:, self.variance_at])

    def whole(self, parts: Parts) -> np.ndarray:
        """The inverse of `parts`; of common parameters the first regime's is taken."""
        emission = np.empty((parts.variance.shape[0], len(self.emission_names)))
        for k in reversed(range(self.regimes)):
            emission[:, self.beta_at[k]] = parts.beta[:, k]
            emission[:, self.phi_at[k]] = parts.phi[:, k]
            emission[:, self.variance_at[k]] = parts.variance[:, k]
        return emission

    def vectors(self, y: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z (B, T, D) and pattern (B, T) of y (B, T) and its design (B, T, J); a row that needs a NaN is missing."""
        B, T = y.shape
        z = np.full((B, T, self.width), np.nan)
        for lag in range(min(self.order + 1, T)):
            z[:, lag:, lag] = y[:, : T - lag]
            for j in range(len(self.names)):
                z[:, lag:, self.z_at[lag, j]] = design[:, : T - lag, j]
        seen = ~np.isnan(z).any(2)
        z[~seen] = 0.0
        return z, np.where(seen, 0, -1).astype(np.int16)

    def forms(self, parts: Parts) -> np.ndarray:
        """a (N, M, D)."""
        N = parts.variance.shape[0]
        M = self.digits.shape[1]
        a = np.zeros((N, M, self.width))
        for lag in range(self.order + 1):
            w = self._weight(parts, lag)
            a[:, :, lag] = w
            for j in range(len(self.names)):
                a[:, :, self.z_at[lag, j]] -= w * parts.beta[:, self.digits[lag], j]
        return a

    def emission(self, emission: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """constant (N, 1, M) and rows (N, 1, M, 1, D) of the densities."""
        parts = self.parts(emission)
        variance = parts.variance[:, self.digits[0]]
        rows = self.forms(parts) / np.sqrt(variance)[:, :, None]
        return (-_HALF_LOG_2PI - 0.5 * np.log(variance))[:, None], rows[:, None, :, None]

    def gradient(self, emission: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """(N, E): of the log-likelihood, from expected weights (N, M) and moments (N, M, D, D)."""
        parts = self.parts(emission)
        a, variance = self.forms(parts), parts.variance[:, self.digits[0]]
        Sa = moments[..., 0] * a[:, :, None, 0]
        for d in range(1, self.width):
            Sa += moments[..., d] * a[:, :, None, d]
        square = total_over(a * Sa, 2)
        by_form = -Sa / variance[:, :, None]
        result = np.zeros_like(emission)
        by_variance = self._by_regime((square / variance - weight) / (2 * variance), 0)
        for k in range(self.regimes):
            result[:, self.variance_at[k]] += by_variance[:, k]
        for lag in range(self.order + 1):
            w, regime = self._weight(parts, lag), self.digits[lag]
            by_weight = by_form[:, :, lag].copy()
            for j in range(len(self.names)):
                part = by_form[:, :, self.z_at[lag, j]]
                by_weight -= part * parts.beta[:, regime, j]
                by_beta = self._by_regime(-w * part, lag)
                for k in range(self.regimes):
                    result[:, self.beta_at[k, j]] += by_beta[:, k]
            if lag > 0:
                by_phi = self._by_regime(-by_weight, 0)
                for k in range(self.regimes):
                    result[:, self.phi_at[k, lag - 1]] += by_phi[:, k]
        return result

    def maximise(self, emission: np.ndarray, weight: np.ndarray, moments: np.ndarray, floor: float) -> np.ndarray:
        """Emission parameters (N, E) that raise the expected log-likelihood (the M-step); only without order.

        Coefficients by least squares weighted by the present variances, then variances, at least `floor`.
        """
        parts = self.parts(emission)
        N, K, J = parts.beta.shape
        count = int(self.beta_at.max(initial=-1)) + 1
        result = emission.copy()
        if J:
            normal, right = np.zeros((N, count, count)), np.zeros((N, count))
            for k in range(K):
                for i in range(J):
                    right[:, self.beta_at[k, i]] += moments[:, k, 0, 1 + i] / parts.variance[:, k]
                    for j in range(J):
                        cell = moments[:, k, 1 + i, 1 + j] / parts.variance[:, k]
                        normal[:, self.beta_at[k, i], self.beta_at[k, j]] += cell
            diagonal = np.arange(count)
            normal[:, diagonal, diagonal] += 1e-8 * np.maximum(normal[:, diagonal, diagonal].max(1), 1e-8)[:, None]
            result[:, :count] = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        a = self.forms(self.parts(result))
        square = np.zeros((N, K))
        for i in range(self.width):
            for j in range(self.width):
                square += a[:, :, i] * moments[:, :, i, j] * a[:, :, j]
        if not self.variance_switching:
            square, weight = total_over(square, 1)[:, None], total_over(weight, 1)[:, None]
        result[:, int(self.variance_at[0]) :] = np.maximum(square / np.maximum(weight, 1e-8), floor * 1.001)
        return result

    def _weight(self, parts: Parts, lag: int) -> np.ndarray:
        if lag == 0:
            return np.ones((parts.variance.shape[0], self.digits.shape[1]))
        return -parts.phi[:, self.digits[0], lag - 1]

    def _by_regime(self, x: np.ndarray, lag: int) -> np.ndarray:
        """(N, M) summed over all lags but one: (N, K)."""
        x = x.reshape(x.shape[0], *[self.regimes] * (self.order + 1))
        for axis in range(self.order + 1, 0, -1):
            if axis != lag + 1:
                x = total_over(x, axis)
        return x

    def _places(self, switching: tuple[bool, ...], used: int) -> np.ndarray:
        places = np.zeros((self.regimes, len(switching)), dtype=np.int64)
        for j, switches in enumerate(switching):
            places[:, j] = used + (np.arange(self.regimes) if switches else 0)
            used += self.regimes if switches else 1
        return places


def total_over(x: np.ndarray, axis: int) -> np.ndarray:
    """Sum over an axis, term by term: the same bits whatever the shape of the others."""
    total: np.ndarray = np.take(x, 0, axis)
    for i in range(1, x.shape[axis]):
        total = total + np.take(x, i, axis)
    return total
