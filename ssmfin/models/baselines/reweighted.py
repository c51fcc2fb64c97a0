"""Owns regressions whose weights depend on their own fit: weighted by the fitted value, QLIKE-optimal, Huber.

Each window is solved from its rows by a few weighted least squares, about .2 ms each for 1,000 rows: a walk with a
refit a day over many ids is for ordinary least squares, which shares the moments of all windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import Regression, least_squares_by_rows
from ssmfin.models.baselines.samples import Sample
from ssmfin.models.interface import FloatArray

MOST_STEPS = 50
TOLERANCE = 1e-10  # of the objective, relative
HUBER = 1.345  # 95 % efficiency under normal errors
NORMAL_MAD = 0.6744897501960817  # median of |x| for a standard normal x

Solution = tuple[float, FloatArray, float]  # intercept, coefficients (p,), residual variance


def weighted_by_fit(sample: Sample) -> Regression:
    """Least squares, then once more with weights 1 / fitted.

    The fit is held within the range of the labels. Labels must be positive.

    References:
        Patton, Sheppard (2015), Review of Economics and Statistics 97, section III.
    """
    return _each(sample, _weighted_by_fit)


def qlike_identity(sample: Sample) -> Regression:
    """min_b sum y / f - log(y / f) - 1 with f = a + x'b, by iterated least squares with weights 1 / f^2.

    f is held above a hundredth of the smallest label, so that it stays positive. Labels must be positive.

    References:
        Patton (2011), Journal of Econometrics 160, eq. 24 (the loss); McCullagh, Nelder (1989), Generalized Linear
        Models, section 8.2 (the gamma likelihood with identity link, of which it is the deviance).
    """
    return _each(sample, _qlike_identity)


def qlike_log(sample: Sample) -> Regression:
    """min_b sum y / f - log(y / f) - 1 with f = exp(a + x'b), by Fisher scoring; `sample.y` holds log labels.

    References:
        McCullagh, Nelder (1989), Generalized Linear Models, section 8.3 (gamma likelihood, log link).
    """
    return _each(sample, _qlike_log)


def huber(sample: Sample) -> Regression:
    """min_b sum rho(e / s) with rho quadratic up to 1.345 and linear beyond, s the median absolute residual / .6745.

    References:
        Huber, Ronchetti (2009), Robust Statistics, section 7.8.
    """
    return _each(sample, _huber)


def _each(sample: Sample, solve: Callable[[FloatArray, FloatArray, FloatArray], Solution]) -> Regression:
    windows, p = len(sample.ranges.lo), sample.x.shape[1]
    out = Regression(*(np.zeros(shape) for shape in ((windows,), (windows, p), (windows,), (windows,), (windows,))))
    for b in range(windows):
        rows = sample.rows(b)
        out.n[b] = len(rows)
        if len(rows):
            out.intercept[b], out.coefficients[b], out.residual_variance[b] = solve(
                sample.x[rows], sample.y[rows], sample.label[rows]
            )
    return out


def _weighted_by_fit(x: FloatArray, y: FloatArray, label: FloatArray) -> Solution:
    _require_positive(label)
    intercept, slopes, _ = least_squares_by_rows(x, y)
    fitted = np.clip(intercept + x @ slopes, label.min(), label.max())
    return _weighted(x, y, 1.0 / fitted)


def _qlike_identity(x: FloatArray, y: FloatArray, label: FloatArray) -> Solution:
    _require_positive(label)
    low = 0.01 * label.min()

    def fitted(b: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(b[0] + x @ b[1:], low))

    def loss(b: FloatArray) -> float:
        ratio = label / fitted(b)
        return float(np.mean(ratio - np.log(ratio) - 1.0))

    def step(b: FloatArray) -> FloatArray:
        intercept, slopes, _ = _weighted(x, label, fitted(b) ** -2.0)
        moved: FloatArray = np.concatenate([[intercept], slopes]) - b
        return moved

    return _descend(_start(x, label), step, loss, x, y)


def _qlike_log(x: FloatArray, y: FloatArray, label: FloatArray) -> Solution:
    _require_positive(label)

    def ratio(b: FloatArray) -> FloatArray:
        found: FloatArray = np.exp(np.clip(y - b[0] - x @ b[1:], -700, 700))
        return found

    def loss(b: FloatArray) -> float:
        r = ratio(b)
        return float(np.mean(r - np.log(r) - 1.0))

    def step(b: FloatArray) -> FloatArray:
        intercept, slopes, _ = least_squares_by_rows(x, ratio(b) - 1.0)
        return np.concatenate([[intercept], slopes])

    return _descend(_start(x, y), step, loss, x, y)


def _huber(x: FloatArray, y: FloatArray, label: FloatArray) -> Solution:
    b = _start(x, y)
    for _ in range(MOST_STEPS):
        residual = y - b[0] - x @ b[1:]
        scale = float(np.median(np.abs(residual))) / NORMAL_MAD
        if scale <= 1e-12 * float(np.abs(y).max(initial=0.0)):
            break  # more than half of the rows are fitted exactly
        bound = HUBER * scale
        weight = np.minimum(1.0, bound / np.maximum(np.abs(residual), bound))
        intercept, slopes, _ = _weighted(x, y, weight)
        new = np.concatenate([[intercept], slopes])
        moved = float(np.abs(new[0] - b[0] + x @ (new[1:] - b[1:])).max())
        b = new
        if moved <= 1e-9 * scale:
            break
    return float(b[0]), b[1:], _variance(x, y, b)


def _start(x: FloatArray, y: FloatArray) -> FloatArray:
    intercept, slopes, _ = least_squares_by_rows(x, y)
    return np.concatenate([[intercept], slopes])


def _descend(
    b: FloatArray,
    step: Callable[[FloatArray], FloatArray],
    loss: Callable[[FloatArray], float],
    x: FloatArray,
    y: FloatArray,
) -> Solution:
    """Steps that never raise the loss: each is halved until it does not."""
    current = loss(b)
    for _ in range(MOST_STEPS):
        move = step(b)
        better = next(
            ((b + size * move, value) for size in 0.5 ** np.arange(12.0) if (value := loss(b + size * move)) < current),
            None,
        )
        if better is None:
            break
        b, previous, current = better[0], current, better[1]
        if previous - current <= TOLERANCE * max(previous, 1e-12):
            break
    return float(b[0]), b[1:], _variance(x, y, b)


def _weighted(x: FloatArray, y: FloatArray, weight: FloatArray) -> Solution:
    """min sum w (y - a - x'b)^2; the residual variance is unweighted."""
    root = np.sqrt(weight)
    mean_x, mean_y = (weight @ x) / weight.sum(), (weight @ y) / weight.sum()
    centred = (x - mean_x) * root[:, None]
    scale = np.sqrt(np.mean(centred**2, axis=0))
    varies = scale > 1e-12 * np.abs(mean_x) * np.sqrt(weight.mean())
    inverse = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    solution = np.linalg.lstsq(centred * inverse, (y - mean_y) * root, rcond=None)[0]
    slopes = solution * inverse
    b = np.concatenate([[mean_y - mean_x @ slopes], slopes])
    return float(b[0]), slopes, _variance(x, y, b)


def _variance(x: FloatArray, y: FloatArray, b: FloatArray) -> float:
    residual = y - b[0] - x @ b[1:]
    return float(residual @ residual) / max(len(y) - len(b), 1)


def _require_positive(label: FloatArray) -> None:
    if not label.min() > 0:
        raise InputError(
            f"estimation wls or qlike needs positive labels, the least is {label.min():g}; "
            "use estimation: ols, or a target that is a variance."
        )
