"""Owns estimators of a session's variance from its returns: plain, robust to jumps, by sign, and averaged over grids.

Every function takes returns (D, n) of D sessions, decimal logarithms, in time order without gaps, and returns (D,).
Variances are decimal squared, per session, not annualised. NaN where n is too small.
"""

from __future__ import annotations

import numpy as np


def realized_variance(returns: np.ndarray) -> np.ndarray:
    """Realized variance, RV = sum_i r_i^2.

    Consistent for the quadratic variation: integrated variance plus squared jumps. Noise in prices biases it upward,
    by 2 n omega^2.

    Args:
        returns: (D, n) log returns, decimal.
    Returns:
        (D,) variance per session, decimal squared.
    References:
        Andersen, Bollerslev, Diebold, Labys (2003), Modeling and forecasting realized volatility, Econometrica
        71, eq. 5.
    Example:
        >>> realized_variance(np.array([[0.01, -0.02]])).round(8).tolist()
        [0.0005]
    """
    variance: np.ndarray = np.sum(returns * returns, axis=1)
    return variance


def bipower_variation(returns: np.ndarray) -> np.ndarray:
    """Bipower variation, BV = (pi / 2) n / (n - 1) sum_{i>1} |r_i| |r_{i-1}|.

    Consistent for the integrated variance when prices jump; a jump still touches two terms, so that in finite samples
    it is biased upward.

    Args, Returns: as `realized_variance`.
    References:
        Barndorff-Nielsen, Shephard (2004), Power and bipower variation with stochastic volatility and jumps, J.
        Financial Econometrics 2, eq. 7, with the factor for n - 1 terms.
    Example:
        >>> bipower_variation(np.array([[0.01, -0.02]])).round(8).tolist()
        [0.00062832]
    """
    size = np.abs(returns)
    n = returns.shape[1]
    return _scaled(np.sum(size[:, 1:] * size[:, :-1], axis=1), 0.5 * np.pi * n, n - 1)


def min_variance(returns: np.ndarray) -> np.ndarray:
    """MinRV = pi / (pi - 2) n / (n - 1) sum_{i>1} min(|r_i|, |r_{i-1}|)^2.

    Consistent for the integrated variance when prices jump, and in finite samples nearly untouched by a jump; sensitive
    to returns of exactly zero.

    Args, Returns: as `realized_variance`.
    References:
        Andersen, Dobrev, Schaumburg (2012), Jump-robust volatility estimation using nearest neighbor truncation,
        J. Econometrics 169, eq. 2.
    """
    size = np.abs(returns)
    n = returns.shape[1]
    least = np.minimum(size[:, 1:], size[:, :-1])
    return _scaled(np.sum(least * least, axis=1), np.pi / (np.pi - 2.0) * n, n - 1)


def median_variance(returns: np.ndarray) -> np.ndarray:
    """MedRV = pi / (6 - 4 sqrt 3 + pi) n / (n - 2) sum median(|r_{i-1}|, |r_i|, |r_{i+1}|)^2.

    As MinRV, with smaller variance and less hurt by zeros.

    Args, Returns: as `realized_variance`.
    References:
        Andersen, Dobrev, Schaumburg (2012), eq. 3.
    """
    size = np.abs(returns)
    n = returns.shape[1]
    left, right = np.minimum(size[:, :-2], size[:, 1:-1]), np.maximum(size[:, :-2], size[:, 1:-1])
    median = np.maximum(left, np.minimum(right, size[:, 2:]))
    return _scaled(np.sum(median * median, axis=1), np.pi / (6.0 - 4.0 * np.sqrt(3.0) + np.pi) * n, n - 2)


def positive_semivariance(returns: np.ndarray) -> np.ndarray:
    """Variance of the gains, RS+ = sum_i r_i^2 1{r_i > 0}; half the integrated variance, and the upward jumps.

    Args, Returns: as `realized_variance`.
    References:
        Barndorff-Nielsen, Kinnebrock, Shephard (2010), Measuring downside risk: realised semivariance, eq. 2.
    """
    return realized_variance(np.maximum(returns, 0.0))


def negative_semivariance(returns: np.ndarray) -> np.ndarray:
    """Variance of the losses, RS- = sum_i r_i^2 1{r_i < 0}; RS+ + RS- = RV.

    Args, Returns, References: as `positive_semivariance`.
    """
    return realized_variance(np.minimum(returns, 0.0))


def signed_jump_variation(returns: np.ndarray) -> np.ndarray:
    """Signed jump variation, RS+ - RS-: squared upward jumps less squared downward ones; the diffusion cancels.

    Args, Returns: as `realized_variance`; may be negative.
    References:
        Patton, Sheppard (2015), Good volatility, bad volatility, Review of Economics and Statistics 97, eq. 9.
    """
    difference: np.ndarray = positive_semivariance(returns) - negative_semivariance(returns)
    return difference


def subsampled_variance(log_price: np.ndarray, step: int) -> np.ndarray:
    """RV averaged over the `step` grids of one interval that start one after the other.

    RV_ss = (1 / c) sum_{k<step} sum_i (p_{k + i step} - p_{k + (i-1) step})^2

    c is the sum over the grids of the share of the session that each covers, so that the edges that a late grid misses
    bias nothing under constant variance.

    Args:
        log_price: (D, m + 1) on the fine grid. step: fine intervals a sampling interval, at least 1.
    Returns:
        (D,) variance per session; NaN where the session is shorter than one interval.
    References:
        Zhang, Mykland, Aït-Sahalia (2005), A tale of two time scales, J. American Statistical Association 100, eq. 16.
    Example:
        >>> price = np.array([[0.0, 0.01, 0.0, 0.01, 0.0]])
        >>> subsampled_variance(price, 1).round(8).tolist(), subsampled_variance(price, 2).tolist()
        ([0.0004], [0.0])
    """
    total, steps = _lagged_squares(log_price, step)
    m = log_price.shape[1] - 1
    return _scaled(total, m, steps * step)  # the grids cover steps * step fine intervals together


def _lagged_squares(log_price: np.ndarray, step: int) -> tuple[np.ndarray, int]:
    """(D,) sum of all squared differences at lag `step`, which are those of the `step` grids; and how many."""
    if step >= log_price.shape[1]:
        return np.zeros(len(log_price)), 0
    difference = log_price[:, step:] - log_price[:, :-step]
    total: np.ndarray = np.sum(difference * difference, axis=1)
    return total, int(difference.shape[1])


def _scaled(total: np.ndarray, numerator: float, denominator: int) -> np.ndarray:
    factor = numerator / denominator if denominator > 0 else np.nan
    scaled: np.ndarray = total * factor
    return scaled
