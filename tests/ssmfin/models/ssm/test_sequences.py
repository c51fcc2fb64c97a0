"""Sequences: what a window may hold, that segments train every origin once, what standardisation may see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.models.ssm.sequences import LARGEST_INPUT, InputScale, forecast_windows, training_segments


@pytest.fixture(scope="module")
def design(make_design, simulate):
    long, short = simulate(2, 60)
    return make_design([long, short[:35]])


def test_windows_end_at_their_row_and_never_leave_the_id(design) -> None:
    windows = forecast_windows(design, np.array([3, 59, 60, 70]), context=12)
    assert windows[:, -1].tolist() == [3, 59, 60, 70]
    assert windows[0].tolist() == [-1] * 8 + [0, 1, 2, 3]
    assert windows[1].tolist() == list(range(48, 60))
    assert windows[2].tolist() == [-1] * 11 + [60]
    assert windows[3].tolist() == [-1, *range(60, 71)]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), context=st.integers(1, 30), length=st.integers(1, 40))
def test_every_origin_is_trained_once_with_its_whole_context(design, data, context: int, length: int) -> None:
    origins = np.array(data.draw(st.lists(st.booleans(), min_size=design.rows, max_size=design.rows)))
    origins[data.draw(st.integers(0, design.rows - 1))] = True
    index, is_origin = training_segments(design, origins, context, length)
    assert sorted(index[is_origin]) == np.flatnonzero(origins).tolist()
    assert is_origin.sum(axis=1).min() >= 0
    assert index.shape[1] <= length + context - 1
    for rows, used in zip(index, is_origin, strict=True):
        there = rows[rows >= 0]
        assert (np.diff(there) == 1).all()
        assert len(np.unique(design.id_index[there])) == 1
        for row in rows[used]:
            first = max(int(design.starts[design.id_index[row]]), row - context + 1)
            assert there[0] <= first


def test_inputs_are_centred_by_id_and_scaled_alike(design) -> None:
    rows = design.complete
    x, present = InputScale.of(design, rows, rows).apply(design, np.arange(design.rows))
    assert present.astype(bool).tolist() == rows.tolist()
    for k in range(2):
        of_id = (design.id_index == k) & rows
        np.testing.assert_allclose(x[of_id].mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(x[rows].std(axis=0), 1.0, rtol=1e-5)


def test_scale_sees_its_rows_alone(design) -> None:
    rows = design.complete & (design.date_index < 30)
    changed = dataclasses.replace(design, features=np.where(rows[:, None], design.features, 99.0))
    before, after = InputScale.of(design, rows, rows), InputScale.of(changed, rows, rows)
    assert (before.scale == after.scale).all()
    assert all((before.centres[name] == after.centres[name]).all() for name in design.ids)


def test_absent_steps_are_zero_and_extremes_are_clipped(design) -> None:
    features = design.features.copy()
    features[30, 0], features[31], features[32] = np.nan, np.inf, 1e300
    scale = InputScale.of(design, design.complete, design.complete)
    x, present = scale.apply(dataclasses.replace(design, features=features), np.array([30, 31, 32, -1, 40]))
    assert present.tolist() == [0, 0, 1, 0, 1]
    assert (x[[0, 1, 3]] == 0).all()
    assert (x[2] == LARGEST_INPUT).all()


def test_constant_column_is_zero_not_magnified_rounding(design) -> None:
    constant = dataclasses.replace(design, features=np.full((design.rows, 1), 0.1))
    x, _ = InputScale.of(constant, design.complete, design.complete).apply(constant, np.arange(design.rows))
    assert np.abs(x).max() < 1e-9


def test_id_without_training_rows_gets_the_pooled_centre(design) -> None:
    first_only = design.complete & (design.id_index == 0)
    scale = InputScale.of(design, first_only, first_only)
    row = 90
    x, _ = scale.apply(design, np.array([row]))
    expected = (design.features[row] - design.features[first_only].mean(axis=0)) / scale.scale
    np.testing.assert_allclose(x[0], np.clip(expected, -LARGEST_INPUT, LARGEST_INPUT), rtol=1e-5)


def test_unit_is_that_of_the_teaching_ids_alone(design) -> None:
    teaching = design.complete & (design.id_index == 0)
    wild = dataclasses.replace(
        design, features=np.where(design.id_index[:, None] == 1, design.features * 50, design.features)
    )
    before, after = (InputScale.of(each, each.complete, teaching) for each in (design, wild))
    assert (before.scale == after.scale).all()
    np.testing.assert_allclose(after.centres["id1"], 50 * before.centres["id1"])
