"""Owns the tests of fitting regimes: gradients, recovery, bad input, the same bits alone and in company."""

import numpy as np
import pytest

from ssmfin.classical.regime import (
    GaussianHMM,
    MarkovAutoregression,
    MarkovRegression,
    RegimeFit,
    SwitchingKalman,
    filter_series,
    fit,
    specification,
)
from ssmfin.errors import InputError

CALM_AND_WILD = MarkovRegression(mean="common")


def chain(rng, T, leave=0.03):
    """(T,) regimes 0 and 1."""
    switch = rng.random(T) < leave
    return np.cumsum(switch) % 2


def returns(rng, T=400, ratio=3.0):
    return 0.01 * rng.standard_normal(T) * np.where(chain(rng, T), ratio, 1.0) + 0.0005


def levels(rng, T=300):
    moves = rng.standard_normal(T) * np.where(chain(rng, T), 1.0, 0.1)
    return 100 + np.cumsum(moves) + 0.5 * rng.standard_normal(T)


EVERY_KIND = [
    CALM_AND_WILD,
    MarkovRegression(regimes=3, variance="common"),
    MarkovRegression(exogenous=("a", "b"), common_exogenous=("a",), lags=1),
    MarkovAutoregression(lags=2),
    MarkovAutoregression(lags=1, exogenous=("a", "b"), lag_coefficients="switching", mean="common"),
    GaussianHMM(columns=("u", "v")),
    GaussianHMM(regimes=3, columns=("u", "v"), covariance="diagonal"),
    SwitchingKalman(drift="switching"),
    SwitchingKalman(state="local_linear_trend", state_variance="common"),
    SwitchingKalman(state="autoregression", drift="common", noise_variance="common"),
]


def data_for(spec, seed=0, B=2, T=150):
    rng = np.random.default_rng(seed)
    make = levels if spec.kind == "switching_kalman" and spec.state != "autoregression" else returns
    y = np.stack([make(rng, T) for _ in range(B)])
    if spec.vectors:
        y = np.stack([y, 30 * rng.standard_normal((B, T)) + 2000 * y], 2)
        y[:, ::9, 1] = np.nan
    y[0, :11], y[1, 40:43] = np.nan, np.nan
    return y, rng.standard_normal((B, T, spec.regressors))


@pytest.mark.parametrize("spec", EVERY_KIND, ids=lambda spec: spec.kind)
def test_gradient_is_the_derivative_of_the_filter_likelihood(spec):
    y, x = data_for(spec)
    problem = spec.problem(y, x)
    index = np.arange(2)
    free = problem.starts(index, 2, 1)[:, 0] + 0.1
    value, gradient = problem.value_and_gradient(free, index)
    found = RegimeFit.at(spec, problem.parameters(free, index))
    np.testing.assert_allclose(filter_series(found, y, x).log_likelihood, value, rtol=1e-9)
    np.testing.assert_allclose(problem.free(found.parameters, index), free, atol=1e-5)
    for u in range(free.shape[1]):
        step = 1e-5 * (np.arange(free.shape[1]) == u)
        up, down = (problem.value_and_gradient(free + sign * step, index)[0] for sign in (1, -1))
        np.testing.assert_allclose((up - down) / 2e-5, gradient[:, u], rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("spec", EVERY_KIND, ids=lambda spec: spec.kind)
def test_fit_ends_higher_than_every_neighbour_and_says_converged(spec):
    y, x = data_for(spec, T=200)
    found = fit(spec, y, x if spec.regressors else None, starts=3)
    assert (found.status != "failed").all()
    problem = spec.problem(y, x)
    index = np.arange(2)
    free = problem.free(found.parameters, index)
    rng = np.random.default_rng(0)
    for _ in range(10):
        near = problem.value_and_gradient(free + 1e-3 * rng.standard_normal(free.shape), index)[0]
        assert (near < found.log_likelihood + 1e-4).all()


def test_known_regimes_are_recovered():
    rng = np.random.default_rng(3)
    T = 4000
    s = chain(rng, T, 0.02)
    y = np.where(s, -0.5, 0.3) + rng.standard_normal(T) * np.where(s, 2.0, 0.7)
    found = fit(MarkovRegression(), y[None], standard_errors=True)
    want = [0.98, 0.02, 0.02, 0.98, 0.3, -0.5, 0.49, 4.0]
    assert (np.abs(found.parameters[0] - want) < 4 * found.standard_errors[0]).all()


def test_a_series_has_the_same_bits_alone_in_company_and_padded():
    rng = np.random.default_rng(1)
    y = np.stack([returns(rng, 300) for _ in range(5)])
    whole = fit(CALM_AND_WILD, y, standard_errors=True)
    for b in (0, 3):
        padded = np.concatenate([np.full(17, np.nan), y[b], np.full(5, np.nan)])
        for own in (y[b], padded):
            alone = fit(CALM_AND_WILD, own[None], standard_errors=True)
            assert np.array_equal(alone.parameters[0], whole.parameters[b])
            assert np.array_equal(alone.standard_errors[0], whole.standard_errors[b])
            assert alone.log_likelihood[0] == whole.log_likelihood[b]


def test_bad_series_are_named_and_leave_the_others_bit_identical():
    rng = np.random.default_rng(2)
    good = np.stack([returns(rng, 250) for _ in range(3)])
    bad = np.tile(returns(rng, 250), (4, 1))
    bad[0], bad[1], bad[2, 5:] = 1.5, np.nan, np.nan
    bad[3, 100] = np.inf
    found = fit(CALM_AND_WILD, np.concatenate([good[:1], bad, good[1:]]))
    alone = fit(CALM_AND_WILD, good)
    assert found.status.tolist() == ["converged", *["failed"] * 4, "converged", "converged"]
    for word, reason in zip(
        ("constant", "missing", "5 usable observations for 5", "infinite"), found.reason[1:5], strict=True
    ):
        assert word in reason
    assert np.isnan(found.parameters[1:5]).all()
    kept = found.select([0, 5, 6])
    assert np.array_equal(kept.parameters, alone.parameters)
    past = filter_series(found.select([1, 0]), np.stack([bad[0], good[0]]))
    assert np.isnan(past.filtered[0]).all()
    assert np.isfinite(past.filtered[1]).all()


@pytest.mark.parametrize("kind", ["gaussian_hmm", "switching_kalman", "markov_autoregression"])
def test_all_series_bad_is_no_exception(kind):
    y = np.stack([np.full(60, np.nan), np.ones(60)])
    found = fit(specification(kind), y)
    assert found.status.tolist() == ["failed", "failed"]
    assert all(found.reason)
    assert np.isnan(filter_series(found, y).filtered).all()


def test_collinear_and_unknown_regressors_fail_by_name():
    rng = np.random.default_rng(4)
    y, x = np.stack([returns(rng)] * 3), rng.standard_normal((3, 400, 2))
    x[0, :, 1] = 3 * x[0, :, 0] - 2
    x[1, :, 1] = np.nan
    found = fit(MarkovRegression(exogenous=("vix", "term")), y, x)
    assert found.status.tolist() == ["failed", "failed", "converged"]
    assert "collinear" in found.reason[0]
    assert "'term'" in found.reason[0] or "'vix'" in found.reason[0]
    assert "no usable observation" in found.reason[1]


def test_a_spike_on_equal_values_does_not_win():
    rng = np.random.default_rng(5)
    y = returns(rng, 600)
    y[rng.random(600) < 0.05] = 0.0  # stale prices
    found = fit(CALM_AND_WILD, y[None])
    scale = np.var(y)
    assert found.status[0] == "converged"
    assert found.parameters[0, 5:].min() > 1e-2 * scale
    assert found.reason[0] == ""


def test_a_variance_at_its_floor_is_said():
    y = np.concatenate([np.zeros(200), np.sin(np.arange(200.0) ** 2)])  # half the values are equal: nothing but a spike
    found = fit(MarkovRegression(mean="zero"), y[None])
    assert "floor (0.0001 of the training variance)" in found.reason[0]
    assert found.parameters[0, 4] == pytest.approx(1e-4 * np.mean(y**2), rel=0.05)


@pytest.mark.parametrize("factor, shift", [(1e6, 0.0), (1e-7, 0.0), (1.0, 1e5)])
def test_units_change_nothing_but_the_units(factor, shift):
    y = returns(np.random.default_rng(6), 500)[None] * 100
    spec = MarkovRegression()
    one, other = fit(spec, y), fit(spec, factor * y + shift)
    assert other.log_likelihood[0] == pytest.approx(one.log_likelihood[0] - 500 * np.log(factor), abs=1e-5)
    np.testing.assert_allclose(other.parameters[0, :4], one.parameters[0, :4], rtol=1e-5)
    np.testing.assert_allclose(other.parameters[0, 6:], one.parameters[0, 6:] * factor**2, rtol=1e-5)


def test_standard_errors_are_missing_where_a_probability_is_zero():
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.standard_normal(60) * size for size in [0.1, 1.0, 10.0] * 4])  # 0 to 1 to 2 to 0, always
    found = fit(MarkovRegression(regimes=3, mean="zero"), y[None], standard_errors=True)
    never = found.parameters[0, :9] < 1e-6
    assert never.reshape(3, 3)[[0, 1, 2], [2, 0, 1]].all()
    assert np.isnan(found.standard_errors[0, :9][never]).all()
    assert np.isfinite(found.standard_errors[0, [0, 1, 4, 5, 6, 8]]).all()
    assert np.isfinite(found.standard_errors[0, 9:]).all()


def test_regimes_stay_numbered_as_in_the_previous_fit():
    rng = np.random.default_rng(7)
    y = returns(rng, 1200)[None]
    first = fit(CALM_AND_WILD, y[:, :800])
    swapped = RegimeFit.at(CALM_AND_WILD, CALM_AND_WILD.permute(first.parameters, np.array([[1, 0]])))
    again = fit(CALM_AND_WILD, y, previous=swapped, standard_errors=True)
    assert again.matching == ("matched",)
    assert again.parameters[0, 5] > again.parameters[0, 6]
    plain = fit(CALM_AND_WILD, y, standard_errors=True)
    assert plain.matching == ("ordered",)
    assert np.array_equal(plain.standard_errors[0, [6, 5]], again.standard_errors[0, 5:])
    far = fit(CALM_AND_WILD, 10 * y, previous=first)
    assert "not matched: regime" in far.matching[0]
    assert far.parameters[0, 5] < far.parameters[0, 6]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda y: fit(CALM_AND_WILD, y[0]), r"y has shape \(60,\), not \(series, steps\)"),
        (lambda y: fit(GaussianHMM(columns=("a", "b")), y), r"y has shape \(2, 60\), not \(series, steps, 2\)"),
        (lambda y: fit(MarkovRegression(exogenous=("a",)), y), "x is missing; markov_regression has 1 regressors"),
        (lambda y: fit(CALM_AND_WILD, y, np.zeros((2, 60, 1))), r"x has shape \(2, 60, 1\), not \(2, 60, 0\)"),
        (lambda y: fit(CALM_AND_WILD, y, starts=np.zeros((2, 3))), r"starts have shape \(2, 1, 3\)"),
        (lambda y: fit(CALM_AND_WILD, y, starts=0), "starts is 0"),
        (lambda y: specification("markov_regresion"), "did you mean 'markov_regression'"),
        (lambda y: specification("markov_regression", men="zero"), "has no option 'men'; did you mean 'mean'"),
        (lambda y: MarkovRegression(regimes=5), "regimes is 5, outside 2 to 4"),
        (lambda y: MarkovRegression(mean="common", variance="common"), "nothing of this model switches"),
        (lambda y: MarkovAutoregression(lags=8, regimes=4), "tuples of regimes"),
        (lambda y: RegimeFit.at(CALM_AND_WILD, [0.9, 0.2, 0.1, 0.9, 0, 1, 2]), "is no distribution"),
        (lambda y: RegimeFit.at(CALM_AND_WILD, [0.9, 0.1, 0.1, 0.9, 0, -1, 2]), "a variance is -1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(np.random.default_rng(0).standard_normal((2, 60)))
