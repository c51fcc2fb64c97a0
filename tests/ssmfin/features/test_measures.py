"""Jumps and measurement errors as features: the formulas written out, missing values, units."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.features.measures import JumpLags, QuarticityLags


def frame(rows=40, ids=2, unit=1.0):
    rng = np.random.default_rng(0)
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(rows)]
    rv = np.exp(rng.standard_normal(ids * rows) - 9)
    return pl.DataFrame(
        {
            "unique_id": np.repeat([f"id{k}" for k in range(ids)], rows).tolist(),
            "ds": days * ids,
            "rv": unit * rv,
            "bv": unit * rv * rng.uniform(0.7, 1.1, ids * rows),
            "rq": unit**2 * rv**2 * rng.uniform(1, 3, ids * rows),
        }
    )


def last(values, row, w):
    return values[row - w + 1 : row + 1].mean()


@pytest.mark.parametrize("scale", ["none", "log"])
def test_jumps_and_errors_are_those_of_the_formula(scale):
    data = frame()
    rv, bv, rq = (data[name].to_numpy() for name in ("rv", "bv", "rq"))
    jumps = JumpLags("rv", scale=scale).fit_transform(data)
    errors = QuarticityLags("rv", windows=[1, 5], scale=scale).fit_transform(data)
    for row in (21, 30, 39, 61, 79):
        for w in (1, 5, 22):
            j = last(np.maximum(rv - bv, 0), row, w)
            expected = j if scale == "none" else np.log(1 + j / last(bv, row, w))
            assert jumps[f"jump_{w}"][row] == pytest.approx(expected, rel=1e-12, abs=1e-20)
        for w in (1, 5):
            root = np.sqrt(last(rq, row, w))
            expected = root * last(rv, row, w) if scale == "none" else root / last(rv, row, w)
            assert errors[f"error_{w}"][row] == pytest.approx(expected, rel=1e-12)


def test_the_first_rows_of_each_id_and_windows_with_missing_values_are_undefined():
    data = frame().with_columns(bv=pl.when(pl.int_range(pl.len()) == 30).then(None).otherwise("bv"))
    jumps = JumpLags("rv", windows=[5]).fit_transform(data)["jump_5"].to_numpy()
    undefined = np.flatnonzero(np.isnan(jumps))
    assert undefined.tolist() == [0, 1, 2, 3, 30, 31, 32, 33, 34, 40, 41, 42, 43]


def test_under_a_log_the_unit_of_the_variance_does_not_matter():
    for make in (JumpLags("rv", scale="log"), QuarticityLags("rv", scale="log")):
        plain, scaled = (make.fit_transform(frame(unit=unit)).drop("unique_id", "ds") for unit in (1.0, 1e4))
        np.testing.assert_allclose(scaled.to_numpy(), plain.to_numpy(), rtol=1e-10)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(InputError, match="'bpv' is not in the panel"):
        JumpLags("rv", robust="bpv").fit_transform(frame())
