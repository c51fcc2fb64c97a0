"""Owns the tests of likelihood, filter and smoother against statsmodels, on random models of every kind it has."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.classical.regime import MarkovAutoregression, MarkovRegression, RegimeFit, filter_series, smooth


def random_fit(spec, rng):
    """Parameters of about the size of standardised data."""
    K = spec.regimes
    layout = spec.layout
    emission = rng.normal(0, 1, (1, len(layout.emission_names)))
    for column in np.unique(layout.phi_at):
        emission[:, column] = rng.uniform(-0.4, 0.4) / max(layout.order, 1)
    emission[:, np.unique(layout.variance_at)] = rng.uniform(0.2, 3.0, (1, len(np.unique(layout.variance_at))))
    transition = rng.dirichlet(np.ones(K) + 2 * np.eye(K)[0], K)
    return RegimeFit.at(spec, np.concatenate([transition.reshape(1, -1), emission], 1))


def _right_variances(cls):
    """statsmodels 0.15 gives the switching variance (K, 1, 1) whatever the order: with two lags or more, to s_{t-1}."""

    class Model(cls):
        def _conditional_loglikelihoods(self, params):
            residual, variance = self._resid(params), params[self.parameters["variance"]].squeeze()
            if self.switching_variance:
                variance = variance.reshape(self.k_regimes, *[1] * (self.order + 1))
            return -0.5 * residual**2 / variance - 0.5 * np.log(2 * np.pi * variance)

    return Model


def peer(spec, found, y, x):
    """The same model there, and its parameters in its order."""
    sm = pytest.importorskip("statsmodels.tsa.api")
    K = spec.regimes
    parts = spec.layout.parts(found.parameters[:, K * K :])
    exog = x if spec.exogenous else None
    common = {
        "k_regimes": K,
        "trend": "n" if spec.mean == "zero" else "c",
        "exog": exog,
        "switching_trend": spec.mean == "switching",
        "switching_exog": [name not in spec.common_exogenous for name in spec.exogenous] if spec.exogenous else True,
        "switching_variance": spec.variance == "switching",
    }
    if spec.layout.order:
        model = _right_variances(sm.MarkovAutoregression)(
            y, order=spec.layout.order, switching_ar=spec.lag_coefficients == "switching", **common
        )
    else:
        model = sm.MarkovRegression(y, **common)
    params = np.zeros(model.k_params)
    transition = found.transition[0]
    params[model.parameters["regime_transition"]] = transition[:, : K - 1].T.ravel()
    for k in range(K):
        if len(spec.layout.names):
            params[model.parameters[k, "exog"]] = parts.beta[0, k]
        params[model.parameters[k, "variance"]] = parts.variance[0, k]
        if spec.layout.order:
            params[model.parameters[k, "autoregressive"]] = parts.phi[0, k]
    return model, params


SPECIFICATIONS = [
    MarkovRegression(),
    MarkovRegression(regimes=3, mean="common"),
    MarkovRegression(regimes=4, mean="zero"),
    MarkovRegression(variance="common", exogenous=("a", "b")),
    MarkovRegression(regimes=3, exogenous=("a", "b"), common_exogenous=("b",)),
    MarkovAutoregression(lags=1),
    MarkovAutoregression(lags=2, regimes=3, lag_coefficients="switching"),
    MarkovAutoregression(lags=4, variance="common"),
    MarkovAutoregression(lags=1, mean="common", exogenous=("a", "b")),
]


@pytest.mark.parametrize("spec", SPECIFICATIONS, ids=lambda spec: "-".join(map(str, spec.to_dict().values())))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_likelihood_filter_and_smoother_equal_statsmodels(spec, seed):
    rng = np.random.default_rng(seed)
    T = int(rng.integers(20, 80))
    y, x = rng.normal(0, 1.5, T), rng.normal(0, 1, (T, 2))
    if spec.mean == "common" and spec.layout.order == 0:
        x = x[:, :0]
    found = random_fit(spec, rng)
    given_x = x[None] if spec.exogenous else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statsmodels' own
        model, params = peer(spec, found, y, x if spec.exogenous else None)
        theirs = model.smooth(params)
    ours, p = filter_series(found, y[None], given_x), spec.layout.order
    assert ours.log_likelihood[0] == pytest.approx(theirs.llf, rel=1e-8, abs=1e-8)
    np.testing.assert_allclose(ours.log_score[0, p:], theirs.llf_obs, atol=1e-8)
    np.testing.assert_allclose(ours.filtered[0, p:], theirs.filtered_marginal_probabilities, atol=1e-8)
    predicted = theirs.predicted_marginal_probabilities
    np.testing.assert_allclose(ours.predicted[0, p:], predicted, atol=1e-8)
    smoothed = smooth(found, y[None], given_x).mean
    np.testing.assert_allclose(smoothed[0, p:], theirs.smoothed_marginal_probabilities, atol=1e-8)
