"""Owns the plot of losses by year: a scale for the better models, marks and words for the years that leave it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssmfin.reporting.figures import Line, plot_line
from ssmfin.reporting.inline_images import MUTED, PANEL, Image, height_of, inline_image
from ssmfin.reporting.style import INK, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARK_ROW = 11  # CSS pixels of a model's row of marks above a plot


def year_range(lines: Sequence[Line], visible: tuple[float, float]) -> tuple[float, float]:
    """The range of ratios that `year_panel` has a scale for: from the least of all to the top of `visible`."""
    low = min([0.95, visible[0], *(float(y) for line in lines for y in line.y if np.isfinite(y))])
    high = max(1.05, visible[1])
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def year_panel(
    lines: Sequence[Line], *, visible: tuple[float, float], alt: str, size: tuple[int, int] = PANEL
) -> Image:
    """Ratio to the reference's loss, year by year (`draw_years`)."""
    vertices = 10 * sum(len(line.x) for line in lines)
    return inline_image(lambda axes: draw_years(axes, lines, visible), size, alt, vertices=vertices)


def draw_years(axes: Axes, lines: Sequence[Line], visible: tuple[float, float]) -> None:
    """Ratios by year on the scale of `year_range`.

    A year above it is a triangle over the plot, each model in a row of its own; its line ends at the upper edge, on
    the way to it.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = year_range(lines, visible)
    above = [line for line in lines if (line.y > high).any()]
    row = (high - low) * MARK_ROW / (height_of(axes) - MARK_ROW * len(above))
    axes.set_yticks(
        [tick for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    )
    axes.set_ylim(low, high + len(above) * row)
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (5, 2)), zorder=2)
    for line in lines:
        inside = Line(line.style, line.x, np.where(line.y > high, np.nan, line.y))
        plot_line(axes, inside, linestyle="", marker="o", markersize=2.6)
        plot_line(axes, up_to(line, high), marker="")
    for number, line in enumerate(above):
        x = line.x[line.y > high]
        y = np.full(len(x), high + (len(above) - number - 0.5) * row)
        axes.plot(x, y, "^", color=line.style.colour, markersize=5.2, markeredgewidth=0.0, zorder=5)
    if above:
        axes.axhline(high, color="#9aa3af", linewidth=0.8, zorder=2)
        words = "▲ a year off the scale"
        axes.text(1.0, 1.02, words, transform=axes.transAxes, va="bottom", ha="right", color=MUTED, fontsize=7.6)
    years = [x for line in lines for x in line.x] or [0.0]
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(min(years) - 0.4, max(years) + 0.4)


def up_to(line: Line, high: float) -> Line:
    """The line cut off at `high`: a year beyond is at the edge if a neighbour is below it, else there is no line."""
    x, y = [], []
    for i in range(len(line.x)):
        if i and line.y[i] > high and line.y[i - 1] > high:  # both off the scale: nothing in between
            x.append(line.x[i])
            y.append(math.nan)
        x.append(line.x[i])
        y.append(min(float(line.y[i]), high))
    return Line(line.style, np.array(x), np.array(y))


def off_the_scale(lines: Sequence[Line], high: float) -> str:
    """Which models have years above `high`, how many, and the worst one; "" where all are on the scale."""
    parts = []
    for line in lines:
        beyond = np.flatnonzero(line.y > high)
        if len(beyond):
            worst = beyond[np.argmax(line.y[beyond])]
            many = f"in {len(beyond)} of {len(line.y)} years, up to " if len(beyond) > 1 else ""
            parts.append(f"{line.style.name} {many}{ratio_text(float(line.y[worst]))} in {line.x[worst]:.0f}")
    return f"▲ off the scale: {'; '.join(parts)}" if parts else ""
