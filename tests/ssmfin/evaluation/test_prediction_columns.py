"""Columns of predictions.parquet: names that come back as levels, and merging in any order."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.evaluation.columns import merged, quantile_column, quantile_levels


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 1 - 1e-6))
def test_the_name_of_a_quantile_says_its_level_to_the_last_bit(level):
    assert quantile_levels([quantile_column(level)]) == {quantile_column(level): level}


def test_columns_that_are_no_quantiles_are_left_alone():
    assert quantile_levels(["q5", "qlike", "q", "aq05", "q05x", "y", "q05"]) == {"q05": 0.05}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merging_fills_with_null_and_does_not_depend_on_the_order(order):
    base = {"unique_id": ["a"], "ds": [1], "horizon": [1], "seed": [0], "y_hat": [1.0]}
    parts = [
        pl.DataFrame({**base, "model": ["har"]}),
        pl.DataFrame({**base, "model": ["x"], "q95": [3.0], "q05": [1.0]}),
        pl.DataFrame({**base, "model": ["e"], "event": [0.1], "event_threshold": [2.0], "q50": [2.0]}),
    ]
    found = merged([parts[i] for i in order])
    assert found.columns == [*parts[0].columns, "q05", "q50", "q95", "event", "event_threshold"]
    assert found["model"].to_list() == ["e", "har", "x"]
    assert found["q50"].to_list() == [2.0, None, None]
    assert merged(parts[:1]).equals(parts[0])
