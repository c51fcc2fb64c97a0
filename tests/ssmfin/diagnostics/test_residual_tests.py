"""Tests of innovations: equal to statsmodels', right in size on noise, and fair to missing values."""

import numpy as np
import pytest
import statsmodels.api as sm

from ssmfin.diagnostics import (
    autocorrelation,
    cusum,
    cusum_of_squares,
    diagnose,
    heteroskedasticity,
    jarque_bera,
    ljung_box,
)
from ssmfin.errors import InputError

TIGHT = {"rtol": 1e-8, "atol": 1e-12}


@pytest.fixture(scope="module")
def nile():
    """The Nile's local level in statsmodels and its standardised innovations, the diffuse start blanked."""
    from statsmodels.datasets import nile

    y = nile.load_pandas().data["volume"].to_numpy()
    model = sm.tsa.UnobservedComponents(y, "llevel", use_exact_diffuse=True)
    results = model.smooth([15099.0, 1469.1])
    z = results.filter_results.standardized_forecasts_error[0].copy()
    z[0] = np.nan
    return results, z


def test_ljung_box_equals_statsmodels(nile):
    results, z = nile
    expected = results.test_serial_correlation("ljungbox", lags=15)[0]
    found = ljung_box(z, 15)
    np.testing.assert_allclose(found.statistic, expected[0], **TIGHT)
    np.testing.assert_allclose(found.p_value, expected[1], **TIGHT)


def test_ljung_box_takes_estimated_parameters_off(nile):
    from statsmodels.stats.diagnostic import acorr_ljungbox

    _, z = nile
    expected = acorr_ljungbox(z[1:], lags=[2, 3, 12], model_df=2)["lb_pvalue"].to_numpy()
    np.testing.assert_allclose(ljung_box(z, 12, parameters=2).p_value[[1, 2, 11]], expected, **TIGHT)


def test_autocorrelation_equals_statsmodels(nile):
    from statsmodels.tsa.stattools import acf

    _, z = nile
    np.testing.assert_allclose(autocorrelation(z, 20), acf(z[1:], nlags=20)[1:], **TIGHT)


@pytest.mark.parametrize("alternative", ["two-sided", "increasing", "decreasing"])
def test_heteroskedasticity_equals_statsmodels(nile, alternative):
    results, z = nile
    expected = results.test_heteroskedasticity("breakvar", alternative=alternative)[0]
    found = heteroskedasticity(z, alternative=alternative)
    turned = found.statistic if alternative != "decreasing" else 1 / found.statistic  # theirs is early over late then
    np.testing.assert_allclose([turned, found.p_value], expected, **TIGHT)


def test_normality_equals_statsmodels(nile):
    results, z = nile
    expected = results.test_normality("jarquebera")[0]
    np.testing.assert_allclose(np.array(jarque_bera(z)), expected, **TIGHT)


def test_durbin_and_koopman_s_figures_for_the_nile(nile):
    """Section 2.12.2: skewness -.03, kurtosis 3.09, normality .05, H(33) .61, Q(9) 8.84."""
    _, z = nile
    shape = jarque_bera(z)
    figures = [shape.skewness, shape.kurtosis, shape.statistic, heteroskedasticity(z).statistic]
    figures.append(ljung_box(z, 9).statistic[-1])
    np.testing.assert_allclose(figures, [-0.03, 3.09, 0.05, 0.61, 8.84], atol=0.006)


def test_cusums_and_their_bounds_equal_statsmodels():
    generator = np.random.default_rng(4)
    x = sm.add_constant(generator.standard_normal((80, 2)))
    fitted = sm.RecursiveLS(x @ [1.0, 0.5, -0.3] + generator.standard_normal(80), x).fit()
    z = fitted.resid_recursive.copy()
    z[:3] = np.nan
    np.testing.assert_allclose(cusum(z).path[3:], fitted.cusum, **TIGHT)
    np.testing.assert_allclose(cusum_of_squares(z).path[3:], fitted.cusum_squares, **TIGHT)
    points = np.arange(4, 81)
    for level in (0.01, 0.05):
        lower, upper = fitted._cusum_significance_bounds(level, points=points)
        np.testing.assert_allclose(cusum(z, level=level).lower[3:], lower, **TIGHT)
        np.testing.assert_allclose(cusum(z, level=level).upper[3:], upper, **TIGHT)
    for level in (0.01, 0.05, 0.1, 0.2):
        lower, upper = fitted._cusum_squares_significance_bounds(level, points=points)
        np.testing.assert_allclose(cusum_of_squares(z, level=level).lower[3:], lower, **TIGHT)
        np.testing.assert_allclose(cusum_of_squares(z, level=level).upper[3:], upper, **TIGHT)


def test_sizes_are_right_on_independent_normals():
    """Each test at 5 % rejects near 5 % of 4000 series that are as the model says (CUSUM's bounds are conservative)."""
    z = np.random.default_rng(1).standard_normal((4000, 150))
    rates = {
        "ljung_box": (ljung_box(z, 10).p_value[:, -1] < 0.05).mean(),
        "heteroskedasticity": (heteroskedasticity(z).p_value < 0.05).mean(),
        "jarque_bera": (jarque_bera(z).p_value < 0.05).mean(),
        "cusum_of_squares": cusum_of_squares(z).crossed.mean(),
    }
    for name, rate in rates.items():
        assert 0.03 < rate < 0.075, (name, rate)
    assert 0.01 < cusum(z).crossed.mean() < 0.06


def test_each_test_finds_what_it_is_for():
    generator = np.random.default_rng(2)
    noise = generator.standard_normal(400)
    persistent = noise.copy()
    for t in range(1, 400):
        persistent[t] += 0.4 * persistent[t - 1]
    assert ljung_box(persistent).p_value[-1] < 1e-6
    growing = noise * np.linspace(0.5, 2.0, 400)
    assert heteroskedasticity(growing, alternative="increasing").p_value < 1e-6
    assert heteroskedasticity(growing, alternative="decreasing").p_value > 0.99
    assert cusum_of_squares(growing).crossed
    assert jarque_bera(generator.standard_t(3, 400)).p_value < 1e-6
    shifted = noise + np.where(np.arange(400) > 200, 0.8, 0.0)
    assert cusum(shifted).crossed
    assert not cusum(noise).crossed


def test_series_are_tested_each_by_itself():
    z = np.random.default_rng(3).standard_normal((3, 2, 90))
    z[1, 0, :7] = np.nan
    z[2, 1, 40:60] = np.nan
    for test in (lambda x: ljung_box(x, 8), heteroskedasticity, jarque_bera, cusum, cusum_of_squares):
        together = test(z)
        for b in range(3):
            for p in range(2):
                for whole, one in zip(together, test(z[b, p]), strict=True):
                    np.testing.assert_allclose(whole[b, p], one, rtol=1e-12)


def test_a_lag_stays_a_lag_where_values_are_missing():
    """Every second value missing: no pair at lag 1, all of them at lag 2."""
    z = np.full(200, np.nan)
    z[::2] = np.resize([1.0, -1.0], 100)
    found = autocorrelation(z, 2)
    np.testing.assert_allclose(found, [0.0, -0.99], atol=1e-12)
    assert np.isnan(ljung_box(z, 1).p_value[0])


def test_the_size_is_right_with_missing_values():
    generator = np.random.default_rng(6)
    z = generator.standard_normal((3000, 200))
    z[generator.random(z.shape) < 0.3] = np.nan
    assert 0.03 < (ljung_box(z, 10).p_value[:, -1] < 0.05).mean() < 0.075
    assert 0.03 < (heteroskedasticity(z).p_value < 0.05).mean() < 0.075
    assert 0.03 < cusum_of_squares(z).crossed.mean() < 0.075


def test_empty_and_constant_series_give_nan_and_no_warning():
    z = np.array([np.full(20, np.nan), np.zeros(20), np.r_[1.0, np.full(19, np.nan)]])
    assert np.isnan(ljung_box(z, 5).p_value).all()
    assert np.isnan(heteroskedasticity(z).p_value).all()
    assert np.isnan(jarque_bera(z).p_value).all()
    assert not cusum(z).crossed.any()
    assert not cusum_of_squares(z).crossed.any()


def test_the_diagnosis_says_in_words_what_is_wrong():
    generator = np.random.default_rng(0)
    good, bad = generator.standard_normal(300), generator.standard_t(3, 300) * np.linspace(0.5, 2, 300)
    short = np.r_[generator.standard_normal(5), np.full(295, np.nan)]
    found = diagnose(np.array([good, bad, short]), ids=["good", "bad", "short"])
    assert found.findings(0) == []
    words = "; ".join(found.findings(1))
    assert "variance grew" in words
    assert "not normal" in words
    assert found.findings(2) == ["only 5 innovations: too few to test"]
    lines = str(found).splitlines()
    assert lines[0] == "good (300 innovations): no test finds anything wrong"
    assert [line.split(" ")[0] for line in lines] == ["good", "bad", "short"]


def test_a_fit_that_did_not_converge_is_the_first_finding():
    from ssmfin.classical.kalman import filter_series, fit, specification

    y = np.cumsum(np.random.default_rng(0).standard_normal((2, 80)), axis=1)
    y[1, 1:] = np.nan
    fitted = fit(specification("local_level"), y)
    found = diagnose(filter_series(fitted, y), ids=["good", "empty"])
    assert found.status == ("converged", "failed")
    assert found.findings(1)[0].startswith("the fit is failed: ")
    assert found.table["status"].to_list() == ["converged", "failed"]
    assert not any("the fit" in words for words in found.findings(0))


def test_the_table_has_a_row_for_each_series_and_component():
    z = np.random.default_rng(0).standard_normal((2, 50, 3))
    found = diagnose(z, ids=["a", "b"])
    table = found.table
    assert table.shape[0] == 6
    assert table["unique_id"].to_list() == ["a"] * 3 + ["b"] * 3
    assert table["component"].to_list() == [0, 1, 2] * 2
    np.testing.assert_array_equal(table["ljung_box_p"].to_numpy().reshape(2, 3), found.ljung_box_p)
    np.testing.assert_allclose(table.row(4, named=True)["jarque_bera"], jarque_bera(z[1, :, 1]).statistic, rtol=1e-12)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ljung_box(np.zeros(10), 10), "lags is 10 for 10 steps"),
        (lambda: heteroskedasticity(np.zeros(10), alternative="up"), "alternative is 'up'"),
        (lambda: cusum(np.zeros(10), level=0.2), "level is 0.2"),
        (lambda: cusum_of_squares(np.zeros(10), level=0.3), "level is 0.3"),
        (lambda: diagnose(np.zeros((2, 30)), ids=["a"]), "ids has 1 entries for 2 series"),
        (lambda: diagnose(np.zeros(3)), "source has 3 steps"),
        (lambda: diagnose(np.full(30, np.inf)), "infinite"),
        (lambda: diagnose("nile"), "source is str"),
        (lambda: diagnose(np.zeros((2, 2, 2, 2))), "source has shape (2, 2, 2, 2)"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
