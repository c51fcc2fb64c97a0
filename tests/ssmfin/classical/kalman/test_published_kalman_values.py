"""Published values, to their digits: the Nile, exchange rates, Clark (1987), Kim and Nelson's varying parameters."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssmfin.classical.kalman import Carry, Custom, KalmanFit, Parameter, filter_series, fit, smooth, specification
from ssmfin_kernels import StateSpace

SHARED = Path(__file__).resolve().parents[4].parent / "shared/data"
LEVEL = specification("local_level")


@pytest.fixture(scope="module")
def nile():
    from statsmodels.datasets import nile as source

    return source.load_pandas().data.volume.to_numpy(dtype=float)


@pytest.fixture(scope="module")
def nile_with_holes(nile):
    holes = nile.copy()
    holes[20:40] = np.nan
    holes[60:80] = np.nan
    return holes


def test_nile_maximum_likelihood(nile):
    found = fit(LEVEL, nile[None], tolerance=1e-9)
    assert found.status[0] == "converged"
    np.testing.assert_allclose(found.parameters[0], [15098.52, 1469.17], atol=0.01)
    assert found.log_likelihood[0] == pytest.approx(-633.46456, abs=5e-6)


def test_nile_at_fixed_parameters(nile):
    known = KalmanFit.at(LEVEL, [15099.0, 1469.1])
    filtered, smoothed = filter_series(known, nile[None]), smooth(known, nile[None])
    assert filtered.predicted_state[0, 2, 0] == pytest.approx(1140.92784, abs=5e-6)
    assert filtered.filtered_covariance[0, 1, 0, 0] == pytest.approx(7899.73638, abs=5e-6)
    assert filtered.filtered_covariance[0, -1, 0, 0] == pytest.approx(4032.15794, abs=5e-6)
    assert filtered.gain[0, -1, 0, 0] == pytest.approx(0.26704801, abs=5e-9)
    assert smoothed.mean[0, 0, 0] == pytest.approx(1111.66831, abs=1e-5)
    assert smoothed.mean[0, -1, 0] == pytest.approx(798.37029, abs=1e-5)


def test_nile_with_missing_rows(nile_with_holes):
    known = KalmanFit.at(LEVEL, [15099.0, 1469.1])
    assert filter_series(known, nile_with_holes[None]).log_likelihood[0] == pytest.approx(-381.50600, abs=1e-5)


def test_stochastic_volatility_of_four_exchange_rates():
    path = SHARED / "reference/hrs_exchange_rates.parquet"
    if not path.exists():
        pytest.skip(f"the reference data are not here: {path}")
    import polars as pl

    rates = pl.read_parquet(path).to_numpy().T
    returns = np.diff(np.log(rates), axis=1)
    found = fit(specification("stochastic_volatility"), returns - returns.mean(1, keepdims=True), tolerance=1e-8)
    assert (found.status == "converged").all()
    want = [
        (0.9912, 0.0070, -1212.82),
        (0.9649, 0.0313, -1232.26),
        (0.9947, 0.0049, -1272.64),
        (0.9581, 0.0459, -1288.51),
    ]
    log_likelihood = found.log_likelihood + found.observations * 0.5 * np.log(2 * np.pi)
    for row, value, (phi, variance, published) in zip(found.parameters, log_likelihood, want, strict=True):
        assert row[1] == pytest.approx(phi, abs=5.1e-5)
        assert row[2] == pytest.approx(variance, abs=5.1e-5)
        assert value == pytest.approx(published, abs=5.1e-3)


def clark(natural, length, x):
    """Log output as a random walk with a drifting slope plus an AR(2) cycle: y = trend + cycle."""
    sd_trend, sd_cycle, sd_drift, phi_1, phi_2 = natural[0]
    F = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=natural.dtype)
    F[1, 1], F[1, 2] = phi_1, phi_2
    Q = torch.diag(torch.stack([sd_trend**2, sd_cycle**2, torch.zeros_like(phi_1), sd_drift**2]))
    # the start of Kim and Nelson: variances of 100 before the first transition, which adds no noise
    start = F @ (100 * torch.eye(4, dtype=F.dtype)) @ F.T
    H = torch.tensor([[1.0, 1, 0, 0]], dtype=F.dtype)
    return StateSpace(F, H, Q, torch.zeros(1, 1, dtype=F.dtype), start)


def test_clark_1987_unobserved_components():
    from statsmodels.tsa.statespace.tests.results.results_kalman_filter import uc_uni

    names = ("sd_trend", "sd_cycle", "sd_drift", "phi_1", "phi_2")
    model = Custom(
        given=tuple(Parameter(name) for name in names),
        elements=("trend", "cycle", "cycle_lag", "drift"),
        build=clark,
        begin=(tuple(uc_uni["parameters"]),),
    )
    y = np.log(np.array(uc_uni["data"]))[None]
    filtered = filter_series(KalmanFit.at(model, uc_uni["parameters"]), y)
    start = uc_uni["start"]
    assert filtered.log_score[0, start:].sum() == pytest.approx(578.520887, abs=5e-6)
    states = np.array(uc_uni["states"])
    np.testing.assert_allclose(filtered.filtered_state[0, start:][:, [0, 1, 3]], states[:, :3], atol=5e-5)


def test_kim_nelson_time_varying_parameters():
    from statsmodels.tsa.statespace.tests.results.results_kalman_filter import tvp

    data, deviations = np.array(tvp["data"]), np.array(tvp["parameters"])
    known = KalmanFit.at(specification("dynamic_regression", n_regressors=4), deviations**2)
    first = np.diag(50 + deviations[1:] ** 2)  # their start: 50 before the first transition
    start = Carry(np.zeros((1, 5)), first[None], np.zeros((1, 5, 5)))
    filtered = filter_series(known, data[None, :, 1], data[:, 2:], carry=start)
    # the parameters are published to four decimals
    assert filtered.log_score[0, tvp["start"] :].sum() == pytest.approx(-97.092423, abs=5e-6)
    # their table is of what was known before the date
    np.testing.assert_allclose(filtered.predicted_state[0, tvp["start"] :], tvp["states"], atol=3e-3)
