"""Options of the deep forecasters have effects that one can see: what is learned with them and not without."""

from __future__ import annotations

import numpy as np
import pytest

from ssmfin.models.deep.training_data import Task
from ssmfin.models.ssm.s4d import S4D

ROWS, CUTOFF = 700, 550
QUICK = {"state": 4, "context": 24, "segment": 64, "batch": 2, "device": "cpu", "half_trust": 0.0, "dropout": 0.0}
QUICK |= {"epochs": 12, "learning_rate": 2e-2, "ssm_learning_rate": 5e-3, "warmup": 1, "averaging": 1.0}


def loss(fitted, design, rows: np.ndarray) -> np.ndarray:
    """(H,) mean QLIKE."""
    ratio = design.labels[rows] / fitted.predict(design, rows)
    return (ratio - np.log(ratio) - 1).mean(axis=0)


def losses(make_design, make_training_set, origins, variances, dates, extra, **options: object) -> list[float]:
    """Without the options, and with them, of a horizon of one row after the training window."""
    design = make_design(variances, dates=dates, extra=extra, horizons=(1,))
    training = make_training_set(design, CUTOFF, size=500, validation=100)
    rows = origins(design, CUTOFF, len(design.dates) - 3)
    return [loss(S4D(**QUICK | more).fit(training, seed=0), design, rows)[0] for more in ({}, options)]


def test_a_network_with_id_embedding_learns_what_differs_between_ids(make_design, make_training_set, origins) -> None:
    """One signal raises the variance of the one id and lowers that of the other."""
    rng = np.random.default_rng(1)
    signal, noise = rng.standard_normal((2, ROWS)), 0.3 * rng.standard_normal((2, ROWS))
    effect = np.roll(signal, 1, axis=1) * [[0.8], [-0.8]]
    variances = list(1e-4 * np.exp(effect + noise))
    extra = [row[:, None] for row in signal]
    days = [np.arange(ROWS)] * 2
    without, with_it = losses(make_design, make_training_set, origins, variances, days, extra, id_embedding=True)
    assert with_it < 0.6 * without


def test_a_network_with_the_calendar_learns_what_weekdays_do(make_design, make_training_set, origins) -> None:
    """After a row of a Monday or Tuesday variance is high. Rows are one to six days apart: counting them is no help."""
    rng = np.random.default_rng(2)
    days = np.cumsum(rng.integers(1, 7, (2, ROWS)), axis=1)
    early = days % 7 < 2  # day 0 of the designs is a Monday
    effect = np.where(np.roll(early, 1, axis=1), 0.8, -0.3)
    variances = list(1e-4 * np.exp(effect + 0.3 * rng.standard_normal((2, ROWS))))
    design = make_design(variances, dates=list(days), horizons=(1,))
    cutoff = int(np.searchsorted(np.unique(days), days[0, CUTOFF]))
    training = make_training_set(design, cutoff, size=cutoff - 50, validation=cutoff // 5)
    rows = origins(design, cutoff, len(design.dates) - 20)
    rows = rows[np.isfinite(design.labels[rows, 0])]
    without, with_it = (
        loss(S4D(**QUICK | more).fit(training, seed=0), design, rows)[0] for more in ({}, {"calendar": True})
    )
    assert with_it < 0.6 * without


def test_the_curriculum_doubles_segments_up_to_their_length(training, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    original = Task.sequences

    def watched(task: Task, mask: np.ndarray, context: int, length: int):
        if mask is task.training.fit:
            lengths.append(length)
        return original(task, mask, context, length)

    monkeypatch.setattr(Task, "sequences", watched)
    fits = []
    for curriculum, expected in ((0.0, [48]), (0.5, [6, 12, 24, 48]), (1.0, [6, 12, 24, 48])):
        lengths.clear()
        model = S4D(**QUICK | {"epochs": 12, "segment": 48, "patience": 12, "curriculum": curriculum})
        fits.append(model.fit(training, seed=0))
        assert lengths == expected[: len(lengths)]
        assert len(lengths) == len(expected) or curriculum == 1.0
    first, second = (list(fit.network.parameters()) for fit in fits[:2])
    assert not all(one.equal(other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("early_stopping", [True, False])
def test_without_early_stopping_the_tail_of_the_window_teaches_and_all_epochs_count(
    early_stopping, make_design, make_training_set, origins
) -> None:
    """A signal that works in the tail of the window, and after it, alone."""
    rng = np.random.default_rng(3)
    signal, noise = rng.standard_normal((2, ROWS)), 0.3 * rng.standard_normal((2, ROWS))
    works = np.arange(ROWS) >= CUTOFF - 150
    variances = list(1e-4 * np.exp(np.where(works, 0.8 * np.roll(signal, 1, axis=1), 0.0) + noise))
    extra = [row[:, None] for row in signal]
    design = make_design(variances, dates=[np.arange(ROWS)] * 2, extra=extra, horizons=(1,))
    training = make_training_set(design, CUTOFF, size=500, validation=150)
    options = QUICK | {"early_stopping": early_stopping, "epochs": 20}
    fitted = S4D(**options, patience=1).fit(training, seed=0)
    rows = origins(design, CUTOFF, len(design.dates) - 3)
    base = S4D(**QUICK | {"epochs": 0}).fit(training, seed=0)
    gain = loss(fitted, design, rows)[0] / loss(base, design, rows)[0]
    if early_stopping:
        assert gain > 0.9
    else:
        assert gain < 0.8
        assert fitted.notes["epochs"] == fitted.notes["best_epoch"] == 20
        assert "validation_loss" not in fitted.notes
