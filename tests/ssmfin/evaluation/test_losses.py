"""Losses: their values, their minimisers, and what they do with values they are not made for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin.evaluation.losses import LOSSES, loss_named, losses_named, mae, mse, qlike

variances = st.floats(1e-12, 1e6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_forecast_costs_nothing(name):
    y = np.array([1e-8, 3e-4, 1.0, 7.0])
    assert LOSSES[name].function(y, y).tolist() == [0.0] * 4


@given(variances, variances)
def test_qlike_is_its_formula_and_never_negative(y, f):
    value = float(qlike(np.array(y), np.array(f)))
    assert value >= 0
    assert math.isclose(value, y / f - math.log(y / f) - 1, rel_tol=1e-9, abs_tol=1e-12)


@given(variances, variances, st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**12]))
def test_qlike_does_not_depend_on_the_unit(y, f, unit):
    assert qlike(np.array(y * unit), np.array(f * unit)) == pytest.approx(float(qlike(np.array(y), np.array(f))))


@pytest.mark.parametrize("error", [1e-9, 1e-7, -1e-7, 1e-5])
def test_qlike_keeps_its_digits_near_a_perfect_forecast(error):
    # the plain formula has only noise left here: 1e-18 is far below the rounding of log(y/f)
    assert float(qlike(np.array(1 + error), np.array(1.0))) == pytest.approx(
        error**2 / 2 - error**3 / 3, rel=1e-6, abs=0
    )


def test_qlike_and_mse_are_minimised_by_the_mean_and_mae_by_the_median():
    y = np.random.default_rng(3).lognormal(0, 0.8, size=20_001)
    grid = np.linspace(0.5, 2.5, 401)
    best = {
        name: grid[np.argmin([loss.function(y, np.array(f)).mean() for f in grid])] for name, loss in LOSSES.items()
    }
    assert best["qlike"] == pytest.approx(y.mean(), abs=0.005)
    assert best["mse"] == pytest.approx(y.mean(), abs=0.005)
    assert best["mae"] == pytest.approx(np.median(y), abs=0.005)


def test_mse_and_mae_are_plain_arithmetic():
    y, f = np.array([1.0, -2.0, 0.0]), np.array([3.0, -2.5, -1.0])
    assert mse(y, f).tolist() == [4.0, 0.25, 1.0]
    assert mae(y, f).tolist() == [2.0, 0.5, 1.0]


@pytest.mark.parametrize("f", [0.0, -1e-6, -5.0, 5e-324])
def test_a_forecast_that_is_not_positive_has_infinite_qlike(f):
    assert qlike(np.array([1.0, 1.0]), np.array([f, 1.0])).tolist() == [math.inf, 0.0]


@pytest.mark.parametrize("y", [0.0, -2e-5])
def test_qlike_refuses_outcomes_that_are_not_positive_and_says_what_to_do(y):
    with pytest.raises(InputError, match=rf"not a positive variance, {y:g} .*use mse or mae"):
        qlike(np.array([1.0, y]), np.array([1.0, 1.0]))


def test_absurd_forecasts_cost_infinity_without_a_warning():
    assert mse(np.array(1.0), np.array(1e200)) == math.inf
    assert qlike(np.array(1.0), np.array(1e308)) == pytest.approx(math.log(1e308) - 1)


def test_missing_values_stay_missing():
    assert np.isnan(qlike(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))).all()


def test_every_loss_explains_itself():
    for name, loss in LOSSES.items():
        assert loss.name == name
        assert loss.formula
        assert loss.definition.endswith(".")


def test_an_unknown_loss_is_answered_with_the_nearest_name():
    with pytest.raises(InputError, match=r"'qlik' is unknown; did you mean 'qlike'"):
        loss_named("qlik")


def test_the_order_of_losses_is_the_users_and_none_or_twice_is_refused():
    assert [loss.name for loss in losses_named(["mae", "qlike"])] == ["mae", "qlike"]
    assert [loss.name for loss in losses_named("mse")] == ["mse"]
    with pytest.raises(InputError, match="is empty"):
        losses_named([])
    with pytest.raises(InputError, match="'mse' 2 times"):
        losses_named(["mse", "mse"])
