"""The naive distribution: quantiles of matured errors by a plain loop, calibrated, and blind to what is not known."""

from __future__ import annotations

import numpy as np
import pytest

from ssmfin.evaluation import past_errors as module
from ssmfin.evaluation.past_errors import MIN_ERRORS, past_errors

LEVELS = (0.05, 0.5, 0.95)


def sample(n=900, horizon=5, seed=0):
    """Two series one after the other, with delays that differ from row to row."""
    rng = np.random.default_rng(seed)
    series = np.repeat([0, 1], n)
    origin = np.tile(np.arange(n), 2)
    known = np.maximum.accumulate(origin.reshape(2, n) + horizon + rng.integers(0, 3, (2, n)), axis=1).ravel()
    forecast = np.exp(rng.standard_normal(2 * n))
    y = forecast * np.exp(0.5 * rng.standard_normal(2 * n))
    return y, forecast, {"series": series, "origin": origin, "known": known}


@pytest.mark.parametrize("log", [True, False])
def test_quantiles_and_probabilities_equal_a_plain_loop_over_matured_errors(log, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 300)
    y, forecast, where = sample()
    threshold = np.full(len(y), 1.3)
    found = past_errors(y, forecast, **where, log=log, levels=LEVELS, thresholds=[threshold])
    for row in (0, 60, 104, 107, 250, 899, 900, 1020, 1500, 1799):
        matured = np.flatnonzero((where["series"] == where["series"][row]) & (where["known"] <= where["origin"][row]))
        error = (y / forecast if log else y - forecast)[matured[-300:]]
        if len(error) < MIN_ERRORS:
            assert np.isnan(found.quantiles[row]).all()
            assert np.isnan(found.probabilities[0][row])
            continue
        q = np.quantile(error, LEVELS)
        expected = forecast[row] * q if log else forecast[row] + q
        np.testing.assert_allclose(found.quantiles[row], expected, rtol=1e-12, atol=1e-15)
        above = ((forecast[row] * error if log else forecast[row] + error) > 1.3).sum()
        assert found.probabilities[0][row] == pytest.approx((above + 0.5) / (len(error) + 1), rel=1e-12)
    assert np.isfinite(found.quantiles[1799]).all()


def test_outcomes_not_yet_known_change_nothing():
    y, forecast, where = sample()
    day = 500
    later = where["known"] > day
    one = past_errors(y, forecast, **where, log=True, levels=LEVELS)
    other = past_errors(np.where(later, 1e6 * y, y), forecast, **where, log=True, levels=LEVELS)
    upto = where["origin"] <= day
    np.testing.assert_array_equal(one.quantiles[upto], other.quantiles[upto])
    assert not np.array_equal(one.quantiles[~upto], other.quantiles[~upto])


def test_it_covers_what_it_says():
    y, forecast, where = sample(n=4000, horizon=1)
    q = past_errors(y, forecast, **where, log=True, levels=LEVELS).quantiles
    told = np.isfinite(q).all(axis=1)
    assert told.sum() == 2 * 4000 - np.isnan(q).any(axis=1).sum()
    share = (y[told, None] <= q[told]).mean(axis=0)
    np.testing.assert_allclose(share, LEVELS, atol=0.01)
