"""Owns the plots of standardised innovations, one call each, and all of them on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.diagnostics import residual_tests
from ssmfin.diagnostics.drawing import ACCENT, INK, LINE, MUTED, REALISED, canvas, heading, legend, over
from ssmfin.diagnostics.innovations import one_of, standardised_innovations, time_axis
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = np.ndarray  # float64
_SINGLE = (7.2, 3.2)


def plot_diagnostics(
    source: Any,
    *,
    series: int = 0,
    component: int = 0,
    dates: Any = None,
    lags: int = 20,
    level: float = 0.05,
    title: str = "",
) -> Figure:
    """Six views of the standardised innovations of one series on one page; a right model passes them all.

    Innovations over time, histogram, QQ plot, correlogram with Ljung-Box, CUSUM, CUSUM of squares.

    Args:
        source: what a filter of `ssmfin.classical` returned, or an array (T,), (B, T) or (B, T, P).
        series, component: which one.
        dates: (T,) for the axis of time; None for 1 .. T.
        lags: of the correlogram. level: of bands, tests and bounds (0.01, 0.05 or 0.1).
        title: over the page.
    Returns:
        A matplotlib Figure: show it in a notebook, or `savefig` it.
    Raises:
        InputError: the source has no innovations, or fewer than ten are seen.
    """
    z, time = _prepared(source, series, component, dates)
    with canvas(3, 2, size=(10.5, 8.4)) as (figure, axes):
        _residuals(axes[0, 0], z, time, level)
        _histogram(axes[0, 1], z)
        _qq(axes[1, 0], z)
        _correlogram(axes[1, 1], z, lags, level)
        _cusum(axes[2, 0], residual_tests.cusum(z, level=level), time, level, "CUSUM: is the mean stable?")
        squares = residual_tests.cusum_of_squares(z, level=level)
        _cusum(axes[2, 1], squares, time, level, "CUSUM of squares: is the variance stable?")
        over(figure, title)
    return figure


def plot_residuals(
    source: Any, *, series: int = 0, component: int = 0, dates: Any = None, level: float = 0.05
) -> Figure:
    """Innovations over time with the band that holds 1 - level of them; arguments as `plot_diagnostics`."""
    z, time = _prepared(source, series, component, dates)
    with canvas(size=_SINGLE) as (figure, axes):
        _residuals(axes[0, 0], z, time, level)
    return figure


def plot_histogram(source: Any, *, series: int = 0, component: int = 0) -> Figure:
    """Histogram of the standardised innovations against N(0, 1); arguments as `plot_diagnostics`."""
    z, _ = _prepared(source, series, component, None)
    with canvas(size=_SINGLE) as (figure, axes):
        _histogram(axes[0, 0], z)
    return figure


def plot_qq(source: Any, *, series: int = 0, component: int = 0) -> Figure:
    """Sorted standardised innovations against normal quantiles; arguments as `plot_diagnostics`."""
    z, _ = _prepared(source, series, component, None)
    with canvas(size=(4.6, 4.4)) as (figure, axes):
        _qq(axes[0, 0], z)
    return figure


def plot_correlogram(
    source: Any, *, series: int = 0, component: int = 0, lags: int = 20, level: float = 0.05
) -> Figure:
    """Autocorrelations with their band under independence, and Ljung-Box; arguments as `plot_diagnostics`."""
    z, _ = _prepared(source, series, component, None)
    with canvas(size=_SINGLE) as (figure, axes):
        _correlogram(axes[0, 0], z, lags, level)
    return figure


def plot_cusum(source: Any, *, series: int = 0, component: int = 0, dates: Any = None, level: float = 0.05) -> Figure:
    """CUSUM with its bounds; arguments as `plot_diagnostics`."""
    z, time = _prepared(source, series, component, dates)
    with canvas(size=_SINGLE) as (figure, axes):
        _cusum(axes[0, 0], residual_tests.cusum(z, level=level), time, level, "CUSUM: is the mean stable?")
    return figure


def plot_cusum_of_squares(
    source: Any, *, series: int = 0, component: int = 0, dates: Any = None, level: float = 0.05
) -> Figure:
    """CUSUM of squares with its bounds; arguments as `plot_diagnostics`."""
    z, time = _prepared(source, series, component, dates)
    with canvas(size=_SINGLE) as (figure, axes):
        squares = residual_tests.cusum_of_squares(z, level=level)
        _cusum(axes[0, 0], squares, time, level, "CUSUM of squares: is the variance stable?")
    return figure


def _prepared(source: Any, series: int, component: int, dates: Any) -> tuple[FloatArray, np.ndarray]:
    z = one_of(standardised_innovations(source), series, component)
    seen = int((~np.isnan(z)).sum())
    if seen < 10:
        raise InputError(f"series {series} has {seen} standardised innovations; a plot of fewer than 10 says nothing.")
    return z, time_axis(dates, len(z))


def _residuals(axes: Axes, z: FloatArray, time: np.ndarray, level: float) -> None:
    from scipy.stats import norm

    bound = float(norm.ppf(1 - level / 2))
    inside = np.abs(z) <= bound
    # stems for a few, a thin line for many: thousands of stems are a black box
    if len(z) <= 300:
        axes.vlines(time, 0, z, color=REALISED, linewidth=0.9)
        axes.plot(time, np.where(inside, z, np.nan), ".", color=INK, markersize=3.5)
    else:
        axes.plot(time, z, color="#7d8796", linewidth=0.5)
    axes.plot(time, np.where(inside, np.nan, z), ".", color=ACCENT, markersize=4.5, label=f"beyond ±{bound:.2f}")
    axes.axhspan(-bound, bound, color=LINE, alpha=0.07, linewidth=0)
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    share = (np.abs(z[~np.isnan(z)]) > bound).mean()
    test = residual_tests.heteroskedasticity(z)
    heading(axes, "Innovations", f"{share:.1%} beyond ±{bound:.2f}   H {_p(test.p_value)}")
    axes.margins(x=0.01)


def _histogram(axes: Axes, z: FloatArray) -> None:
    from scipy.stats import norm

    seen = z[~np.isnan(z)]
    reach = max(3.5, min(float(np.abs(seen).max()), 8.0))
    # Freedman and Diaconis' width for N(0, 1), a bin in the middle at zero
    count = 2 * int(np.ceil(reach / (2.7 * len(seen) ** (-1 / 3)) - 0.5)) + 1
    edges = np.linspace(-reach, reach, count + 1)
    outside = int((np.abs(seen) > reach).sum())
    axes.hist(
        seen,
        bins=edges.tolist(),
        density=True,
        color=REALISED,
        edgecolor="white",
        linewidth=0.5 if count < 40 else 0.15,
        label="innovations",
    )
    grid = np.linspace(-reach, reach, 301)
    axes.plot(grid, norm.pdf(grid), color=LINE, linewidth=1.6, label="N(0, 1)")
    axes.set_yticks([])
    axes.grid(visible=False)
    test = residual_tests.jarque_bera(z)
    note = f"skewness {float(test.skewness):.2f}   kurtosis {float(test.kurtosis):.2f}   JB {_p(test.p_value)}"
    heading(axes, "Distribution", note + (f"   {outside} off the axis" if outside else ""))
    legend(axes, loc="upper left")


def _qq(axes: Axes, z: FloatArray) -> None:
    ordered = np.sort(z[~np.isnan(z)])
    expected = residual_tests.normal_quantiles(len(ordered))
    reach = float(max(np.abs(expected).max(), 3.0)) * 1.05
    axes.plot([-reach, reach], [-reach, reach], color=LINE, linewidth=1.4, label="N(0, 1)")
    axes.plot(expected, ordered, ".", color=INK, markersize=3.5)
    axes.set_xlabel("normal quantile", fontsize=8.5)
    axes.set_ylabel("innovation", fontsize=8.5)
    axes.set_xlim(-reach, reach)
    heading(axes, "QQ plot", "on the line if normal")
    legend(axes, loc="upper left")


def _correlogram(axes: Axes, z: FloatArray, lags: int, level: float) -> None:
    from matplotlib.ticker import MaxNLocator

    seen = int((~np.isnan(z)).sum())
    lags = max(1, min(lags, len(z) - 2))
    correlation = residual_tests.autocorrelation(z, lags)
    band = residual_tests.correlogram_band(seen, level)
    place = np.arange(1, lags + 1)
    beyond = np.abs(correlation) > band
    axes.axhspan(-band, band, color=LINE, alpha=0.07, linewidth=0)
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for which, colour in ((~beyond, INK), (beyond, ACCENT)):
        axes.vlines(place[which], 0, correlation[which], color=colour, linewidth=2.0)
    reach = 1.25 * max(float(np.nanmax(np.abs(correlation))), 1.5 * band)
    axes.set_ylim(-reach, reach)
    axes.set_xlim(0.2, lags + 0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("lag", fontsize=8.5)
    p_value = residual_tests.ljung_box(z, lags).p_value[-1]
    heading(axes, "Autocorrelation", f"Ljung-Box Q({lags}) {_p(p_value)}")


def _cusum(axes: Axes, found: residual_tests.Cusum, time: np.ndarray, level: float, title: str) -> None:
    seen = ~np.isnan(found.path)
    outside = seen & ((found.path > found.upper) | (found.path < found.lower))
    axes.plot(time[seen], found.path[seen], color=INK, linewidth=1.3, label="path")
    if outside.any():
        axes.plot(time, np.where(outside, found.path, np.nan), color=ACCENT, linewidth=2.2, label="out of bounds")
    axes.plot(
        time[seen], found.upper[seen], color=LINE, linewidth=1.1, linestyle=(0, (5, 2)), label=f"{level:.0%} bounds"
    )
    axes.plot(time[seen], found.lower[seen], color=LINE, linewidth=1.1, linestyle=(0, (5, 2)))
    axes.margins(x=0.01)
    heading(axes, title, "leaves its bounds" if found.crossed else "stays within")
    legend(axes, loc="upper left", ncols=3, handlelength=1.6, columnspacing=1.0)


def _p(value: Any) -> str:
    from ssmfin.reporting.style import p_text

    text = p_text(float(value))
    return f"p {text}" if text.startswith("<") else f"p = {text}"
