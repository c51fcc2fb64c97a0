"""Owns the tests of matching regimes between fits: found under any permutation, refused where they cannot be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.classical.regime.identity import match, ordering


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), K=st.integers(2, 4))
def test_any_permutation_of_regimes_that_moved_little_is_found(seed, K):
    rng = np.random.default_rng(seed)
    location = rng.normal(0, 1, (1, K, 1))
    variance = 6.0 ** np.arange(K)[None, :, None] * np.exp(0.1 * rng.normal(size=(1, K, 1)))
    order = rng.permutation(K)
    after = (
        location[:, order] + 0.05 * rng.normal(size=(1, K, 1)),
        variance[:, order] * np.exp(0.1 * rng.normal(size=(1, K, 1))),
    )
    found, words = match((location, variance), after)
    assert words == ("matched",)
    assert (order[found[0]] == np.arange(K)).all()


@pytest.mark.parametrize(
    "before, after, word",
    [
        (([0.0, 0.0], [1.0, 9.0]), ([0.0, 0.0], [1.1, 8.0]), "matched"),
        (([0.0, 0.0], [1.0, 9.0]), ([0.0, 0.0], [3.0, 3.1]), "two ways to pair the regimes are about as good"),
        (([0.0, 0.0], [1.0, 1.001]), ([0.0, 0.0], [1.0, 1.001]), "two ways to pair the regimes are about as good"),
        (([0.0, 0.0], [1.0, 9.0]), ([0.0, 0.0], [1.0, 90.0]), "regime 1 moved by"),
        (([0.0, 5.0], [1.0, 1.0]), ([0.0, 2.0], [1.0, 1.0]), "regime 1 moved by"),
        (([0.0, 0.0], [1.0, 9.0]), ([0.0, np.nan], [1.0, np.nan]), "no parameters"),
    ],
)
def test_what_cannot_be_told_apart_is_said(before, after, word):
    sides = [tuple(np.array(part)[None, :, None] for part in side) for side in (before, after)]
    order, words = match(*sides)
    assert word in words[0]
    if word != "matched":
        assert order.tolist() == [[0, 1]]


def test_ordering_is_by_the_key():
    assert ordering(np.array([[3.0, 1.0, 2.0]])).tolist() == [[1, 2, 0]]
