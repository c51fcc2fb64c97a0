"""Weights on the simplex: closed forms, and every problem against a search over all supports."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.models.combination.simplex import simplex_weights


def objective(gram, moment, w):
    return 0.5 * w @ gram @ w - moment @ w


def by_all_supports(gram, moment):
    """The best of the solutions under the sum alone, over every set of weights that may differ from zero."""
    K, best = len(moment), None
    for size in range(1, K + 1):
        for support in map(list, itertools.combinations(range(K), size)):
            system = np.ones((size + 1, size + 1))
            system[:size, :size], system[size, size] = gram[np.ix_(support, support)], 0.0
            found = np.linalg.lstsq(system, np.append(moment[support], 1.0), rcond=None)[0][:size]
            if (found < -1e-12).any():
                continue
            w = np.zeros(K)
            w[support] = found
            if best is None or objective(gram, moment, w) < objective(gram, moment, best):
                best = w
    return best


@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.0, 3.0))
@settings(max_examples=150, deadline=None)
def test_no_support_does_better(K, seed, tilt):
    rng = np.random.default_rng(seed)
    regressors = rng.standard_normal((3 * K, K)) * rng.uniform(0.2, 2.0, K)
    regressors -= regressors.mean(axis=1, keepdims=True) * rng.integers(0, 2)  # as deviations from a mean are
    gram, moment = regressors.T @ regressors, tilt * rng.standard_normal(K) * K
    (w,) = simplex_weights(gram[None], moment[None])
    assert (w >= 0).all()
    np.testing.assert_allclose(w.sum(), 1.0, rtol=1e-14)
    np.testing.assert_allclose(w, by_all_supports(gram, moment), atol=1e-6)


def test_two_members_of_known_error_covariance_get_the_weights_of_bates_and_granger():
    s1, s2, rho = 1.0, 1.5, 0.3
    covariance = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]])
    expected = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
    (w,) = simplex_weights(covariance[None], np.zeros((1, 2)))
    np.testing.assert_allclose(w, [expected, 1 - expected], atol=1e-7)


def test_members_that_are_the_same_share_evenly():
    np.testing.assert_allclose(simplex_weights(np.zeros((1, 3, 3)), np.zeros((1, 3))), np.full((1, 3), 1 / 3))
    twins = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(simplex_weights(twins[None], np.zeros((1, 3)))[0], [0.25, 0.25, 0.5], atol=1e-6)


def test_a_problem_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 12, 4))
    gram, moment = np.einsum("mti,mtj->mij", x, x), rng.standard_normal((50, 4)) * 5
    together = simplex_weights(gram, moment)
    alone = np.concatenate([simplex_weights(gram[i : i + 1], moment[i : i + 1]) for i in range(50)])
    np.testing.assert_array_equal(together, alone)
    assert (together == 0).any()  # some weights are at the border
