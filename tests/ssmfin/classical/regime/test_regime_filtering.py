"""Owns the tests of filtering regimes: nothing from the future, continuing equals the whole, JSON and back."""

import json

import numpy as np
import pytest

from ssmfin.classical.regime import (
    GaussianHMM,
    MarkovAutoregression,
    MarkovRegression,
    RegimeCarry,
    RegimeFit,
    SwitchingKalman,
    entropy,
    expected_duration,
    filter_series,
    fit,
    most_probable,
    smooth,
    stationary,
)
from ssmfin.classical.smoothed import Smoothed
from ssmfin.errors import InputError

KINDS = [
    MarkovRegression(),
    MarkovRegression(exogenous=("a", "b"), lags=3),
    MarkovAutoregression(lags=2, exogenous=("a", "b"), common_exogenous=("a",)),
    GaussianHMM(columns=("u", "v")),
    SwitchingKalman(drift="switching"),
    SwitchingKalman(state="local_linear_trend"),
]


def case(spec, B=3, T=40):
    rng = np.random.default_rng(0)
    names, N = spec.parameter_names, len(spec.parameter_names)
    parameters = np.zeros((B, N))
    for n, name in enumerate(names):
        if name.startswith("transition"):
            parameters[:, n] = 0.9 if name.split("_")[1] == name.split("_")[2] else 0.1
        elif "variance" in name and "covariance" not in name:
            parameters[:, n] = rng.uniform(0.2, 2.0, B)
        elif name.startswith("covariance"):
            parameters[:, n] = 0.2 if name.endswith("u_v") else rng.uniform(0.5, 2.0, B)
        else:
            parameters[:, n] = rng.uniform(-0.3, 0.3, B)
    y = rng.standard_normal((B, T, 2) if spec.vectors else (B, T))
    y[0, :8], y[1, 20:22], y[2, -3:] = np.nan, np.nan, np.nan
    if spec.vectors:
        y[1, 5, 0] = np.nan
    return RegimeFit.at(spec, parameters), y, rng.standard_normal((B, T, spec.regressors))


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("cut", [0, 1, 2, 6, 23, 40])
def test_continuing_equals_the_full_run_also_through_json(spec, cut):
    found, y, x = case(spec)
    whole = filter_series(found, y, x)
    first = filter_series(found, y[:, :cut], x[:, :cut])
    carry = RegimeCarry.from_dict(json.loads(json.dumps(first.carry.to_dict())))
    second = filter_series(found, y[:, cut:], x[:, cut:], carry=carry)
    for name in ("predicted", "filtered", "log_score"):
        both = np.concatenate([getattr(first, name), getattr(second, name)], 1)
        np.testing.assert_allclose(both, getattr(whole, name), rtol=1e-12, atol=1e-13)
    for name, part in second.carry.state.items():
        np.testing.assert_allclose(part, whole.carry.state[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_the_future_changes_no_bit_of_the_past(spec):
    found, y, x = case(spec)
    whole = filter_series(found, y, x)
    later, later_x = y.copy(), x.copy()
    later[:, 25:], later_x[:, 25:] = 1e3, -7.0
    other = filter_series(found, later, later_x)
    assert np.array_equal(other.filtered[:, :25], whole.filtered[:, :25])
    assert np.array_equal(other.predicted[:, :26], whole.predicted[:, :26])
    assert not np.array_equal(other.filtered[:, 25:], whole.filtered[:, 25:])


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_probabilities_sum_to_one_and_begin_at_the_stationary_distribution(spec):
    found, y, x = case(spec)
    past = filter_series(found, y, x)
    np.testing.assert_allclose(past.filtered.sum(2), 1.0, rtol=1e-12)
    np.testing.assert_allclose(past.predicted.sum(2), 1.0, rtol=1e-12)
    np.testing.assert_allclose(past.predicted[0, :8], np.tile(stationary(found.transition)[0], (8, 1)), rtol=1e-12)
    np.testing.assert_allclose(
        past.predicted[:, 1:], np.einsum("bti,bij->btj", past.filtered[:, :-1], found.transition), rtol=1e-9
    )
    assert np.isnan(past.log_score[0, :8]).all()


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.kind)
def test_smoothed_is_of_a_type_of_its_own_and_ends_in_the_filter(spec):
    found, y, x = case(spec)
    both = smooth(found, y, x)
    assert isinstance(both, Smoothed)
    assert both.states == ("regime_0", "regime_1")
    np.testing.assert_allclose(both.mean[:, -1], filter_series(found, y, x).filtered[:, -1], atol=1e-12)
    np.testing.assert_allclose(both.mean.sum(2), 1.0, rtol=1e-10)
    with pytest.raises(TypeError):
        np.asarray(both)


def test_fit_survives_json():
    rng = np.random.default_rng(1)
    y = np.stack([rng.standard_normal(80) * np.repeat([1.0, 3.0], 40), np.full(80, np.nan)])
    found = fit(MarkovRegression(), y, standard_errors=True)
    again = RegimeFit.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.specification == found.specification
    assert again.reason == found.reason
    assert again.status.tolist() == found.status.tolist()
    for name in ("parameters", "log_likelihood", "standard_errors", "iterations", "observations"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
    with pytest.raises(InputError, match="unreadable"):
        RegimeFit.from_dict({"specification": {"kind": "markov_regression"}})


def test_carry_of_another_model_is_refused():
    found, y, x = case(KINDS[0])
    other, z, w = case(KINDS[1])
    with pytest.raises(InputError, match="carry is of other series or of another model"):
        filter_series(other, z, w, carry=filter_series(found, y, x).carry)
    with pytest.raises(InputError, match="carry is of other series"):
        filter_series(found, y, x, carry=filter_series(found, y, x).carry.select([0, 1]))


def test_infinite_rows_are_refused_by_place():
    found, y, x = case(KINDS[0])
    y[1, 7] = np.inf
    with pytest.raises(InputError, match="y is infinite in series 1 at step 7"):
        filter_series(found, y, x)


def test_summaries():
    P = np.array([[[0.95, 0.05], [0.2, 0.8]]])
    np.testing.assert_allclose(expected_duration(P), [[20.0, 5.0]])
    sure = np.array([[[1.0, 0.0], [0.5, 0.5], [np.nan, np.nan]]])
    np.testing.assert_allclose(entropy(sure), [[0.0, np.log(2), np.nan]])
    assert most_probable(sure).tolist() == [[0, 0, -1]]
    three = np.random.default_rng(0).dirichlet(np.ones(3), (4, 3))
    np.testing.assert_allclose(np.einsum("bi,bij->bj", stationary(three), three), stationary(three), rtol=1e-10)
