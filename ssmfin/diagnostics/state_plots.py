"""Owns the plot of states with bands: filtered; smoothed only when asked for, and labelled two-sided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.classical.smoothed import Smoothed
from ssmfin.diagnostics.drawing import INK, LINE, MUTED, REALISED, canvas, heading, legend, over
from ssmfin.diagnostics.innovations import time_axis
from ssmfin.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = np.ndarray  # float64
TWO_SIDED = "smoothed (two-sided: uses data after t)"


def plot_states(
    states: Any,
    *,
    outputs: Sequence[str] | None = None,
    series: int = 0,
    dates: Any = None,
    observed: FloatArray | None = None,
    coverage: float = 0.9,
    predicted: bool = False,
    two_sided: bool = False,
    title: str = "",
) -> Figure:
    """States of one series over time, one panel each, with the band that holds them with probability `coverage`.

    mean +- z sqrt(variance);   the band is of the state, not of the next observation

    Args:
        states: what `ssmfin.classical.kalman.filter_series` or `smooth` returned; or (mean, variance), each (B, T) or
            (T,), or a mapping of name -> such a pair.
        outputs: names of what is drawn; None for all.
        series: which one.
        dates: (T,) for the axis of time; None for 1 .. T.
        observed: (T,) the data, drawn behind the first panel.
        coverage: of the band, in (0, 1).
        predicted: the state given data before t, instead of up to t.
        two_sided: needed for a smoothed result, which says in its legend that it sees the future.
    Returns:
        A matplotlib Figure.
    Raises:
        InputError: a smoothed result without `two_sided`, or an unknown output.
    """
    from scipy.stats import norm

    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage is {coverage}; use a probability between 0 and 1.")
    drawn = _moments(states, outputs, series, predicted, two_sided)
    length = len(next(iter(drawn.values()))[0])
    time = time_axis(dates, length)
    reach = float(norm.ppf(0.5 + coverage / 2))
    label = TWO_SIDED if isinstance(states, Smoothed) else "predicted from data before t" if predicted else "filtered"
    size = (9.0, 1.0 + 2.3 * len(drawn)) if len(drawn) > 1 else (9.0, 3.6)
    with canvas(len(drawn), 1, size=size, sharex=True) as (figure, axes):
        for place, (name, (mean, variance)) in enumerate(drawn.items()):
            one = axes[place, 0]
            data = None
            if place == 0 and observed is not None:
                data = _data(observed, length)
            _draw(one, time, mean, reach * np.sqrt(variance), data, label, f"{coverage:.0%} band")
            heading(one, name.replace("_", " "))
            one.margins(x=0.01)
            if place == 0:
                legend(one, loc="best", ncols=1)
        over(figure, title)
    return figure


def _moments(
    states: Any, outputs: Sequence[str] | None, series: int, predicted: bool, two_sided: bool
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """name -> mean (T,), variance (T,)."""
    found: dict[str, tuple[Any, Any]]
    if isinstance(states, Smoothed):
        if not two_sided:
            raise InputError(
                "states is Smoothed, whose values at t use data after t; "
                "draw what filter_series returns, or say two_sided=True to look at it as such."
            )
        found = dict(states.outputs)
    elif hasattr(states, "output"):
        found = {name: states.output(name, predicted=predicted) for name in states.outputs}
    elif isinstance(states, tuple) and len(states) == 2:
        found = {"state": states}
    elif isinstance(states, dict):
        found = dict(states)
    else:
        raise InputError(f"states is {type(states).__name__}; give what filter_series returns, or (mean, variance).")
    for name in outputs or ():
        if name not in found:
            raise InputError(f"outputs has {name!r}; {nearest(name, found)}.")
    return {name: _one(found[name], series) for name in (outputs or found)}


def _one(pair: tuple[Any, Any], series: int) -> tuple[FloatArray, FloatArray]:
    mean, variance = (np.atleast_2d(np.asarray(part, dtype=float)) for part in pair)
    if mean.ndim != 2 or mean.shape != variance.shape:
        raise InputError(f"mean and variance have shapes {mean.shape} and {variance.shape}; use (B, T) for both.")
    if not 0 <= series < len(mean):
        raise InputError(f"series is {series}, of {len(mean)}; use 0 to {len(mean) - 1}.")
    return mean[series], variance[series]


def _data(observed: Any, length: int) -> FloatArray:
    values = np.asarray(observed, dtype=float)
    if values.shape != (length,):
        raise InputError(f"observed has shape {values.shape}; use ({length},), one for each step.")
    return values


def _draw(
    axes: Axes, time: np.ndarray, mean: FloatArray, half: FloatArray, data: FloatArray | None, label: str, band: str
) -> None:
    if data is not None:
        if len(data) <= 400:
            axes.plot(time, data, ".", color="#8b93a1", markersize=3.5, label="observed")
        else:
            axes.plot(time, data, color=REALISED, linewidth=0.6, label="observed")
    colour = INK if label == TWO_SIDED else LINE
    axes.fill_between(time, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0, label=band)
    axes.plot(time, mean, color=colour, linewidth=1.5 if len(mean) <= 1000 else 0.7, label=label)
    limits = _limits(mean, half, data)
    if limits is not None:
        axes.set_ylim(*limits)
        if limits[0] < 0 < limits[1]:
            axes.axhline(0.0, color=MUTED, linewidth=0.8)


def _limits(mean: FloatArray, half: FloatArray, data: FloatArray | None) -> tuple[float, float] | None:
    """Limits that show all of the mean and the data, and all of the band but for its first burst.

    Just after a diffuse start a band can be a thousand times as wide as later, and would press the rest flat.
    """
    known = np.isfinite(mean) & np.isfinite(half)
    if not known.any():
        return None
    usual = np.minimum(half[known], 4.0 * np.median(half[known]))
    low, high = (mean[known] - usual).min(), (mean[known] + usual).max()
    if data is not None and np.isfinite(data).any():
        low, high = min(low, np.nanmin(data)), max(high, np.nanmax(data))
    space = 0.05 * (high - low) or 0.05 * max(abs(high), 1e-12)
    return float(low - space), float(high + space)
