"""Owns the plots of a report: each one an inline image, drawn without global state and with the same bytes every time.

No text that a user chose (ids, names of models) is drawn: titles and legends are HTML. What is left are numbers, dates
and fixed words, so that no name can break a plot, and fonts that ship with matplotlib suffice.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.reporting.style import INK, REALISED, ModelStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# CSS pixels. A panel fits a phone nearly unscaled and two or three of them stand side by side on a desk.
PANEL = (430, 250)
WIDE = 860
PIXELS_PER_INCH = 96
PNG_DPI = 160
# Measured, base64 included: an SVG panel takes 25 kB, 20 bytes for a vertex and 90 for a marker; a PNG 40 to 60 kB.
MAX_SVG_VERTICES = 1_200
MARGINS = {"left": 54, "right": 16, "top": 18, "bottom": 24}  # CSS pixels; fixed, so that panels align with each other
MAX_POINTS = 600  # more points than that in one line are finer than the pixels
GRID, MUTED = "#e4e7ec", "#5b6472"


@dataclass(frozen=True)
class Image:
    """An image as a data URI with its size in CSS pixels and its text for those who cannot see it."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Line:
    """One model's line: x (n,) datetime64 or number, y (n,)."""

    style: ModelStyle
    x: np.ndarray
    y: np.ndarray


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib with our settings and none of the user's (a matplotlibrc may ask for LaTeX or another font)."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "ssmfin",  # ids inside an SVG are otherwise random
                "svg.fonttype": "path",
                "font.family": "DejaVu Sans",
                "font.size": 8.6,
                "axes.edgecolor": "#c3c9d2",
                "axes.linewidth": 0.8,
                "axes.labelcolor": MUTED,
                "axes.unicode_minus": True,
                "xtick.color": "#c3c9d2",
                "ytick.color": "#c3c9d2",
                "xtick.labelcolor": MUTED,
                "ytick.labelcolor": MUTED,
                "xtick.major.size": 3.0,
                "ytick.major.size": 0.0,
                "path.simplify_threshold": 0.3,
            }
        )
        yield


def _image(draw: Callable[[Axes], None], size: tuple[int, int], alt: str, *, vertices: int) -> Image:
    """Draws into a fresh figure; SVG while it is small, PNG when the lines are dense."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
    axes = figure.add_axes(
        (
            MARGINS["left"] / width,
            MARGINS["bottom"] / height,
            1 - (MARGINS["left"] + MARGINS["right"]) / width,
            1 - (MARGINS["top"] + MARGINS["bottom"]) / height,
        )
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    draw(axes)
    buffer = io.BytesIO()
    # Creation dates and versions in the metadata would change the bytes of the same study.
    if vertices <= MAX_SVG_VERTICES:
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        kind = "image/svg+xml"
    else:
        figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
        kind = "image/png"
    return Image(f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", width, height, alt)


def _thin(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """At most MAX_POINTS of aligned arrays, evenly spaced, first and last kept."""
    n = len(arrays[0])
    if n <= MAX_POINTS:
        return arrays
    keep = np.unique(np.linspace(0, n - 1, MAX_POINTS).round().astype(np.int64))
    return tuple(array[keep] for array in arrays)


def _date_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    formatter.formats[1] = formatter.zero_formats[2] = "%b"
    formatter.zero_formats[1] = "%Y"
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)


def _plot(axes: Axes, line: Line, **keywords: Any) -> None:
    x, y = _thin(line.x, line.y)
    if np.isfinite(y).sum() == 1:  # a line of one point would be invisible
        keywords["marker"] = "o"
    style = line.style
    order = 4 if style.family == "ssm" else 3
    defaults: dict[str, Any] = {
        "linewidth": style.width,
        "markersize": 3.5,
        "zorder": order,
        "solid_joinstyle": "round",
    }
    axes.plot(x, y, color=style.colour, linestyle=style.linestyle, **(defaults | keywords))


def _pad_single_date(axes: Axes, x: np.ndarray) -> None:
    """A range of no width makes matplotlib choose centuries."""
    if x.dtype.kind == "M" and len(x) and x.min() == x.max():
        day = np.timedelta64(3, "D")
        axes.set_xlim(x.min() - day, x.max() + day)


def forecast_panel(dates: np.ndarray, realised: np.ndarray, lines: Sequence[Line], *, log: bool, alt: str) -> Image:
    """Realised values (grey) under the forecasts, by origin."""

    def draw(axes: Axes) -> None:
        finite = np.isfinite(realised)
        axes.plot(dates[finite], realised[finite], color=REALISED, linewidth=0.35, marker="o", markersize=1.6, zorder=2)
        for line in lines:
            _plot(axes, line, linewidth=1.1)
        values = np.concatenate([realised, *(line.y for line in lines)])
        values = values[np.isfinite(values)]
        if log and len(values) and (values > 0).all():
            _log_axis(axes, values)
        elif len(values):
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        _date_axis(axes)
        _pad_single_date(axes, dates)

    vertices = len(dates) * (5 + len(lines))
    return _image(draw, PANEL, alt, vertices=vertices)


def _log_axis(axes: Axes, values: np.ndarray) -> None:
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    axes.set_yscale("log")
    decades = np.log10(values.max() / values.min())
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(LogFormatterSciNotation(base=10, labelOnlyBase=False, minor_thresholds=(99, 0.5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


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


def cumulative_panel(lines: Sequence[Line], *, visible: tuple[float, float], alt: str) -> Image:
    """Cumulative loss difference: below zero the model has lost less than the reference so far."""

    def draw(axes: Axes) -> None:
        axes.axhline(0.0, color=INK, linewidth=1.0, linestyle=(0, (5, 2)), zorder=2)
        for line in lines:
            _plot(axes, line)
        _set_range(axes, *visible)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        words = "▲ worse, ▼ better than the reference"
        axes.text(1.0, 1.02, words, transform=axes.transAxes, va="bottom", ha="right", color=MUTED, fontsize=7.6)
        _date_axis(axes)
        if lines:
            _pad_single_date(axes, lines[0].x)

    vertices = sum(min(len(line.x), MAX_POINTS) for line in lines)
    return _image(draw, PANEL, alt, vertices=vertices)


def year_panel(lines: Sequence[Line], *, visible: tuple[float, float], alt: str) -> Image:
    """Ratio to the reference's loss, year by year."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (5, 2)), zorder=2)
        for line in lines:
            _plot(axes, line, marker="o", markersize=2.6)
        _set_range(axes, min(0.95, visible[0]), max(1.05, visible[1]))
        years = [x for line in lines for x in line.x] or [0.0]
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(min(years) - 0.4, max(years) + 0.4)

    return _image(draw, PANEL, alt, vertices=6 * sum(len(line.x) for line in lines))


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
        _date_axis(axes)

    return _image(draw, size, alt, vertices=0)
