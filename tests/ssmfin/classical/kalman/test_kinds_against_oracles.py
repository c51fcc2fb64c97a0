"""Every kind: filter, smoother, likelihood and gradient against the dense Gaussian and statsmodels."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kalman_support.oracles import SPECIFICATIONS, dense_gaussian, random_case, statsmodels_model

from ssmfin.classical.kalman import KalmanFit, filter_series, smooth
from ssmfin_kernels import kalman_log_likelihood

FEW = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
STEP = 1e-7  # its square is the error; statsmodels mixes 1e-16 of the real part into the other
SEEDS = st.integers(0, 10_000)


@pytest.fixture(params=sorted(SPECIFICATIONS))
def spec(request):
    return SPECIFICATIONS[request.param]


def as_returns(spec, y):
    """Returns whose log square is what the stochastic volatility model is to observe."""
    return torch.exp(0.5 * y) if spec.kind == "stochastic_volatility" else y


def close(got, want, tolerance=1e-8):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.nanmax(np.abs(want)))))


@FEW
@given(seed=SEEDS)
def test_filter_smoother_and_likelihood_equal_the_dense_gaussian(spec, seed):
    natural, y, x = random_case(spec, seed, 9, missing=0.1)
    y[0, :4] = torch.where(torch.isnan(y[0, :4]), 0.3, y[0, :4])  # enough to end every diffuse start
    known = KalmanFit.at(spec, natural)
    filtered = filter_series(known, as_returns(spec, y), x)
    mean, covariance, log_likelihood = dense_gaussian(spec, natural, y, x)
    smoothed = smooth(known, as_returns(spec, y), x)
    close(smoothed.mean[0], mean, 1e-7)
    close(smoothed.covariance[0], covariance, 1e-7)
    close(filtered.log_likelihood[0], log_likelihood)
    for t in (5, 8):
        mean, covariance, _ = dense_gaussian(spec, natural, y, x, until=t)
        close(filtered.filtered_state[0, t], mean[t], 1e-7)
        close(filtered.filtered_covariance[0, t], covariance[t], 1e-7)


@FEW
@given(seed=SEEDS)
def test_filter_smoother_and_likelihood_equal_statsmodels(spec, seed):
    natural, y, x = random_case(spec, seed, 60)
    known = KalmanFit.at(spec, natural)
    theirs = statsmodels_model(spec, natural, y, x)
    want = theirs.smooth()
    filtered = filter_series(known, as_returns(spec, y), x)
    smoothed = smooth(known, as_returns(spec, y), x)
    # statsmodels counts the observations of the diffuse phase as we do
    close(filtered.log_likelihood[0], want.llf_obs.sum())
    after = max(int(want.nobs_diffuse), int(filtered.diffuse[0].sum()))
    close(filtered.filtered_state[0, after:], want.filtered_state.T[after:])
    close(filtered.filtered_covariance[0, after:], want.filtered_state_cov.transpose(2, 0, 1)[after:])
    close(filtered.predicted_mean[0, after:], want.forecasts.T[after:])
    close(smoothed.mean[0], want.smoothed_state.T)
    covariance = want.smoothed_state_cov.transpose(2, 0, 1)
    # where an ill-conditioned diffuse phase costs statsmodels digits, its covariance is not symmetric to those digits
    lost = np.abs(covariance - covariance.transpose(0, 2, 1)).max() / max(1.0, np.abs(covariance).max())
    close(smoothed.covariance[0], covariance, max(1e-8, 10 * lost))


@settings(FEW, max_examples=2)
@given(seed=SEEDS)
def test_gradient_equals_the_complex_step_of_statsmodels(spec, seed):
    natural, y, x = random_case(spec, seed, 40)
    if spec.components > 1:  # in complex numbers statsmodels is wrong where part of a row is missing
        y[torch.isnan(y).any(2)] = torch.nan
    leaf = natural.clone().requires_grad_()
    kalman_log_likelihood(y, spec.state_space(leaf, y.shape[1], x)).sum().backward()
    want = []
    for k in range(natural.shape[1]):
        step = natural.to(torch.complex128)
        step[0, k] += 1j * STEP
        want.append(statsmodels_model(spec, step, y, x).loglike().imag / STEP)
    close(leaf.grad[0].numpy(), np.array(want))


@pytest.mark.parametrize("name", sorted(SPECIFICATIONS))
def test_natural_and_free_are_inverses(name):
    spec = SPECIFICATIONS[name]
    theta = torch.from_numpy(np.random.default_rng(3).standard_normal((50, len(spec.parameters))))
    natural = spec.natural(theta)
    torch.testing.assert_close(spec.free(natural), theta, rtol=1e-9, atol=1e-9)
    for k, parameter in enumerate(spec.parameters):
        if parameter.domain in ("positive", "unit"):
            assert (natural[:, k] > 0).all()
        if parameter.domain in ("unit", "stationary"):
            assert (natural[:, k].abs() < 1).all()


def test_components_of_a_sum_are_ordered_by_persistence():
    spec = SPECIFICATIONS["sum_of_three"]
    natural = spec.natural(torch.randn(200, 8, dtype=torch.float64))
    phi = natural[:, 2:5]
    assert (phi[:, :-1] > phi[:, 1:]).all()
    assert (phi > 0).all()
