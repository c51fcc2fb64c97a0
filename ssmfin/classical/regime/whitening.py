"""Owns the units a regression is fitted in: residuals of least squares over their size, and orthonormal regressors.

With b least squares, s^2 the mean squared residual and W block-wise inverse triangular factors, y and its regressors g
are replaced by e = (y - g'b) / s and q = g W, and a regime's coefficients by c in

    beta = b + s W c,   sigma^2 = s^2 sigma*^2,   so that   y - g'beta = s (e - q'c)

Then every parameter is of order one, whatever the units, levels and correlations of the data. Columns whose
coefficient switches and columns whose coefficient is common are blocks of their own: the change keeps the model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Whitened(NamedTuple):
    """Data in these units, for B series and J design columns; NaN where a row is not usable or the series failed.

    Attributes:
        residual: (B, T), e.
        design: (B, T, J), q.
        coefficients: (B, J), b.
        factor: (B, J, J), W.
        scale: (B,), s.
        observations: (B,) int64, usable rows.
        reason: why a series cannot be fitted, by its index.
    """

    residual: np.ndarray
    design: np.ndarray
    coefficients: np.ndarray
    factor: np.ndarray
    scale: np.ndarray
    observations: np.ndarray
    reason: dict[int, str]


def whiten(y: np.ndarray, design: np.ndarray, names: tuple[str, ...], switching: np.ndarray, least: int) -> Whitened:
    """Whiten every series by itself.

    Args:
        y: (B, T), NaN missing.
        design: (B, T, J), NaN missing.
        names: (J,) of the columns, for reasons.
        switching: (J,) bool, whether the coefficient of the column switches: the two blocks.
        least: fewest usable rows that can be fitted.
    """
    B, T, J = design.shape
    residual, whitened = np.full((B, T), np.nan), np.full((B, T, J), np.nan)
    coefficients, factor = np.full((B, J), np.nan), np.full((B, J, J), np.nan)
    scale, observations = np.full(B, np.nan), np.zeros(B, dtype=np.int64)
    reason: dict[int, str] = {}
    bad = np.isinf(y).any(1) | np.isinf(design).any((1, 2))
    usable = ~(np.isnan(y) | np.isnan(design).any(2))
    for b in range(B):
        rows = usable[b]
        n = observations[b] = int(rows.sum())
        if bad[b]:
            reason[b] = "holds infinite values; replace them by NaN (missing) or repair them."
            continue
        if n == 0:
            reason[b] = "has no usable observation (all missing); leave it out."
            continue
        if n < least:
            reason[b] = f"has {n} usable observations for {least - 1} parameters; give at least {least}."
            continue
        g, own = design[b, rows], y[b, rows]
        if np.ptp(own) <= 1e-10 * np.abs(own).max():
            reason[b] = "is constant; there is nothing to tell regimes apart by: leave it out."
            continue
        W = np.zeros((J, J))
        failed = ""
        for block in (np.flatnonzero(switching), np.flatnonzero(~switching)):
            if len(block):
                found, failed = _orthonormal(g[:, block], [names[j] for j in block])
                if failed:
                    break
                W[np.ix_(block, block)] = found
        if not failed and J:
            both = np.asarray(np.linalg.qr(g @ W, mode="r"))
            j = int(np.abs(np.diag(both)).argmin())
            if abs(both[j, j]) < 1e-7 * np.sqrt(n):
                failed = _collinear(names[j])
        if failed:
            reason[b] = failed
            continue
        q = g @ W
        solution = np.linalg.lstsq(q, own, rcond=None)[0] if J else np.zeros(0)
        e = own - q @ solution
        s = float(np.sqrt(np.mean(e * e)))
        if not s > 1e-10 * float(np.sqrt(np.mean(own * own))):
            reason[b] = "is fitted exactly by its regressors; there is nothing to tell regimes apart by: leave one out."
            continue
        residual[b, rows], whitened[b, rows] = e / s, q
        coefficients[b], factor[b], scale[b] = W @ solution, W, s
    return Whitened(residual, whitened, coefficients, factor, scale, observations, reason)


def to_user(white: Whitened, index: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Coefficients (N, K, J) of the series index (N,) in the user's units from those in these."""
    moved = (white.factor[index][:, None] @ c[..., None])[..., 0]
    user: np.ndarray = white.coefficients[index][:, None] + white.scale[index][:, None, None] * moved
    return user


def from_user(white: Whitened, index: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """The inverse of `to_user`."""
    apart = (beta - white.coefficients[index][:, None]) / white.scale[index][:, None, None]
    c: np.ndarray = np.linalg.solve(white.factor[index][:, None], apart[..., None])[..., 0]
    return c


def _orthonormal(g: np.ndarray, names: list[str]) -> tuple[np.ndarray, str]:
    """W with (g W)'(g W) = n I, or why there is none."""
    n, J = g.shape
    size = np.sqrt(np.mean(g * g, axis=0))
    if (size == 0).any():
        return np.zeros(
            (J, J)
        ), f"has a regressor that is zero throughout, {names[int(size.argmin())]!r}; leave it out."
    triangle = np.linalg.qr(g / size, mode="r") / np.sqrt(n)
    j = int(np.abs(np.diag(triangle)).argmin())
    if abs(triangle[j, j]) < 1e-7:
        return np.zeros((J, J)), _collinear(names[j])
    signs = np.sign(np.diag(triangle))
    factor: np.ndarray = np.linalg.inv(triangle * signs[:, None]) / size[:, None]
    return factor, ""


def _collinear(name: str) -> str:
    return f"has a regressor that is a combination of the others (collinear), {name!r}; leave it out."
