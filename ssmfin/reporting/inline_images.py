"""Owns how a plot becomes an inline image: matplotlib without global state, axes, and the same bytes every time."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
GRID, MUTED = "#e4e7ec", "#5b6472"


@dataclass(frozen=True)
class Image:
    """An image as a data URI with its size in CSS pixels and its text for those who cannot see it."""

    uri: str
    width: int
    height: int
    alt: str


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


def inline_image(draw: Callable[[Axes], None], size: tuple[int, int], alt: str, *, vertices: int) -> Image:
    """Draws into a fresh figure; SVG while it is small, PNG when the lines are dense.

    Args:
        size: width and height, CSS pixels. alt: what is seen, in words. vertices: about how many are drawn.
    """
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


def date_axis(axes: Axes) -> None:
    """Few, short ticks on an x axis of dates, from hours to decades."""
    from matplotlib.dates import HOURLY, MONTHLY, AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    for frequency, interval in ((MONTHLY, 12), (HOURLY, 24)):  # else it has none for 31 to 35 months or 61 to 71 hours
        locator.intervald[frequency] = [*locator.intervald[frequency], interval]
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    formatter.formats[1] = formatter.zero_formats[2] = "%b"
    formatter.zero_formats[1] = "%Y"
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)


def pad_single_date(axes: Axes, x: np.ndarray) -> None:
    """Room around a single date, (n,) datetime64: a range of no width makes matplotlib choose centuries."""
    if x.dtype.kind == "M" and len(x) and x.min() == x.max():
        day = np.timedelta64(3, "D")
        axes.set_xlim(x.min() - day, x.max() + day)


def log_axis(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis for some values, (n,) positive: ticks at 1, 3 or 1, 2, 5 where the decades are few."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    axes.set_yscale("log")
    decades = np.log10(values.max() / values.min())
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(LogFormatterSciNotation(base=10, labelOnlyBase=False, minor_thresholds=(99, 0.5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
