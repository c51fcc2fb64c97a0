"""The calendar as a feature: each indicator on its own days, the rest on none."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.features.calendar import MONTHS, WEEKDAYS, CalendarIndicators


@pytest.mark.parametrize("timed", [False, True])
def test_an_indicator_is_one_on_its_own_days(timed):
    days = [dt.date(2023, 12, 25) + dt.timedelta(days=i) for i in range(100)]
    ds = [dt.datetime.combine(day, dt.time(15)) for day in days] if timed else days
    frame = pl.DataFrame({"unique_id": ["a"] * 100, "ds": ds, "rv": np.arange(100.0)})
    feature = CalendarIndicators(month=True)
    found = feature.fit_transform(frame)
    assert list(feature.get_feature_names_out()) == [*WEEKDAYS, *(f"month_{month}" for month in MONTHS)]
    for number, name in enumerate(WEEKDAYS):
        assert found[name].to_list() == [float(day.weekday() == number + 1) for day in days]
    for month in MONTHS:
        assert found[f"month_{month}"].to_list() == [float(day.month == month) for day in days]
