"""Prices are told from variances: the former in every unit, the latter never taken for the former."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ssmfin.data.levels import is_price_level, price_warning
from ssmfin.data.loading import load_panel


def garch(days: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Conditional variance and return, in percent squared and percent."""
    rng = np.random.default_rng(seed)
    variance, returns = np.ones(days), np.empty(days)
    for t in range(days):
        returns[t] = np.sqrt(variance[t]) * rng.standard_normal()
        if t + 1 < days:
            variance[t + 1] = 0.01 + 0.08 * returns[t] ** 2 + 0.91 * variance[t]
    return variance, returns


def smooth(squares: np.ndarray, decay: float) -> np.ndarray:
    out = np.ones(len(squares))
    for t in range(1, len(squares)):
        out[t] = decay * out[t - 1] + (1 - decay) * squares[t - 1]
    return out


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e5])
@pytest.mark.parametrize("volatility", [0.003, 0.01, 0.035])
def test_most_prices_are_recognised(scale: float, volatility: float) -> None:
    rng = np.random.default_rng(0)
    paths = scale * np.exp(np.cumsum(volatility * rng.standard_normal((40, 1000)), axis=1))
    paths *= scale / np.median(paths, axis=1, keepdims=True)
    assert sum(is_price_level("Schluss", path) for path in paths) >= 34


@pytest.mark.parametrize("days", [120, 1000, 3000])
def test_variances_in_percent_squared_are_no_prices(days: int) -> None:
    for seed in range(10):
        variance, returns = garch(days, seed)
        noise = np.exp(0.4 * np.random.default_rng(seed).standard_normal(days))
        for values in (variance, 252 * variance, 5 * variance * noise, 5 * smooth(returns**2, 0.94)):
            assert not is_price_level("x", values)


def test_a_column_named_after_a_variance_is_no_price() -> None:
    path = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(0).standard_normal(1000)))
    assert is_price_level("Kurs", path)
    assert not any(is_price_level(name, path) for name in ("VIX", "rv5", "yang_zhang", "realized_vol", "SIGMA2", "rv"))


def test_the_warning_names_the_target_and_only_under_a_log() -> None:
    panel = load_panel({"kind": "arch", "series": ["sp500"]}, measures={"kind": "range"})
    assert isinstance(panel.frame, pl.DataFrame)
    assert "target.column 'close' looks like a price, not a variance" in (price_warning(panel, "close", "log") or "")
    assert price_warning(panel, "close", "none") is None
    assert price_warning(panel, "parkinson", "log") is None
