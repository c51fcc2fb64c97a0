"""Owns how one quantile or interval is judged: the pinball loss, and whether it holds as many outcomes as it says.

A hit is an outcome inside the interval (below the quantile). Three questions are asked of hits:

- `coverage_test`: is their share, averaged over ids by date, what it should be? HAC, so overlap and common shocks are
  allowed for.
- `kupiec`: the same of one series of independent hits, by likelihood ratio.
- `christoffersen`: does one miss follow another more often than it should?

The last two take hits as independent. Targets of h > 1 rows overlap, and their hits depend on each other even if the
forecast is right; so `each_stretch` tests the h series of every h-th origin, which do not overlap, and takes the least
p-value times their number (Bonferroni). That is valid and, for long horizons, weak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import MIN_ROWS, diebold_mariano


def pinball(y: np.ndarray, q: np.ndarray, level: float) -> np.ndarray:
    """Loss of a quantile, least in expectation at the true one, in the unit of y.

    (y - q) (level - 1{y < q})

    Args:
        y: realised, any shape. q: quantile, broadcastable to it. level: in (0, 1).
    References:
        Koenker, Bassett (1978), Econometrica 46, eq. 1.4; Gneiting, Raftery (2007), JASA 102, section 6.1.

    >>> pinball(np.array([3.0, 1.0]), np.array(2.0), 0.9).round(12).tolist()
    [0.9, 0.1]
    """
    if not 0 < level < 1:
        raise InputError(f"level of a quantile is {level}; use a number between 0 and 1.")
    error = np.asarray(y, dtype=float) - np.asarray(q, dtype=float)
    return np.asarray(np.maximum(level * error, (level - 1) * error))


def kupiec(hits: np.ndarray, rate: float) -> float:
    """p-value of unconditional coverage: are independent hits as frequent as they should be?

    LR = 2 (log L(share) - log L(rate)),   L(p) = p^hits (1 - p)^misses,   chi2(1)

    Args:
        hits: (n,) bool. rate: what their probability should be.
    Returns:
        NaN where n < MIN_ROWS.
    References:
        Kupiec (1995), Journal of Derivatives 3, the proportion-of-failures test.
    """
    hits = np.asarray(hits, dtype=bool)
    n, k = len(hits), int(hits.sum())
    if n < MIN_ROWS:
        return math.nan
    return _chi2_1(2 * (_binomial(k, n, k / n) - _binomial(k, n, rate)))


def christoffersen(hits: np.ndarray) -> float:
    """p-value of independence: is a miss as likely after a miss as after a hit?

    LR = 2 (log L(pi_01, pi_11) - log L(pi)),   chi2(1), against a first-order Markov chain

    Args:
        hits: (n,) bool, in time order.
    Returns:
        NaN where n < MIN_ROWS; 1 where there are no misses, or nothing but misses.
    References:
        Christoffersen (1998), International Economic Review 39, eq. 8.
    """
    miss = ~np.asarray(hits, dtype=bool)
    if len(miss) < MIN_ROWS:
        return math.nan
    after = miss[1:]
    n0, n1 = int((~miss[:-1]).sum()), int(miss[:-1].sum())
    k0, k1 = int(after[~miss[:-1]].sum()), int(after[miss[:-1]].sum())
    both = (k0 + k1) / (n0 + n1)
    free = _binomial(k0, n0, k0 / max(n0, 1)) + _binomial(k1, n1, k1 / max(n1, 1))
    return _chi2_1(2 * (free - _binomial(k0, n0, both) - _binomial(k1, n1, both)))


def each_stretch(series: Iterable[np.ndarray], horizon: int, test: Callable[[np.ndarray], float]) -> float:
    """One p-value for hits that overlap (h > 1) or belong to several ids: the least of all, times their number.

    Args:
        series: hits of each id, in time order. horizon: h; each id gives h series of every h-th hit.
        test: hits -> p-value or NaN (too few), which is then not counted.
    References:
        Diebold, Gunther, Tay (1998), International Economic Review 39, section 3: sub-series and Bonferroni bounds.
    """
    found = [test(hits[offset::horizon]) for hits in series for offset in range(horizon)]
    tested = [p for p in found if not math.isnan(p)]
    return min(1.0, len(tested) * min(tested)) if tested else math.nan


def coverage_test(share: np.ndarray, rate: float, *, horizon: int) -> float:
    """p-value that the share of hits has the mean `rate`, by the HAC variance of the Diebold-Mariano test.

    Args:
        share: (n,) of the ids that hit at each date, in time order.
    Returns:
        Two-sided; NaN where there are too few dates.
    """
    return diebold_mariano(share, np.full(len(share), rate), horizon=horizon).p_value


def _binomial(k: int, n: int, p: float) -> float:
    """k log p + (n - k) log (1 - p), with 0 log 0 = 0."""
    return (k * math.log(p) if k else 0.0) + ((n - k) * math.log1p(-p) if n > k else 0.0)


def _chi2_1(statistic: float) -> float:
    return math.erfc(math.sqrt(max(statistic, 0.0) / 2))
