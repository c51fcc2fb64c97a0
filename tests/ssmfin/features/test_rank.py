"""Ranks across ids: their range and ties, what is skipped, which rows of other ids count."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.features.rank import CrossSectionRanks

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(days=t) for t in range(40)]


def frame(values: np.ndarray, **more: list[object]) -> pl.DataFrame:
    """Args: values: (days, ids); NaN: the id has no row."""
    parts = [
        pl.DataFrame({"unique_id": [f"id{k:02d}"] * len(values), "ds": DAYS[: len(values)], "x": values[:, k]})
        for k in range(values.shape[1])
    ]
    return pl.concat(parts).filter(pl.col("x").is_finite())


def ranks(panel: pl.DataFrame, **parameters: object) -> np.ndarray:
    table = CrossSectionRanks("x", **{"windows": [1], "same_date": True, **parameters}).fit_transform(panel)
    return np.asarray(table.pivot(on="unique_id", index="ds", values=table.columns[2]).drop("ds").to_numpy())


def test_ranks_are_those_of_scipy_spread_evenly_around_zero() -> None:
    from scipy.stats import rankdata

    x = np.random.default_rng(0).integers(0, 5, (30, 8)).astype(float)
    np.testing.assert_allclose(ranks(frame(x)), (rankdata(x, axis=1) - 0.5) / 8 - 0.5, atol=1e-15)


def test_a_monotone_change_of_units_changes_nothing() -> None:
    x = np.random.default_rng(1).standard_normal((30, 6))
    np.testing.assert_array_equal(ranks(frame(x)), ranks(frame(100.0 * x)))
    np.testing.assert_array_equal(ranks(frame(x)), ranks(frame(np.exp(x))))


def test_skipped_rows_do_not_count() -> None:
    x = np.random.default_rng(2).standard_normal((30, 6))
    whole = ranks(frame(x), windows=[5])
    skipped = ranks(frame(x), windows=[5], skip=3)
    assert np.isnan(skipped[:7]).all()
    np.testing.assert_array_equal(skipped[7:], whole[4:-3])


def test_without_same_date_others_count_from_the_next_date_on() -> None:
    x = np.array([[1.0, 5.0, 9.0], [6.0, 0.0, 8.0]])
    found = ranks(frame(x), same_date=False)
    assert np.isnan(found[0]).all() or (found[0] == 0).all()  # nobody to compare with yet
    # id00 shows 6 today against 5 and 9 of yesterday; id01 0 against 1 and 9; id02 8 against 1 and 5
    np.testing.assert_allclose(found[1], [0.0, -1 / 3, 1 / 3], atol=1e-15)


def test_an_id_that_left_is_no_longer_compared() -> None:
    x = np.random.default_rng(3).standard_normal((40, 3))
    x[5:, 2] = np.nan
    found = ranks(frame(x), max_age=10, least_ids=3)
    assert np.isfinite(found[14, :2]).all()
    assert np.isnan(found[16:, :2]).all()


def test_one_id_has_no_rank() -> None:
    with pytest.raises(InputError, match="ranks compare ids, and the panel has 1"):
        ranks(frame(np.ones((5, 1))))
