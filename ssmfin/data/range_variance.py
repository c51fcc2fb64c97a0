"""Owns daily variance from open, high, low and close: Parkinson, Garman-Klass, Rogers-Satchell, Yang-Zhang.

All are decimal, per day, not annualised. The first three measure the session from open to close and do not see the
night; Yang-Zhang's is of the whole day, night included, over a window of days. All assume that prices are watched
continuously: with n trades a day the observed range is too short, by about 1.1 sigma / sqrt(n) (Garman and Klass 1980).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssmfin.errors import InputError

Estimator = Literal["parkinson", "garman_klass", "rogers_satchell", "yang_zhang"]
# The prices that each one reads
NEEDS: dict[str, tuple[str, ...]] = {
    "parkinson": ("high", "low"),
    "garman_klass": ("open", "high", "low", "close"),
    "rogers_satchell": ("open", "high", "low", "close"),
    "yang_zhang": ("open", "high", "low", "close"),
}
Estimators = Annotated[
    tuple[Estimator, ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=Estimator | list[Estimator]
    ),
    Field(min_length=1),
]


class RangeMeasures(BaseModel):
    """`measures: {kind: range, estimators: [parkinson], window: 22}`: adds a column named after each estimator.

    Adds `log_return` (close to close) as well, if there is a close and no such column yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["range"] = "range"
    estimators: Estimators = Field(("parkinson",), description="variance per day, decimal, from the day's prices")
    window: int = Field(22, ge=2, le=10_000, strict=True, description="days of yang_zhang's window")

    @property
    def prices(self) -> tuple[str, ...]:
        """The columns that must be there."""
        return tuple(dict.fromkeys(price for name in self.estimators for price in NEEDS[name]))

    def add(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame, sorted by (unique_id, ds), with the measures beside the prices.

        A day without the prices that an estimator needs has null there, as has the start of each id where returns or a
        whole window are not known yet.

        Raises:
            InputError: a column of that name exists already.
        """
        clash = [name for name in self.estimators if name in frame.columns]
        if clash:
            raise InputError(
                f"the measures would overwrite the columns {clash}; rename those of the source (columns), or leave "
                "measures out."
            )
        price = {name: _array(frame[name]) for name in self.prices}
        if "close" in frame.columns:
            price["close"] = _array(frame["close"])
            first = (frame["unique_id"] != frame["unique_id"].shift()).fill_null(True).to_numpy()
            previous = np.concatenate([[np.nan], price["close"][:-1]])
            previous[first] = np.nan
        columns: dict[str, np.ndarray] = {}
        for name in self.estimators:
            if name == "parkinson":
                columns[name] = parkinson(price["high"], price["low"])
            elif name == "garman_klass":
                columns[name] = garman_klass(price["open"], price["high"], price["low"], price["close"])
            elif name == "rogers_satchell":
                columns[name] = rogers_satchell(price["open"], price["high"], price["low"], price["close"])
            else:
                # no window reaches over the border of two ids: the night before an id's first row is NaN
                columns[name] = yang_zhang(
                    price["open"],
                    price["high"],
                    price["low"],
                    price["close"],
                    window=self.window,
                    previous_close=previous,
                )
        if "close" in price and "log_return" not in frame.columns:
            columns["log_return"] = np.log(price["close"] / previous)
        return frame.with_columns(pl.Series(name, values, nan_to_null=True) for name, values in columns.items())


def _array(column: pl.Series) -> np.ndarray:
    return column.to_numpy()  # null becomes NaN


def parkinson(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Variance of the session from its range.

    v_t = ln(H_t / L_t)^2 / (4 ln 2)

    Unbiased for a Brownian motion without drift; needs no open, so a stale open cannot bias it.

    Args:
        high, low: (T,) prices, positive, high >= low.
    Returns:
        (T,) variance per session, decimal squared, not annualised; NaN where a price is.
    References:
        Parkinson (1980), The extreme value method for estimating the variance of the rate of return, J. Business 53.
    Example:
        >>> float(parkinson(np.array([np.exp(0.02)]), np.array([1.0])).round(12)[0])  # 0.02^2 / (4 ln 2)
        0.000144269504
    """
    variance: np.ndarray = np.log(high / low) ** 2 / (4.0 * np.log(2.0))
    return variance


def garman_klass(open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Variance of the session from its range and its open-to-close return.

    v_t = ln(H_t / L_t)^2 / 2 - (2 ln 2 - 1) ln(C_t / O_t)^2

    Unbiased for a Brownian motion without drift, with 1 / 7.4 of the variance of the squared return.

    Args:
        open, high, low, close: (T,) prices, positive, low <= open, close <= high.
    Returns:
        (T,) variance per session, decimal squared, not annualised; NaN where a price is.
    References:
        Garman, Klass (1980), On the estimation of security price volatilities from historical data, J. Business 53,
        the practical form of their best analytic estimator.
    Example:
        >>> one = np.array([1.0])
        >>> float(garman_klass(one, one * np.exp(0.02), one, one).round(12)[0])
        0.0002
    """
    variance: np.ndarray = 0.5 * np.log(high / low) ** 2 - (2.0 * np.log(2.0) - 1.0) * np.log(close / open) ** 2
    return variance


def rogers_satchell(open: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Variance of the session whatever its drift.

    v_t = ln(H_t / C_t) ln(H_t / O_t) + ln(L_t / C_t) ln(L_t / O_t)

    Unbiased for a Brownian motion with any constant drift. Zero on a day that opens at one extreme and closes at the
    other, so its logarithm may not exist.

    Args:
        open, high, low, close: (T,) prices, positive, low <= open, close <= high.
    Returns:
        (T,) variance per session, decimal squared, not annualised; NaN where a price is.
    References:
        Rogers, Satchell (1991), Estimating variance from high, low and closing prices, Annals of Applied Probability 1.
    Example:
        >>> one = np.array([1.0])
        >>> float(rogers_satchell(one, one * np.exp(0.02), one, one).round(12)[0])
        0.0004
    """
    variance: np.ndarray = np.log(high / close) * np.log(high / open) + np.log(low / close) * np.log(low / open)
    return variance


def yang_zhang(
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    *,
    window: int = 22,
    previous_close: np.ndarray | None = None,
) -> np.ndarray:
    """Variance of the whole day, night included, whatever the drift, over the last `window` days.

    o_t = ln(O_t / C_{t-1}),  c_t = ln(C_t / O_t)
    v_t = var(o) + k var(c) + (1 - k) mean(rogers_satchell),  k = .34 / (1.34 + (n + 1) / (n - 1))

    Variances with n - 1, over days t-n+1 .. t alone: a value never changes when later days arrive.

    Args:
        open, high, low, close: (T,) prices of one series, positive, in time order.
        window: n, days, at least 2.
        previous_close: (T,) close of the day before; default the series' own, shifted by one.
    Returns:
        (T,) variance per day, decimal squared, not annualised; NaN on the first n days and where a price is missing.
    Raises:
        InputError: the window is shorter than two days.
    References:
        Yang, Zhang (2000), Drift-independent volatility estimation based on high, low, open, and close prices,
        J. Business 73; k is their choice of smallest variance.
    Example:
        >>> price = np.full(4, 100.0)
        >>> yang_zhang(price, price, price, price, window=2)
        array([nan, nan,  0.,  0.])
    """
    if window < 2:
        raise InputError(f"window of yang_zhang is {window}, and a variance needs two days; use at least 2.")
    if previous_close is None:
        previous_close = np.concatenate([[np.nan], close[:-1]])
    k = 0.34 / (1.34 + (window + 1) / (window - 1))
    _, overnight = _rolling_moments(np.log(open / previous_close), window)
    _, session = _rolling_moments(np.log(close / open), window)
    range_mean, _ = _rolling_moments(rogers_satchell(open, high, low, close), window)
    return overnight + k * session + (1.0 - k) * range_mean


def _rolling_moments(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (n - 1) of the last `window` values, (T,) each; NaN before the first full window.

    Two passes over the lags instead of differences of running sums: those lose digits after a large value, and the
    result would depend on all that came before the window.
    """
    length = len(values)
    mean = np.full(length, np.nan)
    variance = np.full(length, np.nan)
    if length < window:
        return mean, variance
    total = np.zeros(length - window + 1)
    for lag in range(window):
        total += values[window - 1 - lag : length - lag]
    mean[window - 1 :] = total / window
    squares = np.zeros_like(total)
    for lag in range(window):
        squares += (values[window - 1 - lag : length - lag] - mean[window - 1 :]) ** 2
    variance[window - 1 :] = squares / (window - 1)
    return mean, variance
