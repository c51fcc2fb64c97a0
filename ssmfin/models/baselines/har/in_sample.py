"""Owns the plain in-sample HAR of one series, as papers report it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.errors import InputError
from ssmfin.models.baselines.least_squares import least_squares_by_rows
from ssmfin.models.interface import FloatArray


class HARRegression(NamedTuple):
    """An in-sample HAR on n rows.

    coefficients: (1 + windows + q,), intercept first. residual_variance: RSS / (n - 1 - windows - q).
    """

    coefficients: FloatArray
    residual_variance: float
    n: int


def har_regression(
    realized_variance: FloatArray,
    *,
    horizon: int = 1,
    windows: tuple[int, ...] = (1, 5, 22),
    log: bool = False,
    others: FloatArray | None = None,
) -> HARRegression:
    """HAR of one series by least squares over the whole sample.

    mean(RV_{t+1..t+h}) = b_0 + sum_w b_w mean(RV_{t-w+1..t}) + c'z_t + e, or the same in logs of those means.

    Args:
        realized_variance: (T,) variance per day, in time order, finite.
        horizon: h, days ahead. windows: days averaged by each regressor.
        others: (T, q) further regressors z_t, as they are: for HARQ sqrt(RQ_t) RV_t, for HAR-J the jump of the day.
    Raises:
        InputError: too few values, or non-positive ones under a log.
    References:
        Corsi (2009), Journal of Financial Econometrics 7, eq. 8.

    >>> rv = 1e-4 * np.exp(np.sin(np.arange(300.0)))
    >>> har_regression(rv).coefficients.shape
    (4,)
    """
    rv = np.asarray(realized_variance, dtype=np.float64)
    first, count = max(windows) - 1, len(rv) - max(windows) + 1 - horizon
    if rv.ndim != 1 or count < len(windows) + 2:
        raise InputError(
            f"realized_variance is too short, shape {rv.shape} for windows {windows} and horizon {horizon}; "
            f"pass one series of at least {max(windows) + horizon + len(windows) + 1} values."
        )
    if not np.isfinite(rv).all() or (log and not (rv > 0).all()):
        wrong = rv[~np.isfinite(rv) | (rv <= 0)][0]
        raise InputError(f"realized_variance holds a value that cannot be used, {wrong:g}; drop or repair it.")

    def means(width: int, start: int) -> FloatArray:
        return np.asarray(np.lib.stride_tricks.sliding_window_view(rv, width).mean(axis=1)[start : start + count])

    x = np.column_stack([means(w, first - w + 1) for w in windows])
    y = means(horizon, first + 1)
    if log:
        x, y = np.log(x), np.log(y)
    if others is not None:
        if others.ndim != 2 or len(others) != len(rv) or not np.isfinite(others).all():
            raise InputError(f"others has shape {others.shape} or holds NaN; pass ({len(rv)}, q) finite numbers.")
        x = np.column_stack([x, others[first : first + count]])
    intercept, slopes, variance = least_squares_by_rows(x, y)
    return HARRegression(np.concatenate([[intercept], slopes]), variance, count)
