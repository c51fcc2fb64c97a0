"""Random walk and exponentially weighted average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.ewma import EWMA, exponential_average
from ssmfin.models.baselines.random_walk import RandomWalk


@pytest.mark.parametrize("aggregate, times", [("mean", [1, 1, 1]), ("last", [1, 1, 1]), ("sum", [1, 5, 10])])
def test_the_random_walk_repeats_the_newest_value(harness, aggregate, times):
    design = harness.simulate(aggregate=aggregate)
    windows = harness.windows_of(design, step=30)
    for window, found in zip(windows, RandomWalk().walk(design, windows)[0], strict=True):
        np.testing.assert_array_equal(found, np.outer(design.observed[window.test_rows], times))


def test_ewma_follows_its_recursion_within_each_id(harness):
    design = harness.simulate()
    window = harness.windows_of(design)[40]
    (found,), _ = EWMA(decay=0.9).walk(design, [window])
    for i, row in enumerate(window.test_rows):
        history = design.observed[design.starts[design.id_index[row]] : row + 1]
        weights = 0.1 * 0.9 ** np.arange(len(history))[::-1]
        weights[0] /= 0.1
        np.testing.assert_allclose(found[i], weights @ history, rtol=1e-12)


def test_missing_values_leave_the_average_as_it_is():
    values = np.array([np.nan, 2.0, np.nan, 4.0, np.nan])
    np.testing.assert_array_equal(exponential_average(values, np.array([0, 5]), 0.5), [np.nan, 2.0, 2.0, 3.0, 3.0])


def test_empty_groups_are_allowed():
    np.testing.assert_array_equal(exponential_average(np.array([1.0, 3.0]), np.array([0, 0, 2, 2]), 0.5), [1.0, 2.0])
    assert len(exponential_average(np.empty(0), np.array([0, 0]), 0.5)) == 0


def test_decay_zero_is_the_random_walk(harness):
    design = harness.simulate(aggregate="sum")
    windows = harness.windows_of(design, step=50)
    for a, b in zip(EWMA(decay=0).walk(design, windows)[0], RandomWalk().walk(design, windows)[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("decay", [1.0, -0.1, "half"])
def test_decay_must_be_a_weight(decay):
    with pytest.raises(InputError, match=r"EWMA\.decay"):
        EWMA(decay=decay)


def test_random_walk_does_not_read_labels(harness):
    design = harness.simulate()
    blank = replace(design, labels=np.full_like(design.labels, np.nan))
    window = harness.windows_of(design)[0]
    assert np.isfinite(RandomWalk().walk(blank, [window])[0][0]).all()
