"""Owns the tests of regime models against published estimates: every regime value of the anchors, and Stata's."""

import ast
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.classical.regime import MarkovAutoregression, MarkovRegression, RegimeFit, filter_series, fit

DATA = Path(__file__).resolve().parents[4].parent / "shared/data/reference"


def bundled(module, *names):
    """Series that statsmodels ships in the source of its own tests."""
    home = Path(find_spec("statsmodels").origin).parent / f"tsa/regime_switching/tests/{module}.py"
    if not home.exists():
        pytest.skip(f"statsmodels is installed without its tests ({home.name})")
    found = {
        node.targets[0].id: ast.literal_eval(_Numbers().visit(node.value))
        for node in ast.parse(home.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names
    }
    return [np.array(found[name], dtype=float) for name in names]


class _Numbers(ast.NodeTransformer):
    """np.nan is no literal."""

    def visit_Attribute(self, node):
        return ast.Constant(float("nan")) if node.attr == "nan" else node


def test_hamilton_1989():
    (growth,) = bundled("test_markov_autoregression", "rgnp")
    found = fit(MarkovAutoregression(lags=4, variance="common"), growth[None])
    want = [0.754673, 0.245327, 0.095915, 0.904085, -0.358811, 1.163516, 0.013486, -0.057521, -0.246983, -0.212913]
    np.testing.assert_allclose(found.parameters[0, :-1], want, atol=1e-5)
    assert np.sqrt(found.parameters[0, -1]) == pytest.approx(np.exp(-0.262658), abs=1e-5)
    assert found.log_likelihood[0] == pytest.approx(-181.26339, abs=1e-5)
    assert found.status[0] == "converged"
    at = RegimeFit.at(found.specification, [*want, np.exp(2 * -0.262658)])
    assert filter_series(at, growth[None]).log_likelihood[0] == pytest.approx(-181.26339, abs=1e-5)


@pytest.fixture(scope="module")
def excess_returns():
    path = DATA / "kns_equal_weighted_excess_returns.parquet"
    if not path.exists():
        pytest.skip(f"no {path.name} here: the shared reference data are not part of the project")
    returns = pl.read_parquet(path)["excess_return_pct"].to_numpy()[:732]  # 1926-01 to 1986-12
    return returns - returns.mean()


def test_kim_nelson_startz_three_variances(excess_returns):
    found = fit(MarkovRegression(regimes=3, mean="zero"), excess_returns[None])
    assert found.status[0] == "converged"
    np.testing.assert_allclose(found.parameters[0, 9:], [0.00123, 0.00399, 0.03111], rtol=4e-3)
    # the published point lies on the border P(wild -> calm) = 0; inside, the likelihood goes on to 1001.9036
    assert found.log_likelihood[0] == pytest.approx(1001.9036, abs=1e-4)


def test_kim_nelson_startz_published_point_is_the_best_of_its_border(excess_returns):
    from ssmfin.classical.regime.fitting import _follow

    spec = MarkovRegression(regimes=3, mean="zero")
    problem = spec.problem(excess_returns[None], np.zeros((1, 732, 0)))
    border = [0.97, 0.025, 0.005, 0.02, 0.97, 0.01, 1e-14, 0.05, 0.95, 0.0012, 0.004, 0.031]
    one = np.zeros(1, dtype=np.int64)
    ends = _follow(problem, problem.free(np.array([border]), one)[:, None], one, 1e-5, 200)
    assert ends.value[0] == pytest.approx(1001.8949, abs=1e-4)
    found = problem.parameters(ends.free, one)[0]
    np.testing.assert_allclose(found[9:], [0.00123, 0.00399, 0.03111], atol=5.1e-6)
    assert found[6] < 1e-8


def test_permuted_labels_have_the_same_likelihood_and_come_out_in_order(excess_returns):
    spec = MarkovRegression(regimes=3, mean="zero")
    found = fit(spec, excess_returns[None])
    shuffled = spec.permute(found.parameters, np.array([[2, 0, 1]]))
    again = filter_series(RegimeFit.at(spec, shuffled), excess_returns[None])
    assert again.log_likelihood[0] == pytest.approx(found.log_likelihood[0], abs=1e-8)
    refit = fit(spec, excess_returns[None], starts=shuffled)
    assert (np.diff(refit.parameters[0, 9:]) > 0).all()


def test_fedfunds_switching_mean():
    (rate,) = bundled("test_markov_regression", "fedfunds")
    found = fit(MarkovRegression(variance="common"), rate[None], standard_errors=True)
    np.testing.assert_allclose(
        found.parameters[0], [0.9820939, 0.0179061, 0.0503587, 0.9496413, 3.70877, 9.556793, 2.107562**2], atol=1e-6
    )
    assert found.log_likelihood[0] == pytest.approx(-508.63592, abs=1e-5)
    stata = [0.0104002, 0.0104002, 0.0268434, 0.0268434, 0.1767083, 0.2999889]
    np.testing.assert_allclose(found.standard_errors[0, :-1], stata, atol=2e-7)


def test_fedfunds_with_its_lag():
    (rate,) = bundled("test_markov_regression", "fedfunds")
    outside = fit(MarkovRegression(variance="common", exogenous=("lag",)), rate[None, 1:], rate[None, :-1, None])
    inside = fit(MarkovRegression(variance="common", lags=1, lag_coefficients="switching"), rate[None])
    for found in (outside, inside):
        assert found.log_likelihood[0] == pytest.approx(-264.71069, abs=1e-5)
    np.testing.assert_allclose(inside.parameters, outside.parameters, rtol=1e-4)


def test_fedfunds_with_exogenous_regressors():
    rate, gap, inflation = bundled("test_markov_regression", "fedfunds", "ogap", "inf")
    x = np.stack([rate[3:-1], gap[4:], inflation[4:]], 1)
    spec = MarkovRegression(variance="common", exogenous=("lag", "ogap", "inf"))
    found = fit(spec, rate[None, 4:], x)
    assert found.log_likelihood[0] == pytest.approx(-229.25614, abs=1e-5)
    assert np.sqrt(found.parameters[0, -1]) == pytest.approx(0.5764495, abs=1e-5)


def test_areturns_with_lag_and_switching_variance():
    (returns,) = bundled("test_markov_regression", "areturns")
    spec = MarkovRegression(exogenous=("lag",))
    found = fit(spec, returns[None, 1:], returns[None, :-1, None])
    assert found.log_likelihood[0] == pytest.approx(-745.7977, abs=1e-4)
    np.testing.assert_allclose(np.sqrt(found.parameters[0, -2:]), [0.5895792, 1.605333], rtol=1e-4)


def test_mumps_without_constant():
    (cases,) = bundled("test_markov_regression", "mumpspc")
    spec = MarkovRegression(mean="zero", exogenous=("lag",))
    found = fit(spec, cases[None, 1:], cases[None, :-1, None])
    want = [0.762733, 0.237267, 0.1473767, 0.8526233, 0.420275, 0.9847369, 0.0562405**2, 0.2611362**2]
    np.testing.assert_allclose(found.parameters[0], want, atol=2e-4)
    assert found.log_likelihood[0] == pytest.approx(131.7225, abs=1e-4)
