"""The loop of the realized kernel gives the bits of the array operations that define it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.realized import loops, noise


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.sampled_from([1, 2, 7, 8, 9, 16, 77, 128, 129, 136, 389, 1440]), st.integers(0, 10**6))
def test_weighted_autocovariances_have_the_bits_of_array_operations(days, n, seed):
    generator = np.random.default_rng(seed)
    returns = generator.standard_normal((days, n)) * 10.0 ** generator.integers(-9, 3, (days, n))
    returns[generator.random((days, n)) < 0.1] = 0.0
    lags = -np.sort(-generator.integers(0, min(n, 30), days))
    weights = generator.random((days, int(lags[0])))
    found = loops.weighted_autocovariances(returns, lags, weights)
    np.testing.assert_array_equal(found, noise.weighted_autocovariances(returns, lags, weights))


@pytest.mark.parametrize("days", [1, 7, 8, 200])
def test_the_kernel_of_a_session_does_not_depend_on_the_others(days):
    log_price = np.cumsum(1e-3 * np.random.default_rng(days).standard_normal((days, 391)), axis=1)
    together = noise.realized_kernel(log_price, 20)
    alone = [noise.realized_kernel(log_price[day : day + 1], 20)[0] for day in range(days)]
    np.testing.assert_array_equal(together, alone)
