"""Maximum likelihood of a panel: optimal, indifferent to units, to companions and to padding, candid about failure."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kalman_support.oracles import SPECIFICATIONS

from ssmfin.classical.kalman import Custom, KalmanFit, Parameter, filter_series, fit, specification
from ssmfin.classical.kalman.model import Unit
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace

LEVEL = specification("local_level")
SIGNS = ((1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1))  # of a mixed second difference


def levels(count, length, seed=0):
    rng = np.random.default_rng(seed)
    ratio = 10 ** rng.uniform(-2, 1, (count, 1))
    return np.cumsum(np.sqrt(ratio) * rng.standard_normal((count, length)), 1) + rng.standard_normal((count, length))


def simulated(spec, seed, count, length):
    """Draws from the model at moderate parameters."""
    rng = np.random.default_rng(seed)
    K = len(spec.parameters)
    natural = spec.natural(torch.from_numpy(0.4 * rng.standard_normal((count, K)) - 0.3))
    x = torch.from_numpy(rng.standard_normal((count, length, spec.regressors))) if spec.regressors else None
    model = spec.state_space(natural, length, x)
    N, P = len(spec.states), spec.components

    def every(v, *shape):
        v = torch.zeros(shape, dtype=torch.float64) if v is None else v
        v = v if v.ndim == 2 + len(shape) else v[None, None]
        return v.expand(count, length, *shape).numpy()

    F, H = every(model.transition, N, N), every(model.observation, P, N)
    Q, R = every(model.process_covariance, N, N), every(model.observation_covariance, P, P)
    c, d = every(model.state_intercept, N), every(model.observation_intercept, P)
    state = np.zeros((count, N)) if model.initial_mean is None else model.initial_mean.expand(count, N).numpy()
    y = np.empty((count, length, P))
    for t in range(length):
        noise = np.sqrt(np.diagonal(R[:, t], axis1=1, axis2=2)) * rng.standard_normal((count, P))
        y[:, t] = d[:, t] + np.einsum("bpn,bn->bp", H[:, t], state) + noise
        shock = np.sqrt(np.diagonal(Q[:, t], axis1=1, axis2=2)) * rng.standard_normal((count, N))
        state = c[:, t] + np.einsum("bij,bj->bi", F[:, t], state) + shock
    if spec.kind == "stochastic_volatility":
        y = np.exp(0.5 * y)
    return natural.numpy(), y, None if x is None else x.numpy()


@pytest.mark.parametrize("name", sorted(SPECIFICATIONS))
def test_every_kind_reaches_at_least_the_likelihood_of_the_truth(name):
    spec = SPECIFICATIONS[name]
    truth, y, x = simulated(spec, 5, 6, 120)
    found = fit(spec, y, x)
    at_truth = filter_series(KalmanFit.at(spec, truth), y, x).log_likelihood
    assert (found.status == "converged").sum() >= 5, found.reason
    assert (found.log_likelihood >= at_truth - 1e-6).all(), found.log_likelihood - at_truth
    np.testing.assert_allclose(filter_series(found, y, x).log_likelihood, found.log_likelihood, rtol=1e-9)


def test_no_worse_than_statsmodels():
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    y = levels(12, 150)
    y[3, 40:60] = np.nan
    found = fit(LEVEL, y)
    for b in range(12):
        theirs = UnobservedComponents(y[b], "llevel", use_exact_diffuse=True)
        best = theirs.fit(disp=False, maxiter=500).params
        theirs.update(best)
        assert found.log_likelihood[b] >= theirs.ssm.loglike() - 1e-3
        theirs.update(found.parameters[b])
        assert found.log_likelihood[b] == pytest.approx(theirs.ssm.loglike(), rel=1e-10)


def test_standard_errors_equal_the_observed_information_of_statsmodels():
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    y = levels(1, 300, seed=4)
    found = fit(LEVEL, y, standard_errors=True, tolerance=1e-8)
    theirs = UnobservedComponents(y[0], "llevel", use_exact_diffuse=True)
    best = found.parameters[0]

    def value(i, j):
        theirs.update(best * (1 + i + j))
        return theirs.ssm.loglike()

    steps = 1e-3 * np.eye(2)
    hessian = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            corners = [s * value(p * steps[i], q * steps[j]) for s, p, q in SIGNS]
            hessian[i, j] = sum(corners) / (4e-6 * best[i] * best[j])
    np.testing.assert_allclose(found.standard_errors[0], np.sqrt(np.diag(np.linalg.inv(-hessian))), rtol=1e-3)


@settings(max_examples=5, deadline=None)
@given(exponent=st.integers(-9, 9), offset=st.floats(-1e3, 1e3))
def test_units_change_nothing_but_the_units(exponent, offset):
    y = levels(3, 120)
    unit = 10.0**exponent
    plain, moved = fit(LEVEL, y), fit(LEVEL, unit * (y + offset))
    np.testing.assert_allclose(moved.parameters, plain.parameters * unit**2, rtol=2e-3, atol=1e-6 * unit**2)
    # the first observation of a diffuse level has no density of its own
    np.testing.assert_allclose(moved.log_likelihood, plain.log_likelihood - 119 * np.log(unit), atol=1e-5)


def test_a_power_of_two_as_unit_changes_no_bit_of_the_parameters():
    y = levels(5, 120)
    plain, moved = fit(LEVEL, y), fit(LEVEL, y * 2.0**40)
    np.testing.assert_array_equal(moved.parameters, plain.parameters * 2.0**80)


def test_small_regressors_and_large_ones_are_fitted_alike():
    spec = specification("dynamic_regression", n_regressors=2)
    _, y, x = simulated(spec, 7, 3, 150)
    plain = fit(spec, y, x)
    factor = np.array([2.0**-30, 2.0**20])
    moved = fit(spec, y, x * factor)
    np.testing.assert_array_equal(moved.parameters[:, 2:], plain.parameters[:, 2:] / factor**2)
    np.testing.assert_allclose(
        filter_series(moved, y, x * factor).output("beta_1")[0],
        filter_series(plain, y, x).output("beta_1")[0] * 2.0**30,
    )


@pytest.mark.parametrize("name", ["local_level", "sum_of_two", "dynamic_regression", "dynamic_factor"])
def test_a_series_owes_no_bit_to_its_companions(name):
    spec = SPECIFICATIONS[name]
    _, y, x = simulated(spec, 11, 40, 80)
    together = fit(spec, y, x, standard_errors=True)
    for b in (0, 17, 39):
        alone = fit(spec, y[b : b + 1], None if x is None else x[b : b + 1], standard_errors=True)
        np.testing.assert_array_equal(alone.parameters[0], together.parameters[b])
        assert alone.log_likelihood[0] == together.log_likelihood[b]
        assert alone.iterations[0] == together.iterations[b]
        np.testing.assert_allclose(alone.standard_errors[0], together.standard_errors[b], rtol=1e-9)


def test_padding_with_missing_values_changes_nothing():
    y = levels(4, 150)
    padded = np.full((4, 220), np.nan)
    padded[:, 30:180] = y
    plain, wide = fit(LEVEL, y), fit(LEVEL, padded)
    np.testing.assert_allclose(wide.parameters, plain.parameters, rtol=1e-6)
    np.testing.assert_allclose(wide.log_likelihood, plain.log_likelihood, rtol=1e-10)


def test_bad_series_are_named_and_the_others_unaffected():
    y = levels(500, 40)
    clean = fit(LEVEL, y)
    bad = y.copy()
    bad[3] = 7.0
    bad[100] = np.nan
    bad[101, 2:] = np.nan
    bad[250, 5] = np.inf
    found = fit(LEVEL, bad)
    assert {b for b in range(500) if found.status[b] == "failed"} == {3, 100, 101, 250}
    for b, words in ((3, "constant (7)"), (100, "no observation"), (101, "needs 3"), (250, "infinite value at step 5")):
        assert words in found.reason[b]
        assert np.isnan(found.parameters[b]).all()
        assert np.isnan(found.log_likelihood[b])
    rest = [b for b in range(500) if b not in (3, 100, 101, 250)]
    np.testing.assert_array_equal(found.parameters[rest], clean.parameters[rest])
    assert all(found.reason[b] == "" for b in rest)


def test_collinear_and_constant_regressors_are_named():
    spec = specification("dynamic_regression", n_regressors=2)
    _, y, x = simulated(spec, 3, 3, 100)
    x[0, :, 1] = 3.0 * x[0, :, 0] - 1.0
    x[1, :, 0] = 2.0
    found = fit(spec, y, x)
    assert found.status.tolist()[:2] == ["failed", "failed"]
    assert "x_2" in found.reason[0]
    assert "x_1" in found.reason[1]
    assert found.status[2] == "converged"


def test_a_missing_regressor_is_a_missing_observation():
    spec = specification("dynamic_regression")
    _, y, x = simulated(spec, 3, 2, 100)
    without, unknown = y.copy(), x.copy()
    without[:, 50:55] = np.nan
    unknown[:, 50:55] = np.nan
    np.testing.assert_array_equal(fit(spec, y, unknown).parameters, fit(spec, without, x).parameters)


def test_an_unconverged_series_is_flagged_with_the_best_point_found():
    found = fit(LEVEL, levels(5, 100), max_iterations=1)
    assert set(found.status) == {"not_converged"}
    assert all("ran out of iterations" in reason for reason in found.reason)
    assert np.isfinite(found.parameters).all()


def test_warm_starts_reach_the_same_end_in_fewer_steps():
    y = levels(10, 300)
    cold = fit(LEVEL, y)
    warm = fit(LEVEL, y, starts=cold.parameters)
    np.testing.assert_allclose(warm.log_likelihood, cold.log_likelihood, atol=1e-6)
    assert warm.iterations.sum() < cold.iterations.sum() / 3


def test_json_round_trip_keeps_every_bit():
    y = levels(3, 60)
    y[1] = 0.0
    found = fit(LEVEL, y, standard_errors=True)
    back = KalmanFit.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert back.specification == found.specification
    for name in ("parameters", "log_likelihood", "standard_errors", "y_scale", "iterations", "status"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))


def build(natural, length, x):
    noise, level = (v[:, None, None, None] for v in natural.T.contiguous())
    one = natural.new_ones(1, 1)
    return StateSpace(one, one, level, noise, 0 * one, initial_diffuse=one)


def test_a_model_of_ones_own_equals_the_built_in():
    own = Custom(
        given=(Parameter("noise", "positive", Unit(y=2)), Parameter("level", "positive", Unit(y=2))),
        elements=("level",),
        build=build,
        begin=((0.5, 0.01), (0.5, 0.5)),
        scale="component",
        shift="component",
    )
    y = levels(4, 100)
    found, want = fit(own, y), fit(LEVEL, y)
    np.testing.assert_allclose(found.parameters, want.parameters, rtol=1e-3, atol=1e-6)
    saved = found.to_dict()
    assert KalmanFit.from_dict(saved, own).specification is own
    with pytest.raises(InputError, match="custom"):
        KalmanFit.from_dict(saved)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: fit(LEVEL, np.zeros(5)), "y of local_level has shape"),
        (lambda: fit(LEVEL, np.zeros((2, 5)), np.zeros((2, 5))), "has no regressors"),
        (lambda: fit(specification("dynamic_regression"), np.zeros((2, 5))), "x is missing"),
        (
            lambda: fit(specification("dynamic_regression"), np.zeros((2, 5)), np.zeros((3, 1))),
            "x of dynamic_regression",
        ),
        (lambda: fit(LEVEL, levels(2, 20), starts=np.ones((2, 3))), "starts have shape"),
        (lambda: fit(LEVEL, [["a"]]), "no array of numbers"),
        (lambda: specification("local_leve"), "did you mean 'local_level'"),
        (lambda: specification("seasonal", perod=4), "did you mean 'period'"),
        (lambda: specification("seasonal", period=1), "seasonal.period is 1"),
        (lambda: specification("local_linear_trend", damped=1), "true or false"),
        (lambda: specification("dynamic_nelson_siegel", maturities=[3.0, 1.0, 2.0]), "increasing"),
        (lambda: KalmanFit.at(LEVEL, [[1.0, 2.0, 3.0]]), "give \\(series, 2\\)"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()
