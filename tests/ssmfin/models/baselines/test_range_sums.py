"""Range sums, extremes and moments against the plain computation, and their independence of everything else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.models.baselines.range_sums import range_extremes, range_moments, range_sums, ranges_of


@st.composite
def problems(draw):
    n = draw(st.integers(1, 70))
    count = draw(st.integers(1, 12))
    ends = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for _ in range(count)]
    lo, hi = np.array(ends, dtype=np.int64).T
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return rng.standard_normal((n, 3)) * 10.0 ** rng.integers(-6, 6, 3), rng.random(n) < 0.8, lo, hi


@settings(deadline=None, max_examples=120)
@given(problems())
def test_ranges_equal_the_plain_computation(problem):
    values, valid, lo, hi = problem
    ranges = ranges_of(lo, hi, len(values))
    sums, moments = range_sums(values, ranges), range_moments(values, valid, ranges)
    extremes = range_extremes(values[:, 0], valid, ranges)
    for i, (a, b) in enumerate(zip(lo, hi, strict=True)):
        rows = values[a:b][valid[a:b]]
        np.testing.assert_allclose(sums[i], values[a:b].sum(axis=0), rtol=1e-12, atol=1e-14 * np.abs(values).max())
        assert moments.n[i] == len(rows)
        if len(rows):
            centred = rows - rows.mean(axis=0)
            size = np.outer(np.abs(rows).max(axis=0), np.abs(rows).max(axis=0))
            assert (np.abs(moments.mean[i] - rows.mean(axis=0)) <= 1e-13 * np.abs(rows).max(axis=0)).all()
            assert (np.abs(moments.scatter[i] - centred.T @ centred) <= 1e-12 * size * len(rows)).all()
            assert (extremes.low[i], extremes.high[i]) == (rows[:, 0].min(), rows[:, 0].max())
        else:
            assert not moments.mean[i].any()
            assert not moments.scatter[i].any()
            assert (extremes.low[i], extremes.high[i]) == (np.inf, -np.inf)


@settings(deadline=None, max_examples=120)
@given(problems(), st.sampled_from([np.nan, np.inf, 1e300, -7.0]), st.integers(0, 11))
def test_rows_outside_a_range_and_other_ranges_do_not_change_one_bit(problem, poison, which):
    values, valid, lo, hi = problem
    i = which % len(lo)
    outside = np.ones(len(values), dtype=bool)
    outside[lo[i] : hi[i]] = False
    poisoned, doubtful = np.where(outside[:, None], poison, values), valid | (outside & np.isfinite(poison))
    together, alone = ranges_of(lo, hi, len(values)), ranges_of(lo[i : i + 1], hi[i : i + 1], len(values))
    for whole, single in (
        (range_moments(values, valid, together), range_moments(poisoned, doubtful, alone)),
        (range_extremes(values[:, 0], valid, together), range_extremes(poisoned[:, 0], doubtful, alone)),
        ((range_sums(values, together),), (range_sums(poisoned, alone),)),
    ):
        for a, b in zip(whole, single, strict=True):
            np.testing.assert_array_equal(a[i], b[0])


def test_moments_keep_their_digits_far_from_zero_and_after_a_huge_value():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(400)
    values = 1e8 + noise[:, None]
    values[3] = 1e300
    ranges = ranges_of(np.array([10]), np.array([390]), 400)
    scatter = range_moments(values, np.ones(400, dtype=bool), ranges).scatter[0, 0, 0]
    exact = values[10:390, 0] - 1e8
    np.testing.assert_allclose(scatter, ((exact - exact.mean()) ** 2).sum(), rtol=1e-12)
