"""GARCH: the recursion and the estimates of arch, multi-day forecasts, the ratio, what happens without convergence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.garch import GARCH, Parameters, aggregate_forecast, estimate, filter_variance
from ssmfin.models.interface import Target


def simulated(n, parameters, seed=0):
    rng = np.random.default_rng(seed)
    returns, variance = np.empty(n), parameters.omega / (1 - parameters.persistence)
    for t in range(n):
        returns[t] = parameters.mean + np.sqrt(variance) * rng.standard_normal()
        variance = filter_variance(returns[t : t + 1], parameters, variance)[0]
    return returns


@pytest.mark.parametrize("truth", [Parameters(0.05, 0.05, 0.1, 0.0, 0.85), Parameters(0.0, 0.05, 0.03, 0.12, 0.87)])
def test_estimates_and_filter_agree_with_arch(truth):
    from arch import arch_model

    gjr = truth.gamma > 0
    returns = simulated(3000, truth)
    found, converged = estimate(returns, gjr=gjr)
    result = arch_model(returns, vol="GARCH", o=int(gjr), rescale=False).fit(disp="off")
    np.testing.assert_allclose([v for v in found if v], result.params.to_numpy(), rtol=1e-12)
    assert converged
    assert abs(found.persistence - truth.persistence) < 0.05
    filtered = filter_variance(returns, found, 1.0)
    np.testing.assert_allclose(filtered[500:-1], result.conditional_volatility[501:] ** 2, rtol=1e-6)
    ahead = result.forecast(horizon=22).variance.to_numpy()[-1]
    target = Target("rv", (1, 5, 22), aggregate="last")
    np.testing.assert_allclose(aggregate_forecast(filtered[-1:], found, target)[0], ahead[[0, 4, 21]], rtol=1e-6)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "last"])
def test_multi_day_forecasts_aggregate_like_the_target(aggregate):
    parameters = Parameters(0.0, 0.1, 0.05, 0.1, 0.8)
    ahead = [2.0]
    for _ in range(4):
        ahead.append(0.1 + 0.9 * ahead[-1])
    expected = {"mean": np.mean(ahead), "sum": np.sum(ahead), "last": ahead[-1]}[aggregate]
    found = aggregate_forecast(np.array([2.0]), parameters, Target("rv", (5, 1), aggregate=aggregate))
    np.testing.assert_allclose(found, [[expected, 2.0]], rtol=1e-12)


def garch_design(harness, *, ids=2, missing=()):
    design = harness.simulate(ids=ids, dates=420, skip=0.02, incomplete=0.0)
    returns = np.concatenate(
        [0.01 * simulated(n, Parameters(0, 0.05, 0.1, 0, 0.85), 7) for n in np.diff(design.starts)]
    )
    returns[list(missing)] = np.nan
    return replace(design, columns={"log_return": returns, "rv": design.observed})


def test_the_ratio_makes_training_forecasts_right_on_average(harness):
    design = garch_design(harness)
    window = harness.windows_of(design, size=300, step=20, first=350)[0]
    training = harness.training_of(design, window)
    fitted = GARCH().fit(training)
    for h in range(3):
        rows = np.flatnonzero(training.train[:, h] & (training.design.id_index == 1))
        forecast = fitted.predict(training.design, rows)[:, h]
        np.testing.assert_allclose(forecast.mean(), training.design.labels[rows, h].mean(), rtol=1e-12)
    assert fitted.notes == {"fits": 2, "not_converged": 0}


def test_new_rows_extend_the_filter_whatever_was_asked_before(harness):
    design = garch_design(harness, missing=(0, 200, 399))
    window = harness.windows_of(design, size=300, step=60, first=350)[0]
    together, fitted = harness.fit_and_predict(GARCH(), design, window)
    for i in (0, 17, len(together) - 1):
        row = window.test_rows[i : i + 1]
        seen, position = harness.cut_at(design, int(design.date_index[row[0]]), labels_until=-1)
        np.testing.assert_array_equal(fitted.predict(seen, position[row])[0], together[i])
    assert np.isfinite(together).all()


def test_too_few_or_constant_returns_are_reported_and_forecast_all_the_same(harness):
    design = garch_design(harness)
    design.columns["log_return"][design.rows_of(1)] = 0.0
    window = harness.windows_of(design, size=300, step=20, first=350)[0]
    forecast, fitted = harness.fit_and_predict(GARCH(), design, window)
    assert fitted.notes == {"fits": 2, "not_converged": 1, "not_converged_ids": "id1"}
    assert np.isfinite(forecast).all()
    assert (forecast > 0).all()


def test_an_optimiser_that_fails_is_reported(harness, monkeypatch):
    import arch.univariate.base as base

    original = base.ARCHModel.fit

    def failing(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        result._optim_output.status = 9
        return result

    monkeypatch.setattr(base.ARCHModel, "fit", failing)
    design = garch_design(harness)
    window = harness.windows_of(design, size=300, step=20, first=350)[0]
    fitted = GARCH().fit(harness.training_of(design, window))
    assert fitted.notes["not_converged"] == 2


def test_a_missing_return_column_is_answered_with_the_nearest_name(harness):
    design = garch_design(harness)
    window = harness.windows_of(design, size=300, step=20, first=350)[0]
    with pytest.raises(InputError, match="did you mean 'log_return'"):
        GARCH(returns="log_retrun").fit(harness.training_of(design, window))
