"""Owns linear least squares for many windows at once, from centred moments: ordinary, and ridge with a chosen penalty.

With D the standard deviations of the regressors in the window, C = D^-1 S_xx D^-1 / n their correlations and
c = D^-1 S_xy / n, the coefficients are D^-1 C^-1 c (ordinary) or D^-1 (C + penalty I)^-1 c (ridge). Scaling to
correlations makes the result indifferent to units; where C is nearly singular the window is solved again from its rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.models.baselines.range_sums import RangeMoments, range_moments
from ssmfin.models.baselines.samples import Sample
from ssmfin.models.interface import FloatArray

# Below this part of a regressor's variance left unexplained by the others, the normal equations lose more than the
# 1e-8 that we promise (measured in the tests against lstsq): such windows are solved from their rows.
SMALLEST_PIVOT = 1e-5
SMALLEST_RESIDUAL = 1e-8  # likewise for the residual variance, relative to that of the response
CONSTANT = 1e-12  # a regressor whose deviation is below this part of its mean is constant: its coefficient is zero


class Regression(NamedTuple):
    """B fitted linear models.

    intercept: (B,). coefficients: (B, p). residual_variance: (B,), RSS / (n - degrees of freedom). n: (B,) rows.
    penalty: (B,), zero for ordinary least squares.
    """

    intercept: FloatArray
    coefficients: FloatArray
    residual_variance: FloatArray
    n: FloatArray
    penalty: FloatArray

    def forecast(self, x: FloatArray, which: np.ndarray) -> FloatArray:
        """intercept + x'b. Args: x: (n, p). which: (n,) the model of each row. Returns: (n,)."""
        mu: FloatArray = self.intercept[which].copy()
        for j in range(x.shape[1]):  # a fixed order of additions: the same bits however many rows are asked for
            mu += self.coefficients[which, j] * x[:, j]
        return mu


class _Normal(NamedTuple):
    """Centred normal equations of B samples on the scale of correlations; a constant regressor has scale 0."""

    n: FloatArray  # (B,)
    mean_x: FloatArray  # (B, p)
    mean_y: FloatArray  # (B,)
    scale: FloatArray  # (B, p)
    inverse_scale: FloatArray  # (B, p), zero where the regressor is constant
    correlation: FloatArray  # (B, p, p)
    cross: FloatArray  # (B, p)
    variance_y: FloatArray  # (B,)


def ordinary_least_squares(sample: Sample) -> Regression:
    """Least squares with an intercept for every sample; of many solutions the shortest standardised one.

    Residual variance is RSS / (n - 1 - rank), with a divisor of at least one.
    """
    p = sample.x.shape[1]
    normal = _normal_equations(_moments(sample))
    standardised, smallest_pivot = _solve_cholesky(normal.correlation, normal.cross)
    explained = np.zeros_like(normal.mean_y)
    for j in range(p):
        explained += standardised[:, j] * normal.cross[:, j]
    residual = normal.variance_y - explained
    coefficients = standardised * normal.inverse_scale
    variance = np.maximum(residual, 0.0) * normal.n / np.maximum(normal.n - 1 - p, 1.0)
    intercept = normal.mean_y - _row_dot(coefficients, normal.mean_x)
    doubtful = (
        ~(smallest_pivot > SMALLEST_PIVOT)
        | ~(residual > SMALLEST_RESIDUAL * normal.variance_y)
        | (normal.scale == 0).any(axis=1)
        | (normal.n < p + 2)
    )
    for b in np.flatnonzero(doubtful & (normal.n > 0)):
        rows = sample.rows(int(b))
        intercept[b], coefficients[b], variance[b] = least_squares_by_rows(sample.x[rows], sample.y[rows])
    return Regression(intercept, coefficients, variance, normal.n, np.zeros_like(intercept))


def within_least_squares(moments: RangeMoments, groups: FloatArray) -> Regression:
    """Slopes common to several groups of rows, from scatters about each group's own mean, summed over groups.

    Args:
        moments: B windows; n of all groups, `mean` of any group (it says what counts as constant), the summed scatter.
        groups: (B,) how many groups have rows; each has an intercept, which costs a degree of freedom.
    Returns:
        Intercepts are zero here: a group's own is its mean of y less its means of x times the slopes.
    """
    normal = _normal_equations(moments)
    p = normal.correlation.shape[1]
    # a pseudo-inverse: collinear regressors share, a constant one (a row of zeros) gets nothing
    inverse = np.linalg.pinv(normal.correlation, rcond=1e-10, hermitian=True)
    standardised = (inverse @ normal.cross[:, :, None])[:, :, 0]
    residual = np.maximum(normal.variance_y - _row_dot(standardised, normal.cross), 0.0)
    variance = residual * normal.n / np.maximum(normal.n - groups - p, 1.0)
    return Regression(
        np.zeros_like(normal.n), standardised * normal.inverse_scale, variance, normal.n, np.zeros_like(normal.n)
    )


def least_squares_by_rows(x: FloatArray, y: FloatArray) -> tuple[float, FloatArray, float]:
    """Intercept, coefficients (p,) and residual variance by a singular value decomposition of the standardised rows.

    Args:
        x: (n, p). y: (n,), n >= 1. Constant columns get a coefficient of zero, collinear ones share it evenly.

    >>> x = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    >>> intercept, slope, _ = least_squares_by_rows(x, np.array([3.0, 5.0, 9.0]))
    >>> round(intercept, 12), slope.round(12)
    (1.0, array([2., 0.]))
    """
    mean_x, mean_y = x.mean(axis=0), y.mean()
    centred = x - mean_x
    largest = np.abs(centred).max(axis=0)
    scale = largest * np.sqrt(np.mean((centred / np.where(largest > 0, largest, 1.0)) ** 2, axis=0))
    varies = scale > CONSTANT * np.abs(mean_x)
    standardised = np.where(varies, centred / np.where(varies, scale, 1.0), 0.0)
    solution, _, rank, _ = np.linalg.lstsq(standardised, y - mean_y, rcond=None)
    residual = y - mean_y - standardised @ solution
    coefficients = np.where(varies, solution / np.where(varies, scale, 1.0), 0.0)
    variance = float(residual @ residual) / max(len(y) - 1 - int(rank), 1)
    return float(mean_y - coefficients @ mean_x), coefficients, variance


def ridge(train: Sample, fit: Sample, validation: Sample, penalties: FloatArray) -> Regression:
    """Ridge with an unpenalised intercept, its penalty chosen by squared error on the validation tail.

    min_b sum (y - a - x'b)^2 + n penalty |D b|^2, for each penalty on `fit`; the one with the least squared error on
    `validation` is then used on `train`. Where `fit` has fewer than two rows or `validation` none, the penalty is the
    minimiser of the generalised cross-validation error RSS / (n - df)^2 on `train`. Ties go to the smaller penalty.

    Args:
        penalties: (G,) increasing, positive; relative to a standardised regressor, so 1 halves a lone coefficient.
    References:
        Hoerl, Kennard (1970), Technometrics 12, eq. 2.1; Golub, Heath, Wahba (1979), Technometrics 21, eq. 1.4.
    """
    normal = _normal_equations(_moments(train))
    early, tail = _normal_equations(_moments(fit)), _moments(validation)
    error = _validation_error(early, tail, penalties)
    blind = (early.n < 2) | (tail.n < 1)
    if blind.any():
        error[blind] = _cross_validation_error(_Normal(*(part[blind] for part in normal)), penalties)
    return _ridge(normal, penalties[np.argmin(np.where(np.isnan(error), np.inf, error), axis=1)])


def ridge_given(train: Sample, penalty: float) -> Regression:
    """Ridge with an unpenalised intercept and a penalty that is known."""
    normal = _normal_equations(_moments(train))
    return _ridge(normal, np.full(len(normal.n), penalty))


def _ridge(normal: _Normal, penalty: FloatArray) -> Regression:
    """min_b sum (y - a - x'b)^2 + n penalty |D b|^2. Args: penalty: (B,)."""
    p = normal.correlation.shape[1]
    system = normal.correlation + penalty[:, None, None] * np.eye(p)
    right = np.concatenate([normal.cross[:, :, None], normal.correlation], axis=2)  # (B, p, 1 + p)
    solved = np.linalg.solve(system, right)
    standardised, freedom = solved[:, :, 0], np.trace(solved[:, :, 1:], axis1=1, axis2=2)
    quadratic = _row_dot(standardised, (normal.correlation @ standardised[:, :, None])[:, :, 0])
    residual = normal.variance_y - 2 * _row_dot(standardised, normal.cross) + quadratic
    variance = np.maximum(residual, 0.0) * normal.n / np.maximum(normal.n - 1 - freedom, 1.0)
    coefficients = standardised * normal.inverse_scale
    intercept = normal.mean_y - _row_dot(coefficients, normal.mean_x)
    return Regression(intercept, coefficients, variance, normal.n, penalty)


def _moments(sample: Sample) -> RangeMoments:
    together = np.column_stack([sample.x, sample.y])  # (n, p + 1)
    return range_moments(together, sample.valid, sample.ranges)


def _normal_equations(moments: RangeMoments) -> _Normal:
    n = np.maximum(moments.n, 1.0)
    covariance = moments.scatter / n[:, None, None]
    mean_x = moments.mean[:, :-1]
    scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :-1])
    varies = scale > CONSTANT * np.abs(mean_x)
    inverse = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    return _Normal(
        n=moments.n,
        mean_x=mean_x,
        mean_y=moments.mean[:, -1],
        scale=np.where(varies, scale, 0.0),
        inverse_scale=inverse,
        correlation=covariance[:, :-1, :-1] * inverse[:, :, None] * inverse[:, None, :],
        cross=covariance[:, :-1, -1] * inverse,
        variance_y=covariance[:, -1, -1],
    )


def _validation_error(early: _Normal, tail: RangeMoments, penalties: FloatArray) -> FloatArray:
    """(B, G) squared error on the tail, as a quadratic form in the eigenbasis Q of the early correlations.

    g = (Lambda + penalty)^-1 Q'c; SSE = n (dy - dx'g)^2 + S_yy - 2 S_xy'g + g'S_xx g, all in standardised units.
    """
    eigenvalues, basis = np.linalg.eigh(early.correlation)
    to_basis = early.inverse_scale[:, :, None] * basis  # (B, p, p)
    g = (_rotate(basis, early.cross)[:, None, :] / _shrunk(eigenvalues, penalties)).transpose(0, 2, 1)  # (B, p, G)
    tail_xx = to_basis.transpose(0, 2, 1) @ tail.scatter[:, :-1, :-1] @ to_basis
    tail_xy = _rotate(to_basis, tail.scatter[:, :-1, -1])
    apart_x = _rotate(to_basis, tail.mean[:, :-1] - early.mean_x)
    apart_y = tail.mean[:, -1] - early.mean_y
    bias = apart_y[:, None] - (apart_x[:, None, :] @ g)[:, 0]
    spread = tail.scatter[:, -1, -1][:, None] - 2 * (tail_xy[:, None, :] @ g)[:, 0] + (g * (tail_xx @ g)).sum(axis=1)
    return np.asarray(tail.n[:, None] * bias**2 + spread)


def _cross_validation_error(normal: _Normal, penalties: FloatArray) -> FloatArray:
    """(B, G) generalised cross-validation error, up to a factor."""
    eigenvalues, basis = np.linalg.eigh(normal.correlation)
    rotated = _rotate(basis, normal.cross)[:, None, :]
    shrunk = _shrunk(eigenvalues, penalties)  # (B, G, p)
    kept = np.maximum(eigenvalues, 0.0)[:, None, :]
    g = rotated / shrunk
    residual = normal.variance_y[:, None] + (g * (kept * g - 2 * rotated)).sum(axis=2)
    freedom = 1.0 + (kept / shrunk).sum(axis=2)
    return np.asarray(np.maximum(residual, 0.0) / np.maximum(normal.n[:, None] - freedom, 1e-9) ** 2)


def _shrunk(eigenvalues: FloatArray, penalties: FloatArray) -> FloatArray:
    """Lambda + penalty, (B, G, p); rounding may leave an eigenvalue of a correlation matrix just below zero."""
    return np.asarray(np.maximum(eigenvalues, 0.0)[:, None, :] + penalties[None, :, None])


def _rotate(basis: FloatArray, vectors: FloatArray) -> FloatArray:
    """Q'v for each of B: (B, p, p), (B, p) -> (B, p)."""
    return np.asarray((vectors[:, None, :] @ basis)[:, 0])


def _row_dot(a: FloatArray, b: FloatArray) -> FloatArray:
    total = np.zeros(len(a))
    for j in range(a.shape[1]):
        total += a[:, j] * b[:, j]
    return total


def _solve_cholesky(matrix: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solutions (B, p) and smallest pivots (B,) of B correlation systems, elementwise over the batch.

    The pivot of column j is 1 - R^2 of regressor j on those before it. Solutions with tiny pivots are meaningless.
    """
    p = matrix.shape[1]
    lower = np.zeros((p, p, len(matrix)))
    solution = np.zeros((p, len(matrix)))
    smallest = np.full(len(matrix), np.inf)
    with np.errstate(over="ignore", invalid="ignore"):  # only where a pivot is tiny, and then it is solved again
        for j in range(p):
            for i in range(j, p):
                lower[i, j] = matrix[:, i, j]
                for k in range(j):
                    lower[i, j] -= lower[i, k] * lower[j, k]
                if i == j:
                    smallest = np.minimum(smallest, lower[j, j])  # NaN stays
                    lower[j, j] = np.sqrt(np.maximum(lower[j, j], np.finfo(float).tiny))
                else:
                    lower[i, j] /= lower[j, j]
        for j in range(p):
            solution[j] = right[:, j]
            for k in range(j):
                solution[j] -= lower[j, k] * solution[k]
            solution[j] /= lower[j, j]
        for j in reversed(range(p)):
            for k in range(j + 1, p):
                solution[j] -= lower[k, j] * solution[k]
            solution[j] /= lower[j, j]
    return solution.T, smallest
