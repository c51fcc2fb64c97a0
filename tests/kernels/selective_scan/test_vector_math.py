"""Owns the errors that the polynomials of the numba loops may have, and their behaviour at the ends of their range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="tests functions for numba loops")

import numba

from ssmfin_kernels.selective_scan import vector_math


@pytest.fixture(scope="module")
def apply() -> Any:
    @numba.njit
    def all_three(x: Any) -> Any:
        out = np.empty((3, x.size), x.dtype)
        for i in range(x.size):
            out[0, i] = vector_math.exp2(x[i])
            out[1, i] = vector_math.softplus(x[i])
            out[2, i] = vector_math.sigmoid(x[i])
        return out

    return all_three


def test_relative_errors_over_the_whole_range(apply: Any) -> None:
    x = np.linspace(-80, 80, 400_001).astype(np.float32)
    wide = x.astype(np.float64)
    exact = 2.0**wide, np.logaddexp(0, wide), 1 / (1 + np.exp(-wide))
    errors = [np.abs(found / true - 1).max() for found, true in zip(apply(x), exact, strict=True)]
    assert errors[0] < 1e-7
    # softplus and sigmoid scale x by log2(e) first: the rounding of that grows with x
    near = np.abs(wide) < 20
    assert np.abs(apply(x)[1][near] / exact[1][near] - 1).max() < 1.2e-6
    assert max(errors) < 5e-6


def test_ends_of_the_range(apply: Any) -> None:
    x = np.array([-np.inf, -1e30, -127, -126, 0, 127, 128, 1e30, np.inf, np.nan], np.float32)
    powers, softplus, sigmoid = apply(x)
    np.testing.assert_array_equal(powers[:3], 0)
    np.testing.assert_array_equal(powers[3:6], np.float32(2.0) ** x[3:6])
    assert np.isinf(powers[6:9]).all()
    assert np.isnan(powers[9])
    np.testing.assert_array_equal(softplus[[0, 1, 7, 8]], np.float32([0, 0, 1e30, np.inf]))
    np.testing.assert_array_equal(sigmoid[[0, 1, 7, 8]], [0, 0, 1, 1])
    assert np.isnan(softplus[9])
    assert np.isnan(sigmoid[9])
