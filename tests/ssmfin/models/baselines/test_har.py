"""HAR and log-HAR: the published coefficients, the insanity filter, targets without a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.in_sample import har_regression
from ssmfin.models.baselines.har.members import HAR, LogHAR

SPY = Path(__file__).resolve().parents[4].parent / "shared/data/spy_measures_2014_2019.parquet"


@pytest.mark.skipif(not SPY.exists(), reason=f"{SPY.name} is not beside the project")
def test_in_sample_har_has_the_published_coefficients():
    found = har_regression(pl.read_parquet(SPY)["RV5"].to_numpy())
    np.testing.assert_allclose(
        found.coefficients, [1.160000921e-5, 0.2953165771, 0.2813334173, 0.1471632893], rtol=1e-9
    )


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("log", [False, True])
def test_in_sample_har_equals_a_regression_written_out(horizon, log):
    rng = np.random.default_rng(1)
    rv = np.exp(rng.standard_normal(200)) * 1e-4
    rows, answers = [], []
    for t in range(21, 200 - horizon):
        rows.append([rv[t], rv[t - 4 : t + 1].mean(), rv[t - 21 : t + 1].mean()])
        answers.append(rv[t + 1 : t + horizon + 1].mean())
    x, y = np.array(rows), np.array(answers)
    if log:
        x, y = np.log(x), np.log(y)
    oracle = np.linalg.lstsq(np.column_stack([np.ones(len(y)), x]), y, rcond=None)[0]
    found = har_regression(rv, horizon=horizon, log=log)
    np.testing.assert_allclose(found.coefficients, oracle, rtol=1e-8)
    assert found.n == len(y)


@pytest.mark.parametrize("values", [np.ones(20), np.ones((100, 2)), np.r_[np.ones(99), np.nan]])
def test_in_sample_har_refuses_what_it_cannot_use(values):
    with pytest.raises(InputError, match="realized_variance"):
        har_regression(values)
    with pytest.raises(InputError, match="cannot be used, 0"):
        har_regression(np.r_[np.ones(99), 0.0], log=True)


def written_out(design, window, h, *, log):
    """Coefficients, residual variance and labels of one window for id 0, from masks and lstsq."""
    learnt = design.complete & (design.id_index == 0) & (design.date_index >= window.train_start)
    learnt &= design.label_known[:, h] <= window.labels_until
    x, y = design.lag_means[learnt], design.labels[learnt, h]
    labels = y
    if log:
        x, y = np.log(x), np.log(y)
    a = np.column_stack([np.ones(len(y)), x])
    solution, rss, _, _ = np.linalg.lstsq(a, y, rcond=None)
    return solution, rss[0] / (len(y) - 4), labels


@pytest.mark.parametrize("aggregate", ["mean", "sum", "last"])
@pytest.mark.parametrize("bias_correction", ["lognormal", "none"])
@pytest.mark.parametrize("transform", ["log", "none"])
def test_forecasts_are_those_of_the_formula(harness, aggregate, bias_correction, transform):
    design = harness.simulate(aggregate=aggregate, bias_correction=bias_correction, transform=transform)
    windows = harness.windows_of(design, step=25)
    plain, logs = (model.walk(design, windows)[0] for model in (HAR(insanity_filter=False), LogHAR()))
    for window, har, log_har in zip(windows, plain, logs, strict=True):
        mine = np.flatnonzero(design.id_index[window.test_rows] == 0)
        x = design.lag_means[window.test_rows[mine]]
        for h in range(3):
            solution, _, _ = written_out(design, window, h, log=False)
            np.testing.assert_allclose(har[mine, h], solution[0] + x @ solution[1:], rtol=1e-8)
            solution, variance, _ = written_out(design, window, h, log=True)
            correction = 0.5 * variance if bias_correction == "lognormal" else 0.0
            expected = np.exp(solution[0] + np.log(x) @ solution[1:] + correction)
            np.testing.assert_allclose(log_har[mine, h], expected, rtol=1e-8)


def test_the_insanity_filter_uses_the_training_window_alone_and_counts(harness):
    design = harness.simulate(ids=1)
    window = harness.windows_of(design, step=1)[20]
    row = window.test_rows[0]
    _, _, labels = written_out(design, window, 0, log=False)
    lag_means, observed_labels = design.lag_means.copy(), design.labels.copy()
    lag_means[row] = 100 * lag_means[row]  # an origin so extreme that its forecast leaves the range
    observed_labels[row] = 200 * labels.max()  # the day being forecast must not widen it
    wild = replace(design, lag_means=lag_means, labels=observed_labels)
    (raw,), _ = HAR(insanity_filter=False).walk(wild, [window])
    (filtered,), notes = HAR().walk(wild, [window])
    assert raw[0, 0] > labels.max()
    np.testing.assert_allclose(filtered[0, 0], labels.mean(), rtol=1e-12)
    assert notes == {"insanity_filter": int((raw != filtered).sum()), "forecasts": 3}
    calm, fitted = harness.fit_and_predict(HAR(), design, window)
    np.testing.assert_allclose(calm, HAR().walk(design, [window])[0][0], rtol=1e-10)
    assert fitted.notes["forecasts"] == 3


def test_forecasts_inside_the_range_pass_the_filter_unchanged(harness):
    design = harness.simulate()
    windows = harness.windows_of(design, step=9)
    raw, without = HAR(insanity_filter=False).walk(design, windows)
    filtered, notes = HAR().walk(design, windows)
    assert without == {}
    same = [a == b for a, b in zip(raw, filtered, strict=True)]
    assert notes["forecasts"] == sum(s.size for s in same)
    assert notes["insanity_filter"] == sum(int((~s).sum()) for s in same) < notes["forecasts"] / 2
    assert min(f.min() for f in filtered) > 0


@pytest.mark.parametrize("where", ["label", "lag"])
def test_log_har_says_why_it_refuses_a_target_that_is_not_positive(harness, where):
    design = harness.simulate(transform="none")
    windows = harness.windows_of(design, step=30)
    row = int(np.flatnonzero((design.date_index > 60) & design.complete)[0])
    labels, lags = design.labels.copy(), design.lag_means.copy()
    (labels if where == "label" else lags)[row] = -0.25
    broken = replace(design, labels=labels, lag_means=lags)
    with pytest.raises(InputError, match=r"log_har takes logs and the target 'rv' is not positive, -0\.25 for 'id0'"):
        LogHAR().walk(broken, windows)
    with pytest.raises(InputError, match="use a positive target"):
        LogHAR().fit(harness.training_of(broken, windows[0]), seed=0)
    HAR().walk(broken, windows)


def test_an_id_without_training_rows_is_named(harness):
    design = harness.simulate()
    window = harness.windows_of(design)[0]
    empty = replace(window, labels_until=window.train_start - 1)
    with pytest.raises(InputError, match="'id0' has no training row"):
        HAR().walk(design, [empty])
    with pytest.raises(InputError, match="'id0' has no training row"):
        harness.fit_and_predict(HAR(), design, empty)


def test_fitted_coefficients_can_be_read(harness):
    design = harness.simulate()
    window = harness.windows_of(design)[0]
    fitted = HAR().fit(harness.training_of(design, window))
    np.testing.assert_allclose(fitted.coefficients("id0", 1), written_out(design, window, 1, log=False)[0], rtol=1e-8)


def test_unknown_parameters_are_refused():
    with pytest.raises(InputError, match="did you mean 'insanity_filter'"):
        HAR(insanity_filtr=False)
