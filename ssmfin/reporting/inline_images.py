"""Owns how a plot becomes an inline image: matplotlib without global state, axes, and the same bytes every time."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# CSS pixels. A panel fits a phone nearly unscaled and two or three of them stand side by side on a desk.
PANEL = (430, 250)
WIDE = 1124  # of the page's column: what stands alone fills it
ALONE = (WIDE, 320)  # a plot without neighbours
PIXELS_PER_INCH = 96
PNG_DPI = 160
COLOURS = 128  # of a PNG
# Measured, base64 included: an SVG panel takes 25 kB, 20 bytes for a vertex and 90 for a marker; a PNG 10 to 40 kB.
MAX_SVG_VERTICES = 1_200
MARGINS = {"left": 54, "right": 16, "top": 18, "bottom": 24}  # CSS pixels; fixed, so that panels align with each other
GRID, MUTED = "#e4e7ec", "#5b6472"


@dataclass(frozen=True)
class Image:
    """An image as a data URI with its size in CSS pixels and its text for those who cannot see it.

    `narrow`: the same drawn anew for a phone, where the letters of a wide one would be dust.
    """

    uri: str
    width: int
    height: int
    alt: str
    narrow: Image | None = None


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


def panel_size(count: int) -> tuple[int, int]:
    """The size of one of `count` plots that stand side by side: one alone has the width of the page."""
    return ALONE if count == 1 else PANEL


def inline_image(draw: Callable[[Axes], None], size: tuple[int, int], alt: str, *, vertices: int) -> Image:
    """Draws into a fresh figure; SVG while it is small, PNG when the lines are dense.

    Args:
        draw: called with empty axes; twice for a wide image, which also has a narrow form.
        size: width and height, CSS pixels. alt: what is seen, in words. vertices: about how many are drawn.
    """
    width, height = size
    narrow = None
    if width > PANEL[0]:
        narrow = inline_image(draw, (PANEL[0], max(PANEL[1], height)), alt, vertices=vertices)
    return Image(_drawn(draw, size, vertices), width, height, alt, narrow)


def width_of(axes: Axes) -> float:
    """CSS pixels from the left to the right of the image that the axes are in."""
    figure = axes.get_figure()
    return PANEL[0] if figure is None else float(figure.get_figwidth()) * PIXELS_PER_INCH  # type: ignore[union-attr]


def height_of(axes: Axes) -> float:
    """CSS pixels from the bottom to the top of the plot without its margins."""
    figure = axes.get_figure()
    whole = PANEL[1] if figure is None else float(figure.get_figheight()) * PIXELS_PER_INCH  # type: ignore[union-attr]
    return whole - MARGINS["top"] - MARGINS["bottom"]


def _drawn(draw: Callable[[Axes], None], size: tuple[int, int], vertices: int) -> str:
    """One data URI."""
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
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=PNG_DPI, metadata={"Software": None})
        _save_with_palette(drawn, buffer)
        kind = "image/png"
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _save_with_palette(drawn: IO[bytes], target: IO[bytes]) -> None:
    """A PNG with COLOURS colours in place of millions: lines on white lose nothing that an eye sees, and two thirds of
    their bytes."""
    from PIL import Image as Pillow

    with Pillow.open(drawn) as full:
        few = full.convert("RGB").quantize(COLOURS, method=Pillow.Quantize.MEDIANCUT, dither=Pillow.Dither.NONE)
        few.save(target, format="PNG", optimize=True)


def date_axis(axes: Axes) -> None:
    """Few, short ticks on an x axis of dates, from hours to decades."""
    from matplotlib.dates import HOURLY, MONTHLY, AutoDateLocator, ConciseDateFormatter

    most = 6 if width_of(axes) <= PANEL[0] else 12
    locator = AutoDateLocator(minticks=3, maxticks=most)  # type: ignore[no-untyped-call]
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
