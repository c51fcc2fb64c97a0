"""Deep forecasters of every kind: the base until they learn, blind to the future, repeatable, clear when misused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from deep_support.blocks import KINDS as KINDS_OF_BLOCKS
from scipy.stats import norm
from sklearn.base import clone

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.deep.forecaster import DeepForecaster
from ssmfin.models.registry import KINDS, forecaster_class
from ssmfin.models.ssm.s4d import S4D

KIND_NAMES = sorted(k for k in KINDS if ".ssm." in KINDS[k] or ".sequence." in KINDS[k])
SMALL = {"context": 24, "width": 8, "segment": 48, "batch": 4, "device": "cpu", "epochs": 1}
SMALL_STATE = {"s4": {"state": 4}, "s4d": {"state": 4}, "s5": {"state": 4, "parts": 1}, "mamba": {"state": 4}}
SMALL_STATE |= {"mamba2": {"state": 4, "head_width": 8}, "hybrid": {"state": 4, "window": 8}, "tcn": {"layers": 2}}
LAST = 330


def small(kind: str = "s4d", **changes: object) -> DeepForecaster:
    return forecaster_class(kind)(**(SMALL | SMALL_STATE.get(kind, {}) | changes))


@pytest.fixture(scope="module")
def fitted(training, moved):
    return moved(small().fit(training, seed=1))


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_kind_is_log_har_to_the_last_bit_before_it_learns(kind, design, training, origins) -> None:
    rows = origins(design, 270, LAST)
    untrained = small(kind, epochs=0).fit(training, seed=3)
    assert (untrained.predict(design, rows) == LogHAR().fit(training, seed=0).predict(design, rows)).all()
    assert untrained.notes["best_epoch"] == 0


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_what_comes_later_leaves_every_bit_of_a_forecast_alone(
    kind, design, training, cut_design, moved, origins
) -> None:
    model = moved(small(kind).fit(training, seed=1))
    rows = origins(design, 270, 300)
    before = model.predict(design, rows)
    later = design.date_index > 300
    changed = dataclasses.replace(
        design,
        features=np.where(later[:, None], 7.0, design.features),
        lag_means=np.where(later[:, None], 1e3, design.lag_means),
        observed=np.where(later, 1e3, design.observed),
    )
    assert (model.predict(changed, rows) == before).all()
    cut = cut_design(design, 300)
    assert (model.predict(cut, origins(cut, 270, 300)) == before).all()
    base = model.base.forecast(design, rows)
    assert (before != base).all()


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_kinds_do_not_hide_a_shared_field_under_another_meaning(kind) -> None:
    """A field of the same name may have another default and range, not another type."""
    for name, field in DeepForecaster.model_fields.items():
        assert forecaster_class(kind).model_fields[name].annotation == field.annotation, name


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_matched_networks_have_the_parameters_asked_for(kind, training) -> None:
    found = small(kind, match_parameters=50_000, epochs=0).fit(training, seed=0).notes["parameters"]
    assert abs(found / 50_000 - 1) < 0.15  # widths are multiples of the heads


def test_residual_on_ridge_and_from_scratch_start_there(design, training, origins) -> None:
    rows = origins(design, 270, LAST)
    on_ridge = small(residual="ridge", epochs=0).fit(training, seed=0)
    assert (on_ridge.predict(design, rows) == Ridge().fit(training).predict(design, rows)).all()
    scratch = small(residual="none", epochs=0).fit(training, seed=0).predict(design, rows)
    for k in range(3):
        own = design.id_index[rows] == k
        of_id = training.train & (training.design.id_index == k)[:, None]
        means = [training.design.labels[of_id[:, h], h].mean() for h in range(2)]
        np.testing.assert_allclose(scratch[own], np.tile(means, (own.sum(), 1)), rtol=1e-12)


def test_without_a_log_untrained_is_har_and_corrections_stay_in_range(
    make_design, make_training_set, simulate, origins
) -> None:
    design = make_design(simulate(2, 300), transform="none")
    training = make_training_set(design, 250, size=200, validation=50)
    rows = origins(design, 250, 290)
    untrained = small(epochs=0).fit(training, seed=0)
    assert (untrained.predict(design, rows) == HAR().fit(training, seed=0).predict(design, rows)).all()
    trained = small(half_trust=0.0).fit(training, seed=0)
    with torch.no_grad():
        trained.network.head.bias += 3.0
    forecast = trained.predict(design, rows)
    labels = np.where(training.train, training.design.labels, np.nan)
    assert (forecast >= np.nanmin(labels, axis=0)).all()
    assert (forecast <= np.nanmax(labels, axis=0)).all()
    assert trained.notes["insanity_filter"] > 0


def test_forecast_has_the_same_bits_alone_and_in_company(design, fitted, origins) -> None:
    rows = origins(design, 260, 310)
    together = fitted.predict(design, rows)
    for number in (0, 17, len(rows) - 1):
        assert (fitted.predict(design, rows[[number]]) == together[[number]]).all()
    assert fitted.predict(design, rows[:0]).shape == (0, 2)


def test_carried_chunks_equal_one_pass_of_training(design, fitted) -> None:
    rows = np.arange(*design.rows_of(0).indices(design.rows))
    complete = rows[design.complete[rows]]
    assert len(complete) > 256  # three chunks
    with torch.no_grad():
        raw, _ = fitted.network(fitted.reader.inputs(design, complete[None]))
    expected = fitted.groups[0].credibility * raw[0, :, :, 0].numpy()
    np.testing.assert_allclose(fitted.corrections(design, complete)[0], expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_history_may_be_limited_to_multiples_of_the_training_length(multiple, design, training, moved, origins) -> None:
    """Rows older than that change nothing; the last row of the limit does."""
    model = moved(small(evaluate_length=multiple, segment=40, context=16).fit(training, seed=1))
    rows = origins(design, 320, 325)
    rows = rows[design.id_index[rows] == 0]
    before = model.predict(design, rows)
    length = multiple * (40 + 16)

    def changed(age: int) -> np.ndarray:
        features = design.features.copy()
        features[22 : rows[0] - age] += 1.0
        return model.predict(dataclasses.replace(design, features=features), rows)

    assert (changed(length) == before).all()
    assert (changed(length - 40) != before).all()


def test_one_network_for_each_id_learns_from_its_own_rows_alone(design, training, origins) -> None:
    model = small(pooled=False, epochs=2)
    fitted = model.fit(training, seed=0)
    assert [sorted(group.ids) for group in fitted.groups] == [["id0"], ["id1"], ["id2"]]
    other = (training.design.id_index == 1)[:, None]
    changed = dataclasses.replace(
        training.design, labels=np.where(other, 3.0 * training.design.labels, training.design.labels)
    )
    again = model.fit(dataclasses.replace(training, design=changed), seed=0)
    same = [
        all(a.equal(b) for a, b in zip(one.networks[0].parameters(), two.networks[0].parameters(), strict=True))
        for one, two in zip(fitted.groups, again.groups, strict=True)
    ]
    assert same[0]
    assert same[2]
    assert np.isfinite(fitted.predict(design, origins(design, 270, LAST))).all()


def test_an_ensemble_is_the_mean_of_its_members(design, training, moved, origins) -> None:
    rows = origins(design, 270, LAST)
    several = moved(small(ensemble=3).fit(training, seed=1))
    base = several.base.forecast(design, rows)
    forecasts = base * np.exp(several.corrections(design, rows))
    np.testing.assert_allclose(several.predict(design, rows), forecasts.mean(axis=0), rtol=1e-14)
    spread = np.std(forecasts, axis=0) / base
    assert several.notes["ensemble_spread"] == pytest.approx(spread.mean())
    first, second = (group.networks for group in [several.groups[0], small().fit(training, seed=1).groups[0]])
    assert len(first) == 3
    assert len(second) == 1


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_same_seed_same_bits_and_another_seed_differs(kind, design, training, origins) -> None:
    rows = origins(design, 270, LAST)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    model = small(kind, epochs=2, averaging=1.0, curriculum=0.5)
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
    assert first[0] == other[0]  # the base's own loss: the start is the same for every seed


def test_labels_after_the_cutoff_and_rows_after_it_do_not_exist_in_training(design, make_training_set) -> None:
    changed = dataclasses.replace(
        design,
        labels=np.where(design.label_known > 270, 5.0, design.labels),
        features=np.where((design.date_index > 270)[:, None], 5.0, design.features),
    )
    fits = [
        small(epochs=2, calendar=True, id_embedding=True).fit(
            make_training_set(each, 270, size=190, validation=50), seed=0
        )
        for each in (design, changed)
    ]
    states = [fit.network.state_dict() for fit in fits]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_learns_what_log_har_cannot_see(make_design, make_training_set, origins) -> None:
    """Tomorrow's log variance is a decaying sum of a signal's past: a state knows it, past variances only guess it."""
    rows = 900
    rng = np.random.default_rng(4)
    signal = rng.standard_normal((2, rows))
    state = np.stack([np.convolve(pulse, 0.6 * 0.8 ** np.arange(60))[:rows] for pulse in signal])
    variances = list(1e-4 * np.exp(np.roll(state, 1, axis=1) + 0.3 * rng.standard_normal((2, rows))))
    design = make_design(variances, extra=[pulse[:, None] for pulse in signal], horizons=(1, 2))
    training = make_training_set(design, 700, size=600, validation=100)
    changes = {"segment": 64, "batch": 2, "width": 16, "learning_rate": 1e-2, "ssm_learning_rate": 5e-3}
    test = origins(design, 700, rows - 5)
    base = LogHAR().fit(training, seed=0).predict(design, test)
    fitted = small(**changes, epochs=25).fit(training, seed=0)
    forecast = fitted.predict(design, test)
    ratio = [np.mean(design.labels[test] / f - np.log(design.labels[test] / f) - 1, axis=0) for f in (forecast, base)]
    assert (ratio[0] < 0.8 * ratio[1]).all()
    assert fitted.notes["best_epoch"] > 0
    assert fitted.notes["slow_gradient_norm"] > fitted.notes["step_size_gradient_norm"] > 0


def test_correction_of_a_long_horizon_is_trusted_less(fitted, training) -> None:
    dates = [len(np.unique(training.design.date_index[training.fit[:, column]])) for column in range(2)]
    expected = [dates[0] / (dates[0] + 100), (dates[1] / 5) / (dates[1] / 5 + 100)]
    np.testing.assert_allclose(fitted.groups[0].credibility, expected)
    for changes in ({"half_trust": 0}, {"residual": "none"}):
        assert (small(epochs=0, **changes).fit(training, seed=0).groups[0].credibility == 1).all()


@pytest.mark.parametrize("newcomer_rows", [3, 26, 40, 90])
def test_id_that_has_just_started_neither_breaks_nor_moves_the_others(
    make_design, make_training_set, simulate, newcomer_rows: int
) -> None:
    """22 rows make the first lag mean: here the newcomer has no training row at all, a few, and still too few."""
    rows = 420
    days = np.arange(rows)
    old, new = simulate(2, rows)
    states = []
    for factor in (1.0, 1e6):
        fresh = new[-newcomer_rows - 70 :].copy()
        fresh[25:] *= factor
        design = make_design([old, fresh], dates=[days, days[-newcomer_rows - 70 :]])
        training = make_training_set(design, rows - 71, size=300, validation=60)
        states.append(small(epochs=2).fit(training, seed=0).network.state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


def test_row_with_an_undefined_feature_is_as_if_it_were_not_there(design, fitted, origins) -> None:
    features = design.features.copy()
    row = origins(design, 300, 300)[:1]
    features[row[0] - 5, 0] = np.nan
    one_missing = fitted.predict(dataclasses.replace(design, features=features), row)
    assert np.isfinite(one_missing).all()
    assert (one_missing != fitted.predict(design, row)).all()
    features[row[0] - 5] = np.nan
    assert (fitted.predict(dataclasses.replace(design, features=features), row) == one_missing).all()


@pytest.mark.parametrize("head", ["lognormal", "gaussian", "quantiles", "event"])
def test_heads_answer_on_the_original_scale(head, design, training, moved, origins) -> None:
    rows = origins(design, 270, LAST - 6)
    untrained = small(head=head, epochs=0).fit(training, seed=0)
    assert (untrained.predict(design, rows) == LogHAR().fit(training, seed=0).predict(design, rows)).all()
    for model in (untrained, moved(small(head=head).fit(training, seed=0), 0.05)):
        found = model.predict_quantiles(design, rows, [0.05, 0.5, 0.95])
        if head == "event":
            assert found is None
            probability = model.predict_event(design, rows)
            assert ((probability > 0) & (probability < 1)).all()
        else:
            assert found.shape == (len(rows), 2, 3)
            assert (np.diff(found, axis=-1) > 0).all()
            inside = (design.labels[rows] > found[..., 0]) & (design.labels[rows] < found[..., 2])
            assert 0.7 < inside.mean() < 1.0
            assert model.predict_event(design, rows) is None
        whole = model.forecast(design, rows)
        assert (whole.mean == model.predict(design, rows)).all()
        if head == "event":
            assert (whole.event == probability).all()
            assert (whole.threshold == model.event_level[design.id_index[rows]]).all()
            assert whole.quantiles is None
        else:
            assert whole.levels == model.forecaster.levels
            assert (whole.quantiles[..., [0, 2, 4]] == found).all()
            assert whole.event is None
    with pytest.raises(InputError, match=r"levels is \[0.5, 1.5\]; use numbers between 0 and 1"):
        untrained.predict_quantiles(design, rows, [0.5, 1.5])


def test_event_of_an_id_that_training_did_not_know_is_measured_by_all_labels(design, training, origins) -> None:
    model = small(head="event", epochs=0).fit(training, seed=0)
    rows = origins(design, 270, LAST - 6)
    renamed = dataclasses.replace(design, ids=(*design.ids[:2], "stranger"))
    threshold = model.forecast(renamed, rows).threshold
    mine = design.id_index[rows] == 2
    assert (threshold[~mine] == model.forecast(design, rows).threshold[~mine]).all()
    for h in range(2):
        expected = np.quantile(training.design.labels[training.train[:, h], h], 0.9)
        np.testing.assert_allclose(threshold[mine, h], expected, rtol=1e-12)


def test_untrained_event_is_log_har_with_the_law_of_its_errors(design, training, origins) -> None:
    model = small(head="event", epochs=0).fit(training, seed=0)
    rows = origins(design, 270, LAST - 6)
    found, base = model.forecast(design, rows), LogHAR().fit(training, seed=0).predict(design, rows)
    head = model.groups[0].head
    expected = norm.sf((np.log(found.threshold / base) - head.mean_error) / head.scale)
    np.testing.assert_allclose(found.event, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_parameters_can_be_inspected_changed_and_cloned(kind) -> None:
    model = small(kind, width=16)
    own = set(type(model).model_fields) - set(DeepForecaster.model_fields)
    assert own | {"layers", "width", "learning_rate"} <= model.get_params().keys()
    assert model.get_params()["width"] == 16
    assert model.set_params(width=24) == small(kind, width=24)
    assert model.width == 16  # frozen: a change is a new one
    for copy in (model.clone(), clone(model)):
        assert copy == model
        assert copy is not model
    assert type(model)(**model.model_dump()) == model
    with pytest.raises(InputError, match="no parameter 'widht'; did you mean 'width'"):
        model.set_params(widht=3)


def test_notes_are_plain_facts(fitted) -> None:
    expected = {"best_epoch", "epochs", "validation_loss_at_start", "validation_loss", "parameters"}
    expected |= {"slow_gradient_norm", "step_size_gradient_norm", "spectral_radius", "period_shortest"}
    expected |= {"state_norm"}
    assert expected <= fitted.notes.keys()
    assert all(type(value) in (int, float) for value in fitted.notes.values())


def test_time_scales_are_noted_of_fits_that_learned_alone(training) -> None:
    expected = {"time_scale_shortest", "time_scale_median", "time_scale_longest"}
    assert not expected & small("s4d", epochs=0).fit(training, seed=0).notes.keys()
    assert expected <= small("s4d", epochs=1, early_stopping=False).fit(training, seed=0).notes.keys()


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"contxt": 3}, "no parameter 'contxt'; did you mean 'context'"),
        ({"context": -1}, "S4D.context is -1"),
        ({"state": 7}, "S4D.state is 7; input should be a multiple of 2"),
        ({"timescales": (5.0, 2.0)}, r"S4D.timescales is .*use \(shortest, longest\)"),
        ({"device": "tpu"}, "S4D.device is 'tpu'"),
        ({"dropout": 1.0}, "S4D.dropout is 1.0"),
        ({"levels": (0.5, 0.1)}, "levels must increase"),
        ({"evaluate_length": 3}, "S4D.evaluate_length"),
    ],
)
def test_wrong_parameters_are_input_errors(parameters, message: str) -> None:
    with pytest.raises(InputError, match=message):
        S4D(**parameters)


@pytest.mark.skipif(torch.cuda.is_available(), reason="bf16 is allowed on a GPU")
def test_half_precision_without_a_gpu_is_an_input_error(training) -> None:
    with pytest.raises(InputError, match="precision is 'bf16', but the device is the CPU"):
        small(precision="bf16").fit(training, seed=0)


def test_training_sets_that_cannot_teach_are_input_errors(training) -> None:
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
            small().fit(broken, seed=0)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_the_networks_that_benchmarks_build_without_a_forecaster_are_the_defaults_of_its_kind(kind) -> None:
    """tests/benchmarks/gpu_check.py runs where there is no pydantic."""
    ours, theirs = forecaster_class(kind)().blocks(64), KINDS_OF_BLOCKS[kind](64)
    shapes = [[(name, tuple(p.shape)) for name, p in torch.nn.ModuleList(b).named_parameters()] for b in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert [type(block) for block in ours] == [type(block) for block in theirs]
    assert [block.receptive_field for block in ours] == [block.receptive_field for block in theirs]


def test_reading_every_deep_kind_imports_no_torch() -> None:
    code = "import sys\nfrom ssmfin.models.registry import forecaster_class\n"
    code += f"for kind in {KIND_NAMES}:\n    forecaster_class(kind)()\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
