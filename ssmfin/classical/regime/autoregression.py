"""Owns stationary autoregressive coefficients as functions of free numbers: through partial autocorrelations.

    r_k = tanh u_k,   phi^(k)_j = phi^(k-1)_j - r_k phi^(k-1)_{k-j},   phi^(k)_k = r_k

(Monahan (1984), Biometrika 71; Barndorff-Nielsen & Schou (1973).) Every u gives a stationary process and back.
"""

from __future__ import annotations

import numpy as np

_LARGEST = 0.999  # partial autocorrelation at which a fit may start


def stationary_coefficients(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi (.., p) and its Jacobian (.., p, p), d phi_j / d u_k at [j, k], for free (.., p).

    >>> stationary_coefficients(np.arctanh(np.array([0.5, -0.2])))[0].round(4)
    array([ 0.6, -0.2])
    """
    p = free.shape[-1]
    r = np.tanh(free)
    phi, jacobian = np.zeros_like(free), np.zeros((*free.shape, p))
    for k in range(p):
        before, slope = phi.copy(), jacobian.copy()
        for j in range(k):
            phi[..., j] = before[..., j] - r[..., k] * before[..., k - 1 - j]
            jacobian[..., j, :] = slope[..., j, :] - r[..., k, None] * slope[..., k - 1 - j, :]
            jacobian[..., j, k] = -before[..., k - 1 - j]
        phi[..., k] = r[..., k]
        jacobian[..., k, k] = 1.0
    return phi, jacobian * (1 - r * r)[..., None, :]


def free_coefficients(phi: np.ndarray) -> np.ndarray:
    """The inverse, (.., p); coefficients that are not stationary are taken to the nearest partial autocorrelations.

    >>> free_coefficients(np.array([0.6, -0.2])).round(4)
    array([ 0.5493, -0.2027])
    """
    p = phi.shape[-1]
    now, r = phi.copy(), np.zeros_like(phi)
    for k in range(p - 1, -1, -1):
        r[..., k] = np.clip(now[..., k], -_LARGEST, _LARGEST)
        before = now.copy()
        for j in range(k):
            now[..., j] = (before[..., j] + r[..., k] * before[..., k - 1 - j]) / (1 - r[..., k] ** 2)
    return np.asarray(np.arctanh(r))
