"""Owns covariance and beta of assets from returns sampled at the same times."""

from __future__ import annotations

import numpy as np


def realized_covariance(returns: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Realized covariance, RCov = sum_i r_i s_i.

    Prices that are not renewed at the same moments bias it towards zero, the more the shorter the interval (Epps 1979).

    Args:
        returns, others: (D, n) log returns of two assets at the same times; NaN where one has none.
    Returns:
        (D,) covariance per session, decimal squared.
    References:
        Barndorff-Nielsen, Shephard (2004), Econometric analysis of realized covariation, Econometrica 72, eq. 4.
    Example:
        >>> realized_covariance(np.array([[0.01, 0.02]]), np.array([[0.01, -0.01]])).round(8).tolist()
        [-0.0001]
    """
    covariance: np.ndarray = np.sum(returns * others, axis=1)
    return covariance


def realized_beta(returns: np.ndarray, market: np.ndarray) -> np.ndarray:
    """Realized beta, RCov(asset, market) / RV(market).

    Args:
        returns, market: (D, n) as in `realized_covariance`.
    Returns:
        (D,); NaN where the market does not move.
    References:
        Andersen, Bollerslev, Diebold, Wu (2006), Realized beta: persistence and predictability, Advances in
        Econometrics 20, eq. 4.
    Example:
        >>> realized_beta(np.array([[0.02, 0.04]]), np.array([[0.01, 0.02]])).round(8).tolist()
        [2.0]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        beta: np.ndarray = np.sum(returns * market, axis=1) / np.sum(market * market, axis=1)
    return beta


def covariance_matrices(returns: np.ndarray) -> np.ndarray:
    """(D, A, A) realized covariance of A assets on D sessions.

    Args:
        returns: (D, A, n).
    """
    matrices: np.ndarray = returns @ returns.transpose(0, 2, 1)
    return matrices
