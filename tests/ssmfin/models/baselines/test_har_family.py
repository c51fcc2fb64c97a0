"""The HAR family: each member's regressors written out, published coefficients, estimation, pooling, windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.in_sample import har_regression
from ssmfin.models.baselines.har.members import CHAR, HAR, HARCJ, HARJ, HARQ, HARQF, HARX, LHAR, SHAR, HExp, LogHAR

SPY = Path(__file__).resolve().parents[4].parent / "shared/data/spy_measures_2014_2019.parquet"
MEMBERS = [
    HAR(),
    LogHAR(),
    HARJ(),
    HARJ(log=True),
    HARCJ(),
    HARCJ(log=True),
    CHAR(),
    CHAR(log=True),
    SHAR(),
    SHAR(log=True),
    HARQ(),
    HARQ(log=True),
    HARQF(),
    HARQF(log=True),
    LHAR(),
    LHAR(log=True),
    LHAR(standardised=True),
    HARX(columns=["bv", "log_return"]),
    HARX(columns=["bv"], column_windows=[1, 5], transform="log", log=True),
    HExp(),
    HExp(log=True),
]
members = pytest.mark.parametrize("model", MEMBERS, ids=[f"{m.kind}{' log' if m.in_logs else ''}" for m in MEMBERS])


def row_by_hand(model, design, row):
    """The regressors of one row, from the rows of its id up to it, by loops."""
    first = design.starts[design.id_index[row]]
    past = slice(first, row + 1)
    log = np.log if model.in_logs else (lambda x: x)

    def lag(name, w):
        values = design.observed if name == "rv" else design.columns[name]
        return values[past][-w:].mean()

    rv = [lag("rv", w) for w in (1, 5, 22)]
    kind = model.kind
    if kind in ("har", "log_har"):
        return [log(v) for v in rv]
    if kind == "har_j":
        j = max(lag("rv", 1) - lag("bv", 1), 0)
        return [*map(log, rv), np.log(1 + j / lag("bv", 1)) if model.log else j]
    if kind == "har_cj":
        c, j = ([lag(n, w) for w in (1, 5, 22)] for n in ("continuous", "jump"))
        return [*map(log, c), *[np.log(1 + b / a) if model.log else b for a, b in zip(c, j, strict=True)]]
    if kind == "char":
        return [log(lag("bv", w)) for w in (1, 5, 22)]
    if kind == "shar":
        return [log(v) for v in (lag("rs_pos", 1), lag("rs_neg", 1), *rv[1:])]
    if kind in ("harq", "harq_f"):
        out = [log(v) for v in rv]
        for v, w in list(zip(rv, (1, 5, 22), strict=True))[: 1 if kind == "harq" else 3]:
            q = np.sqrt(lag("rq", w))
            out += [q / v, q / v * np.log(v)] if model.log else [q * v]
        return out
    if kind == "lhar":
        falls = []
        for v, w in zip(rv, (1, 5, 22), strict=True):
            total = design.columns["log_return"][past][-w:].sum()
            falls.append(min(total, 0) / np.sqrt(w * v) if model.standardised else min(total / w, 0))
        return [*map(log, rv), *falls]
    if kind == "har_x":
        wrap = np.log if model.transform == "log" else (lambda x: x)
        return [*map(log, rv), *[wrap(lag(c, w)) for c in model.columns for w in model.column_windows]]
    out = []
    for c in (1, 5, 25, 125):
        weights = (c / (1 + c)) ** np.arange(len(design.observed[past]))[::-1]
        out.append(log((weights * design.observed[past]).sum() / weights.sum()))
    return out


@members
def test_the_regressors_are_those_of_the_formula(harness, model):
    design = harness.simulate(skip=0.1)
    names, values = model.regressors(design)
    assert len(names) == len(set(names)) == values.shape[1]
    for row in np.flatnonzero(design.complete)[::60]:
        np.testing.assert_allclose(values[row], row_by_hand(model, design, row), rtol=1e-11, atol=1e-18)


@members
def test_a_change_of_unit_scales_the_forecast_and_changes_nothing_else(harness, model):
    if model.kind == "har_x" and not model.in_logs:
        pytest.skip("its returns would change their unit too")
    design = harness.simulate()
    unit = 1e4
    scaled = replace(
        design,
        observed=design.observed * unit,
        lag_means=design.lag_means * unit,
        labels=design.labels * unit,
        columns={
            name: column * {"rq": unit**2, "log_return": np.sqrt(unit)}.get(name, unit)
            for name, column in design.columns.items()
        },
    )
    windows = harness.windows_of(design, step=25)
    for plain, rescaled in zip(model.walk(design, windows)[0], model.walk(scaled, windows)[0], strict=True):
        np.testing.assert_allclose(rescaled, unit * plain, rtol=1e-7)


@pytest.mark.skipif(not SPY.exists(), reason=f"{SPY.name} is not beside the project")
def test_in_sample_harq_has_the_published_coefficient_of_the_error():
    frame = pl.read_parquet(SPY)
    rv, rq = frame["RV5"].to_numpy(), frame["RQ5"].to_numpy()
    found = har_regression(rv, others=(np.sqrt(rq) * rv)[:, None])
    np.testing.assert_allclose(found.coefficients[-1], -0.3881445184, rtol=1e-9)


def test_in_sample_regressors_of_the_wrong_length_are_refused():
    with pytest.raises(InputError, match=r"others has shape \(99, 1\).*pass \(100, q\)"):
        har_regression(np.exp(np.sin(np.arange(100.0))), others=np.ones((99, 1)))


def rows_of(model, design, window, h):
    """Training rows, regressors, labels of one window and horizon."""
    known = replace(design, usable=design.complete & np.isfinite(model.regressors(design).values).all(axis=1))
    learnt = known.complete & (design.date_index >= window.train_start)
    learnt &= design.label_known[:, h] <= window.labels_until
    return learnt, model.regressors(design).values[learnt], design.labels[learnt, h]


@pytest.mark.parametrize("model", [HAR(pooled=True, insanity_filter=False), LogHAR(pooled=True)], ids=["har", "log"])
def test_pooled_slopes_equal_a_regression_with_a_dummy_for_each_id(harness, model):
    design = harness.simulate(ids=4)
    windows = harness.windows_of(design, step=30)
    walked, _ = model.walk(design, windows)
    for window, forecast in zip(windows, walked, strict=True):
        for h in range(3):
            learnt, x, y = rows_of(model, design, window, h)
            y = np.log(y) if model.in_logs else y
            dummies = (design.id_index[learnt][:, None] == np.arange(4)).astype(float)
            a = np.column_stack([dummies, x])
            scale = np.abs(a).max(axis=0)
            solution = np.linalg.lstsq(a / scale, y, rcond=None)[0] / scale
            residual = y - a @ solution
            rows = window.test_rows
            mu = solution[design.id_index[rows]] + model.regressors(design).values[rows] @ solution[4:]
            variance = residual @ residual / (len(y) - a.shape[1])
            expected = np.exp(mu + variance / 2) if model.in_logs else mu
            np.testing.assert_allclose(forecast[:, h], expected, rtol=1e-7)


def test_wls_is_least_squares_with_the_inverse_of_the_first_fit_as_weights(harness):
    design = harness.simulate(ids=1)
    model = HAR(estimation="wls", insanity_filter=False)
    window = harness.windows_of(design, step=40)[1]
    (forecast,), _ = model.walk(design, [window])
    for h in range(3):
        _, x, y = rows_of(model, design, window, h)
        a = np.column_stack([np.ones(len(y)), x / x.mean()])
        first = a @ np.linalg.lstsq(a, y, rcond=None)[0]
        weight = 1 / np.clip(first, y.min(), y.max())
        solution = np.linalg.solve(a.T @ (weight[:, None] * a), a.T @ (weight * y))
        z = np.column_stack([np.ones(len(window.test_rows)), design.lag_means[window.test_rows] / x.mean()])
        np.testing.assert_allclose(forecast[:, h], z @ solution, rtol=1e-8)


def qlike(y, f):
    return float(np.mean(y / f - np.log(y / f) - 1))


@pytest.mark.parametrize("kind", [HAR, LogHAR])
def test_the_qlike_estimate_is_a_minimum_of_qlike_in_the_training_window(harness, kind):
    design = harness.simulate(ids=1)
    model = kind(estimation="qlike")
    window = harness.windows_of(design, step=40)[1]
    fitted = model.fit(harness.training_of(design, window), seed=0)
    for h in range(3):
        _, x, y = rows_of(model, design, window, h)
        b = fitted.coefficients("id0", h)

        def value(b, x=x, y=y):
            f = b[0] + x @ b[1:]
            return qlike(y, np.exp(f) if model.in_logs else f)

        ordinary = kind().fit(harness.training_of(design, window), seed=0).coefficients("id0", h)
        assert value(b) < value(ordinary)
        scale = np.concatenate([[np.abs(y).mean() if kind is HAR else 1.0], np.ones(3)])
        for j in range(4):
            for size in (-1e-3, 1e-3):
                nudged = b.copy()
                nudged[j] += size * scale[j]
                assert value(nudged) > value(b) - 1e-9


def test_huber_equals_the_robust_regression_of_statsmodels(harness):
    import statsmodels.api as sm

    design = harness.simulate(ids=1)
    model = LogHAR(estimation="huber")
    window = harness.windows_of(design, step=40)[1]
    fitted = model.fit(harness.training_of(design, window), seed=0)
    for h in range(3):
        _, x, y = rows_of(model, design, window, h)
        peer = sm.RLM(np.log(y), sm.add_constant(x), M=sm.robust.norms.HuberT()).fit(maxiter=200, tol=1e-12)
        np.testing.assert_allclose(fitted.coefficients("id0", h), peer.params, rtol=1e-5, atol=1e-6)


def test_forecasts_of_several_training_windows_are_averaged(harness):
    design = harness.simulate(ids=2)
    windows = harness.windows_of(design, step=30)
    short, long, both = (HAR(train_windows=sizes).walk(design, windows)[0] for sizes in ([60], ["all"], [60, "all"]))
    for a, b, mean in zip(short, long, both, strict=True):
        np.testing.assert_allclose(mean, (a + b) / 2, rtol=1e-12)
        assert not np.allclose(a, b)


def test_where_an_id_has_too_few_rows_in_a_short_window_the_study_s_window_speaks(harness):
    design = harness.simulate(ids=1)
    hole = (design.date_index > 160) & (design.date_index < 200)
    design = replace(design, usable=design.complete & ~hole)
    windows = [w for w in harness.windows_of(design, step=10) if w.cutoff == 200]
    (short,), _ = HAR(train_windows=[40]).walk(design, windows)
    (whole,), _ = HAR().walk(design, windows)
    np.testing.assert_array_equal(short, whole)


def test_rows_without_the_member_s_column_do_not_train_and_are_refused_as_origins(harness):
    design = harness.simulate(ids=1)
    window = harness.windows_of(design, step=20)[1]
    learnt, _, _ = rows_of(CHAR(), design, window, 0)
    bv = design.columns["bv"].copy()
    bv[np.flatnonzero(learnt)[10]] = np.nan
    holed = replace(design, columns=design.columns | {"bv": bv})
    (forecast,), _ = CHAR().walk(holed, [window])
    assert np.isfinite(forecast).all()
    bv[window.test_rows[3]] = np.nan
    with pytest.raises(InputError, match=r"char has no bv_1 on \d+ of \d+ rows.*'id0'.*drop those days"):
        CHAR().walk(replace(design, columns=design.columns | {"bv": bv}), [window])
    with pytest.raises(InputError, match="'bv_day' is not in the panel"):
        CHAR(bv="bv_day").walk(design, [window])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"estimation": "wls", "pooled": True}, "pooled: true with estimation: wls"),
        ({"train_windows": [10]}, "10 dates are too few"),
        ({"windows": [0, 5]}, "0 is not a number of rows"),
        ({"estimation": "lad"}, "estimation"),
    ],
)
def test_options_without_meaning_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        HAR(**options)


def test_weights_by_level_are_refused_in_logs():
    with pytest.raises(InputError, match="which logs do not have"):
        LogHAR(estimation="wls")


@pytest.mark.parametrize("estimation", ["wls", "qlike"])
def test_estimation_by_relative_error_needs_positive_labels(harness, estimation):
    design = harness.simulate(transform="none")
    design = replace(design, labels=design.labels - np.nanmean(design.labels))
    with pytest.raises(InputError, match="wls or qlike needs positive labels"):
        HAR(estimation=estimation).walk(design, harness.windows_of(design, step=40))
