"""The filter looks back only, goes on from what it carried, and says NaN where nothing is known."""

import json

import numpy as np
import pytest
import torch
from kalman_support.oracles import SPECIFICATIONS, random_case

from ssmfin.classical.kalman import (
    Carry,
    KalmanFit,
    Updater,
    filter_series,
    filtering,
    fit,
    forecast,
    smooth,
    specification,
)
from ssmfin.classical.smoothed import Smoothed
from ssmfin.errors import InputError

LEVEL = specification("local_level")
FIELDS = (
    "predicted_state", "predicted_covariance", "filtered_state", "filtered_covariance", "predicted_mean",
    "predicted_variance", "innovation", "standardised_innovation", "gain", "log_score",
)  # fmt: skip


@pytest.fixture(params=sorted(SPECIFICATIONS))
def case(request):
    spec = SPECIFICATIONS[request.param]
    parts = [random_case(spec, seed, 50) for seed in range(5)]
    natural, y = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    x = None if parts[0][2] is None else torch.cat([p[2] for p in parts]).numpy()
    if spec.kind == "stochastic_volatility":
        y = torch.exp(0.5 * y)
    return KalmanFit.at(spec, natural, y_scale=1.0), y.numpy(), x


def rows(x, start, stop):
    return None if x is None else x[:, start:stop]


def test_future_rows_change_no_bit_of_the_past(case):
    known, y, x = case
    whole = filter_series(known, y, x)
    other, x_other = y.copy(), None if x is None else x.copy()
    other[:, 30:] = 1e6 * (1 + other[:, 30:] ** 2)
    if x_other is not None:
        x_other[:, 30:] = -7.0
    changed = filter_series(known, other, x_other)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(changed, name)[:, :30], getattr(whole, name)[:, :30], err_msg=name)


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_carried_on_equals_one_run(case, cut):
    known, y, x = case
    whole = filter_series(known, y, x)
    first = filter_series(known, y[:, :cut], rows(x, 0, cut))
    carry = Carry.from_dict(json.loads(json.dumps(first.carry.to_dict())))
    rest = filter_series(known, y[:, cut:], rows(x, cut, 50), carry=carry)
    for name in FIELDS:
        want = getattr(whole, name)[:, cut:]
        np.testing.assert_allclose(getattr(rest, name), want, rtol=1e-12, atol=1e-12 * np.nanmax(np.abs(want)))
    np.testing.assert_allclose(first.log_likelihood + rest.log_likelihood, whole.log_likelihood, rtol=1e-12)


def test_updates_one_by_one_equal_one_run(case):
    known, y, x = case
    whole = filter_series(known, y, x)
    updater = Updater(known, filter_series(known, y[:, :20], rows(x, 0, 20)).carry)
    for t in range(20, 30):
        step = updater.update(y[:, t], None if x is None else x[:, t])
        for name in FIELDS:
            want = getattr(whole, name)
            np.testing.assert_allclose(
                getattr(step, name)[:, 0], want[:, t], rtol=1e-12, atol=1e-12 * np.nanmax(np.abs(want)), err_msg=name
            )


def test_a_series_owes_no_bit_to_its_companions(case):
    known, y, x = case
    whole = filter_series(known, y, x)
    alone = filter_series(known.select([3]), y[3:4], None if x is None else x[3:4])
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[3], err_msg=name)


@pytest.mark.parametrize("fields", [FIELDS, FIELDS[::-1]])
@pytest.mark.parametrize("given", [np.copy, lambda y: torch.from_numpy(y.copy())])
def test_what_is_computed_on_demand_has_the_same_bits_whatever_becomes_of_the_data(case, fields, given, monkeypatch):
    known, y, x = case
    kept = filter_series(known, y, x)
    monkeypatch.setattr(filtering, "SMALL", 0)
    y_given, x_given = given(y), None if x is None else given(x)
    demanded = filter_series(known, y_given, x_given)
    y_given[:] = 0.0
    if x_given is not None:
        x_given[:] = 0.0
    for name in fields:
        np.testing.assert_array_equal(getattr(demanded, name), getattr(kept, name), err_msg=name)
    np.testing.assert_array_equal(demanded.log_likelihood, kept.log_likelihood)
    for part in ("mean", "covariance", "diffuse"):
        np.testing.assert_array_equal(getattr(demanded.carry, part), getattr(kept.carry, part))


def test_units_of_arithmetic_change_no_result():
    y = np.cumsum(np.random.default_rng(0).standard_normal((3, 60)), 1)
    spec = specification("local_linear_trend")
    ones, other = (KalmanFit.at(spec, [[1.0, 0.1, 0.01]] * 3, y_scale=scale) for scale in (1.0, 8.0))
    for name in FIELDS:
        one, two = (getattr(filter_series(fit, y), name) for fit in (ones, other))
        np.testing.assert_allclose(one, two, rtol=1e-12, err_msg=name)


def test_a_diffuse_start_is_unknown_until_it_is_seen():
    trend = KalmanFit.at(specification("local_linear_trend"), [1.0, 0.1, 0.01])
    filtered = filter_series(trend, [[np.nan, 2.0, np.nan, 5.0, 6.0]])
    level, variance = filtered.output("level")
    assert np.isnan(level[0]).tolist() == [True, True, True, False, False]
    assert np.isnan(variance[0]).tolist() == [True, True, True, False, False]
    assert np.isnan(filtered.innovation[0, :, 0]).tolist() == [True, True, True, True, False]
    assert np.isnan(filtered.log_score[0]).tolist() == [True, True, True, True, False]
    assert np.isfinite(filtered.log_likelihood[0])


def test_missing_observations_have_a_prediction_but_no_innovation():
    filtered = filter_series(KalmanFit.at(LEVEL, [1.0, 0.5]), [[3.0, np.nan, 4.0]])
    assert filtered.predicted_mean[0, 1, 0] == 3.0
    assert np.isnan(filtered.innovation[0, 1, 0])
    assert np.isnan(filtered.log_score[0, 1])


def test_series_without_parameters_are_nan_and_disturb_nobody():
    y = np.cumsum(np.random.default_rng(0).standard_normal((4, 60)), 1)
    y[2] = 1.0
    found = fit(LEVEL, y)
    filtered, alone = filter_series(found, y), filter_series(found.select([0, 1, 3]), y[[0, 1, 3]])
    assert np.isnan(filtered.output("level")[0][2]).all()
    assert np.isnan(filtered.log_likelihood[2])
    np.testing.assert_array_equal(filtered.filtered_state[[0, 1, 3]], alone.filtered_state)
    ahead = forecast(found, filtered.carry, 3)
    assert np.isnan(ahead.mean[2]).all()
    assert np.isfinite(ahead.mean[[0, 1, 3]]).all()


def test_forecast_equals_the_filter_over_missing_steps(case):
    known, y, x = case
    last = filter_series(known, y[:, :40], rows(x, 0, 40))
    unknown = y.copy()
    unknown[:, 40:] = np.nan
    long = filter_series(known, unknown, x)
    ahead = forecast(known, last.carry, 10, rows(x, 40, 50))
    np.testing.assert_allclose(ahead.mean, long.predicted_mean[:, 40:], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ahead.covariance, long.innovation_covariance[:, 40:], rtol=1e-10)
    np.testing.assert_allclose(ahead.state_mean, long.predicted_state[:, 40:], rtol=1e-10, atol=1e-10)


def test_forecast_of_an_ar1_is_its_formula():
    spec = specification("ar1_plus_noise")
    mean, noise, phi, shock = 2.0, 0.3, 0.8, 0.5
    known = KalmanFit.at(spec, [mean, noise, phi, shock])
    last = filter_series(known, [[2.5, 3.1, np.nan, 1.0]])
    level, variance = (part[0, -1] for part in last.output("level"))
    ahead = forecast(known, last.carry, 5)
    k = np.arange(1, 6)
    np.testing.assert_allclose(ahead.mean[0, :, 0], mean + phi**k * (level - mean))
    spread = phi ** (2 * k) * variance + shock * (1 - phi ** (2 * k)) / (1 - phi**2) + noise
    np.testing.assert_allclose(ahead.covariance[0, :, 0, 0], spread)


def test_smoothed_results_are_of_a_type_that_is_no_array():
    y = np.cumsum(np.random.default_rng(0).standard_normal((2, 30)), 1)
    smoothed = smooth(KalmanFit.at(LEVEL, [[1.0, 0.5]] * 2), y)
    assert isinstance(smoothed, Smoothed)
    with pytest.raises(TypeError, match="after t"):
        np.asarray(smoothed)
    np.testing.assert_array_equal(smoothed.outputs["level"][0], smoothed.mean[:, :, 0])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda f: filter_series(f, np.zeros((2, 5))), "y holds 2 series, the fit 1"),
        (lambda f: filter_series(f, [[1.0, np.inf]]), "series 0 has an infinite value at step 1"),
        (lambda f: filter_series(f, [[1.0, 2.0]]).output("slope"), "no output 'slope'; known: level"),
        (lambda f: forecast(f, filter_series(f, [[1.0]]).carry, 0), "steps is 0"),
        (
            lambda f: filter_series(f, [[1.0]], carry=Carry(*(np.zeros((1, 2)), *[np.zeros((1, 2, 2))] * 2))),
            "carry holds",
        ),
        (lambda f: Carry.from_dict({"mean": [[0.0]]}), "unreadable"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call(KalmanFit.at(LEVEL, [1.0, 0.5]))
