"""Owns the plots of where and when models win: cumulative loss, ratios by year and regime, confidence sets in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from ssmfin.diagnostics.drawing import INK, MUTED, SIZE, canvas, heading, over
from ssmfin.diagnostics.forecast_losses import (
    Losses,
    confidence_sets,
    forecast_losses,
    ratios_by_id,
    ratios_by_regime,
    ratios_by_year,
)
from ssmfin.evaluation.scores import REGIMES
from ssmfin.reporting.style import ModelStyle, model_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_DATES = 20
WIDE_RATIOS = 4.0  # the largest over the smallest: beyond it, ratios are drawn on a logarithmic scale
_ZERO = {"color": INK, "linewidth": 1.0, "linestyle": (0, (5, 2)), "zorder": 2}


def plot_cumulative_loss(
    forecasts: Any,
    *,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Running sum of each model's loss less the reference's, a panel for each horizon: a line that falls is winning.

        sum_{s <= t} (L_s - L^ref_s)

    A steady slope is an advantage at all times; one jump is one day.

    Args:
        forecasts: a run's folder, a `Result`, or a frame with the columns of predictions.parquet.
        models: which ones; None: the six best. horizons: which ones; None: all.
    Raises:
        InputError: as `forecast_losses`.
    """
    losses = forecast_losses(forecasts, loss=loss, reference=reference, models=models, horizons=horizons)
    styles = _styles(losses)
    label = f"sum of {_written(loss)} less {reference}'s\n(falling: better)"
    with _panels(losses, title, label, level=0.0) as (figure, panels):
        for one, horizon in panels:
            dates, _ = losses.by_horizon[horizon]
            for name in losses.compared:
                total = np.cumsum(losses.of(horizon, name) - losses.of(horizon, reference))
                _line(one, styles[name], dates, total)
            one.margins(x=0.01)
    return figure


def plot_loss_by_year(
    forecasts: Any,
    *,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Mean loss over the reference's in each calendar year of the origin, a panel for each horizon: below 1 is better.

    Years of fewer than 20 dates (the first and the last, as a rule) are left out. The scale is logarithmic where the
    largest ratio is more than four times the smallest. Arguments and errors as `plot_cumulative_loss`.
    """
    from matplotlib.ticker import MaxNLocator

    losses = forecast_losses(forecasts, loss=loss, reference=reference, models=models, horizons=horizons)
    table, styles = ratios_by_year(losses).filter(pl.col("n") >= LEAST_DATES), _styles(losses)
    with _panels(losses, title, _ratio_label(losses, loss), level=1.0) as (figure, panels):
        for one, horizon in panels:
            for name in losses.compared:
                own = table.filter((pl.col("horizon") == horizon) & (pl.col("model") == name))
                _line(one, styles[name], own["year"].to_numpy(), own["ratio"].to_numpy(), marker="o", markersize=3)
            one.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def plot_loss_by_regime(
    forecasts: Any,
    *,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Mean loss over the reference's in calm, normal and turbulent times (terciles of the outcome): below 1 is better.

    The regimes are told by the outcome, so a model that forecasts high does well in turbulence by that alone: compare
    the three. Arguments and errors as `plot_cumulative_loss`.
    """
    losses = forecast_losses(forecasts, loss=loss, reference=reference, models=models, horizons=horizons)
    table, styles = ratios_by_regime(losses), _styles(losses)
    count = len(losses.compared)
    with _panels(losses, title, _ratio_label(losses, loss), level=1.0) as (figure, panels):
        for one, horizon in panels:
            for i, name in enumerate(losses.compared):
                own = table.filter((pl.col("horizon") == horizon) & (pl.col("model") == name)).sort("regime")
                place = np.arange(len(own)) + (i - (count - 1) / 2) * 0.7 / count
                ratio = own["ratio"].to_numpy()
                one.vlines(place, 1.0, ratio, color=styles[name].colour, linewidth=1.2, alpha=0.6)
                one.plot(place, ratio, "o", color=styles[name].colour, markersize=5, label=name)
            one.set_xticks(range(len(REGIMES)), REGIMES)
    return figure


def plot_loss_by_id(
    forecasts: Any,
    *,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Mean loss over the reference's for each id, a panel for each horizon: to the left of 1 is better.

    Ids are in the order of the best model's ratio at the first horizon. Arguments and errors as `plot_cumulative_loss`.
    """
    losses = forecast_losses(forecasts, loss=loss, reference=reference, models=models, horizons=horizons)
    table, styles = ratios_by_id(losses), _styles(losses)
    first = (pl.col("horizon") == next(iter(losses.by_horizon))) & (pl.col("model") == losses.compared[0])
    ids = table.filter(first).sort("ratio")["unique_id"].to_list()
    size = (_size(losses)[0], 1.4 + 0.21 * len(ids))
    with canvas(1, len(losses.by_horizon), size=size, sharex=True, sharey=True) as (figure, axes):
        for one, horizon in zip(axes.flat, losses.by_horizon, strict=True):
            one.axvline(1.0, **_ZERO)
            one.grid(axis="x", color="#e4e7ec", linewidth=0.7)
            for name in losses.compared:
                own = table.filter((pl.col("horizon") == horizon) & (pl.col("model") == name))
                place = [ids.index(each) for each in own["unique_id"]]
                one.plot(own["ratio"], place, "o", color=styles[name].colour, markersize=5, alpha=0.9, label=name)
            one.set_yticks(range(len(ids)), ids)
            one.set_ylim(len(ids) - 0.5, -0.5)
            heading(one, _ahead(horizon))
        words = f"{_written(loss)} over {reference}'s (left of 1: better){_ratio_scale(list(axes.flat), 'x')}"
        axes.flat[0].set_xlabel(words, fontsize=SIZE, color=MUTED)
        _key(figure, axes.flat[0])
        over(figure, title)
    return figure


def plot_confidence_sets(
    forecasts: Any,
    *,
    window: int = 504,
    step: int = 63,
    size: float = 0.1,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Which models were in the confidence set of the last `window` dates, through time, a panel for each horizon.

    A full mark: in the set; an empty place: told apart from the best and out of it. Models are in the order of their
    losses over the whole sample, the best at the top.

    Args:
        window: dates of each test; 504 are two years of trading days. step: dates between two of them. size: of the
            test. Others as `plot_cumulative_loss`.
    Raises:
        InputError: as `forecast_losses`, or the window does not fit.
    """
    losses = forecast_losses(forecasts, loss=loss, reference=reference, models=models, horizons=horizons)
    table, styles = confidence_sets(losses, window=window, step=step, size=size), _styles(losses)
    height = 1.3 + 0.24 * len(losses.models)
    figure_size = (min(4.2 * len(losses.by_horizon) + 1.0, 12.0), height)
    with canvas(1, len(losses.by_horizon), size=figure_size, sharey=True) as (figure, axes):
        for one, horizon in zip(axes.flat, losses.by_horizon, strict=True):
            for row, name in enumerate(losses.models):
                own = table.filter((pl.col("horizon") == horizon) & (pl.col("model") == name))
                inside = own.filter(pl.col("in_set"))
                one.plot(own["ds"], [row] * len(own), "|", color="#d5dae1", markersize=7)
                one.plot(inside["ds"], [row] * len(inside), "s", color=styles[name].colour, markersize=5)
            own = table.filter(pl.col("horizon") == horizon)
            share = own["in_set"].sum() / own["ds"].n_unique()
            heading(one, _ahead(horizon), f"{share:.1f} of {len(losses.models)} in it")
            one.set_yticks(range(len(losses.models)), losses.models)
            one.set_ylim(len(losses.models) - 0.5, -0.5)
            one.grid(axis="y", visible=False)
        note = f"in the {1 - size:.0%} model confidence set of the last {window} dates"
        figure.supxlabel(note, fontsize=SIZE, color=MUTED)
        over(figure, title)
    return figure


def _styles(losses: Losses) -> dict[str, ModelStyle]:
    return model_styles(losses.models, losses.families, losses.reference)


def _size(losses: Losses) -> tuple[float, float]:
    return min(4.2 * len(losses.by_horizon) + 0.4, 12.0), 3.4


@contextmanager
def _panels(losses: Losses, title: str, label: str, *, level: float) -> Iterator[tuple[Figure, list[tuple[Axes, int]]]]:
    """A panel for each horizon with a line at `level`; ratios (level 1) share their axis. Then labels and key."""
    with canvas(1, len(losses.by_horizon), size=_size(losses), sharey=level == 1.0) as (figure, axes):
        panels = list(zip(axes.flat, losses.by_horizon, strict=True))
        for one, horizon in panels:
            one.axhline(level, **_ZERO)
            heading(one, _ahead(horizon))
        yield figure, panels
        scale = _ratio_scale(list(axes.flat), "y") if level == 1.0 else ""
        _label(axes.flat[0], label + scale)
        _key(figure, axes.flat[0])
        over(figure, title)


def _ratio_scale(panels: Sequence[Axes], which: Literal["x", "y"]) -> str:
    """A logarithmic scale for ratios (2 is as far from 1 as 1/2) where one model is far worse: else it squashes all.

    Returns:
        What the label of the axis is to say of that: "" where the scale stays linear.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    ends = np.array([getattr(one, f"{which}axis").get_data_interval() for one in panels])
    low, high = ends.min(), ends.max()
    if not (low > 0 and high < np.inf and high / low > WIDE_RATIOS):
        return ""
    for one in panels:
        getattr(one, f"set_{which}scale")("log")
        axis = getattr(one, f"{which}axis")
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    return ", log scale"


def _ratio_label(losses: Losses, loss: str) -> str:
    return f"{_written(loss)} over {losses.reference}'s\n(below 1: better)"


def _line(axes: Axes, style: ModelStyle, x: Any, y: Any, **more: Any) -> None:
    axes.plot(x, y, color=style.colour, linestyle=style.linestyle, linewidth=style.width, label=style.name, **more)


def _key(figure: Figure, axes: Axes) -> None:
    """One legend below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False, fontsize=SIZE - 0.5
    )


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=SIZE - 0.5, color=MUTED)


def _ahead(horizon: int) -> str:
    return f"horizon {horizon}"


def _written(loss: str) -> str:
    return loss.upper()
