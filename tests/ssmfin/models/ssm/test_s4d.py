"""S4D as a forecaster: log-HAR until it learns, blind to the future, repeatable, able to learn, clear when misused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.ssm.s4d import S4D

SMALL = {"context": 24, "width": 8, "state": 8, "segment": 64, "batch": 4, "device": "cpu"}
ROWS = 420


@pytest.fixture(scope="module")
def design(make_design, simulate):
    """Three ids: one long, one that starts later, one with holes in its calendar."""
    long, late, holes = simulate(3, ROWS)
    days = np.arange(ROWS)
    observed = np.flatnonzero(np.random.default_rng(0).random(ROWS) > 0.1)
    return make_design([long, late[100:], holes[observed]], dates=[days, days[100:], days[observed]])


@pytest.fixture(scope="module")
def training(design, make_training_set):
    return make_training_set(design, 350, size=250, validation=60)


@pytest.fixture(scope="module")
def fitted(training):
    model = S4D(**SMALL, epochs=4, patience=4).fit(training, seed=1)
    with torch.no_grad():  # a correction that is not zero, whatever early stopping kept
        generator = torch.Generator().manual_seed(0)
        for parameter in model.network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def origins(design, first: int, last: int) -> np.ndarray:
    return np.flatnonzero((design.date_index >= first) & (design.date_index <= last) & design.complete)


def test_untrained_is_log_har_to_the_last_bit(design, training) -> None:
    rows = origins(design, 350, ROWS)
    untrained = S4D(**SMALL, epochs=0).fit(training, seed=3)
    expected = LogHAR().fit(training, seed=0).predict(design, rows)
    assert (untrained.predict(design, rows) == expected).all()
    assert untrained.notes["best_epoch"] == 0


def test_without_a_log_untrained_is_har_to_the_last_bit(make_design, make_training_set, simulate) -> None:
    design = make_design(simulate(2, 300), transform="none")
    training = make_training_set(design, 250, size=200, validation=50)
    rows = origins(design, 250, 290)
    untrained = S4D(**SMALL, epochs=0).fit(training, seed=0)
    assert (untrained.predict(design, rows) == HAR().fit(training, seed=0).predict(design, rows)).all()
    trained = S4D(**SMALL, epochs=3).fit(training, seed=0)
    with torch.no_grad():
        trained.network.head.bias += 3.0
    forecast = trained.predict(design, rows)
    labels = np.where(training.train, training.design.labels, np.nan)
    assert (forecast >= np.nanmin(labels, axis=0)).all()
    assert (forecast <= np.nanmax(labels, axis=0)).all()
    assert trained.notes["insanity_filter"] > 0


def test_what_comes_later_leaves_every_bit_of_a_forecast_alone(design, cut_design, fitted) -> None:
    rows = origins(design, 350, 380)
    before = fitted.predict(design, rows)
    later = design.date_index > 380
    changed = dataclasses.replace(
        design,
        features=np.where(later[:, None], 7.0, design.features),
        lag_means=np.where(later[:, None], 1e3, design.lag_means),
        observed=np.where(later, 1e3, design.observed),
    )
    assert (fitted.predict(changed, rows) == before).all()
    cut = cut_design(design, 380)
    assert (fitted.predict(cut, origins(cut, 350, 380)) == before).all()


def test_forecast_has_the_same_bits_alone_and_in_company(design, fitted) -> None:
    rows = origins(design, 340, 400)
    together = fitted.predict(design, rows)
    for position in (0, 70, len(rows) - 1):
        assert (fitted.predict(design, rows[[position]]) == together[position]).all()


def test_forecast_uses_the_last_context_rows_of_its_own_id_alone(design, fitted) -> None:
    row = origins(design, 380, 380)[:1]
    base = fitted.correction(design, row)

    def changed_at(which: int) -> np.ndarray:
        features = design.features.copy()
        features[which] += 1.0
        return fitted.correction(dataclasses.replace(design, features=features), row)

    context = SMALL["context"]
    assert (changed_at(row[0] - context) == base).all()
    assert (changed_at(row[0] - context + 1) != base).any()
    assert (changed_at(row[0]) != base).all()
    others = np.where((design.id_index == design.id_index[row])[:, None], design.features, -5.0)
    assert (fitted.correction(dataclasses.replace(design, features=others), row) == base).all()


def test_forecast_windows_equal_the_sequence_wise_pass_of_training(design, fitted) -> None:
    for k in range(3):
        rows = np.arange(*design.rows_of(k).indices(design.rows))
        x, present = (torch.from_numpy(a)[None] for a in fitted.scale.apply(design, rows))
        with torch.no_grad():
            whole = fitted.credibility * fitted.network(x, present)[0].numpy()
        complete = design.complete[rows]  # the id's first rows among them: nothing before them may leak in
        np.testing.assert_allclose(fitted.correction(design, rows[complete]), whole[complete], rtol=1e-4, atol=2e-6)


def test_same_seed_same_bits_and_another_seed_differs(design, training) -> None:
    rows = origins(design, 350, 400)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    model = S4D(**SMALL, epochs=3)
    forecasts = []
    for seed in (5, 5, 6):
        fit = model.fit(training, seed=seed)
        forecasts.append((fit.notes["validation_loss_at_start"], fit.network.state_dict()))
        torch.rand(seed)  # the caller's generator does not matter
        forecasts[-1] += (fit.predict(design, rows),)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    first, again, other = forecasts
    assert (first[2] == again[2]).all()
    assert all((first[1][name] == again[1][name]).all() for name in first[1])
    assert any((first[1][name] != other[1][name]).any() for name in first[1])
    assert first[0] == other[0]  # log-HAR's own loss: the start is the same for every seed


def test_labels_after_the_cutoff_and_rows_after_it_do_not_exist_in_training(design, make_training_set) -> None:
    changed = dataclasses.replace(
        design,
        labels=np.where(design.label_known > 350, 5.0, design.labels),
        features=np.where((design.date_index > 350)[:, None], 5.0, design.features),
    )
    fits = [
        S4D(**SMALL, epochs=2).fit(make_training_set(each, 350, size=250, validation=60), seed=0)
        for each in (design, changed)
    ]
    states = [fit.network.state_dict() for fit in fits]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_learns_what_log_har_cannot_see(make_design, make_training_set) -> None:
    """Tomorrow's log variance is a decaying sum of a signal's past: a state knows it, past variances only guess it."""
    rows = 900
    rng = np.random.default_rng(4)
    signal = rng.standard_normal((2, rows))
    state = np.stack([np.convolve(pulse, 0.6 * 0.8 ** np.arange(60))[:rows] for pulse in signal])
    variances = list(1e-4 * np.exp(np.roll(state, 1, axis=1) + 0.3 * rng.standard_normal((2, rows))))
    design = make_design(variances, extra=[pulse[:, None] for pulse in signal], horizons=(1, 2))
    training = make_training_set(design, 700, size=600, validation=100)
    model = S4D(**(SMALL | {"width": 16, "batch": 2}), epochs=25, learning_rate=1e-2, ssm_learning_rate=5e-3)
    fitted = model.fit(training, seed=0)
    test = origins(design, 700, rows - 5)
    ratio = [
        np.mean(design.labels[test] / forecast - np.log(design.labels[test] / forecast) - 1, axis=0)
        for forecast in (fitted.predict(design, test), LogHAR().fit(training, seed=0).predict(design, test))
    ]
    assert (ratio[0] < 0.8 * ratio[1]).all()
    assert fitted.notes["best_epoch"] > 0


def test_correction_of_a_long_horizon_is_trusted_less(fitted, training) -> None:
    dates = [len(np.unique(training.design.date_index[training.fit[:, column]])) for column in range(2)]
    expected = [dates[0] / (dates[0] + 100), (dates[1] / 5) / (dates[1] / 5 + 100)]
    np.testing.assert_allclose(fitted.credibility, expected)
    assert (S4D(**SMALL, epochs=0, half_trust=0).fit(training, seed=0).credibility == 1).all()


@pytest.mark.parametrize("newcomer_rows", [3, 26, 40, 90])
def test_id_that_has_just_started_neither_breaks_nor_moves_the_others(
    make_design, make_training_set, simulate, newcomer_rows: int
) -> None:
    """22 rows make the first lag mean: here the newcomer has no training row at all, a few, and still too few."""
    days = np.arange(ROWS)
    old, new = simulate(2, ROWS)
    states = []
    for factor in (1.0, 1e6):
        fresh = new[-newcomer_rows - 70 :].copy()
        fresh[25:] *= factor
        design = make_design([old, fresh], dates=[days, days[-newcomer_rows - 70 :]])
        training = make_training_set(design, ROWS - 71, size=300, validation=60)
        states.append(S4D(**SMALL, epochs=2).fit(training, seed=0).network.state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_row_with_an_undefined_feature_inside_the_context_is_skipped(design, fitted) -> None:
    features = design.features.copy()
    row = origins(design, 380, 380)[:1]
    features[row[0] - 5, 0] = np.nan
    one_missing = fitted.predict(dataclasses.replace(design, features=features), row)
    assert np.isfinite(one_missing).all()
    features[row[0] - 5] = np.nan
    assert (fitted.predict(dataclasses.replace(design, features=features), row) == one_missing).all()


def test_notes_are_plain_facts(fitted) -> None:
    assert {"best_epoch", "epochs", "validation_loss_at_start", "validation_loss", "parameters"} <= fitted.notes.keys()
    assert all(type(value) in (int, float) for value in fitted.notes.values())


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"contxt": 3}, "no parameter 'contxt'; did you mean 'context'"),
        ({"context": 0}, "S4D.context is 0"),
        ({"state": 7}, "S4D.state is 7; input should be a multiple of 2"),
        ({"dt_min": 0.5}, "S4D.dt_max is 0.1; use at least dt_min, 0.5"),
        ({"device": "tpu"}, "S4D.device is 'tpu'"),
        ({"dropout": 1.0}, "S4D.dropout is 1.0"),
    ],
)
def test_wrong_parameters_are_input_errors(parameters, message: str) -> None:
    with pytest.raises(InputError, match=message):
        S4D(**parameters)


def test_training_sets_that_cannot_teach_are_input_errors(design, training) -> None:
    no_features = dataclasses.replace(training.design, features=np.empty((training.design.rows, 0)))
    nothing = np.zeros_like(training.fit)
    for broken, message in (
        (dataclasses.replace(training, design=no_features), "features is empty, 0 columns"),
        (
            dataclasses.replace(training, fit=nothing),
            r"no label for horizons \[1, 5\]; lengthen walk_forward.train.size",
        ),
        (
            dataclasses.replace(training, validation=training.validation & [True, False]),
            r"no label for horizons \[5\]; lengthen walk_forward.validation.size",
        ),
    ):
        with pytest.raises(InputError, match=message):
            S4D(**SMALL).fit(broken, seed=0)


def test_import_does_not_load_torch() -> None:
    code = "import sys, ssmfin.models.ssm.s4d, ssmfin.models.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
