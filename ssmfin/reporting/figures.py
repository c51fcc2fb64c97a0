"""Owns the plots of a report: forecasts, intervals, reliability, losses over time, the fold map.

No text that a user chose (ids, names of models) is drawn: titles and legends are HTML. What is left are numbers, dates
and fixed words, so that no name can break a plot, and fonts that ship with matplotlib suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.reporting.inline_images import (
    GRID,
    MARGINS,
    MAX_SVG_VERTICES,
    MUTED,
    PANEL,
    WIDE,
    Image,
    date_axis,
    inline_image,
    log_axis,
    pad_single_date,
)
from ssmfin.reporting.style import INK, REALISED, ModelStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 600  # more points than that in one line are finer than the pixels


@dataclass(frozen=True)
class Line:
    """One model's line: x (n,) datetime64 or number, y (n,)."""

    style: ModelStyle
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Band:
    """An interval over time, (n,) each."""

    low: np.ndarray
    high: np.ndarray


def _thin(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """At most MAX_POINTS of aligned arrays, evenly spaced, first and last kept."""
    n = len(arrays[0])
    if n <= MAX_POINTS:
        return arrays
    keep = np.unique(np.linspace(0, n - 1, MAX_POINTS).round().astype(np.int64))
    return tuple(array[keep] for array in arrays)


def plot_line(axes: Axes, line: Line, **keywords: Any) -> None:
    """A model's line in its style; a single point gets a mark."""
    x, y = _thin(line.x, line.y)
    if np.isfinite(y).sum() == 1 and "marker" not in keywords:  # a line of one point would be invisible
        keywords["marker"] = "o"
    style = line.style
    order = 4 if style.family == "ssm" else 3
    defaults: dict[str, Any] = {
        "linewidth": style.width,
        "markersize": 3.5,
        "zorder": order,
        "solid_joinstyle": "round",
        "linestyle": style.linestyle,
    }
    axes.plot(x, y, color=style.colour, **(defaults | keywords))


def forecast_panel(
    dates: np.ndarray,
    realised: np.ndarray,
    lines: Sequence[Line],
    *,
    log: bool,
    alt: str,
    size: tuple[int, int] = PANEL,
) -> Image:
    """Realised values (grey) under the forecasts, by origin. `size`: CSS pixels, as of all plots here."""

    def draw(axes: Axes) -> None:
        finite = np.isfinite(realised)
        axes.plot(dates[finite], realised[finite], color=REALISED, linewidth=0.35, marker="o", markersize=1.6, zorder=2)
        for line in lines:
            plot_line(axes, line, linewidth=1.1)
        values = np.concatenate([realised, *(line.y for line in lines)])
        values = values[np.isfinite(values)]
        if log and len(values) and (values > 0).all():
            log_axis(axes, values)
        elif len(values):
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        date_axis(axes)
        pad_single_date(axes, dates)

    vertices = len(dates) * (5 + len(lines))
    return inline_image(draw, size, alt, vertices=vertices)


def fan_panel(
    dates: np.ndarray,
    realised: np.ndarray,
    bands: Sequence[Band],
    middle: np.ndarray | None,
    style: ModelStyle,
    *,
    log: bool,
    alt: str,
    size: tuple[int, int] = PANEL,
) -> Image:
    """Central intervals, widest first and palest, the median, and what was realised as points."""

    def draw(axes: Axes) -> None:
        for number, band in enumerate(bands):
            strength = 0.16 + 0.24 * number / max(len(bands) - 1, 1)
            axes.fill_between(dates, band.low, band.high, color=style.colour, alpha=strength, linewidth=0, zorder=2)
        if middle is not None:
            axes.plot(dates, middle, color=style.colour, linewidth=1.0, zorder=3)
        finite = np.isfinite(realised)
        axes.plot(dates[finite], realised[finite], color=INK, linestyle="", marker="o", markersize=1.7, zorder=4)
        values = np.concatenate([realised[finite], *(edge for band in bands for edge in (band.low, band.high))])
        if log and (values > 0).all():
            log_axis(axes, values)
        else:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        date_axis(axes)
        pad_single_date(axes, dates)

    return inline_image(draw, size, alt, vertices=len(dates) * (6 + 2 * len(bands)))


def reliability_panel(lines: Sequence[Line], *, apart: int, alt: str, size: tuple[int, int] = PANEL) -> Image:
    """Share below each quantile less its level, in points; grey: what chance does to `apart` separate outcomes."""

    def draw(axes: Axes) -> None:
        level = np.linspace(0.0, 1.0, 101)
        chance = 196 * np.sqrt(level * (1 - level) / apart)
        axes.fill_between(level, -chance, chance, color=GRID, alpha=0.75, linewidth=0, zorder=1)
        axes.axhline(0.0, color=INK, linewidth=1.0, linestyle=(0, (5, 2)), zorder=2)
        for line in lines:
            plot_line(axes, line, marker="o", markersize=2.6)
        reach = max([4.0, *(1.12 * float(np.abs(line.y).max()) for line in lines)])
        axes.set_ylim(-reach, reach)
        axes.set_xlim(0.0, 1.0)
        axes.yaxis.set_major_formatter("{x:+.0f}")
        words = "points above (+) or below (−) the level of the quantile"
        axes.text(1.0, 1.02, words, transform=axes.transAxes, va="bottom", ha="right", color=MUTED, fontsize=7.6)

    return inline_image(draw, size, alt, vertices=200 + 8 * sum(len(line.x) for line in lines))


def visible_range(
    lines: Sequence[Line], focus: set[str], *, centre: float = 0.0, factor: float = 3.0
) -> tuple[tuple[float, float], list[Line]]:
    """The range of y that shows the models in `focus` well, and the lines that leave it.

    A model that goes more than `factor` times as far from `centre` as those in focus may leave the plot: drawn to its
    scale, the differences that the plot is for would be invisible. The caption says which ones do.
    """
    extent = {line.style.name: float(np.nanmax(np.abs(line.y - centre), initial=0.0)) for line in lines}
    reach = factor * max((extent[name] for name in focus if name in extent), default=math.inf)
    inside = [line for line in lines if extent[line.style.name] <= reach or line.style.name in focus]
    values = [y for line in inside for y in line.y if np.isfinite(y)]
    low, high = min([centre, *values]), max([centre, *values])
    return (low, high), [line for line in lines if line not in inside]


def _set_range(axes: Axes, low: float, high: float) -> None:
    margin = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def cumulative_panel(
    lines: Sequence[Line],
    *,
    visible: tuple[float, float],
    alt: str,
    words: str = "▲ worse, ▼ better than the reference",
    size: tuple[int, int] = PANEL,
) -> Image:
    """Cumulative loss difference: below zero the model has lost less than the reference so far. `words`: the key."""

    def draw(axes: Axes) -> None:
        axes.axhline(0.0, color=INK, linewidth=1.0, linestyle=(0, (5, 2)), zorder=2)
        for line in lines:
            plot_line(axes, line)
        _set_range(axes, *visible)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        axes.text(1.0, 1.02, words, transform=axes.transAxes, va="bottom", ha="right", color=MUTED, fontsize=7.6)
        date_axis(axes)
        if lines:
            pad_single_date(axes, lines[0].x)

    vertices = sum(min(len(line.x), MAX_POINTS) for line in lines)
    return inline_image(draw, size, alt, vertices=vertices)


@dataclass(frozen=True)
class FoldBar:
    """One row of the fold map; dates as datetime64, `validation_start` None where there is no validation tail."""

    label: str
    train_start: np.datetime64
    validation_start: np.datetime64 | None
    cutoff: np.datetime64
    test_end: np.datetime64
    reused: bool


FOLD_COLOURS = {"training": "#9fb6d4", "validation": "#5a7fb0", "test": "#e08a3c"}
FOLD_REUSED = "#e3e9f1"


def fold_map(bars: Sequence[FoldBar], *, alt: str) -> Image:
    """One row per fold: training, validation, test; a fold that reuses an earlier fit has a pale training bar."""
    import matplotlib.dates

    date2num: Callable[[np.datetime64], float] = matplotlib.dates.date2num  # it is not annotated
    size = (WIDE, min(max(12 * len(bars), 40), 430) + MARGINS["top"] + MARGINS["bottom"])

    def draw(axes: Axes) -> None:
        height = 0.74
        for row, bar in enumerate(bars):
            start, cutoff, end = (float(date2num(d)) for d in (bar.train_start, bar.cutoff, bar.test_end))
            tail = cutoff if bar.validation_start is None else float(date2num(bar.validation_start))
            place: dict[str, Any] = {"y": row, "height": height, "linewidth": 0}
            axes.barh(
                width=tail - start, left=start, color=FOLD_REUSED if bar.reused else FOLD_COLOURS["training"], **place
            )
            if tail < cutoff:
                colour = "#c8d4e4" if bar.reused else FOLD_COLOURS["validation"]
                axes.barh(width=cutoff - tail, left=tail, color=colour, **place)
            axes.barh(width=max(end - cutoff, 1.0), left=cutoff, color=FOLD_COLOURS["test"], **place)
        step = max(1, -(-len(bars) // 16))
        last = len(bars) - 1
        rows = [*(row for row in range(0, last, step) if last - row >= step), last]
        axes.set_yticks(rows, [bars[row].label for row in rows])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_ylabel("fold")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.margins(x=0.01)
        axes.xaxis_date()
        date_axis(axes)

    # flat colours: a PNG of 64 rows takes 15 kB, an SVG 75
    return inline_image(draw, size, alt, vertices=MAX_SVG_VERTICES + 1)
