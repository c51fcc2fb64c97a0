"""Owns the test of Barndorff-Nielsen and Shephard for jumps, and the split of a variance into its two parts."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np


def jump_statistic(variance: np.ndarray, bipower: np.ndarray, quarticity: np.ndarray, n: int) -> np.ndarray:
    """Ratio statistic of no jump within the session, standard normal under the null; large values speak for jumps.

    z = sqrt(n) (1 - BV / RV) / sqrt((pi^2 / 4 + pi - 5) max(1, TPQ / BV^2))

    Args:
        variance, bipower, quarticity: (D,) RV, BV, TPQ. n: returns of a session.
    Returns:
        (D,); NaN where RV or BV is zero.
    References:
        Barndorff-Nielsen, Shephard (2006), Econometrics of testing for jumps, J. Financial Econometrics 4, eq. 12 with
        the maximum; Huang, Tauchen (2005), The relative contribution of jumps, J. Financial Econometrics 3, eq. 13.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (np.pi**2 / 4.0 + np.pi - 5.0) * np.maximum(1.0, quarticity / (bipower * bipower))
        statistic: np.ndarray = np.sqrt(n) * (1.0 - bipower / variance) / np.sqrt(spread)
    return statistic


def jump_variation(variance: np.ndarray, bipower: np.ndarray, statistic: np.ndarray, level: float) -> np.ndarray:
    """Variance due to jumps that are significant, J = max(RV - BV, 0) 1{z > Phi^-1(level)}; RV - J is continuous.

    Args:
        variance, bipower, statistic: (D,) RV, BV, z. level: of the test, near 1.
    Returns:
        (D,) decimal squared per session; NaN where the statistic is.
    References:
        Andersen, Bollerslev, Diebold (2007), Roughing it up, Review of Economics and Statistics 89, eqs. 16, 17.
    Example:
        >>> jump_variation(np.array([3.0, 3.0]), np.array([1.0, 2.9]), np.array([9.0, 0.1]), 0.999).tolist()
        [2.0, 0.0]
    """
    bound = NormalDist().inv_cdf(level)
    jump = np.where(statistic > bound, np.maximum(variance - bipower, 0.0), 0.0)
    return np.where(np.isnan(statistic), np.nan, jump)
