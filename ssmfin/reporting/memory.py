"""Owns the report's part on memory: how far back each network's forecasts reach, from one fit to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.reporting.data import ReportData
from ssmfin.reporting.inline_images import date_axis, inline_image, log_axis, pad_single_date, panel_size
from ssmfin.reporting.sections import Panel
from ssmfin.reporting.style import SSM_ACCENT, ModelStyle, count_text, date_text, fact_text
from ssmfin.reporting.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYER_COLOURS = ("#0059a3", "#009e73", "#882255", "#e69f00", "#5b6472")
BANDS = ((0.05, 0.95, 0.14), (0.25, 0.75, 0.26))


@dataclass(frozen=True)
class MemoryPart:
    """One table, and a plot for each model. `step`: what a row is called."""

    table: Table
    panels: tuple[Panel, ...]
    step: str


def memory_part(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> MemoryPart | None:
    """None where no model is a network."""
    if data.memory is None or data.memory.is_empty():
        return None
    models = [model for model in styles if model in set(data.memory["model"])]
    by_model = {model: over_fits(data.memory.filter(pl.col("model") == model)) for model in models}
    step = step if step == "day" else "row"
    panels = []
    for model, fits in by_model.items():
        half = fits.filter(kind="used", level=0.5)["rows"].to_list()
        reach = f"within {min(half):.0f} to {max(half):.0f} {step}s" if half else "nowhere: nothing was learned"
        stayed, count = stayed_of(fits)
        image = inline_image(
            lambda axes, fits=fits: _draw_with_unit(axes, fits, f"{step}s"),  # type: ignore[misc]
            panel_size(len(models)),
            f"Memory of {model} over {count} fits; half of its sensitivity lies {reach}.",
            vertices=4 * fits.height,
        )
        panels.append(Panel(model, f"{stayed} of {count} fits learned nothing" if stayed else "", image))
    return MemoryPart(_table(by_model, styles, step), tuple(panels), step)


def over_fits(memory: pl.DataFrame) -> pl.DataFrame:
    """One model's memory fit by fit, its seeds averaged (geometrically).

    Where some networks of a fit learned, those that did not are left out.

    Returns:
        cutoff, kind, layer, level, learned, rows, days; sorted by the first four.
    """
    keys = ("cutoff", "kind", "layer")
    return (
        memory.filter(pl.col("learned") | ~pl.col("learned").any().over(*keys))
        .group_by(*keys, "level")
        .agg(pl.col("learned").first(), *(pl.col(name).log().mean().exp() for name in ("rows", "days")))
        .sort(*keys, "level")
    )


def stayed_of(fits: pl.DataFrame) -> tuple[int, int]:
    """In how many fits no network learned anything, and how many there are; of `over_fits`."""
    count = fits["cutoff"].n_unique()
    return count - fits.filter(kind="used")["cutoff"].n_unique(), count


def draw_memory(axes: Axes, fits: pl.DataFrame, column: str) -> None:
    """What the network uses as a line with bands, the middle modes of its layers as thin lines.

    Args:
        fits: of `over_fits`. column: rows or days.
    """
    used = {level: part for (level,), part in fits.filter(kind="used").group_by("level")}
    if used:
        dates = used[0.5]["cutoff"].to_numpy()
        for low, high, strength in BANDS:
            edges = used[low][column].to_numpy(), used[high][column].to_numpy()
            if len(dates) > 1:
                axes.fill_between(dates, *edges, color=SSM_ACCENT, alpha=strength, linewidth=0, zorder=2)
            else:
                axes.vlines(dates, *edges, color=SSM_ACCENT, alpha=strength, linewidth=8, zorder=2)
        _line(axes, used[0.5], column, color=SSM_ACCENT, linewidth=1.8, markersize=4.0, label="used by forecasts")
    modes = fits.filter(kind="modes", level=0.5)
    for place, ((layer,), part) in enumerate(modes.group_by("layer", maintain_order=True)):
        colour = LAYER_COLOURS[place % len(LAYER_COLOURS)]
        label = f"layer {int(str(layer)) + 1}"
        _line(axes, part, column, color=colour, linewidth=0.9, markersize=2.6, label=label)
    drawn = pl.concat([*used.values(), modes])[column].to_numpy()
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if len(drawn):
        range_ = np.array([drawn.min() / 1.3, max(1.6 * drawn.max(), 15.0 * drawn.min())])  # room for ticks and legend
        log_axis(axes, range_)
        axes.set_ylim(*range_)
    axes.yaxis.set_major_formatter("{x:,g}")
    date_axis(axes)
    pad_single_date(axes, fits["cutoff"].to_numpy())
    axes.legend(
        loc="upper left", ncols=3, framealpha=0.8, edgecolor="none", fontsize=7.6, borderpad=0.1, columnspacing=1.2
    )


def _draw_with_unit(axes: Axes, fits: pl.DataFrame, unit: str) -> None:
    draw_memory(axes, fits, "rows")
    axes.set_ylabel(unit)


def _line(axes: Axes, part: pl.DataFrame, column: str, **look: Any) -> None:
    """Points joined by a line, hollow where nothing was learned."""
    dates, values, learned = part["cutoff"].to_numpy(), part[column].to_numpy(), part["learned"].to_numpy()
    size = look.pop("markersize")
    axes.plot(dates, values, zorder=3, **look)
    for mask, face in ((learned, look["color"]), (~learned, "white")):
        marks: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": look["color"], "markersize": size}
        axes.plot(dates[mask], values[mask], linestyle="", marker="o", zorder=4, **marks)


def _table(by_model: Mapping[str, pl.DataFrame], styles: Mapping[str, ModelStyle], step: str) -> Table:
    """All numbers of a model are of one fit, the last that learned. The heading has its date, or a column, where
    models differ in it.
    """
    last = {model: _last_learned(fits) for model, fits in by_model.items()}
    dates = {model: date_text(fits["cutoff"].max()) for model, fits in last.items()}
    learned = sorted({date for model, date in dates.items() if not last[model].is_empty()})
    body = []
    for model, fits in by_model.items():
        stayed, count = stayed_of(fits)
        used = [last[model].filter(kind="used", level=level)["rows"].to_list() for level in (0.5, 0.95)]
        layers = last[model].filter(kind="modes", level=0.5).sort("layer")["rows"].to_list()
        body.append(
            (
                Cell(model=styles[model], css="name"),
                Cell(f"{count_text(count - stayed)} of {count_text(count)}", "num soft"),
                *((Cell(dates[model], "num soft"),) if len(learned) > 1 else ()),
                *(Cell(", ".join(map(_short, values)) or "–", "num") for values in used),
                Cell(", ".join(map(_short, layers)) or "–", "num soft"),
            )
        )
    column = ("last that learned",) if len(learned) > 1 else ()
    names = ("fits that learned", *column, "half within", "95 % within", "each layer forgets half within")
    head = (Cell("Model", "name"), *(Cell(name, "num") for name in names))
    when = f", of {learned[0]}" if len(learned) == 1 else ""
    title = f"Newest {step}s that hold half, and 95 %, of the effect of the past, by the last fit that learned{when}"
    return Table(title, (head,), tuple(body))


def _last_learned(fits: pl.DataFrame) -> pl.DataFrame:
    """The rows of the last fit in which a network learned; none where nothing was ever learned."""
    return fits.filter(pl.col("cutoff") == fits.filter(kind="used").select(pl.col("cutoff").max()).to_series())


def _short(value: float) -> str:
    return fact_text(float(f"{value:.3g}"))
