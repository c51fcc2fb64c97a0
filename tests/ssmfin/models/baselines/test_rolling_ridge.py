"""Ridge estimated anew at every row: a twin that gathers each origin's rows, and nothing that was not known there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.baselines.rolling_ridge import RollingRidge
from ssmfin.models.interface import Design, TrainingSet

W = 100


@pytest.fixture(scope="module")
def design(make_design, simulate) -> Design:
    long, holes = simulate(2, 420)
    days = np.arange(420)
    observed = np.flatnonzero(np.random.default_rng(0).random(420) > 0.1)
    return make_design([long, holes[observed]], dates=[days, days[observed]])


@pytest.fixture(scope="module")
def training(design, make_training_set) -> TrainingSet:
    return make_training_set(design, 330, size=150, validation=40)


def naive(design: Design, row: int, h: int, penalty: float, wait: int = 0) -> float:
    """The forecast of one row from the rows whose label had matured, by the normal equations."""
    horizon, first = design.target.horizons[h], int(design.starts[design.id_index[row]])
    rows = [s for s in range(max(first, row - horizon - wait - W + 1), row - horizon - wait + 1) if design.complete[s]]
    x, y = design.features[rows], np.log([design.observed[s + 1 : s + horizon + 1].mean() for s in rows])
    n, mean, scale = len(rows), x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / scale
    system = z.T @ z / n + penalty * np.eye(x.shape[1])
    b = np.linalg.solve(system, z.T @ (y - y.mean()) / n)
    rest = y - y.mean() - z @ b
    freedom = np.trace(np.linalg.solve(system, z.T @ z / n))
    mu = y.mean() + (design.features[row] - mean) / scale @ b
    return float(np.exp(mu + 0.5 * rest @ rest / (n - 1 - freedom)))


@pytest.mark.parametrize("embargo", [0, 3])
def test_agrees_with_gathering_the_rows_of_every_origin(embargo, design, training) -> None:
    training = replace(training, window=replace(training.window, labels_until=training.window.cutoff - embargo))
    fitted = RollingRidge(rows=W).fit(training)
    rows = np.flatnonzero((design.date_index >= 200) & design.complete)
    found = fitted.predict(design, rows)
    penalties = {key: float(estimate[0].penalty[0]) for key, estimate in fitted.frozen.estimates.items()}
    for i in range(0, len(rows), 9):
        for h in range(2):
            expected = naive(design, rows[i], h, penalties[int(design.id_index[rows[i]]), h], embargo)
            np.testing.assert_allclose(found[i, h], expected, rtol=1e-9)


def test_with_as_many_rows_as_the_window_it_begins_as_ridge_and_then_keeps_up(design, training) -> None:
    fitted = RollingRidge().fit(training)
    assert fitted.rows == 150
    ridge = Ridge().fit(training)
    at_cutoff = np.flatnonzero((design.date_index == 330) & (design.id_index == 0))
    # the window's first origins had matured labels, too: for h = 1 the rows differ by one
    np.testing.assert_allclose(fitted.predict(design, at_cutoff)[0], ridge.predict(design, at_cutoff)[0], rtol=0.02)
    later = np.flatnonzero((design.date_index > 360) & design.complete)
    assert np.abs(fitted.predict(design, later) / ridge.predict(design, later) - 1).max() > 0.02


def test_each_row_knows_only_what_was_observed_until_then(design, training, cut_design) -> None:
    fitted = RollingRidge(rows=W).fit(training)
    whole = fitted.predict(design, np.flatnonzero((design.date_index == 300) & design.complete))
    until = cut_design(design, 300)
    assert np.isnan(until.labels).all()
    alone = fitted.predict(until, np.flatnonzero((until.date_index == 300) & until.complete))
    np.testing.assert_array_equal(whole, alone)
    changed = replace(
        design, observed=np.where(design.date_index > 300, 7.0, design.observed), labels=design.labels * 9
    )
    rows = np.flatnonzero((design.date_index >= 299) & (design.date_index < 310) & design.complete)
    before, after = fitted.predict(design, rows), fitted.predict(changed, rows)
    past = design.date_index[rows] <= 300
    np.testing.assert_array_equal(before[past], after[past])
    assert (before[~past] != after[~past]).any()


def test_inside_the_training_window_it_is_out_of_sample(training) -> None:
    """The residual at an origin does not shrink because its own label was seen: refitting on it would."""
    rows = np.flatnonzero(training.train[:, 1])

    def error(model) -> float:
        forecast = model.fit(training).predict(training.design, rows)
        return float(np.square(np.log(forecast / training.design.labels[rows]))[:, 1].mean())

    assert error(RollingRidge(rows=W)) > error(Ridge())


def test_until_there_are_rows_enough_it_is_ridge(design, training) -> None:
    fitted, ridge = RollingRidge(rows=W).fit(training), Ridge().fit(training)
    early = np.flatnonzero((design.date_index < 40) & design.complete)
    np.testing.assert_array_equal(fitted.predict(design, early), ridge.predict(design, early))
    late = np.flatnonzero((design.date_index > 70) & (design.date_index < 90) & design.complete)
    assert not (fitted.predict(design, late) == ridge.predict(design, late)).any()


def test_a_target_that_is_known_late_is_refused(training) -> None:
    late = replace(training.design, label_known=training.design.label_known + 1)
    with pytest.raises(InputError, match="known_at is later than ds"):
        RollingRidge().fit(replace(training, design=late))
