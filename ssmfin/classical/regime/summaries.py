"""Owns what is read off regime probabilities: how long regimes last, how sure they are, which is the likeliest."""

from __future__ import annotations

import numpy as np


def expected_duration(transition: np.ndarray) -> np.ndarray:
    """Steps a regime is expected to last once entered, 1 / (1 - P_kk).

    Args:
        transition: (.., K, K), P(s_{t+1} = j | s_t = i) at [i, j].
    Returns:
        (.., K), at least 1; inf for a regime that is never left.

    >>> expected_duration(np.array([[0.9, 0.1], [0.5, 0.5]])).round(6)
    array([10.,  2.])
    """
    K = transition.shape[-1]
    # what leaves, not one less what stays: that loses digits as regimes last
    leave = np.where(np.eye(K, dtype=bool), 0.0, transition).sum(-1)
    leave = np.where(np.isnan(transition).any(-1), np.nan, leave)
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / leave)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Uncertainty about the regime, -sum_k p_k log p_k.

    Args:
        probabilities: (.., K), filtered or predicted.
    Returns:
        (..,) nats, 0 (certain) to log K; NaN where the probabilities are.

    >>> entropy(np.array([[1.0, 0.0], [0.5, 0.5]])).round(4)
    array([0.    , 0.6931])
    """
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    total: np.ndarray = np.abs((probabilities * logs).sum(-1))
    return np.where(np.isnan(probabilities).any(-1), np.nan, total)


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """The likeliest regime (..,) int64, the lowest of equals; -1 where the probabilities (.., K) are NaN.

    >>> most_probable(np.array([[0.2, 0.8], [np.nan, np.nan]]))
    array([ 1, -1])
    """
    missing = np.isnan(probabilities).any(-1)
    return np.where(missing, -1, np.where(missing[..., None], 0.0, probabilities).argmax(-1))
