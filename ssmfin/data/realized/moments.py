"""Owns higher moments of a session's returns: quarticity, skewness, kurtosis. Arguments as in `variance`."""

from __future__ import annotations

from math import gamma

import numpy as np

from ssmfin.data.realized.variance import realized_variance

# E|z|^(4/3) of a standard normal: 2^(2/3) Gamma(7/6) / Gamma(1/2)
MU_FOUR_THIRDS = 2.0 ** (2.0 / 3.0) * gamma(7.0 / 6.0) / gamma(0.5)


def realized_quarticity(returns: np.ndarray) -> np.ndarray:
    """Realized quarticity, RQ = (n / 3) sum_i r_i^4; consistent for the integrated quarticity without jumps.

    Args:
        returns: (D, n) log returns, decimal.
    Returns:
        (D,) decimal to the fourth, per session squared.
    References:
        Barndorff-Nielsen, Shephard (2002), Econometric analysis of realized volatility, J. Royal Statistical Society
        B 64.
    Example:
        >>> realized_quarticity(np.array([[0.1, 0.1, 0.1]])).round(8).tolist()
        [0.0003]
    """
    squares = returns * returns
    quarticity: np.ndarray = np.sum(squares * squares, axis=1) * (returns.shape[1] / 3.0)
    return quarticity


def tripower_quarticity(returns: np.ndarray) -> np.ndarray:
    """Tripower quarticity, TPQ = n^2 / (n - 2) mu^-3 sum_{i>2} |r_i r_{i-1} r_{i-2}|^{4/3}, mu = E|z|^{4/3}.

    Consistent for the integrated quarticity when prices jump.

    Args, Returns: as `realized_quarticity`; NaN with fewer than three returns.
    References:
        Barndorff-Nielsen, Shephard (2006), Econometrics of testing for jumps, J. Financial Econometrics 4; Andersen,
        Bollerslev, Diebold (2007), Roughing it up, Review of Economics and Statistics 89, eq. 12.
    """
    n = returns.shape[1]
    if n < 3:
        return np.full(len(returns), np.nan)
    power = np.cbrt(returns * returns)  # |r|^(2/3), twice as fast as a power
    power *= power
    total: np.ndarray = np.sum(power[:, 2:] * power[:, 1:-1] * power[:, :-2], axis=1)
    total *= n * n / (n - 2.0) / MU_FOUR_THIRDS**3
    return total


def realized_skewness(returns: np.ndarray) -> np.ndarray:
    """Realized skewness, sqrt(n) sum_i r_i^3 / RV^{3/2}.

    In the limit it measures jumps: zero without them, with their sign else.

    Args, Returns: as `realized_quarticity`, a pure number; NaN where RV is zero.
    References:
        Amaya, Christoffersen, Jacobs, Vasquez (2015), Does realized skewness predict the cross-section of equity
        returns?, J. Financial Economics 118, eq. 4.
    """
    variance = realized_variance(returns)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness: np.ndarray = (
            np.sqrt(returns.shape[1]) * np.sum(returns * returns * returns, axis=1) / (variance * np.sqrt(variance))
        )
    return skewness


def realized_kurtosis(returns: np.ndarray) -> np.ndarray:
    """Realized kurtosis, n sum_i r_i^4 / RV^2; 3 for constant variance without jumps as n grows.

    Args, Returns: as `realized_skewness`.
    References:
        Amaya, Christoffersen, Jacobs, Vasquez (2015), eq. 5.
    """
    variance = realized_variance(returns)
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis: np.ndarray = 3.0 * realized_quarticity(returns) / (variance * variance)
    return kurtosis
