"""The leak canary: what a smoothed level does to a backtest of log-HAR, and what a filtered one does.

S&P 500 realized variance 2000-2021, log-HAR by least squares in rolling windows of 1000 days, refitted every 63, h = 1.
One column is added: the local level of log variance at t. Measured QLIKE, over log-HAR without it:

    smoothed, parameters of each training window  .398     of the whole sample  .373
    filtered, parameters of each training window  .990     of the first window  .995

A model cannot be two and a half times as good as log-HAR on this series. The smoothed level at t contains the variance
of t + 1; the filtered one is a fair feature that helps a little.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.classical.kalman import filter_series, fit, smooth, specification

PANEL = Path(__file__).resolve().parents[3].parent / "shared/data/oxford_rv5_panel21.parquet"
WINDOW, REFIT = 1000, 63

pytestmark = pytest.mark.skipif(not PANEL.exists(), reason=f"{PANEL.name} is not there")


@pytest.fixture(scope="module")
def variance():
    return pl.read_parquet(PANEL).filter(pl.col("symbol") == ".SPX").sort("date")["rv5"].to_numpy()


@pytest.fixture(scope="module")
def cutoffs(variance):
    return np.arange(WINDOW + 21, len(variance) - 1, REFIT)


@pytest.fixture(scope="module")
def levels(variance, cutoffs):
    """(folds, T) filtered and smoothed levels at the parameters of each fold's training window."""
    x = np.log(variance)
    fitted = fit(specification("local_level"), np.stack([x[c - WINDOW + 1 : c + 1] for c in cutoffs]))
    assert set(fitted.status) == {"converged"}
    everywhere = np.tile(x, (len(cutoffs), 1))
    filtered = filter_series(fitted, everywhere).output("level")[0]
    return filtered, smooth(fitted, everywhere).outputs["level"][0]


def log_har(variance):
    """(T, 4) constant and log mean variance over 1, 5, 22 days; (T,) the next day's log variance."""
    means = []
    for window in (1, 5, 22):
        mean = np.full(len(variance), np.nan)
        mean[window - 1 :] = np.lib.stride_tricks.sliding_window_view(variance, window).mean(axis=1)
        means.append(np.log(mean))
    return np.column_stack([np.ones(len(variance)), *means]), np.log(np.append(variance[1:], np.nan))


def qlike(variance, cutoffs, extra=None):
    """Mean QLIKE of rolling log-HAR; `extra` (folds, T) is the added column of each fold."""
    regressors, label = log_har(variance)
    losses = []
    for fold, cutoff in enumerate(cutoffs):
        X = regressors if extra is None else np.column_stack([regressors, extra[fold]])
        train, test = slice(cutoff - WINDOW + 1, cutoff), slice(cutoff, min(cutoff + REFIT, len(variance) - 1))
        weights = np.linalg.lstsq(X[train], label[train], rcond=None)[0]
        residual = label[train] - X[train] @ weights
        forecast = np.exp(X[test] @ weights + 0.5 * residual @ residual / (len(residual) - X.shape[1]))
        ratio = np.exp(label[test]) / forecast
        losses.append(ratio - np.log(ratio) - 1)
    return np.concatenate(losses).mean()


def test_a_smoothed_level_makes_log_har_impossibly_good(variance, cutoffs, levels):
    ratio = qlike(variance, cutoffs, levels[1]) / qlike(variance, cutoffs)
    assert abs(ratio - 0.40) < 0.01, ratio


def test_a_filtered_level_makes_little_difference(variance, cutoffs, levels):
    ratio = qlike(variance, cutoffs, levels[0]) / qlike(variance, cutoffs)
    assert 0.98 < ratio < 1.0, ratio


def test_with_the_first_window_s_parameters_the_filtered_ratio_is_the_known_one(variance, cutoffs):
    x = np.log(variance)[None]
    fitted = fit(specification("local_level"), x[:, :WINDOW])
    level = np.tile(filter_series(fitted, x).output("level")[0], (len(cutoffs), 1))
    ratio = qlike(variance, cutoffs, level) / qlike(variance, cutoffs)
    assert abs(ratio - 0.997) < 0.003, ratio


def test_filtered_levels_do_not_know_the_future_and_smoothed_ones_do(variance):
    x = np.log(variance)[None, :1500]
    changed = x.copy()
    changed[:, 1200:] += 3.0
    fitted = fit(specification("local_level"), x[:, :WINDOW])
    a, b = (filter_series(fitted, y).output("level")[0][0, :1200] for y in (x, changed))
    np.testing.assert_array_equal(a, b)
    a, b = (smooth(fitted, y).outputs["level"][0][0, :1200] for y in (x, changed))
    assert abs(a - b).max() > 0.5
