"""Owns estimators that noise in prices (bid-ask bounce, rounding) does not bias: two-scale RV, the realized kernel.

They need the fine grid: log prices (D, m + 1) as often as they are known.
"""

from __future__ import annotations

import numpy as np

from ssmfin.data.realized import loops
from ssmfin.data.realized.variance import _lagged_squares, subsampled_variance

C_STAR = 3.5134  # of the Parzen weight, ((12)^2 / .269)^(1/5)
JITTER = 2  # prices that are averaged at either end


def two_scale_variance(log_price: np.ndarray, step: int) -> np.ndarray:
    """Two-scale realized variance: the subsampled one less the noise that the fine grid shows.

    TSRV = (RV_avg - (nbar / n) RV_fine) / c,   nbar = (n - K + 1) / K,   K = step

    c = (1 - 1 / K) (n - K + 1) / n is what makes it unbiased for any n under constant variance; it differs from the
    paper's 1 - nbar / n by terms of order K / n. Consistent under noise that is independent from price to price; may be
    negative on a quiet day.

    Args:
        log_price: (D, n + 1) on the fine grid. step: K, fine intervals of the slow scale, at least 2.
    Returns:
        (D,) variance per session, decimal squared; NaN with step 1 or a session shorter than one slow interval.
    References:
        Zhang, Mykland, Aït-Sahalia (2005), A tale of two time scales, J. American Statistical Association 100,
        eqs. 55, 64.
    """
    n = log_price.shape[1] - 1
    if step < 2 or n < step:
        return np.full(len(log_price), np.nan)
    slow, count = _lagged_squares(log_price, step)
    fast, _ = _lagged_squares(log_price, 1)
    share = count / step / n  # nbar / n
    variance: np.ndarray = (slow / step - share * fast) / ((1.0 - 1.0 / step) * count / n)
    return variance


def parzen(x: np.ndarray) -> np.ndarray:
    """Parzen weight: 1 - 6 x^2 + 6 x^3 to 1/2, 2 (1 - x)^3 to 1, then 0.

    >>> parzen(np.array([0.0, 0.5, 1.0])).tolist()
    [1.0, 0.25, 0.0]
    """
    x = np.abs(x)
    return np.where(x <= 0.5, 1.0 - 6.0 * x * x * (1.0 - x), 2.0 * np.maximum(1.0 - x, 0.0) ** 3)


def kernel_bandwidth(log_price: np.ndarray, step: int, slow: int) -> np.ndarray:
    """(D,) bandwidth of the realized kernel by its rule of thumb, per session.

    H = c* xi^{4/5} n^{3/5},   xi^2 = omega^2 / IV,   omega^2 = RV_dense / (2 n_dense)

    RV_dense is the RV at two fine intervals, averaged over both grids; IV the subsampled variance at `slow`.

    Args:
        log_price: (D, n + 1) on the fine grid. step: fine intervals of the dense grid. slow: those of about 20 minutes.
    References:
        Barndorff-Nielsen, Hansen, Lunde, Shephard (2009), Realized kernels in practice, Econometrics J. 12,
        section 2.2.
    """
    n = log_price.shape[1] - 1
    dense, count = _lagged_squares(log_price, min(step, n))
    noise = dense / (2.0 * count)
    variance = subsampled_variance(log_price, min(slow, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(variance > 0, noise / variance, 0.0)
    bandwidth: np.ndarray = C_STAR * ratio**0.4 * n**0.6
    return bandwidth


def weighted_autocovariances(returns: np.ndarray, lags: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """gamma_0 + sum_{h=1}^{H} w_h gamma_h,  gamma_h = sum_i r_i r_{i-h}; the twin that `loops.py` must match.

    Args:
        returns: (D, n), at least one session. lags: (D,) H of each session, falling, below n. weights: (D, H of the
            first).
    Returns:
        (D,).
    """
    total: np.ndarray = np.sum(returns * returns, axis=1)
    for h in range(1, int(lags[0]) + 1):
        active = int(np.searchsorted(-lags, -h, side="right"))
        part = returns[:active]
        covariance = np.sum(part[:, h:] * part[:, :-h], axis=1)
        total[:active] += weights[:active, h - 1] * covariance
    return total


def realized_kernel(log_price: np.ndarray, slow: int, *, bandwidth: np.ndarray | None = None) -> np.ndarray:
    """Realized kernel with Parzen weights; never negative, robust to noise, also where it depends on the price.

    RK = sum_{h=-H}^{H} k(h / (H + 1)) gamma_h,   gamma_h = sum_i r_i r_{i-|h|}

    Both ends of the session are averages of two prices, so that noise there dies out as well; that takes 3/4 of an
    interval from either end, for which the sum is scaled up, n / (n - 3/2). With the bandwidth given it is then
    unbiased without noise; the automatic one costs 1 % at n = 390, because it is wider on days that
    look noisy by chance.

    Args:
        log_price: (D, n + 1) on the fine grid. slow: fine intervals in about 20 minutes, for the bandwidth.
        bandwidth: (D,) H of each session; default `kernel_bandwidth`.
    Returns:
        (D,) variance per session, decimal squared; NaN with fewer than 2 * 2 + 1 fine returns.
    References:
        Barndorff-Nielsen, Hansen, Lunde, Shephard (2009), Realized kernels in practice, Econometrics J. 12,
        eqs. 1, 2, 6.
    """
    n = log_price.shape[1] - 1
    if n < 2 * JITTER + 1:
        return np.full(len(log_price), np.nan)
    if bandwidth is None:
        bandwidth = kernel_bandwidth(log_price, 2, slow)
    ends = log_price[:, JITTER - 1 : n + 2 - JITTER].copy()  # (D, n + 3 - 2 JITTER)
    ends[:, 0] = log_price[:, :JITTER].mean(axis=1)
    ends[:, -1] = log_price[:, n + 1 - JITTER :].mean(axis=1)
    returns = np.diff(ends, axis=1)
    width = returns.shape[1]
    lags = np.clip(np.ceil(bandwidth), 0, width - 1).astype(np.int64)
    # sessions of wide bandwidth first: at lag h only the first few still count
    order = np.argsort(-lags, kind="stable")
    returns, lags = np.ascontiguousarray(returns[order]), lags[order]
    lag = np.arange(1.0, lags[0] + 1.0)
    weights = 2.0 * parzen(lag / (lags[:, None] + 1.0))  # (D, H)
    total = loops.weighted_autocovariances(returns, lags, weights)
    out = np.empty(len(total))
    out[order] = total * (n / (n - 1.5))
    return out
