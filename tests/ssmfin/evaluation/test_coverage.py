"""Pinball loss and coverage tests: closed forms, published formulas, and the size and power of the tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from ssmfin.errors import InputError
from ssmfin.evaluation.coverage import christoffersen, coverage_test, each_stretch, kupiec, pinball


@settings(max_examples=60, deadline=None)
@given(y=st.floats(-1e3, 1e3), q=st.floats(-1e3, 1e3), level=st.floats(0.001, 0.999))
def test_pinball_is_the_loss_of_a_piecewise_linear_function(y, q, level):
    plain = level * (y - q) if y >= q else (1 - level) * (q - y)
    assert float(pinball(np.array(y), np.array(q), level)) == pytest.approx(plain, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_pinball_is_least_at_the_quantile(level):
    y = np.random.default_rng(0).standard_gamma(2.0, 4001)
    grid = np.linspace(0, 8, 801)
    best = grid[pinball(y[:, None], grid, level).mean(axis=0).argmin()]
    assert best == pytest.approx(np.quantile(y, level), abs=0.02)


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_a_level_outside_of_zero_and_one_is_refused(level):
    with pytest.raises(InputError, match="level of a quantile is"):
        pinball(np.ones(2), np.ones(2), level)


def test_kupiec_is_his_likelihood_ratio():
    """99 % value at risk, 7 failures in 255 days: his ratio is 4.76 by hand."""
    hits = np.ones(255, dtype=bool)
    hits[:7] = False
    share = 7 / 255
    ratio = 2 * (7 * math.log(share / 0.01) + 248 * math.log((1 - share) / 0.99))
    assert kupiec(hits, 0.99) == pytest.approx(chi2.sf(ratio, 1), rel=1e-10)
    assert kupiec(hits, 1 - share) == pytest.approx(1.0)
    assert math.isnan(kupiec(hits[:19], 0.99))


def test_christoffersen_is_the_ratio_of_two_markov_chains():
    rng = np.random.default_rng(3)
    miss = rng.random(300) < 0.2
    counts = {(a, b): int(((miss[:-1] == a) & (miss[1:] == b)).sum()) for a in (0, 1) for b in (0, 1)}
    pi = {a: counts[a, 1] / (counts[a, 0] + counts[a, 1]) for a in (0, 1)}
    one = (counts[0, 1] + counts[1, 1]) / 299
    free = sum(n * math.log(pi[a] if b else 1 - pi[a]) for (a, b), n in counts.items())
    held = sum(n * math.log(one if b else 1 - one) for (a, b), n in counts.items())
    assert christoffersen(~miss) == pytest.approx(chi2.sf(2 * (free - held), 1), rel=1e-9)


def test_christoffersen_finds_clusters_that_kupiec_cannot_see():
    block = np.ones(500, dtype=bool)
    block[200:250] = False  # one miss in ten, all in a row
    spread = np.arange(500) % 10 != 0
    assert kupiec(block, 0.9) == kupiec(spread, 0.9) == 1.0
    assert christoffersen(block) < 1e-10
    assert christoffersen(np.ones(500, dtype=bool)) == 1.0
    assert christoffersen(np.zeros(500, dtype=bool)) == 1.0


@pytest.mark.parametrize("test", [lambda hits: kupiec(hits, 0.9), christoffersen])
def test_independent_hits_of_the_right_share_are_rejected_as_often_as_said(test):
    rng = np.random.default_rng(1)
    p = np.array([test(rng.random(1000) < 0.9) for _ in range(600)])
    assert 0.02 < (p < 0.05).mean() < 0.08
    wrong = np.array([kupiec(rng.random(1000) < 0.86, 0.9) for _ in range(50)])
    assert (wrong < 0.05).mean() > 0.9


def test_overlapping_hits_are_tested_on_stretches_that_do_not_overlap():
    """Hits of the mean of 5 days, right by construction: tested as if independent, they would be rejected too often."""
    rng = np.random.default_rng(2)
    naive, apart, share = [], [], []
    for _ in range(150):
        total = np.convolve(rng.standard_normal(1504), np.ones(5), mode="valid") / math.sqrt(5)
        hits = np.abs(total) < 1.6448536
        naive.append(christoffersen(hits))
        apart.append(each_stretch([hits], 5, christoffersen))
        share.append(coverage_test(hits.astype(float), 0.9, horizon=5))
    assert (np.array(naive) < 0.05).mean() > 0.9
    assert (np.array(apart) < 0.05).mean() < 0.08
    assert (np.array(share) < 0.05).mean() < 0.12


def test_each_stretch_multiplies_the_least_p_value_and_counts_only_what_was_tested():
    seen: list[int] = []

    def test(hits):
        seen.append(len(hits))
        return {60: 0.01, 50: 0.5}.get(len(hits), math.nan)

    long, short = np.ones(120, dtype=bool), np.ones(10, dtype=bool)
    assert each_stretch([long, short], 2, test) == pytest.approx(0.02)
    assert seen == [60, 60, 5, 5]
    assert each_stretch([np.ones(100, dtype=bool)], 2, test) == 1.0
    assert math.isnan(each_stretch([short], 2, test))
