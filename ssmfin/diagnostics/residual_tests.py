"""Owns the tests of standardised innovations: if the model is right they are independent N(0, 1), at every t.

All take z (..., T): any leading dimensions are series, the last is time. NaN is missing (the diffuse start included)
and is left out, in its place: a lag of five stays five steps. Series with too few observations get NaN.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from ssmfin.errors import InputError

FloatArray = np.ndarray  # float64

# Asymptotic critical values of max |W_t| under independence: Brown, Durbin, Evans (1975), section 2.3.
_CUSUM_SCALE = {0.01: 1.143, 0.05: 0.948, 0.10: 0.850}
# Edgerton & Wells (1994), table 1: c = a1 / n^.5 + a2 / n + a3 / n^1.5, by one-sided level.
_SQUARES_SCALE = {
    0.10: (1.0729830, -0.6698868, -0.5816458),
    0.05: (1.2238734, -0.6700069, -0.7351697),
    0.025: (1.3581015, -0.6701218, -0.8858694),
    0.01: (1.5174271, -0.6702672, -1.0847745),
    0.005: (1.6276236, -0.6703724, -1.2365861),
}


class Tested(NamedTuple):
    """A statistic and its p-value, of the shape that the test says."""

    statistic: FloatArray
    p_value: FloatArray


class Normality(NamedTuple):
    """What `jarque_bera` returns, each (...)."""

    statistic: FloatArray
    p_value: FloatArray
    skewness: FloatArray
    kurtosis: FloatArray


class Cusum(NamedTuple):
    """A path that a stable model keeps within bounds, each (..., T); NaN where z is.

    Attributes:
        path: the statistic. lower, upper: bounds at the level asked for.
        crossed: (...) bool, whether the path leaves them anywhere.
    """

    path: FloatArray
    lower: FloatArray
    upper: FloatArray
    crossed: np.ndarray


def ljung_box(z: FloatArray, lags: int = 10, *, parameters: int = 0) -> Tested:
    """Ljung-Box test of no autocorrelation up to each lag.

    Q(k) = n (n + 2) sum_{j=1}^k r_j^2 / (n - j)  ~  chi^2(k - parameters)

    With missing values n is the number seen and n - j that of pairs seen.

    Args:
        z: (..., T) standardised innovations.
        lags: L, the longest lag. parameters: estimated ones, taken off the degrees of freedom (NaN where none is left).
    Returns:
        Statistic and p-value (..., L), for the lags 1 .. L together.
    Raises:
        InputError: lags is not between 1 and T - 1.
    References:
        Ljung & Box (1978); Durbin & Koopman (2012), section 2.12.1.

    >>> alternating = np.resize([1.0, -1.0], 50)
    >>> bool(ljung_box(alternating, 1).p_value[0] < 1e-10)
    True
    """
    from scipy.stats import chi2

    z = np.asarray(z, dtype=float)
    if not 1 <= lags < z.shape[-1]:
        raise InputError(f"lags is {lags} for {z.shape[-1]} steps; use 1 to {z.shape[-1] - 1}.")
    seen = ~np.isnan(z)
    n = seen.sum(-1)
    centred = _centred(z)
    total = (centred**2).sum(-1)
    terms = np.empty((*z.shape[:-1], lags))
    for k in range(1, lags + 1):
        correlation = _ratio((centred[..., k:] * centred[..., :-k]).sum(-1), total)
        terms[..., k - 1] = _ratio(correlation**2, (seen[..., k:] & seen[..., :-k]).sum(-1))
    statistic = (n * (n + 2.0))[..., None] * np.cumsum(terms, axis=-1)
    freedom = np.arange(1, lags + 1) - parameters
    p_value = chi2.sf(statistic, np.where(freedom > 0, freedom, np.nan))
    return Tested(statistic, p_value)


def autocorrelation(z: FloatArray, lags: int = 20) -> FloatArray:
    """(..., L) autocorrelations at the lags 1 .. L: sum over pairs seen, over the sum of squares.

    >>> autocorrelation(np.array([1.0, -1.0, 1.0, -1.0]), 1)
    array([-0.75])
    """
    z = np.asarray(z, dtype=float)
    centred = _centred(z)
    total = (centred**2).sum(-1)
    products = [(centred[..., k:] * centred[..., :-k]).sum(-1) for k in range(1, lags + 1)]
    return np.stack([_ratio(product, total) for product in products], axis=-1)


def heteroskedasticity(
    z: FloatArray, *, alternative: Literal["two-sided", "increasing", "decreasing"] = "two-sided"
) -> Tested:
    """Break in variance between the first and the last third (Goldfeld-Quandt, in Harvey's form for innovations).

    H(h) = sum_{last h} z^2 / sum_{first h} z^2  ~  F(h, h),   h = round(n / 3)

    n is the number of steps from the first one seen. With missing values H is the ratio of means, and each h in F is
    the number seen.

    Args:
        z: (..., T) standardised innovations.
        alternative: what the test is against.
    Returns:
        Statistic and p-value (...).
    References:
        Harvey (1989), section 5.4.2; Durbin & Koopman (2012), section 2.12.1.
    """
    from scipy.stats import f

    if alternative not in ("two-sided", "increasing", "decreasing"):
        raise InputError(f"alternative is {alternative!r}; use 'two-sided', 'increasing' or 'decreasing'.")
    z = np.asarray(z, dtype=float)
    seen = ~np.isnan(z)
    T = z.shape[-1]
    start = np.where(seen.any(-1), seen.argmax(-1), T)
    h = np.rint((T - start) / 3)[..., None]
    step = np.arange(T)
    early, late = seen & (step < start[..., None] + h), seen & (step >= T - h)
    squares = np.where(seen, z, 0.0) ** 2
    n_early, n_late = early.sum(-1), late.sum(-1)
    enough = (n_early >= 2) & (n_late >= 2)
    ratio = _ratio((squares * late).sum(-1) * n_early, (squares * early).sum(-1) * n_late)
    statistic = np.where(enough, ratio, np.nan)
    upper = f.sf(statistic, np.maximum(n_late, 1), np.maximum(n_early, 1))
    lower = f.cdf(statistic, np.maximum(n_late, 1), np.maximum(n_early, 1))
    p_value = {"increasing": upper, "decreasing": lower, "two-sided": 2 * np.minimum(lower, upper)}[alternative]
    return Tested(statistic, p_value)


def jarque_bera(z: FloatArray) -> Normality:
    """Jarque-Bera test of normality.

    JB = n (S^2 / 6 + (K - 3)^2 / 24)  ~  chi^2(2),   S skewness, K kurtosis

    Args:
        z: (..., T) standardised innovations.
    Returns:
        Normality, each (...).
    References:
        Jarque & Bera (1987); Durbin & Koopman (2012), section 2.12.1.
    """
    from scipy.stats import chi2

    z = np.asarray(z, dtype=float)
    n = (~np.isnan(z)).sum(-1)
    centred = _centred(z)
    moments = [_ratio((centred**k).sum(-1), n) for k in (2, 3, 4)]
    skewness = _ratio(moments[1], moments[0] ** 1.5)
    kurtosis = _ratio(moments[2], moments[0] ** 2)
    statistic = np.where(n >= 2, n / 6.0 * (skewness**2 + (kurtosis - 3.0) ** 2 / 4.0), np.nan)
    return Normality(statistic, chi2.sf(statistic, 2), skewness, kurtosis)


def cusum(z: FloatArray, *, level: float = 0.05) -> Cusum:
    """Cumulated standardised innovations: a drift away from zero says that the mean has changed.

    W_t = sum_{j <= t} z_j / s,    bounds +- a (sqrt(n) + 2 i / sqrt(n)) at the i-th value seen

    s is the standard deviation of z over the whole sample, so this is a diagnosis, not a feature.

    Args:
        z: (..., T). level: 0.01, 0.05 or 0.10, the probability that a stable model leaves the bounds.
    References:
        Brown, Durbin, Evans (1975), section 2.3; Harvey (1989), section 5.4.3.
    """
    if level not in _CUSUM_SCALE:
        raise InputError(f"level is {level}; use {', '.join(map(str, _CUSUM_SCALE))}.")
    z = np.asarray(z, dtype=float)
    seen = ~np.isnan(z)
    n = seen.sum(-1)[..., None]
    spread = np.sqrt(_ratio((_centred(z) ** 2).sum(-1), n[..., 0] - 1))[..., None]
    path = _ratio(np.cumsum(np.where(seen, z, 0.0), axis=-1), spread)
    place = np.cumsum(seen, axis=-1)  # 1 .. n
    bound = _CUSUM_SCALE[level] * (np.sqrt(n) + 2.0 * _ratio(place, np.sqrt(n)))
    return _within(path, -bound, bound, seen)


def cusum_of_squares(z: FloatArray, *, level: float = 0.05) -> Cusum:
    """Cumulated squares: a kink away from the diagonal says that the variance has changed.

    S_t = sum_{j <= t} z_j^2 / sum_j z_j^2,    bounds i / n +- c

    Args:
        z: (..., T). level: 0.01, 0.02, 0.05, 0.1 or 0.2, the probability that a stable model leaves the bounds.
    References:
        Brown, Durbin, Evans (1975), section 2.4; c: Edgerton & Wells (1994), Oxford Bulletin 56, table 1.
    """
    levels = {round(2 * side, 6): scale for side, scale in _SQUARES_SCALE.items()}
    if round(level, 6) not in levels:
        raise InputError(f"level is {level}; use {', '.join(f'{known:g}' for known in sorted(levels))}.")
    z = np.asarray(z, dtype=float)
    seen = ~np.isnan(z)
    n = seen.sum(-1)[..., None]
    half = np.where(n > 2, 0.5 * n - 1.0, np.nan)
    a1, a2, a3 = levels[round(level, 6)]
    width = a1 / np.sqrt(half) + a2 / half + a3 / half**1.5
    squares = np.cumsum(np.where(seen, z, 0.0) ** 2, axis=-1)
    path = _ratio(squares, squares[..., -1:])
    line = _ratio(np.cumsum(seen, axis=-1), n)
    return _within(path, line - width, line + width, seen)


def normal_quantiles(count: int) -> FloatArray:
    """(count,) standard normal quantiles at (i - 3/8) / (n + 1/4): expected order statistics (Blom, 1958).

    >>> normal_quantiles(3).round(4).tolist()
    [-0.8694, 0.0, 0.8694]
    """
    from scipy.stats import norm

    return np.asarray(norm.ppf((np.arange(1, count + 1) - 0.375) / (count + 0.25)))


def correlogram_band(count: int, level: float = 0.05) -> float:
    """Half width within which an autocorrelation of `count` independent values lies with probability 1 - level.

    >>> round(correlogram_band(100), 4)
    0.196
    """
    from scipy.stats import norm

    return float(norm.ppf(1.0 - level / 2.0)) / math.sqrt(count) if count else math.nan


def _centred(z: FloatArray) -> FloatArray:
    """z less its mean, zero where missing."""
    seen = ~np.isnan(z)
    mean = _ratio(np.where(seen, z, 0.0).sum(-1), seen.sum(-1))
    return np.where(seen, z - mean[..., None], 0.0)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """NaN where the denominator is not positive."""
    positive = np.asarray(denominator) > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)


def _within(path: FloatArray, lower: FloatArray, upper: FloatArray, seen: np.ndarray) -> Cusum:
    crossed = np.asarray((seen & ((path > upper) | (path < lower))).any(-1))
    path, lower, upper = (np.where(seen, part, np.nan) for part in (path, lower, upper))
    return Cusum(path, lower, upper, crossed)
