"""The phrases that results are told in."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from ssmfin.evaluation.wording import step_name


@pytest.mark.parametrize("days,name", [(1, "day"), (7, "week"), (30, "month"), (15, "step"), (90, "step")])
def test_steps_are_named_by_their_usual_distance(days: int, name: str) -> None:
    dates = [dt.date(2020, 1, 1) + dt.timedelta(days=days * k) for k in range(20)]
    assert step_name(pl.Series([*dates, dates[-1] + dt.timedelta(days=400), *dates])) == name


def test_two_dates_or_times_of_day_do_not_tell_what_a_step_is() -> None:
    assert step_name(pl.Series([dt.date(2020, 1, 1), dt.date(2020, 1, 2)])) == "step"
    assert step_name(pl.Series([dt.datetime(2020, 1, 1, hour) for hour in range(10)])) == "step"
