"""Owns the intraday pattern of variance: which part of the day is how lively, for an asset over many sessions.

It is an average over all sessions given: a description, not a feature. Nothing of it enters a panel.
"""

from __future__ import annotations

import numpy as np

from ssmfin.data.realized.variance import bipower_variation

WEIGHT_BOUND = 6.635  # 99 % point of chi-squared(1)
WSD_FACTOR = 1.081  # makes the weighted variance consistent for normal returns


def standardized_returns(returns: np.ndarray) -> np.ndarray:
    """(D, n) returns over the square root of their session's mean variance, sqrt(BV / n); NaN where that is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: np.ndarray = returns / np.sqrt(bipower_variation(returns) / returns.shape[1])[:, None]
    return np.where(np.isfinite(scaled), scaled, np.nan)


def intraday_periodicity(returns: np.ndarray, *, robust: bool = True) -> np.ndarray:
    """Factor of volatility by interval of the day, of mean square 1.

    f_i = s_i / sqrt(mean_j s_j^2)

    s_i is the standard deviation over sessions of returns standardized by their session (Taylor, Xu 1997); robust:
    their weighted one, which leaves out returns beyond the 99 % bound of a first fit by the median absolute deviation.

    Args:
        returns: (D, n) of one asset, sessions of equal length. robust: not hurt by jumps.
    Returns:
        (n,) factors; a variance divided by their squares is free of the pattern.
    References:
        Taylor, Xu (1997), The incremental volatility information in one million foreign exchange quotations, J.
        Empirical Finance 4; Boudt, Croux, Laurent (2011), Robust estimation of intraweek periodicity, J. Empirical
        Finance 18, eqs. 5 to 9 (with the median absolute deviation in place of the shortest half).
    """
    scaled = standardized_returns(returns)
    scaled = scaled[~np.isnan(scaled).any(axis=1)]
    if not len(scaled):
        return np.full(returns.shape[1], np.nan)
    if not robust:
        return _unit(np.sqrt(np.mean(scaled**2, axis=0)))
    first = _unit(1.4826 * np.median(np.abs(scaled), axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = (scaled / first) ** 2 <= WEIGHT_BOUND
        weighted = WSD_FACTOR * np.sum(np.where(kept, scaled**2, 0.0), axis=0) / kept.sum(axis=0)
    return _unit(np.sqrt(weighted))


def _unit(deviation: np.ndarray) -> np.ndarray:
    factor: np.ndarray = deviation / np.sqrt(np.mean(deviation**2))
    return factor
