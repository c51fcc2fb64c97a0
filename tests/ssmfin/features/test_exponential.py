"""Exponential averages: the weights written out, gaps, the border between ids, causality to the bit."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

from ssmfin.features.exponential import ExponentialAverages


def frame(values, ids=1):
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(len(values) // ids)]
    names = np.repeat([f"id{k}" for k in range(ids)], len(values) // ids).tolist()
    return pl.DataFrame({"unique_id": names, "ds": days * ids, "rv": values})


def test_the_average_is_that_of_the_formula_and_starts_anew_with_each_id():
    values = np.exp(np.random.default_rng(0).standard_normal(60))
    found = ExponentialAverages("rv", centres_of_mass=[5], scale="log").fit_transform(frame(values, ids=2))["ewma_5"]
    for row in (0, 7, 29, 30, 59):
        past = values[30 * (row // 30) : row + 1]
        weights = (5 / 6) ** np.arange(len(past))[::-1]
        assert abs(found[row] - np.log((weights * past).sum() / weights.sum())) < 1e-12


def test_a_missing_value_is_skipped_and_ages_what_came_before():
    values = np.array([np.nan, 4.0, np.nan, 1.0])
    found = ExponentialAverages("rv", centres_of_mass=[1]).fit_transform(frame(values))["ewma_1"].to_numpy()
    expected = [np.nan, 4.0, 4.0, (0.25 * 4 + 1.0) / 1.25]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_later_values_do_not_change_one_bit():
    values = np.exp(np.random.default_rng(1).standard_normal(200))
    spoilt = values.copy()
    spoilt[120:] = 1e100
    before, after = (
        ExponentialAverages("rv").fit_transform(frame(v)).drop("unique_id", "ds") for v in (values, spoilt)
    )
    np.testing.assert_array_equal(before.to_numpy()[:120], after.to_numpy()[:120])


def test_squares_are_averaged_as_squares():
    values = np.random.default_rng(2).standard_normal(40)
    squared = ExponentialAverages("rv", centres_of_mass=[3], squared=True, scale="log").fit_transform(frame(values))
    plain = ExponentialAverages("rv", centres_of_mass=[3], scale="log").fit_transform(frame(values**2))
    np.testing.assert_array_equal(squared["ewma_squared_3"], plain["ewma_3"])
