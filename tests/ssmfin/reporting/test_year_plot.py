"""Years that leave the scale of the plot are told by marks and words, and leave nothing astray."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ssmfin.reporting.figures import Line
from ssmfin.reporting.style import model_styles
from ssmfin.reporting.year_plot import draw_years, off_the_scale, up_to, year_range


def ratios(**by_model: list[float]) -> list[Line]:
    styles = model_styles(by_model, {}, "reference")
    years = np.arange(2001.0, 2001.0 + len(next(iter(by_model.values()))))
    return [Line(styles[name], years, np.array(y)) for name, y in by_model.items()]


def test_a_year_off_the_scale_is_told_and_no_stray_point_is_left() -> None:
    lines = ratios(good=[0.9, 1.1, 1.0], crisis=[1.2, 9.0, 1.1], far=[4.0, 12.0, 5.0], broken=[1.0, np.inf, 1.0])
    low, high = year_range(lines, (0.9, 1.2))
    assert low < 0.9
    assert 1.2 < high < 1.25
    assert off_the_scale(lines, high) == (
        "▲ off the scale: crisis 9.000 in 2002; far in 3 of 3 years, up to 12.000 in 2002; broken ∞ in 2002"
    )
    assert off_the_scale(lines[:1], high) == ""
    good, crisis, far, broken = (up_to(line, high) for line in lines)
    np.testing.assert_array_equal(good.y, lines[0].y)
    np.testing.assert_array_equal(crisis.y, [1.2, high, 1.1])  # it ends at the edge, on the way to its mark
    np.testing.assert_array_equal(broken.y, [1.0, high, 1.0])
    pairs = zip(far.y[:-1], far.y[1:], strict=True)
    assert not any(np.isfinite(a) and np.isfinite(b) for a, b in pairs)  # nothing of it is drawn


def test_each_model_off_the_scale_has_a_row_of_marks_above_the_plot() -> None:
    lines = ratios(good=[0.9, 1.1], crisis=[1.2, 9.0], far=[4.0, 12.0])
    _, high = year_range(lines, (0.9, 1.2))
    axes = Figure(figsize=(4, 3)).add_subplot()
    draw_years(axes, lines, (0.9, 1.2))
    marks = {line.get_color(): line.get_xydata() for line in axes.lines if line.get_marker() == "^"}
    assert {colour: len(places) for colour, places in marks.items()} == {
        lines[1].style.colour: 1,
        lines[2].style.colour: 2,
    }
    heights = [places[:, 1] for places in marks.values()]
    assert all((y > high).all() and (y < axes.get_ylim()[1]).all() for y in heights)
    assert heights[0][0] != heights[1][0]
    assert all(tick <= high for tick in axes.get_yticks())
