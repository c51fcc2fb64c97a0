"""Owns the tests of Gaussian regimes: statistics, filter and smoother against sums over all paths, padding."""

import itertools

import numpy as np
import pytest

from ssmfin_kernels.hidden_markov_scan import gaussian


def case(seed, *, B=2, T=5, K=2, order=0, D=3, R=2, Q=1, missing=0.2):
    rng = np.random.default_rng(seed)
    M = K ** (order + 1)
    z = rng.standard_normal((B, T, D))
    pattern = np.where(rng.random((B, T)) < missing, -1, rng.integers(0, Q, (B, T)))
    z[pattern < 0] = 0.0
    transition = rng.dirichlet(np.ones(K), (B, K))
    initial = rng.dirichlet(np.ones(K), B)
    return z, pattern, rng.standard_normal((B, Q, M)), rng.standard_normal((B, Q, M, R, D)), transition, initial


def all_paths(b, z, pattern, constant, rows, transition, initial, order):
    """Log-probability with the data of every path of regimes from `order` rows before the first observed one."""
    seen = np.flatnonzero(pattern[b] >= 0)
    K = initial.shape[1]
    steps = range(seen[0], z.shape[1])
    scores = {}
    for path in itertools.product(range(K), repeat=order + len(steps)):
        score = np.log(initial[b, path[0]]) + sum(np.log(transition[b, i, j]) for i, j in itertools.pairwise(path))
        for place, t in enumerate(steps):
            q = pattern[b, t]
            if q >= 0:
                m = 0
                for lag in range(order + 1):
                    m = m * K + path[place + order - lag]
                score += constant[b, q, m] - 0.5 * np.sum((rows[b, q, m] @ z[b, t]) ** 2)
        scores[path] = score
    return seen[0], scores


CASES = [(2, 0, 1), (3, 0, 2), (2, 1, 1), (2, 2, 2), (3, 1, 1)]


@pytest.mark.parametrize("K, order, Q", CASES)
@pytest.mark.parametrize("R", [1, 2])
def test_expected_statistics_equal_sums_over_all_paths(K, order, Q, R):
    given = case(K + order, K=K, order=order, Q=Q, R=R)
    z, pattern, constant, *_ = given
    got = gaussian.expectation(*given[:2], np.arange(2), *given[2:], order=order)
    for b in range(2):
        first, scores = all_paths(b, *given, order)
        last = np.flatnonzero(pattern[b] >= 0)[-1]
        total = np.logaddexp.reduce(list(scores.values()))
        assert got.log_likelihood[b] == pytest.approx(total, abs=1e-11)
        counts, start = np.zeros((K, K)), np.zeros(K)
        weight, moments = np.zeros(constant.shape[1:]), np.zeros((*constant.shape[1:], z.shape[2], z.shape[2]))
        for path, score in scores.items():
            p = np.exp(score - total)
            start[path[0]] += p
            for i, j in itertools.pairwise(path[: order + last - first + 1]):
                counts[i, j] += p
            for place, t in enumerate(range(first, z.shape[1])):
                q = pattern[b, t]
                if q >= 0:
                    m = 0
                    for lag in range(order + 1):
                        m = m * K + path[place + order - lag]
                    weight[q, m] += p
                    moments[q, m] += p * np.outer(z[b, t], z[b, t])
        for name, want in {"counts": counts, "start": start, "weight": weight, "moments": moments}.items():
            np.testing.assert_allclose(getattr(got, name)[b], want, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("K, order, Q", CASES)
def test_smoothed_and_filtered_probabilities_equal_sums_over_all_paths(K, order, Q):
    given = case(7 + K, K=K, order=order, Q=Q)
    z = given[0]
    smoothed = gaussian.smooth(*given, order=order)
    filtered = gaussian.run(*given, order=order)
    for b in range(2):
        first, scores = all_paths(b, *given, order)
        total = np.logaddexp.reduce(list(scores.values()))
        for place, t in enumerate(range(first, z.shape[1])):
            for k in range(K):
                want = np.logaddexp.reduce([s for path, s in scores.items() if path[place + order] == k])
                assert smoothed[b, t, k] == pytest.approx(np.exp(want - total), abs=1e-12)
        np.testing.assert_allclose(filtered.filtered[b, -1], smoothed[b, -1], atol=1e-12)
        assert np.nansum(filtered.steps[b]) == pytest.approx(total, abs=1e-11)


def test_far_outliers_neither_overflow_nor_underflow():
    z, pattern, constant, rows, transition, initial = case(0, B=1, T=40, missing=0.0, R=1)
    z[0, 10], z[0, 20] = 1e6, -1e8
    got = gaussian.expectation(z, pattern, np.arange(1), constant, rows, transition, initial)
    run = gaussian.run(z, pattern, constant, rows, transition, initial)
    assert np.isfinite(got.log_likelihood).all()
    assert got.log_likelihood[0] == pytest.approx(run.steps.sum(), rel=1e-13)
    assert got.weight.sum() == pytest.approx(40)


@pytest.mark.parametrize("K, order", [(2, 0), (3, 0), (2, 2)])
def test_padding_and_companions_do_not_change_a_bit(K, order):
    z, pattern, constant, rows, transition, initial = case(4, B=3, T=30, K=K, order=order, R=1)
    whole = gaussian.expectation(z, pattern, np.arange(3), constant, rows, transition, initial, order=order)
    padded = np.pad(z, ((0, 0), (7, 4), (0, 0)))
    marked = np.pad(pattern, ((0, 0), (7, 4)), constant_values=-1)
    jobs = np.array([2, 0])
    some = gaussian.expectation(
        padded, marked, jobs, constant[jobs], rows[jobs], transition[jobs], initial[jobs], order=order
    )
    for a, b in zip(some, whole, strict=True):
        assert np.array_equal(a, b[jobs])


@pytest.mark.parametrize("cut", [0, 1, 13, 30])
def test_run_in_two_parts_equals_one(cut):
    z, pattern, *rest = case(5, B=3, T=30, order=1)
    pattern[0, :15] = -1
    whole = gaussian.run(z, pattern, *rest, order=1)
    first = gaussian.run(z[:, :cut], pattern[:, :cut], *rest, order=1)
    second = gaussian.run(z[:, cut:], pattern[:, cut:], *rest, order=1, carry=(first.tuples, first.started))
    for name in ("steps", "predicted", "filtered"):
        both = np.concatenate([getattr(first, name), getattr(second, name)], 1)
        assert np.array_equal(both, getattr(whole, name), equal_nan=True)
    assert np.array_equal(second.tuples, whole.tuples)


def test_mistakes_are_named():
    z, pattern, constant, rows, transition, initial = case(0)
    with pytest.raises(ValueError, match=r"transition has shape \(1, 2, 2\), expected \(2, 2, 2\)"):
        gaussian.run(z, pattern, constant, rows, transition[:1], initial)
    with pytest.raises(ValueError, match="pattern holds 1, expected numbers below 1"):
        gaussian.run(z, pattern * 0 + 1, constant, rows, transition, initial)
    with pytest.raises(ValueError, match=r"of has shape \(3,\), expected \(N,\) with N = 2"):
        gaussian.expectation(z, pattern, np.arange(3), constant, rows, transition, initial)
