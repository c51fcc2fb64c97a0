"""Streams: they equal the batch, can be stopped and gone on with, and refuse bad rows unharmed."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from ssmfin.errors import InputError
from ssmfin.models.deep.skeleton import Inputs
from ssmfin.models.deep.streaming import Stream
from ssmfin.models.registry import KINDS, forecaster_class
from ssmfin.models.ssm.s4d import S4D

KIND_NAMES = sorted(k for k in KINDS if ".ssm." in KINDS[k] or ".sequence." in KINDS[k])
SMALL = {"context": 24, "width": 8, "segment": 48, "batch": 4, "device": "cpu", "epochs": 1}
FIRST, LAST = 290, 329


@pytest.fixture(scope="module")
def fitted(training, moved):
    return moved(S4D(**SMALL, state=4, calendar=True, id_embedding=True).fit(training, seed=1))


def rows_at(design, date: int) -> np.ndarray:
    return np.flatnonzero((design.date_index == date) & design.complete)


def step(stream: Stream, design, date: int) -> np.ndarray:
    rows = rows_at(design, date)
    names = [design.ids[k] for k in design.id_index[rows]]
    return stream.step(names, design.features[rows], design.lag_means[rows], ds=design.dates[date])


def streamed(stream: Stream, design, first: int = FIRST, last: int = LAST) -> np.ndarray:
    return np.concatenate([step(stream, design, date) for date in range(first, last + 1)])


def in_batch(fitted, design, first: int = FIRST, last: int = LAST) -> np.ndarray:
    return fitted.predict(design, np.concatenate([rows_at(design, date) for date in range(first, last + 1)]))


@pytest.mark.parametrize("precision, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_stream_equals_the_batch(kind, precision, tolerance, design, training, cut_design, moved) -> None:
    heads = {"mamba2": {"head_width": 8}}.get(kind, {})
    model = moved(forecaster_class(kind)(**SMALL, **heads, precision=precision).fit(training, seed=1))
    stream = model.stream()
    stream.extend(cut_design(design, FIRST - 1))
    assert (model.corrections(design, rows_at(design, FIRST)) != 0).all()
    np.testing.assert_allclose(streamed(stream, design), in_batch(model, design), rtol=tolerance)


def test_rows_one_by_one_equal_a_history_in_chunks(design, fitted, cut_design) -> None:
    chunks, one_by_one = fitted.stream(), fitted.stream()
    chunks.extend(cut_design(design, FIRST - 1))
    for date in range(FIRST):
        if len(rows_at(design, date)):
            step(one_by_one, design, date)
    np.testing.assert_allclose(streamed(one_by_one, design), streamed(chunks, design), rtol=1e-5)


def test_ids_may_come_in_any_order_and_company(design, fitted, cut_design) -> None:
    together, backwards, alone = (fitted.stream(ids) for ids in (None, ("id2", "id0"), ("id0",)))
    for stream in (together, backwards, alone):
        stream.extend(cut_design(design, FIRST - 1))
    for date in range(FIRST, FIRST + 10):
        rows = rows_at(design, date)
        both = step(together, design, date)
        names = [design.ids[k] for k in design.id_index[rows]]
        for stream, own in ((backwards, ["id2", "id0"]), (alone, ["id0"])):
            own = [name for name in own if name in names]
            picked = [rows[names.index(name)] for name in own]
            found = stream.step(own, design.features[picked], design.lag_means[picked], ds=design.dates[date])
            np.testing.assert_allclose(found, both[[names.index(name) for name in own]], rtol=1e-5)


def test_a_saved_stream_goes_on_with_the_same_bits(design, fitted, cut_design, tmp_path) -> None:
    stream = fitted.stream()
    stream.extend(cut_design(design, FIRST - 1))
    stream.save(tmp_path / "stream.safetensors")
    again = Stream.restore(fitted, tmp_path / "stream.safetensors")
    assert again.ids == stream.ids
    assert (streamed(stream, design) == streamed(again, design)).all()


def test_a_saved_stream_is_refused_by_other_weights_and_other_files(design, fitted, training, tmp_path) -> None:
    path = tmp_path / "stream.safetensors"
    fitted.stream().save(path)
    other = S4D(**SMALL, state=4, calendar=True, id_embedding=True).fit(training, seed=2)
    with pytest.raises(InputError, match="belongs to a model with other weights"):
        Stream.restore(other, path)
    path.write_bytes(b"nothing of the kind")
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(InputError, match="cannot be read as a saved stream"):
            Stream.restore(fitted, wrong)
    fitted.save(tmp_path)
    with pytest.raises(InputError, match="is no saved stream"):
        Stream.restore(fitted, tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "what, value, message",
    [
        ("features", np.nan, "features of 'id0' is not finite in column 1, nan"),
        ("features", np.inf, "features of 'id0' is not finite in column 1, inf"),
        ("lag_means", np.nan, "lag_means of 'id0' is not finite and positive in column 1"),
        ("lag_means", 0.0, "lag_means of 'id0' is not finite and positive in column 1"),
    ],
)
def test_a_bad_row_is_refused_and_leaves_every_bit_of_the_state(
    what, value, message, design, fitted, cut_design
) -> None:
    stream, untouched = fitted.stream(("id0",)), fitted.stream(("id0",))
    for each in (stream, untouched):
        each.extend(cut_design(design, FIRST - 1))
    row = rows_at(design, FIRST)[:1]
    values = {"features": design.features[row].copy(), "lag_means": design.lag_means[row].copy()}
    good = {name: array.copy() for name, array in values.items()}
    values[what][0, 1] = value
    with pytest.raises(InputError, match=message):
        stream.step(["id0"], **values, ds=design.dates[FIRST])
    assert (
        stream.step(["id0"], **good, ds=design.dates[FIRST]) == untouched.step(["id0"], **good, ds=design.dates[FIRST])
    ).all()


def test_misuse_is_explained(design, fitted, cut_design) -> None:
    stream = fitted.stream()
    stream.extend(cut_design(design, FIRST))
    row = rows_at(design, FIRST)[:1]
    features, means, day = design.features[row], design.lag_means[row], design.dates[FIRST + 1]
    for arguments, message in (
        (("id9", features, means, day), "id 'id9' is not in the stream; "),
        (("id0", features[:, :2], means, day), r"features has shape \(1, 2\); give \(ids, columns\) = \(1, 3\)"),
        (("id0", features, means, design.dates[FIRST]), "is not newer than its last one"),
        (("id0", features, means, "yesterday"), "ds is 'yesterday'; give a date or time"),
        (("id0", features, means, None), "ds is missing; the model reads the calendar"),
    ):
        with pytest.raises(InputError, match=message):
            stream.step([arguments[0]], arguments[1], arguments[2], ds=arguments[3])
    with pytest.raises(InputError, match="each id once"):
        stream.step(["id0", "id0"], features, means, ds=day)
    with pytest.raises(InputError, match="is not newer than its last one"):
        stream.extend(design)
    with pytest.raises(InputError, match="build it with the study's features"):
        stream.extend(dataclasses.replace(design, feature_names=("a", "b", "c")))
    with pytest.raises(InputError, match="id 'id7' is not one of the model's"):
        fitted.stream(("id7",))


def test_a_model_of_limited_history_has_no_stream(training) -> None:
    with pytest.raises(InputError, match="evaluate_length is 2, but a stream rests on all rows"):
        S4D(**SMALL, evaluate_length=2).fit(training, seed=0).stream()


def test_reset_makes_the_next_row_the_first(design, fitted, cut_design) -> None:
    used, fresh = fitted.stream(), fitted.stream()
    used.extend(cut_design(design, FIRST - 1))
    kept = used.fitted.stream()
    kept.extend(cut_design(design, FIRST - 1))
    used.reset(["id0"])
    together, other, first = (step(stream, design, FIRST) for stream in (used, kept, fresh))
    assert (together[0] == first[0]).all()
    assert (together[1:] == other[1:]).all()
    used.reset()
    assert (step(used, design, FIRST + 1) != step(kept, design, FIRST + 1)).all()


def test_sessions_that_reset_do_so_in_the_stream_as_in_the_batch(design, make_training_set, cut_design, moved) -> None:
    """Ten rows a day: what a forecast rests on begins with its day."""
    dates = np.datetime64("2024-01-01T09:00") + np.arange(330) // 10 * np.timedelta64(1, "D")
    dates = dates + np.arange(330) % 10 * np.timedelta64(30, "m")
    intraday = dataclasses.replace(design, dates=dates)
    training = make_training_set(intraday, 270, size=190, validation=50)
    model = moved(S4D(**SMALL, state=4, sessions="reset").fit(training, seed=0))
    stream = model.stream()
    stream.extend(cut_design(intraday, FIRST - 6))
    found = streamed(stream, intraday, FIRST - 5)
    np.testing.assert_allclose(found, in_batch(model, intraday, FIRST - 5), rtol=1e-5)
    early = np.where((design.date_index < FIRST)[:, None], 0.5 * design.features, design.features)
    changed = dataclasses.replace(intraday, features=early)
    same = in_batch(model, changed, FIRST) == in_batch(model, intraday, FIRST)
    assert same.all()


def test_after_a_hundred_thousand_rows_states_have_neither_grown_nor_drifted(design, training, moved) -> None:
    """A million steps take minutes: tests/benchmarks/bench_sequence_training.py runs them."""
    model = moved(S4D(**SMALL, state=4).fit(training, seed=1))
    sizes = [tensor.numel() for _, tensor in model.stream(("id0",))._states.tensors()]
    network, exact = model.network, copy.deepcopy(model.network).double()
    columns = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 100_000, 3)))
    zeros = torch.zeros(1, 100_000, dtype=torch.int64)
    inputs = Inputs(columns, torch.stack((zeros, zeros), -1), zeros)
    with torch.inference_mode():
        raw, state = network(inputs._replace(columns=columns.float()))
        expected, _ = exact(inputs)
    assert sizes == [part.numel() for block in state for part in block]
    error = (raw - expected).abs().amax(dim=(0, 2, 3))
    assert error[-10_000:].max() < 1e-5 * expected.abs().max()
    assert error[-10_000:].max() < 2 * error[10_000:20_000].max()
