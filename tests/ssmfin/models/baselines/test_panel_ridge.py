"""Panel ridge: its two limits (a within estimator, a regression for each id), the equations, who learns from whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.panel_ridge import PanelRidge
from ssmfin.models.interface import TrainingSet, Window


def training_set(design, cutoff=None):
    last = len(design.dates) - 1 if cutoff is None else cutoff
    window = Window(0, last, last, last - 40, last - 40, np.empty(0, dtype=np.int64))
    return TrainingSet.of(design, window)


@pytest.fixture
def design(harness):
    return harness.simulate(ids=4, dates=300)


def rows_of(training, k, h):
    rows = np.flatnonzero(training.train[:, h] & (training.design.id_index == k))
    return training.design.features[rows], np.log(training.design.labels[rows, h])


def test_without_a_penalty_on_departures_each_id_has_its_own_least_squares(design):
    training = training_set(design)
    fitted = PanelRidge(own=1e-9, penalty=1e-9).fit(training)
    for k, name in enumerate(design.ids):
        x, y = rows_of(training, k, 1)
        expected = np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0]
        np.testing.assert_allclose(fitted.coefficients(name, 1), expected, rtol=1e-4, atol=1e-5)


def test_with_a_large_one_slopes_are_common_and_those_of_the_within_estimator(design):
    training = training_set(design)
    fitted = PanelRidge(own=1e9, penalty=1e-9).fit(training)
    parts = [rows_of(training, k, 0) for k in range(4)]
    x = np.concatenate([x - x.mean(axis=0) for x, _ in parts])
    y = np.concatenate([y - y.mean() for _, y in parts])
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    for k, name in enumerate(design.ids):
        intercept = parts[k][1].mean() - parts[k][0].mean(axis=0) @ slopes
        np.testing.assert_allclose(fitted.coefficients(name, 0), [intercept, *slopes], rtol=1e-6, atol=1e-8)


def test_between_them_both_programmes_are_solved(design):
    """The gradients of the two objectives, written out, vanish."""
    training = training_set(design)
    penalty, own, h, horizon = 0.05, 0.2, 1, 5
    fitted = PanelRidge(penalty=penalty, own=own).fit(training)
    common = PanelRidge(penalty=penalty, own=1e9).fit(training).coefficients(design.ids[0], h)[1:]
    parts = [rows_of(training, k, h) for k in range(4)]
    x = [x - x.mean(axis=0) for x, _ in parts]
    y = [y - y.mean() for _, y in parts]
    n = sum(map(len, y))
    variance = sum((part**2).sum(axis=0) for part in x) / n
    gradient = sum(a.T @ (b - a @ common) for a, b in zip(x, y, strict=True)) - n * penalty * variance * common
    np.testing.assert_allclose(gradient / (n * np.sqrt(variance)), 0, atol=1e-6)
    for k, name in enumerate(design.ids):
        slopes = fitted.coefficients(name, h)[1:]
        gradient = x[k].T @ (y[k] - x[k] @ slopes) - len(y[k]) * own * horizon * variance * (slopes - common)
        np.testing.assert_allclose(gradient / (len(y[k]) * np.sqrt(variance)), 0, atol=1e-6)


def test_a_constant_column_teaches_nothing(design):
    wider = replace(
        design,
        features=np.column_stack([design.features, np.full(design.rows, 3.0)]),
        feature_names=(*design.feature_names, "constant"),
    )
    plain, more = (PanelRidge().fit(training_set(d)) for d in (design, wider))
    assert more.coefficients(design.ids[0])[-1] == 0.0
    np.testing.assert_allclose(more.coefficients(design.ids[0])[:-1], plain.coefficients(design.ids[0]), rtol=1e-9)


def test_an_id_with_few_rows_leans_on_the_others(design):
    """Its slopes are nearer to the common ones than those of its own least squares are."""
    first = design.starts[3]
    keep = np.ones(design.rows, dtype=bool)
    keep[first : first + int(0.8 * (design.starts[4] - first))] = False
    usable = design.complete & keep
    training = training_set(replace(design, usable=usable))
    shrunk, own, common = (PanelRidge(own=v).fit(training).coefficients(design.ids[3], 1)[1:] for v in (0.3, 1e-9, 1e9))
    scale = design.features[usable].std(axis=0)
    assert np.linalg.norm((shrunk - common) * scale) < 0.5 * np.linalg.norm((own - common) * scale)


def test_forecasts_are_on_the_original_scale_and_unbiased_in_the_window(design):
    training = training_set(design)
    rows = np.flatnonzero(training.train[:, 0])
    forecast = PanelRidge().fit(training).predict(design, rows)[:, 0]
    assert np.mean(design.labels[rows, 0] / forecast) == pytest.approx(1.0, abs=0.1)


def test_a_study_without_features_is_refused(design):
    bare = replace(design, features=np.empty((design.rows, 0)), feature_names=())
    with pytest.raises(InputError, match="features is empty"):
        PanelRidge().fit(training_set(bare))
