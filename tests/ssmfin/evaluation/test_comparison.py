"""The tests of equal loss against independent derivations, and against samples whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import (
    bandwidth,
    diebold_mariano,
    holm,
    mincer_zarnowitz,
    model_confidence_set,
    model_confidence_sets,
)


def overlapping(rng: np.random.Generator, reps: int, n: int, horizon: int) -> np.ndarray:
    """(reps, n) sums of `horizon` consecutive standard normals: the MA(h - 1) of h-step losses, mean zero."""
    total = np.cumsum(rng.standard_normal((reps, n + horizon)), axis=1)
    return total[:, horizon:] - total[:, :-horizon]


def newey_west_hln(d: np.ndarray, horizon: int, lags: int) -> tuple[float, float]:
    """Diebold-Mariano written out from the papers, sums and all."""
    n = len(d)
    e = d - sum(d) / n
    gamma = [sum(e[k:] * e[: n - k]) / n for k in range(lags + 1)]
    variance = gamma[0] + 2 * sum((1 - k / (lags + 1)) * gamma[k] for k in range(1, lags + 1))
    correction = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = correction * (sum(d) / n) / math.sqrt(variance / n)
    return statistic, 2 * float(stats.t.sf(abs(statistic), n - 1))


@pytest.mark.parametrize("horizon", [1, 5, 22])
@pytest.mark.parametrize("n", [260, 1003])
def test_diebold_mariano_equals_the_written_out_formula(horizon, n):
    rng = np.random.default_rng(horizon * n)
    a = np.exp(overlapping(rng, 1, n, horizon)[0] / math.sqrt(horizon))
    b = np.exp(overlapping(rng, 1, n, horizon)[0] / math.sqrt(horizon)) + 0.1
    test = diebold_mariano(a, b, horizon=horizon)
    statistic, p_value = newey_west_hln(a - b, horizon, test.lags)
    assert test.statistic == pytest.approx(statistic, rel=1e-9)
    assert test.p_value == pytest.approx(p_value, rel=1e-7)
    assert (test.n, test.lags, test.reason) == (n, bandwidth(n, horizon), "")


def test_a_negative_statistic_says_that_the_model_is_better():
    reference = np.random.default_rng(0).exponential(size=500)
    better = reference * np.random.default_rng(1).uniform(0.7, 1.1, size=500)
    assert diebold_mariano(better, reference, horizon=1).statistic < -3


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 10]), st.sampled_from([1e-170, 1e-14, 1.0, 1e9]))
@settings(max_examples=20, deadline=None)
def test_swapping_the_models_turns_the_sign_and_the_unit_does_not_matter(seed, horizon, unit):
    a, b = np.random.default_rng(seed).exponential(size=(2, 150))
    one, two = diebold_mariano(a, b, horizon=horizon), diebold_mariano(b * unit, a * unit, horizon=horizon)
    assert one.statistic == pytest.approx(-two.statistic, rel=1e-6)
    assert one.p_value == pytest.approx(two.p_value, rel=1e-6)


def test_identical_losses_are_no_evidence_and_a_constant_gap_is_certain():
    loss = np.random.default_rng(0).exponential(size=100)
    same = diebold_mariano(loss, loss.copy(), horizon=5)
    assert (same.statistic, same.p_value, same.reason) == (0.0, 1.0, "")
    worse = diebold_mariano(loss + 0.5, loss, horizon=1)
    assert (worse.statistic, worse.p_value) == (math.inf, 0.0)
    assert diebold_mariano(loss, loss + 0.5, horizon=1).statistic == -math.inf


@pytest.mark.parametrize("n, horizon", [(0, 1), (19, 1), (219, 22)])
def test_too_few_rows_give_no_test_but_the_reason(n, horizon):
    a, b = np.random.default_rng(0).exponential(size=(2, n))
    test = diebold_mariano(a, b, horizon=horizon)
    assert math.isnan(test.statistic)
    assert math.isnan(test.p_value)
    assert f"{n} dates are too few" in test.reason


def test_infinite_losses_give_no_test_and_missing_ones_are_refused():
    loss = np.ones(50)
    broken = np.where(np.arange(50) == 7, np.inf, 1.0)
    assert "infinite" in diebold_mariano(broken, loss, horizon=1).reason
    with pytest.raises(InputError, match="row 7, column 1 is NaN"):
        diebold_mariano(loss, np.where(np.isinf(broken), np.nan, broken), horizon=1)
    with pytest.raises(InputError, match="differ in shape"):
        diebold_mariano(loss, loss[1:], horizon=1)
    with pytest.raises(InputError, match="horizon is 0"):
        diebold_mariano(loss, loss, horizon=0)


@pytest.mark.parametrize("horizon", [1, 5])
def test_size_of_diebold_mariano_is_near_nominal_when_losses_overlap(horizon):
    n, reps = 600, 400
    differences = overlapping(np.random.default_rng(11), reps, n, horizon)
    zero = np.zeros(n)
    ours = np.mean([diebold_mariano(d, zero, horizon=horizon).p_value < 0.05 for d in differences])
    # standard error of the share is .011 at .05; HAC tests are known to reject a little too often
    assert 0.02 <= ours <= 0.12
    if horizon > 1:  # the bound is a real one: without lags the same samples reject a true null all the time
        naive = np.mean([newey_west_hln(d, horizon, 0)[1] < 0.05 for d in differences])
        assert naive > 0.25
        textbook = np.mean([newey_west_hln(d, horizon, horizon - 1)[1] < 0.05 for d in differences])
        assert ours < textbook  # why `bandwidth` is wider than h - 1


def test_power_of_diebold_mariano_when_one_forecast_is_better():
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(100):
        y = rng.standard_normal(500)
        good, bad = y + 0.9 * rng.standard_normal(500), y + 1.1 * rng.standard_normal(500)
        test = diebold_mariano((y - good) ** 2, (y - bad) ** 2, horizon=1)
        found += test.statistic < 0 and test.p_value < 0.05
    assert found >= 90


@pytest.mark.parametrize("n, horizon", [(10, 1), (100, 22), (100, 1), (4000, 1), (4000, 22), (100_000, 5)])
def test_bandwidth_covers_the_overlap_and_leaves_the_sample_room(n, horizon):
    assert max(1, horizon - 1) <= bandwidth(n, horizon) <= max(n // 4, horizon - 1, 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("horizon", [1, 5])
def test_model_confidence_set_equals_that_of_arch(seed, horizon):
    from arch.bootstrap import MCS

    rng = np.random.default_rng(seed)
    n, k = 300, 6
    losses = np.abs(overlapping(rng, 1, n, horizon).T + 0.7 * rng.standard_normal((n, k))) + 0.05 * np.arange(k)
    ours = model_confidence_set(losses, horizon=horizon, size=0.1, reps=400, seed=seed)
    theirs = MCS(losses, 0.1, reps=400, block_size=ours.block, method="R", seed=np.random.default_rng(seed))
    theirs.compute()
    assert np.flatnonzero(ours.in_set).tolist() == sorted(theirs.included)
    np.testing.assert_allclose(ours.p_value, theirs.pvalues["Pvalue"].sort_index().to_numpy(), atol=1e-12)


def test_the_set_keeps_the_best_model_and_drops_a_clearly_worse_one():
    rng = np.random.default_rng(2)
    kept, dropped = 0, 0
    for seed in range(60):
        common = rng.exponential(size=250)
        losses = np.stack([common * rng.uniform(0.8, 1.2, 250) * scale for scale in (1.0, 1.0, 1.3)], axis=1)
        found = model_confidence_set(losses, horizon=1, size=0.1, reps=200, seed=seed).in_set
        kept += bool(found[:2].all())
        dropped += not found[2]
    assert kept >= 48  # both equally good models stay in 90 % of samples, less 3.5 standard errors
    assert kept < 60  # and at times one is lost: a set that drops nothing would be no test
    assert dropped >= 57


def test_identical_models_share_their_fate():
    rng = np.random.default_rng(4)
    loss = rng.exponential(size=(200, 3))
    good = loss.min(axis=1) * 0.5
    pair = model_confidence_set(np.stack([good, good, loss[:, 0]], axis=1), horizon=1, seed=1)
    assert pair.in_set.tolist() == [True, True, False]
    assert pair.p_value[:2].tolist() == [1.0, 1.0]
    bad_pair = model_confidence_set(np.stack([loss[:, 0], good, loss[:, 0]], axis=1), horizon=1, seed=1)
    assert bad_pair.p_value[0] == bad_pair.p_value[2] < 0.1
    assert model_confidence_set(np.ones((50, 4)), horizon=1).in_set.all()


def test_equal_means_of_different_models_are_no_reason_to_drop_one():
    loss = np.tile([1.0, 2.0], 50)
    assert model_confidence_set(np.stack([loss, loss[::-1]], axis=1), horizon=1, reps=100).p_value.tolist() == [1, 1]


def test_a_constant_gap_an_infinite_loss_and_a_lone_model():
    loss = np.random.default_rng(0).exponential(size=100)
    assert model_confidence_set(np.stack([loss + 1, loss], axis=1), horizon=1).p_value.tolist() == [0.0, 1.0]
    infinite = np.where(np.arange(100) == 3, np.inf, loss)
    out = model_confidence_set(np.stack([infinite, loss, loss * 1.01], axis=1), horizon=1)
    assert not out.in_set[0]
    assert out.p_value[0] == 0
    assert model_confidence_set(loss[:, None], horizon=1).in_set.tolist() == [True]
    none = model_confidence_set(infinite[:, None], horizon=1)
    assert not none.in_set.any()
    assert none.reason == "every model has an infinite loss"


def test_too_few_rows_exclude_no_model():
    found = model_confidence_set(np.random.default_rng(0).exponential(size=(19, 3)) * [1, 1, 99], horizon=1)
    assert found.in_set.all()
    assert np.isnan(found.p_value).all()
    assert "19 dates are too few" in found.reason


def test_the_set_is_repeatable_and_does_not_depend_on_the_order_of_models_or_on_company():
    rng = np.random.default_rng(8)
    losses = rng.exponential(size=(300, 5)) + 0.1 * np.arange(5)
    first = model_confidence_set(losses, horizon=2, seed=3)
    np.testing.assert_array_equal(first.p_value, model_confidence_set(losses, horizon=2, seed=3).p_value)
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(
        first.p_value[order], model_confidence_set(losses[:, order], horizon=2, seed=3).p_value
    )
    pair = model_confidence_sets([losses**2, losses], horizon=2, seed=3)
    np.testing.assert_array_equal(first.p_value, pair[1].p_value)
    assert not np.array_equal(first.p_value, model_confidence_set(losses, horizon=2, seed=4).p_value)


def test_wrong_arguments_of_the_set_are_refused():
    loss = np.ones((30, 2))
    for size in (0, 1, -0.1):
        with pytest.raises(InputError, match="mcs_size"):
            model_confidence_set(loss, horizon=1, size=size)
    with pytest.raises(InputError, match="reps"):
        model_confidence_set(loss, horizon=1, reps=0)
    with pytest.raises(InputError, match="differ in length"):
        model_confidence_sets([loss, loss[1:]], horizon=1)
    with pytest.raises(InputError, match="shape"):
        model_confidence_set(np.ones(30), horizon=1)


@pytest.mark.parametrize("unit", [1e-170, 1e-5, 1.0, 1e80])
def test_mincer_zarnowitz_equals_least_squares_in_any_unit(unit):
    rng = np.random.default_rng(0)
    f = rng.exponential(size=200)
    y = 0.3 + 0.8 * f + 0.2 * rng.standard_normal(200)
    found = mincer_zarnowitz(y * unit, f * unit)
    (intercept, slope), *_ = np.linalg.lstsq(np.stack([np.ones(200), f], axis=1), y, rcond=None)
    assert found.slope == pytest.approx(slope, rel=1e-10)
    assert found.intercept == pytest.approx(intercept * unit, rel=1e-10)
    assert found.r2 == pytest.approx(np.corrcoef(y, f)[0, 1] ** 2, rel=1e-10)


def test_mincer_zarnowitz_of_constants_is_undefined():
    y = np.arange(5.0)
    assert math.isnan(mincer_zarnowitz(y, np.full(5, 0.1)).slope)
    flat = mincer_zarnowitz(np.full(5, 0.1), y)
    assert flat.slope == pytest.approx(0, abs=1e-15)
    assert math.isnan(flat.r2)
    assert math.isnan(mincer_zarnowitz(y[:2], y[:2]).r2)
    with pytest.raises(InputError, match="not finite"):
        mincer_zarnowitz(y, np.where(y == 2, np.nan, y))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=50, deadline=None)
def test_holm_equals_the_closed_bonferroni_test_and_ignores_missing_tests(p_values):
    # closure principle: hypothesis i is rejected if every intersection of hypotheses that contains it is
    m = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(m, size)]
    expected = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in m]
    np.testing.assert_allclose(holm(np.array(p_values)), expected, atol=1e-12)
    with_gap = holm(np.array([*p_values, np.nan]))
    np.testing.assert_array_equal(with_gap[:-1], holm(np.array(p_values)))
    assert math.isnan(with_gap[-1])
