"""Least squares from moments against numpy.linalg.lstsq and against plain ridge."""

from __future__ import annotations

import numpy as np
import pytest

from ssmfin.models.baselines.least_squares import least_squares_by_rows, ordinary_least_squares, ridge
from ssmfin.models.baselines.range_sums import ranges_of
from ssmfin.models.baselines.samples import Sample, label_ranges

N, SIZE = 400, 90
COLLINEAR = [f"nearly collinear {noise}" for noise in (6e-3, 4e-3, 1e-4)]


def rolling(x, y, valid, *, lo=None, hi=None):
    lo = np.arange(0, len(y) - SIZE) if lo is None else lo
    hi = lo + SIZE if hi is None else hi
    return Sample(x, y, y, valid, ranges_of(lo, hi, len(y)))


def columns(case, rng):
    x = rng.standard_normal((N, 4))
    if case == "badly scaled":
        return x * np.array([1e-9, 1.0, 1e6, 1e-3]) + np.array([1e-8, 5.0, -3e7, 0.2])
    if case == "far from zero":
        return x + 1e6
    if case == "drifting":
        return x + np.linspace(0, 1e4, N)[:, None] * np.array([1.0, -2.0, 0.5, 0.0])
    if case == "correlated":
        x[:, 2] = x[:, 0] - x[:, 1] + 0.02 * x[:, 2]
    if case.startswith("nearly collinear"):  # on both sides of SMALLEST_PIVOT
        x[:, 2] = x[:, 0] - x[:, 1] + float(case.split()[-1]) * x[:, 2]
    return x


CASES = ["plain", "badly scaled", "far from zero", "drifting", "correlated", *COLLINEAR]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_coefficients_equal_lstsq_in_every_window(case, holes):
    rng = np.random.default_rng(3)
    x = columns(case, rng)
    y = 3.0 + ((x - x.mean(axis=0)) / x.std(axis=0)) @ np.array([1.0, -0.5, 0.3, 2.0]) + rng.standard_normal(N)
    valid = rng.random(N) >= holes
    sample = rolling(np.where(valid[:, None], x, np.nan), y, valid)
    found = ordinary_least_squares(sample)
    for b in range(len(sample.ranges.lo)):
        rows = sample.rows(b)
        # the oracle gets columns of like size around zero: on raw ones it is lstsq that loses the digits
        centre, scale = x[rows].mean(axis=0), x[rows].std(axis=0)
        design = np.column_stack([np.ones(len(rows)), (x[rows] - centre) / scale])
        oracle, rss, _, _ = np.linalg.lstsq(design, y[rows], rcond=None)
        standardised = found.coefficients[b] * scale
        assert np.abs(standardised - oracle[1:]).max() <= 1e-8 * np.abs(oracle[1:]).max()
        assert found.intercept[b] + found.coefficients[b] @ centre == pytest.approx(oracle[0], rel=1e-8)
        assert found.residual_variance[b] == pytest.approx(rss[0] / (len(rows) - 5), rel=1e-8)


def test_coefficients_equal_lstsq_on_raw_columns():
    rng = np.random.default_rng(4)
    x = rng.lognormal(size=(N, 3)) * 1e-4
    y = 1e-5 + x @ np.array([0.3, 0.3, 0.1]) + 1e-5 * rng.standard_normal(N)
    sample = rolling(x, y, np.ones(N, dtype=bool))
    found = ordinary_least_squares(sample)
    for b in range(len(sample.ranges.lo)):
        rows = sample.rows(b)
        oracle = np.linalg.lstsq(np.column_stack([np.ones(SIZE), x[rows]]), y[rows], rcond=None)[0]
        np.testing.assert_allclose(np.r_[found.intercept[b], found.coefficients[b]], oracle, rtol=1e-8)


def test_collinear_and_constant_columns_give_the_shortest_standardised_solution():
    rng = np.random.default_rng(5)
    base = rng.standard_normal((N, 2))
    x = np.column_stack([base, 4.0 * base[:, 0] + 7.0, np.full(N, 3.3)])
    y = base @ np.array([1.0, 2.0]) + 0.1 * rng.standard_normal(N)
    sample = rolling(x, y, np.ones(N, dtype=bool))
    found = ordinary_least_squares(sample)
    for b in range(0, len(sample.ranges.lo), 17):
        rows = sample.rows(b)
        raw = np.column_stack([np.ones(SIZE), x[rows]])
        best = raw @ np.linalg.lstsq(raw, y[rows], rcond=None)[0]
        fitted = found.intercept[b] + x[rows] @ found.coefficients[b]
        np.testing.assert_allclose(fitted, best, rtol=1e-8, atol=1e-10)
        scale = x[rows].std(axis=0)
        assert found.coefficients[b, 0] * scale[0] == pytest.approx(found.coefficients[b, 2] * scale[2], rel=1e-8)
        assert found.coefficients[b, 3] == 0.0
        assert found.residual_variance[b] == pytest.approx(((y[rows] - best) ** 2).sum() / (SIZE - 3), rel=1e-8)


def test_a_perfect_fit_has_no_residual_variance_and_exact_coefficients():
    x = np.random.default_rng(6).standard_normal((N, 2))
    found = ordinary_least_squares(rolling(x, 1.0 + x @ np.array([2.0, -3.0]), np.ones(N, dtype=bool)))
    np.testing.assert_allclose(found.coefficients, [[2.0, -3.0]] * (N - SIZE), rtol=1e-12)
    assert (found.residual_variance < 1e-28).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_fewer_rows_than_coefficients_still_give_the_shortest_solution(rows):
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((N, 4)), rng.standard_normal(N)
    found = ordinary_least_squares(rolling(x, y, np.ones(N, dtype=bool), lo=np.array([50]), hi=np.array([50 + rows])))
    here = slice(50, 50 + rows)
    np.testing.assert_allclose(found.intercept[0] + x[here] @ found.coefficients[0], y[here], rtol=1e-9)
    assert np.isfinite(found.residual_variance).all()


def test_by_rows_is_indifferent_to_units():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((60, 3)), rng.standard_normal(60)
    units = np.array([1e-170, 1e150, 1.0])
    plain, scaled = least_squares_by_rows(x, y), least_squares_by_rows(x * units, y)
    np.testing.assert_allclose(scaled[1] * units, plain[1], rtol=1e-10)


def plain_ridge(x, y, penalty):
    centre, scale = x.mean(axis=0), x.std(axis=0)
    z = (x - centre) / scale
    n, p = x.shape
    b = np.linalg.solve(z.T @ z + n * penalty * np.eye(p), z.T @ (y - y.mean()))
    residual = y - y.mean() - z @ b
    freedom = np.trace(np.linalg.solve(z.T @ z + n * penalty * np.eye(p), z.T @ z))
    return y.mean() - (b / scale) @ centre, b / scale, residual @ residual / (n - 1 - freedom), freedom


@pytest.mark.parametrize("case", ["plain", "badly scaled", "correlated"])
def test_ridge_equals_a_plain_loop_over_penalties(case):
    rng = np.random.default_rng(9)
    x = columns(case, rng)
    y = ((x - x.mean(axis=0)) / x.std(axis=0)) @ np.array([0.3, 0.0, 0.0, 0.2]) + 2.0 * rng.standard_normal(N)
    valid, grid = rng.random(N) < 0.9, np.logspace(-4, 2, 13)
    lo = np.arange(0, N - 120, 7)
    train = rolling(x, y, valid, lo=lo, hi=lo + 115)
    fit = rolling(x, y, valid, lo=lo, hi=lo + 80)
    tail = rolling(x, y, valid, lo=lo + 85, hi=lo + 115)
    found = ridge(train, fit, tail, grid)
    for b in range(len(lo)):
        errors = []
        for penalty in grid:
            intercept, slopes, _, _ = plain_ridge(x[fit.rows(b)], y[fit.rows(b)], penalty)
            errors.append(((y[tail.rows(b)] - intercept - x[tail.rows(b)] @ slopes) ** 2).sum())
        assert found.penalty[b] == grid[np.argmin(errors)]
        intercept, slopes, variance, _ = plain_ridge(x[train.rows(b)], y[train.rows(b)], found.penalty[b])
        np.testing.assert_allclose(found.coefficients[b], slopes, rtol=1e-8)
        assert found.intercept[b] == pytest.approx(intercept, rel=1e-8)
        assert found.residual_variance[b] == pytest.approx(variance, rel=1e-8)
    assert len(set(found.penalty)) > 2  # the choice is not trivial here


def test_without_a_tail_the_penalty_is_that_of_generalised_cross_validation():
    rng = np.random.default_rng(10)
    x, y, valid = rng.standard_normal((N, 4)), rng.standard_normal(N), np.ones(N, dtype=bool)
    y += 0.2 * x[:, 0]
    grid, lo = np.logspace(-3, 2, 11), np.arange(0, 300, 23)
    train, nothing = rolling(x, y, valid, lo=lo, hi=lo + 60), rolling(x, y, valid, lo=lo, hi=lo)
    found = ridge(train, nothing, nothing, grid)
    for b in range(len(lo)):
        errors = []
        for penalty in grid:
            _, _, variance, freedom = plain_ridge(x[train.rows(b)], y[train.rows(b)], penalty)
            errors.append(variance * (59 - freedom) / (59 - freedom) ** 2)
        assert found.penalty[b] == grid[np.argmin(errors)]


def test_label_ranges_notice_labels_that_become_known_out_of_order():
    known = np.array([2, 9, 3, 4, 5, 12])
    until = np.array([1, 2, 3, 5, 9, 20])
    found = label_ranges(np.arange(6), known, np.zeros(6, int), np.full(6, 99), until)
    for w in range(6):
        listed = np.flatnonzero(known <= until[w])
        assert found.contiguous[w] == (len(listed) == 0 or len(listed) == listed[-1] + 1)
        if found.contiguous[w]:
            np.testing.assert_array_equal(np.arange(found.lo[w], found.hi[w]), listed)
