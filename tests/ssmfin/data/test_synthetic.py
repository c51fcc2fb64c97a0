"""Simulated data have the truth that they claim."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ssmfin.data.loading import load_panel
from ssmfin.data.synthetic import simulate_prices, simulate_volatility_panel
from ssmfin.errors import InputError


def test_prices_are_consistent_and_pass_the_contract() -> None:
    prices = simulate_prices(500, overnight_share=0.3, drift=0.001, seed=0)
    frame = prices.frame
    assert frame.select((pl.col("low") <= pl.min_horizontal("open", "close")).all()).item()
    assert frame.select((pl.col("high") >= pl.max_horizontal("open", "close")).all()).item()
    assert load_panel(frame, measures={"kind": "range", "estimators": ["garman_klass"]}).frame.height == 500


def test_variances_of_session_and_night_are_the_stated_ones() -> None:
    prices = simulate_prices(20_000, volatility=0.02, overnight_share=0.25, steps=4, seed=1)
    frame = prices.frame
    session = np.log(frame["close"] / frame["open"]).to_numpy()
    night = np.log(frame["open"] / frame["close"].shift()).to_numpy()[1:]
    for returns, truth in ((session, prices.session_variance[0]), (night, prices.overnight_variance[0])):
        assert abs(returns.var() / truth - 1) < 4 * np.sqrt(2 / len(returns))
    assert prices.overnight_variance[0] / (prices.overnight_variance[0] + prices.session_variance[0]) == pytest.approx(
        0.25
    )


def test_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    assert simulate_prices(50, seed=3).frame.equals(simulate_prices(50, seed=3).frame)
    assert not simulate_prices(50, seed=3).frame.equals(simulate_prices(50, seed=4).frame)
    assert simulate_volatility_panel(4, 60, seed=3).frame.equals(simulate_volatility_panel(4, 60, seed=3).frame)
    assert not simulate_volatility_panel(4, 60, seed=3).frame.equals(simulate_volatility_panel(4, 60, seed=4).frame)


def test_log_har_coefficients_are_found_again_by_least_squares() -> None:
    simulated = simulate_volatility_panel(8, 3000, holiday_share=0.03, late_starts=0.2, seed=5)
    x = pl.col("rv").log()
    design = simulated.frame.with_columns(
        y=x,
        one=x.shift(1).over("unique_id"),
        five=x.rolling_mean(5).shift(1).over("unique_id"),
        month=x.rolling_mean(22).shift(1).over("unique_id"),
    ).drop_nulls()
    regressors = np.column_stack([np.ones(design.height), design.select("one", "five", "month").to_numpy()])
    estimate = np.linalg.lstsq(regressors, design["y"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(estimate[1:], simulated.coefficients[1:], atol=0.06)
    expected = simulated.truth.filter(pl.int_range(pl.len()).over("unique_id") >= 22)["expected_log"].to_numpy()
    np.testing.assert_allclose(regressors @ simulated.coefficients, expected, atol=1e-9)


def test_calendars_and_first_days_differ() -> None:
    frame = simulate_volatility_panel(31, 500, seed=6).frame
    first = frame.group_by("unique_id").agg(pl.col("ds").min())["ds"].n_unique()
    assert first > 20
    per_date = frame.group_by("ds").len().sort("ds")["len"].tail(100)
    assert per_date.n_unique() > 3


def test_returns_have_the_stated_variance_and_shocks_are_shared() -> None:
    simulated = simulate_volatility_panel(6, 4000, late_starts=0.0, holiday_share=0.0, common=0.5, seed=7)
    scaled = simulated.frame["log_return"] / simulated.truth["variance"].sqrt()
    assert abs(scaled.var() - 1) < 0.05
    shocks = (simulated.truth["variance"].log() - simulated.truth["expected_log"]).to_numpy().reshape(6, -1)
    assert np.corrcoef(shocks)[0, 1] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: simulate_prices(0),
        lambda: simulate_prices(5, overnight_share=1.0),
        lambda: simulate_volatility_panel(coefficients=(0.0, 0.5, 0.4, 0.2)),
        lambda: simulate_volatility_panel(common=1.5),
    ],
)
def test_impossible_arguments_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="use"):
        call()
