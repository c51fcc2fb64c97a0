"""Ridge as a model: parts of the window, notes, penalties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.baselines.ridge import Ridge


@pytest.mark.parametrize("transform", ["log", "none"])
def test_forecasts_equal_ridge_written_out_over_the_masks(harness, transform):
    design = harness.simulate(transform=transform)
    windows = harness.windows_of(design, step=23)
    model = Ridge(penalties=(0.001, 0.1, 10.0))
    forecasts, _ = model.walk(design, windows)
    for window, walked in zip(windows, forecasts, strict=True):
        training = harness.training_of(design, window)
        past = training.design
        for i, row in enumerate(window.test_rows):
            k = design.id_index[row]
            for h in range(3):
                y = np.log(past.labels[:, h]) if transform == "log" else past.labels[:, h]
                rows = {
                    part: getattr(training, part)[:, h] & (past.id_index == k)
                    for part in ("train", "fit", "validation")
                }
                errors = []
                for penalty in model.penalties:
                    a, b, _ = written_out(past.features[rows["fit"]], y[rows["fit"]], penalty)
                    tail = rows["validation"]
                    errors.append(((y[tail] - a - past.features[tail] @ b) ** 2).sum())
                best = model.penalties[int(np.argmin(errors))]
                a, b, variance = written_out(past.features[rows["train"]], y[rows["train"]], best)
                mu = a + design.features[row] @ b
                expected = np.exp(mu + 0.5 * variance) if transform == "log" else mu
                assert walked[i, h] == pytest.approx(expected, rel=1e-7)


def written_out(x, y, penalty):
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    gram, n = z.T @ z, len(y)
    solution = np.linalg.solve(gram + n * penalty * np.eye(len(gram)), z.T @ (y - y.mean()))
    freedom = np.trace(np.linalg.solve(gram + n * penalty * np.eye(len(gram)), gram))
    residual = y - y.mean() - z @ solution
    b = solution / x.std(axis=0)
    return y.mean() - b @ x.mean(axis=0), b, residual @ residual / (n - 1 - freedom)


def test_notes_count_penalties_and_how_many_are_at_the_edge(harness):
    design = harness.simulate()
    windows = harness.windows_of(design, step=20)
    _, notes = Ridge(penalties=(0.01,)).walk(design, windows)
    total = 3 * sum(len(np.unique(design.id_index[w.test_rows])) for w in windows)
    assert notes == {
        "penalty_median": 0.01,
        "penalty_at_smallest": total,
        "penalty_at_largest": total,
        "penalties": total,
    }
    _, notes = Ridge().walk(design, windows)
    assert notes["penalties"] == total
    assert 0 <= notes["penalty_at_smallest"] + notes["penalty_at_largest"] <= total
    fitted = Ridge().fit(harness.training_of(design, windows[0]))
    assert fitted.notes["penalties"] == 9


def test_a_window_without_a_tail_still_forecasts(harness):
    design = harness.simulate()
    window = harness.windows_of(design)[5]
    blind = replace(window, validation_start=window.cutoff + 1, fit_labels_until=window.cutoff)
    (walked,), _ = Ridge().walk(design, [blind])
    np.testing.assert_allclose(walked, harness.fit_and_predict(Ridge(), design, blind)[0], rtol=1e-10)
    assert (walked > 0).all()


def test_without_features_it_is_the_mean_of_the_window(harness):
    design = harness.simulate(transform="none")
    bare = replace(design, features=design.features[:, :0], feature_names=())
    window = harness.windows_of(bare)[5]
    (walked,), _ = Ridge().walk(bare, [window])
    training = harness.training_of(bare, window)
    for i, row in enumerate(window.test_rows):
        mine = training.design.id_index == design.id_index[row]
        for h in range(3):
            expected = training.design.labels[mine & training.train[:, h], h].mean()
            assert walked[i, h] == pytest.approx(expected, rel=1e-12)


def test_a_constant_feature_changes_nothing(harness):
    design = harness.simulate()
    windows = harness.windows_of(design, step=31)
    wider = replace(design, features=np.column_stack([design.features, np.full(design.rows, 0.3)]))
    for a, b in zip(Ridge().walk(design, windows)[0], Ridge().walk(wider, windows)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_target_that_is_not_positive_is_refused_under_a_log_only(harness):
    design = harness.simulate()
    labels = design.labels.copy()
    labels[np.flatnonzero(design.complete & (design.date_index > 60))[0]] = -1.0
    windows = harness.windows_of(design, step=31)
    with pytest.raises(InputError, match="ridge takes logs"):
        Ridge().walk(replace(design, labels=labels), windows)
    free = replace(design, labels=labels, target=replace(design.target, transform="none"))
    assert np.isfinite(np.concatenate(Ridge().walk(free, windows)[0])).all()


@pytest.mark.parametrize("penalties", [(), (0.0, 1.0), (-1.0,), (float("nan"),), (float("inf"),)])
def test_penalties_must_be_positive_and_present(penalties):
    with pytest.raises(InputError, match=r"Ridge\.penalties"):
        Ridge(penalties=penalties)


def test_penalties_are_sorted_and_distinct():
    assert Ridge(penalties=(1.0, 0.1, 1.0)).penalties == (0.1, 1.0)
