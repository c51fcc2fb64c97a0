"""Owns the look of the diagnostic figures: the report's colours and type on figures that need no display."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.reporting.inline_images import GRID, MUTED, PIXELS_PER_INCH, drawing
from ssmfin.reporting.style import INK, REALISED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "GRID",
    "INK",
    "LINE",
    "MUTED",
    "REALISED",
    "SIZE",
    "canvas",
    "heading",
    "legend",
    "over",
    "regime_colours",
]

LINE = "#0059a3"  # the estimate, and its band in a lighter tone
ACCENT = "#b8441a"  # what a reader must not miss: bounds crossed, the wild regime
SCREEN_DPI = 160  # sharp on a dense screen, where it is shown at PIXELS_PER_INCH
SIZE = 9.0  # points; printed at the width of a page the text stays readable
_REGIMES = {
    1: ("#cfe1ee",),
    2: ("#cfe1ee", "#e58a66"),
    3: ("#cfe1ee", "#f2d38a", "#df7a55"),
    4: ("#cfe1ee", "#d5e3b5", "#f2d38a", "#d9623c"),
}


@contextmanager
def canvas(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], **layout: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure (inches) and its axes (rows, columns), to be drawn within the block: our settings hold only there.

    No pyplot: nothing is kept open, no display is asked for, and threads do not disturb each other.
    """
    with drawing():
        figure = _page()(figsize=size, layout="constrained", facecolor="white")
        axes = figure.subplots(rows, columns, squeeze=False, **layout)
        for one in axes.flat:
            for side in ("top", "right", "left"):
                one.spines[side].set_visible(False)
            one.grid(axis="y", color=GRID, linewidth=0.7)
            one.set_axisbelow(True)
            # given here, as ticks are made when a figure is saved, under whatever settings hold then
            one.tick_params(labelsize=SIZE - 0.5, labelcolor=MUTED, color="#c3c9d2", labelfontfamily="DejaVu Sans")
        yield figure, axes
        for one in axes.flat:
            _date_ticks(one)


@cache
def _page() -> type[Figure]:
    """Matplotlib's Figure, but a notebook shows it as the value of a cell: Figure itself needs pyplot for that."""
    from matplotlib.figure import Figure

    class Page(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=SCREEN_DPI)
            width, height = self.get_size_inches() * PIXELS_PER_INCH
            return buffer.getvalue(), {"width": round(width), "height": round(height)}

    return Page


def heading(axes: Axes, text: str, note: str = "") -> None:
    """What the panel shows, at its upper left; a note in grey behind it."""
    axes.set_title(text, loc="left", fontsize=SIZE + 1, color=INK, fontweight="bold")
    if note:
        axes.set_title(note, loc="right", fontsize=SIZE - 0.5, color=MUTED)


def over(figure: Figure, title: str) -> None:
    """A title over all panels, at the left; none if empty."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 3, color=INK, fontweight="bold")


def legend(axes: Axes, **options: Any) -> None:
    """A legend without a frame, over a little white."""
    axes.legend(
        **{
            "fontsize": SIZE - 0.5,
            "frameon": True,
            "framealpha": 0.85,
            "edgecolor": "none",
            "labelcolor": INK,
            **options,
        }
    )


def regime_colours(count: int) -> tuple[Any, ...]:
    """One colour a regime, from calm (blue) to wild (red)."""
    if count in _REGIMES:
        return _REGIMES[count]
    from matplotlib import colormaps

    return tuple(colormaps["RdYlBu_r"](place) for place in np.linspace(0.15, 0.9, count))


def _date_ticks(axes: Axes) -> None:
    """Short dates: the year once, not on every tick."""
    from matplotlib import dates

    if isinstance(axes.xaxis.get_major_locator(), dates.AutoDateLocator):
        locator = dates.AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
