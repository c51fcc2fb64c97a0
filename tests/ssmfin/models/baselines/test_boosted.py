"""LightGBM: repeatable, purged, apart from torch, clear when it is absent."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.boosted import LightGBM

SMALL = {"max_rounds": 40, "early_stopping_rounds": 10, "min_child_samples": 10}


@pytest.mark.parametrize("pooled", [True, False])
def test_repeats_are_identical_to_the_bit(harness, pooled):
    design = harness.simulate()
    window = harness.windows_of(design, step=10)[2]
    model = LightGBM(pooled=pooled, feature_fraction=0.7, **SMALL)
    first, second = (harness.fit_and_predict(model, design, window, seed=5)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, harness.fit_and_predict(model, design, window, seed=6)[0])
    assert (first > 0).all()


@pytest.mark.parametrize("refit_on_all", [True, False])
def test_the_future_and_late_labels_do_not_change_one_bit(harness, refit_on_all):
    design = harness.simulate()
    window = harness.windows_of(design, step=10, embargo=3)[2]
    model = LightGBM(refit_on_all=refit_on_all, **SMALL)
    before, _ = harness.fit_and_predict(model, design, window)
    after, _ = harness.fit_and_predict(model, harness.spoil_after(design, window.cutoff + 4), window)
    early = design.date_index[window.test_rows] <= window.cutoff + 4
    assert 0 < early.sum() < len(early)
    np.testing.assert_array_equal(after[early], before[early])
    labels = np.where(design.label_known > window.labels_until, 1e300, design.labels)
    poisoned, _ = harness.fit_and_predict(model, replace(design, labels=labels), window)
    np.testing.assert_array_equal(poisoned, before)


@pytest.mark.parametrize("refit_on_all", [True, False])
def test_rows_lost_to_the_purge_of_the_tail_come_back_with_the_last_training(harness, refit_on_all):
    design = harness.simulate()
    training = harness.training_of(design, harness.windows_of(design, step=10)[2])
    between = training.train & ~training.fit & ~training.validation
    assert between.any(axis=0)[2]
    other = replace(training.design, labels=np.where(between, 50 * training.design.labels, training.design.labels))
    rows = np.flatnonzero(training.design.complete)[-30:]
    model = LightGBM(refit_on_all=refit_on_all, **SMALL)
    before, after = (
        model.fit(replace(training, design=d), seed=0).predict(training.design, rows) for d in (training.design, other)
    )
    assert np.array_equal(before, after) != refit_on_all


def test_no_features_is_refused_with_a_remedy(harness):
    design = harness.simulate()
    bare = replace(design, features=design.features[:, :0], feature_names=())
    with pytest.raises(InputError, match="at least one feature"):
        LightGBM().fit(harness.training_of(bare, harness.windows_of(bare)[0]), seed=0)


def test_it_learns_what_is_there(harness):
    design = harness.simulate(ids=4, dates=700)
    window = harness.windows_of(design, size=600, tail=100, step=60, first=620)[0]
    forecast, fitted = harness.fit_and_predict(LightGBM(), design, window)
    training = harness.training_of(design, window)
    y = np.log(design.labels[window.test_rows, 0])
    known = np.isfinite(y)
    constant = np.log(training.design.labels[training.train[:, 0], 0]).mean()
    error = y - np.log(forecast[:, 0])
    assert (error[known] ** 2).mean() < 0.7 * ((y[known] - constant) ** 2).mean()
    assert fitted.notes["boosters"] == 3
    assert 1 < fitted.notes["trees_mean"] <= 500


def test_the_target_may_be_negative_and_tiny_without_a_log(harness):
    design = harness.simulate(transform="none")
    design = replace(design, labels=(design.labels - design.labels[40, 0]) * 1e-9)
    window = harness.windows_of(design, step=10)[2]
    forecast, _ = harness.fit_and_predict(LightGBM(**SMALL), design, window)
    assert np.ptp(forecast) > 0  # units do not stop the trees from splitting


@pytest.mark.parametrize("part", ["fit", "validation"])
def test_an_empty_part_of_the_window_is_survived(harness, part):
    design = harness.simulate()
    window = harness.windows_of(design, step=10)[2]
    training = harness.training_of(design, window)
    training = replace(training, **{part: np.zeros_like(training.train)})
    fitted = LightGBM(**SMALL).fit(training, seed=0)
    rows = np.flatnonzero(training.design.complete)[-5:]
    assert np.isfinite(fitted.predict(training.design, rows)).all()


def test_an_id_without_training_rows_is_named_when_not_pooled(harness):
    design = harness.simulate()
    window = harness.windows_of(design, step=10)[2]
    training = harness.training_of(design, window)
    training = replace(training, train=training.train & (training.design.id_index != 1)[:, None])
    fitted = LightGBM(pooled=False, **SMALL).fit(training, seed=0)
    row = np.flatnonzero(training.design.complete & (training.design.id_index == 1))[-1:]
    with pytest.raises(InputError, match="'id1' for horizon 1"):
        fitted.predict(training.design, row)


def test_a_missing_lightgbm_is_explained(harness, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    design = harness.simulate()
    with pytest.raises(InputError, match="pip install lightgbm"):
        LightGBM().fit(harness.training_of(design, harness.windows_of(design)[0]), seed=0)


BESIDE_TORCH = """
import {first}
import {second}
import numpy as np, torch
from ssmfin.models.baselines.boosted import LightGBM
from ssmfin.models.interface import Design, Target, TrainingSet, Window
rng = np.random.default_rng(0)
n = 400
x = rng.standard_normal((n, 4))
y = np.exp(x[:, :1])
known = np.arange(1, n + 1)[:, None]
design = Design(Target("rv", (1,)), ("a",), np.arange(n).astype("datetime64[D]"), np.zeros(n, int), np.arange(n),
                np.array([0, n]), y[:, 0], np.ones((n, 3)), x, ("a", "b", "c", "d"), y, known, {{}})
window = Window(0, n - 1, n - 1, 300, 300, np.empty(0, int))
for _ in range(3):
    w = torch.randn(64, 300, requires_grad=True)
    (w @ w.T).square().sum().backward()
    fitted = LightGBM(max_rounds=20).fit(TrainingSet.of(design, window), seed=0)
    forecast = fitted.predict(design, np.arange(390, 400))
print(forecast.sum().hex())
"""


@pytest.mark.parametrize("first, second", [("torch", "lightgbm"), ("lightgbm", "torch")])
def test_it_lives_beside_torch_in_one_process(first, second):
    code = BESIDE_TORCH.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float.fromhex(done.stdout.strip()) > 0
