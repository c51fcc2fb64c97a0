"""Owns starting points from the data: rows sorted into groups by local averages, of size, of sign, of co-movement.

A random start is no better than another, and gives labels at random. Here calm and wild stretches, low and high ones,
are told apart by centred moving averages of residuals and of their squares, at several widths and shares.
"""

from __future__ import annotations

import numpy as np


def groupings(
    residual: np.ndarray, switching: np.ndarray, regimes: int, *, sizes: bool, count: int
) -> list[np.ndarray]:
    """Assignments of the rows of one series to regimes, the likeliest to lead far first.

    Args:
        residual: (n,) of least squares.
        switching: (n, j) regressors whose coefficients switch, a constant as ones; j may be 0.
        regimes: K.
        sizes: whether variances switch.
        count: how many are wanted (fewer where there are fewer ideas).
    Returns:
        each (n,) int64 below K.
    """
    n, j = switching.shape
    even = np.arange(1, regimes) / regimes
    late = 1 - 0.5 ** np.arange(1, regimes) * 0.6  # a few rare regimes: 70 %, then 85 %, 92.5 %
    square = residual * residual
    by_size: list[tuple[np.ndarray, int, np.ndarray]] = []
    if sizes or j == 0:
        by_size = [(square, 21, even), (square, 7, late), (square, 61, even), (square, 21, late), (square, 3, even)]
    by_level: list[tuple[np.ndarray, int, np.ndarray]] = []
    for column in range(j):
        product = residual * switching[:, column]
        by_level += [(product, 9, even), (product, 1, even), (product, 31, even), (product, 3, 1 - late[::-1])]
    if j > 1:  # the first idea of every column before the second of any
        by_level = [idea for place in range(4) for idea in by_level[place::4]]
    mixed = [idea for pair in zip(by_size, by_level, strict=False) for idea in pair]
    shorter = min(len(by_size), len(by_level))
    ideas = (mixed + by_size[shorter:] + by_level[shorter:])[:count]
    return [_sorted(_moving_average(score, min(width, max(n // 8, 1))), shares) for score, width, shares in ideas]


def _moving_average(x: np.ndarray, width: int) -> np.ndarray:
    """Centred, over the rows there are at the ends."""
    n, half = len(x), width // 2
    if half == 0:
        return x
    total = np.concatenate([[0.0], np.cumsum(x)])
    at = np.arange(n)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, n)
    averaged: np.ndarray = (total[high] - total[low]) / (high - low)
    return averaged


def _sorted(score: np.ndarray, shares: np.ndarray) -> np.ndarray:
    n = len(score)
    places = np.clip((shares * n).astype(np.int64), 1, n - 1)
    bounds = np.partition(score, places)[places]
    return np.searchsorted(bounds, score, side="right")
