"""Owns the plot of prices shaded by regime: filtered; smoothed only when asked for, and labelled two-sided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.classical.smoothed import Smoothed
from ssmfin.diagnostics.drawing import ACCENT, INK, SIZE, canvas, heading, legend, over, regime_colours
from ssmfin.diagnostics.innovations import time_axis
from ssmfin.diagnostics.state_plots import TWO_SIDED
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = np.ndarray  # float64
_LOG_ABOVE = 3.0  # a price that has tripled is read by ratios


def plot_regimes(
    prices: FloatArray,
    probabilities: Any,
    *,
    series: int = 0,
    dates: Any = None,
    labels: Sequence[str] | None = None,
    predicted: bool = False,
    two_sided: bool = False,
    price_label: str = "price",
    title: str = "",
) -> Figure:
    """Prices over time, shaded by the most probable regime, above the probabilities of all regimes.

    A step is shaded by what was known at its end; with `predicted` by what was known before it.

    Args:
        prices: (T,) or (B, T). On a log axis where positive and spread over more than a factor of three.
        probabilities: what `ssmfin.classical.regime.filter_series` returned, or (T, K) or (B, T, K); or those of
            regimes 1, 2, ... alone, (T,) or (T, K - 1), as `RegimeFeatures` gives them: regime 0 is the rest. A
            `Smoothed` only with `two_sided`.
        series: which one.
        dates: (T,) for the axis of time; None for 1 .. T.
        labels: (K,) names of the regimes; None for "regime 0 (calm)" ... (models of this package number them from calm
            to wild).
        predicted: probabilities given data before t, instead of up to t.
        two_sided: needed for a smoothed result, which says in the heading that it sees the future.
        price_label: over the first panel. title: over the figure.
    Returns:
        A matplotlib Figure.
    Raises:
        InputError: a smoothed result without `two_sided`, or shapes that do not fit.
    """
    weights = _weights(probabilities, series, predicted, two_sided)
    T, K = weights.shape
    price = np.asarray(prices, dtype=float)
    price = price[series] if price.ndim == 2 and 0 <= series < len(price) else price
    if price.shape != (T,):
        raise InputError(f"prices has shape {np.shape(prices)} for {T} steps of probabilities; give one a step.")
    names = _names(labels, K)
    time = time_axis(dates, T)
    kind = TWO_SIDED if isinstance(probabilities, Smoothed) else "predicted before t" if predicted else "filtered"
    with canvas(2, 1, size=(9.5, 5.4), sharex=True, height_ratios=[2.4, 1.0]) as (figure, axes):
        above, below = axes[0, 0], axes[1, 0]
        _shade(above, time, weights, names)
        above.plot(time, price, color=INK, linewidth=1.1)
        positive = price[np.isfinite(price)]
        if len(positive) and positive.min() > 0 and positive.max() > _LOG_ABOVE * positive.min():
            _log_axis(above, decades=bool(positive.max() > 10 * positive.min()))
        hindsight = ", shaded with hindsight" if isinstance(probabilities, Smoothed) else ""
        heading(above, price_label + hindsight)
        # over the panel: inside, it would hide prices
        legend(above, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=K, borderaxespad=0.2)
        colours = regime_colours(K)
        known = np.where(np.isfinite(weights), weights, 0.0)
        below.stackplot(time, known.T, colors=colours, linewidth=0)
        below.set_ylim(0.0, 1.0)
        below.set_yticks([0.0, 0.5, 1.0])
        heading(below, "regime probabilities")
        note_colour = ACCENT if isinstance(probabilities, Smoothed) else None
        below.set_title(kind, loc="right", fontsize=SIZE - 0.5, color=note_colour or "#5b6472")
        over(figure, title)
        above.margins(x=0.0)
        below.margins(x=0.0)
    return figure


def _weights(probabilities: Any, series: int, predicted: bool, two_sided: bool) -> FloatArray:
    """(T, K) of one series."""
    if isinstance(probabilities, Smoothed):
        if not two_sided:
            raise InputError(
                "probabilities is Smoothed, whose values at t use data after t; "
                "draw what filter_series returns, or say two_sided=True to look at it as such."
            )
        values = probabilities.mean
    elif hasattr(probabilities, "filtered"):
        values = probabilities.predicted if predicted else probabilities.filtered
    else:
        values = probabilities
    weights = np.asarray(values, dtype=float)
    if weights.ndim == 3:
        if not 0 <= series < len(weights):
            raise InputError(f"series is {series}, of {len(weights)}; use 0 to {len(weights) - 1}.")
        weights = weights[series]
    if weights.ndim == 1:
        weights = np.column_stack([1.0 - weights, weights])
    if weights.ndim != 2:
        raise InputError(f"probabilities has shape {weights.shape}; use (T,), (T, K) or (B, T, K).")
    known = np.isfinite(weights).all(axis=1)
    if not known.any():
        raise InputError(f"series {series} has no probabilities; its fit failed or all of it is missing.")
    total = weights[known].sum(axis=1)
    if (weights[known] < -1e-9).any() or (total > 1.0 + 1e-6).any():
        raise InputError(
            f"probabilities reach from {weights[known].min():g} to a sum of {total.max():g} at a step; give those of "
            "all regimes, or of all but regime 0."
        )
    if (np.abs(total - 1.0) <= 1e-6).all():
        return weights
    return np.column_stack([1.0 - weights.sum(axis=1), weights])  # regime 0 is what the others leave


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    if labels is not None:
        if len(labels) != count:
            raise InputError(f"labels has {len(labels)} names for {count} regimes; give one a regime.")
        return [str(label) for label in labels]
    names = [f"regime {k}" for k in range(count)]
    if count > 1:
        names[0] += " (calm)"
        names[-1] += " (wild)"
    return names


def _shade(axes: Axes, time: np.ndarray, weights: FloatArray, names: list[str]) -> None:
    """One stretch a run of the most probable regime, from the middle of the gap before it to that behind it."""
    from matplotlib.dates import date2num

    dated = np.issubdtype(time.dtype, np.datetime64)
    at = date2num(time) if dated else time.astype(float)  # type: ignore[no-untyped-call]
    middle = 0.5 * (at[1:] + at[:-1])
    edges = np.concatenate([at[:1], middle, at[-1:]])
    best = np.where(np.isfinite(weights).all(axis=1), np.nan_to_num(weights).argmax(axis=1), -1)
    starts = np.flatnonzero(np.concatenate([[True], best[1:] != best[:-1]]))
    ends = np.concatenate([starts[1:], [len(best)]])
    for k, (name, colour) in enumerate(zip(names, regime_colours(len(names)), strict=True)):
        runs = [(edges[a], edges[b] - edges[a]) for a, b in zip(starts, ends, strict=True) if best[a] == k]
        axes.broken_barh(
            runs, (0.0, 1.0), transform=axes.get_xaxis_transform(), color=colour, alpha=0.6, linewidth=0, label=name
        )


def _log_axis(axes: Axes, *, decades: bool) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
