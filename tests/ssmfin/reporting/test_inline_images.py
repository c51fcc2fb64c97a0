"""Axes of inline images, whatever the data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ssmfin.reporting.inline_images import date_axis, drawing


@pytest.mark.parametrize("hours", [1, 30, 65, 24 * 20, 24 * 200, 24 * 1000, 24 * 3000, 24 * 12000])
def test_every_span_of_dates_has_ticks_without_complaint(hours: int) -> None:
    from matplotlib.figure import Figure

    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = Figure().add_subplot()
        axes.plot(np.datetime64("2019-01-03T07", "h") + np.array([0, hours]), [0, 1])
        date_axis(axes)
        assert len(axes.xaxis.get_major_locator()()) > 0
