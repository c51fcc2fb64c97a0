"""Sequences: what a row becomes, that segments train every origin once, what standardisation may see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.models.deep.sequences import LARGEST_INPUT, InputScale, Reader, chunk, input_rows, training_segments


@pytest.fixture(scope="module")
def design(make_design, simulate):
    long, short = simulate(2, 60)
    return make_design([long, short[:35]])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), context=st.integers(0, 30), length=st.integers(1, 40))
def test_every_origin_is_trained_once_with_its_whole_warm_up(design, data, context: int, length: int) -> None:
    sequences = input_rows(design)
    inside = np.concatenate(sequences)
    origins = np.zeros(design.rows, dtype=bool)
    origins[inside] = data.draw(st.lists(st.booleans(), min_size=len(inside), max_size=len(inside)))
    origins[inside[data.draw(st.integers(0, len(inside) - 1))]] = True
    index, is_origin = training_segments(sequences, origins, context, length)
    assert sorted(index[is_origin]) == np.flatnonzero(origins).tolist()
    assert index.shape[1] <= length + context
    for rows, used in zip(index, is_origin, strict=True):
        there = rows[rows >= 0]
        own = sequences[design.id_index[there[0]]]
        first = int(np.searchsorted(own, there[0]))
        assert there.tolist() == own[first : first + len(there)].tolist()
        assert first == 0 or (np.searchsorted(own, rows[used]) - first >= context).all()


def test_chunks_hold_each_row_once_in_order_and_in_one_shape(design) -> None:
    sequences = input_rows(design)
    chunks = [chunk(sequences, number, 16) for number in range(3)]
    assert {part.shape for part in chunks} == {(2, 16)}
    whole = np.concatenate(chunks, axis=1)
    for rows, own in zip(whole, sequences, strict=True):
        assert rows[rows >= 0].tolist() == own.tolist()


def test_rows_with_an_undefined_feature_are_left_out(design) -> None:
    features = design.features.copy()
    features[40, 0], features[70, 1] = np.nan, np.inf
    rows = input_rows(dataclasses.replace(design, features=features))
    assert 40 not in rows[0]
    assert 70 not in rows[1]
    assert [len(own) for own in rows] == [60 - 21 - 1, 35 - 21]  # row 70 has no lag means in any case


def standardised(scale: InputScale, design, rows) -> np.ndarray:
    return scale.apply(design.ids, design.id_index[rows], design.features[rows])


def test_inputs_are_centred_by_id_and_scaled_alike(design) -> None:
    rows = design.complete
    scale = InputScale.of(design, rows, rows)
    for k in range(2):
        of_id = np.flatnonzero((design.id_index == k) & rows)
        np.testing.assert_allclose(standardised(scale, design, of_id).mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(standardised(scale, design, np.flatnonzero(rows)).std(axis=0), 1.0, rtol=1e-9)


def test_scale_sees_its_rows_alone(design) -> None:
    rows = design.complete & (design.date_index < 30)
    changed = dataclasses.replace(design, features=np.where(rows[:, None], design.features, 99.0))
    before, after = InputScale.of(design, rows, rows), InputScale.of(changed, rows, rows)
    assert (before.scale == after.scale).all()
    assert all((before.centres[name] == after.centres[name]).all() for name in design.ids)


def test_absent_steps_are_zero_and_extremes_are_clipped(design) -> None:
    features = design.features.copy()
    features[32] = 1e300
    scale = InputScale.of(design, design.complete, design.complete)
    reader = Reader(scale, {"id1": 1}, False, torch.float64)
    inputs = reader.inputs(dataclasses.replace(design, features=features), np.array([[31, 32, -1], [90, 91, 92]]))
    assert (inputs.columns[0, 2] == 0).all()
    assert (inputs.columns[0, 1] == LARGEST_INPUT).all()
    assert inputs.ids[1].tolist() == [1, 1, 1]
    assert inputs.reset is None


def test_days_start_new_sequences_where_sessions_are_asked_for(design) -> None:
    """Four rows a day; what is cut is the same however the history is divided."""
    minutes = np.datetime64("2024-05-03T10:00") + np.arange(60) // 4 * np.timedelta64(1, "D")
    intraday = dataclasses.replace(design, dates=minutes + (np.arange(60) % 4) * np.timedelta64(5, "m"))
    scale = InputScale.of(design, design.complete, design.complete)
    reader = Reader(scale, {}, True, torch.float32)
    rows = input_rows(intraday)[0][None]
    whole = reader.inputs(intraday, rows).reset
    assert whole is not None
    assert rows[0, 0] % 4 == 1  # the first row is inside a day
    assert np.flatnonzero(whole[0]).tolist() == np.flatnonzero(rows[0] % 4 == 0).tolist()
    parts = [reader.inputs(intraday, rows[:, at : at + 5]).reset for at in range(0, rows.shape[1], 5)]
    assert torch.cat(parts, dim=1).equal(whole)  # type: ignore[arg-type]


def test_constant_column_is_zero_not_magnified_rounding(design) -> None:
    constant = dataclasses.replace(design, features=np.full((design.rows, 1), 0.1))
    scale = InputScale.of(constant, design.complete, design.complete)
    assert np.abs(standardised(scale, constant, np.arange(design.rows))).max() < 1e-9


def test_id_without_training_rows_gets_the_pooled_centre(design) -> None:
    first_only = design.complete & (design.id_index == 0)
    scale = InputScale.of(design, first_only, first_only)
    row = np.array([90])
    expected = (design.features[row] - design.features[first_only].mean(axis=0)) / scale.scale
    np.testing.assert_allclose(
        standardised(scale, design, row), np.clip(expected, -LARGEST_INPUT, LARGEST_INPUT), rtol=1e-12
    )


def test_unit_is_that_of_the_teaching_ids_alone(design) -> None:
    teaching = design.complete & (design.id_index == 0)
    wild = dataclasses.replace(
        design, features=np.where(design.id_index[:, None] == 1, design.features * 50, design.features)
    )
    before, after = (InputScale.of(each, each.complete, teaching) for each in (design, wild))
    assert (before.scale == after.scale).all()
    np.testing.assert_allclose(after.centres["id1"], 50 * before.centres["id1"])
