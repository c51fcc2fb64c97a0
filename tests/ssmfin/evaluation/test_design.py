"""Labels end when they say, features are as of the origin, and a cut design holds nothing later than its date."""

import datetime as dt
import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.panel import Panel
from ssmfin.data.rows import forward_aggregate, trailing_mean
from ssmfin.errors import InputError
from ssmfin.evaluation.design import build_design, cut
from ssmfin.features.row_specs import HarLagsSpec
from ssmfin.models.interface import Target

TARGET = Target(column="rv", horizons=(1, 5, 22))
FEATURES = {"har": HarLagsSpec()}


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    window=st.integers(1, 6),
    how=st.sampled_from(["mean", "sum", "last"]),
    seed=st.integers(0, 99),
)
def test_windows_never_cross_the_border_of_an_id(lengths, window, how, seed):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    values = np.random.default_rng(seed).standard_normal(starts[-1])
    trailing = trailing_mean(values, starts, window)
    forward = forward_aggregate(values, starts, window, how)
    for first, last in itertools.pairwise(starts):
        for row in range(first, last):
            behind, ahead = (
                values[max(first, row - window + 1) : row + 1],
                values[row + 1 : min(last, row + 1 + window)],
            )
            assert np.isnan(trailing[row]) if len(behind) < window else np.isclose(trailing[row], behind.mean())
            expected = {"mean": np.mean, "sum": np.sum, "last": lambda x: x[-1]}[how]
            assert np.isnan(forward[row]) if len(ahead) < window else np.isclose(forward[row], expected(ahead))


def test_labels_are_known_on_the_date_of_their_last_row(panel):
    design = build_design(panel, TARGET, FEATURES)
    frame = panel.frame
    for k in range(3):
        rows = np.arange(*design.rows_of(k).indices(design.rows))
        own = frame["rv"].to_numpy()[rows]
        for j, h in enumerate(TARGET.horizons):
            for i in range(len(rows) - h):
                assert np.isclose(design.labels[rows[i], j], own[i + 1 : i + 1 + h].mean(), rtol=1e-14)
                assert design.label_known[rows[i], j] == design.date_index[rows[i + h]]
            assert np.isnan(design.labels[rows[-h:], j]).all()
            assert (design.label_known[rows[-h:], j] == len(design.dates)).all()


def test_a_row_known_late_is_neither_a_feature_nor_a_finished_label_before_it_is_known(panel):
    late = replace(panel, frame=panel.frame.with_columns(known_at=pl.col("ds") + dt.timedelta(days=3)))
    design, prompt = build_design(late, TARGET, FEATURES), build_design(panel, TARGET, FEATURES)
    rows = design.rows_of(0)
    days = design.dates[design.date_index[rows]]
    values = prompt.observed[rows]
    for i in range(30, 60):
        known = np.flatnonzero(days + np.timedelta64(3, "D") <= days[i])[-1]
        assert design.observed[rows][i] == values[known]
        assert design.lag_means[rows][i, 1] == prompt.lag_means[rows][known, 1]
        assert design.features[rows][i, 2] == prompt.features[rows][known, 2]
        assert design.columns["log_return"][rows][i] == prompt.columns["log_return"][rows][known]
        known_date = design.dates[design.label_known[rows][i, 0]]
        assert known_date >= days[i + 1] + np.timedelta64(3, "D")
    assert (design.labels[rows][30:60] == prompt.labels[rows][30:60]).all()


def test_a_cut_design_is_the_design_of_a_panel_that_ends_there(panel):
    design = build_design(panel, TARGET, FEATURES)
    for last in (60, 150, len(design.dates) - 1):
        past, position = cut(design, last, labels_until=last)
        short = Panel(frame=panel.frame.filter(pl.col("ds") <= panel.dates[last].astype(object)), notes={})
        expected = build_design(short, TARGET, FEATURES)
        for name in (
            "dates",
            "id_index",
            "date_index",
            "starts",
            "observed",
            "lag_means",
            "features",
            "labels",
            "label_known",
        ):
            np.testing.assert_array_equal(getattr(past, name), getattr(expected, name), err_msg=name)
        assert (position[design.date_index > last] == -1).all()
        np.testing.assert_array_equal(past.observed[position[position >= 0]], design.observed[position >= 0])
        blind, _ = cut(design, last, labels_until=None)
        assert np.isnan(blind.labels).all()
        assert (blind.label_known == last + 1).all()


def test_a_target_that_cannot_be_logged_is_refused_with_its_place(panel):
    zero = panel.frame.with_columns(rv=pl.when(pl.int_range(pl.len()) == 7).then(0.0).otherwise(pl.col("rv")))
    with pytest.raises(InputError, match=r"0\.0 at \(id0, 2020-01-09\).*forecast it without a log"):
        build_design(Panel(frame=zero, notes={}), TARGET, FEATURES)
    with pytest.raises(InputError, match="did you mean 'rv'"):
        build_design(panel, replace(TARGET, column="rvv"), FEATURES)
