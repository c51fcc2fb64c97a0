"""What every baseline that walks must hold: it equals fit and predict, and nothing later changes one bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.models.baselines.ewma import EWMA
from ssmfin.models.baselines.garch import GARCH
from ssmfin.models.baselines.har.members import CHAR, HAR, HARCJ, HARJ, HARQ, HARQF, HARX, LHAR, SHAR, HExp, LogHAR
from ssmfin.models.baselines.random_walk import RandomWalk
from ssmfin.models.baselines.ridge import Ridge

WALKERS = [
    RandomWalk(),
    EWMA(),
    HAR(),
    LogHAR(),
    LogHAR(insanity_filter=True),
    Ridge(),
    HARJ(log=True),
    HARCJ(),
    HARQF(log=True),
    HAR(pooled=True),
    HExp(log=True),
    SHAR(train_windows=[40, 80]),
    CHAR(estimation="wls"),
    LHAR(log=True, standardised=True, estimation="qlike"),
    HARQ(estimation="huber"),
    HARX(columns=["bv"], column_windows=[1, 5], transform="log", estimation="qlike"),
    LogHAR(train_windows=[45, "all"], pooled=True),
]
NAMES = [
    "random_walk",
    "ewma",
    "har",
    "log_har",
    "log_har filtered",
    "ridge",
    "log har_j",
    "har_cj",
    "log harq_f",
    "pooled har",
    "log hexp",
    "shar averaged",
    "char wls",
    "log lhar qlike",
    "harq huber",
    "har_x qlike",
    "log_har pooled averaged",
]
walkers = pytest.mark.parametrize("model", WALKERS, ids=NAMES)


@walkers
@pytest.mark.parametrize("transform, aggregate, embargo", [("log", "mean", 0), ("none", "sum", 3), ("log", "last", 1)])
def test_a_walk_equals_fit_and_predict_window_by_window(harness, model, transform, aggregate, embargo):
    design = harness.simulate(transform=transform, aggregate=aggregate)
    windows = harness.windows_of(design, step=11, embargo=embargo)
    forecasts, _ = model.walk(design, windows)
    for window, walked in zip(windows, forecasts, strict=True):
        alone, _ = harness.fit_and_predict(model, design, window)
        assert walked.shape == (len(window.test_rows), 3)
        np.testing.assert_allclose(walked, alone, rtol=1e-10)


@walkers
def test_a_walk_equals_fit_and_predict_where_labels_become_known_out_of_order(harness, model):
    design = harness.simulate(ids=2)
    known = design.label_known.copy()
    known[::7] = np.minimum(known[::7] + 6, len(design.dates))
    design = replace(design, label_known=known, labels=np.where(known < len(design.dates), design.labels, np.nan))
    windows = harness.windows_of(design, step=13)
    forecasts, _ = model.walk(design, windows)
    for window, walked in zip(windows, forecasts, strict=True):
        np.testing.assert_allclose(walked, harness.fit_and_predict(model, design, window)[0], rtol=1e-10)


@walkers
@pytest.mark.parametrize("value", [None, np.nan, 1e300])
def test_the_future_does_not_change_one_bit(harness, model, value):
    design = harness.simulate()
    windows = harness.windows_of(design, step=3)
    before, _ = model.walk(design, windows)
    for date in (150, 201):
        early = [design.date_index[w.test_rows] <= date for w in windows]
        asked = [  # later origins are left out: what is spoilt there is their own present
            replace(w, test_rows=w.test_rows[e]) for w, e in zip(windows, early, strict=True) if w.cutoff <= date
        ]
        after, _ = model.walk(harness.spoil_after(design, date, value=value), asked)
        assert len(after) > 3
        for old, e, new in zip(before, early, after, strict=False):
            np.testing.assert_array_equal(new, old[e])


@walkers
def test_noise_after_a_date_leaves_every_forecast_up_to_it_as_it_was_in_the_same_walk(harness, model):
    design = harness.simulate()
    windows = harness.windows_of(design, step=3)
    before, _ = model.walk(design, windows)
    after, _ = model.walk(harness.spoil_after(design, 180), windows)
    for old, new, window in zip(before, after, windows, strict=True):
        if window.cutoff <= 180:
            early = design.date_index[window.test_rows] <= 180
            np.testing.assert_array_equal(new[early], old[early])
    if not isinstance(model, RandomWalk):
        changed = [not np.array_equal(a, b) for a, b, w in zip(before, after, windows, strict=True) if w.cutoff > 200]
        assert all(changed)  # the spoiling does reach what it may reach


@walkers
@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_labels_known_after_the_cutoff_less_the_embargo_are_never_used(harness, model, value):
    design = harness.simulate()
    for window in harness.windows_of(design, step=40, embargo=4):
        labels = np.where(design.label_known > window.labels_until, value, design.labels)
        clean, poisoned = (model.walk(d, [window])[0][0] for d in (design, replace(design, labels=labels)))
        np.testing.assert_array_equal(poisoned, clean)
    training = harness.training_of(design, window)
    labels = np.where(training.design.label_known > window.labels_until, value, training.design.labels)
    spoilt = replace(training, design=replace(training.design, labels=labels))
    rows = np.flatnonzero(training.design.complete & (training.design.date_index == window.cutoff))
    clean, poisoned = (model.fit(t, seed=0).predict(training.design, rows) for t in (training, spoilt))
    np.testing.assert_array_equal(poisoned, clean)


@pytest.mark.parametrize("model", [m for m in WALKERS if m.kind != "ewma"], ids=[n for n in NAMES if n != "ewma"])
def test_rows_before_the_training_window_are_not_learnt_from(harness, model):  # ewma's state runs from the first row on
    design = harness.simulate()
    window = harness.windows_of(design, step=1)[30]
    old = design.date_index < window.train_start
    other = replace(
        design,
        lag_means=np.where(old[:, None], 3 * design.lag_means, design.lag_means),
        features=np.where(old[:, None], -design.features, design.features),
        labels=np.where(old[:, None], 5 * design.labels, design.labels),
    )
    np.testing.assert_array_equal(model.walk(other, [window])[0][0], model.walk(design, [window])[0][0])


@walkers
def test_a_window_gives_the_same_bits_in_whatever_company_it_is_walked(harness, model):
    design = harness.simulate()
    windows = harness.windows_of(design)
    together, _ = model.walk(design, windows)
    for chunk in (slice(0, 1), slice(17, 18), slice(30, 49), slice(100, None)):
        alone, _ = model.walk(design, windows[chunk])
        for a, b in zip(alone, together[chunk], strict=True):
            np.testing.assert_array_equal(a, b)


@walkers
def test_no_windows_and_windows_without_rows_give_nothing(harness, model):
    design = harness.simulate()
    window = harness.windows_of(design)[0]
    assert model.walk(design, [])[0] == []
    forecasts, _ = model.walk(design, [replace(window, test_rows=np.empty(0, dtype=np.int64)), window])
    assert forecasts[0].shape == (0, 3)
    np.testing.assert_array_equal(forecasts[1], model.walk(design, [window])[0][0])


@pytest.mark.parametrize("model", [GARCH(), GARCH(gjr=True)], ids=["garch", "gjr"])
def test_garch_is_not_changed_by_the_future(harness, model):
    design = harness.simulate(ids=2)
    window = harness.windows_of(design, size=130, step=20, first=170)[0]
    before, _ = harness.fit_and_predict(model, design, window)
    for date in (window.cutoff, window.cutoff + 7):
        after, _ = harness.fit_and_predict(model, harness.spoil_after(design, date), window)
        early = design.date_index[window.test_rows] <= date
        assert early.any()
        np.testing.assert_array_equal(after[early], before[early])
