"""Owns the parts of a report that have plots: which lines are drawn, under which titles, with which alt text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.evaluation.scores import Scored
from ssmfin.reporting import figures, summaries, year_plot
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.figures import FoldBar, Line
from ssmfin.reporting.inline_images import Image, panel_size
from ssmfin.reporting.style import ModelStyle, date_text, fact_text, ratio_text
from ssmfin.reporting.tables import Table, horizon_label, loss_label, ratio_table

MAX_FOLD_ROWS = 64  # rows of 5 pixels; more could not be told apart


@dataclass(frozen=True)
class Panel:
    """One plot with its HTML title."""

    title: str
    note: str
    image: Image


@dataclass(frozen=True)
class Group:
    """Plots that share a title and a legend."""

    title: str
    styles: tuple[ModelStyle, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Years:
    """Loss by year: plots for the eye, tables for the numbers."""

    styles: tuple[ModelStyle, ...]
    panels: tuple[Panel, ...]
    tables: tuple[Table, ...]


def forecast_groups(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> list[Group]:
    """Forecast against realised, one group per horizon, up to four ids each."""
    groups = []
    for horizon in sorted(set(data.predictions["horizon"])):
        models = summaries.challengers(data, horizon)
        ids = summaries.shown_ids(data, horizon)
        frame = summaries.recent_forecasts(data, horizon, [shown.unique_id for shown in ids], models)
        panels = []
        for shown in ids:
            part = frame.filter(pl.col("unique_id") == shown.unique_id)
            dates = part["ds"].to_numpy()
            lines = [Line(styles[m], dates, _floats(part[f"model:{m}"])) for m in models]
            span = f"{date_text(part['ds'].min())} to {date_text(part['ds'].max())}"
            alt = f"Realised values and forecasts of {shown.unique_id}, {horizon_label(horizon, step)}, origins {span}."
            log = data.target.get("transform") == "log"
            image = figures.forecast_panel(
                dates, _floats(part["y"]), lines, log=log, alt=alt, size=panel_size(len(ids))
            )
            panels.append(Panel(shown.unique_id, _place_note(shown, models, data), image))
        groups.append(Group(horizon_label(horizon, step), tuple(styles[m] for m in models), tuple(panels)))
    return groups


def _place_note(shown: summaries.ShownId, models: Sequence[str], data: ReportData) -> str:
    parts = []
    if shown.ratio is not None and models and models[-1] != data.reference:
        loss = loss_label(data.losses[0])
        parts.append(f"{loss} of {models[-1]} is {ratio_text(shown.ratio)} times that of {data.reference}")
    if shown.place:
        parts.append({"best": "its best id", "worst": "its worst id"}.get(shown.place, f"rank {shown.place}"))
    return ", ".join(parts)


def _floats(values: pl.Series) -> np.ndarray:
    found: np.ndarray = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return found


def forecast_note(groups: Sequence[Group]) -> str:
    """How much is drawn, and how the ids were chosen where not all of them are."""
    if groups and groups[0].styles and len(groups[0].panels) >= summaries.SHOWN_IDS:
        challenger = groups[0].styles[-1].name
        return (
            f"At most {summaries.SHOWN_IDS} ids are drawn, spread from the one where {challenger} did best "
            f"against the reference to the one where it did worst; the last {summaries.SHOWN_ORIGINS} origins each."
        )
    return f"At most the last {summaries.SHOWN_ORIGINS} origins of each id."


def cumulative_groups(
    data: ReportData, scored: Scored, ranked: Sequence[str], styles: Mapping[str, ModelStyle], step: str
) -> list[Group]:
    """Cumulative loss differences against the reference, one group per loss, one panel per horizon."""
    if data.reference not in scored.models:
        return []
    others = [model for model in ranked if model in scored.models and model != data.reference]
    groups = []
    for loss in data.losses:
        panels = []
        shown = summaries.loss_series(scored, loss)
        for series in shown:
            lines = [Line(styles[m], series.dates, series.cumulative_difference(m, data.reference)) for m in others]
            drawn = [line for line in lines if np.isfinite(line.y).all()]
            visible, cut = figures.visible_range(drawn, summaries.focus(data, series.horizon, loss))
            ends_off = ", ".join(f"{line.style.name} {fact_text(float(line.y[-1]))}" for line in cut)
            notes = [f"off the scale, ending at: {ends_off}"] if cut else []
            notes += [f"{line.style.name} has infinite losses" for line in lines if not np.isfinite(line.y).all()]
            ends = ", ".join(f"{line.style.name} {fact_text(float(line.y[-1]))}" for line in drawn)
            alt = (
                f"Cumulative {loss_label(loss)} difference against {data.reference}, "
                f"{horizon_label(series.horizon, step)}. Final values: {ends or 'none'}."
            )
            image = figures.cumulative_panel(drawn, visible=visible, alt=alt, size=panel_size(len(shown)))
            panels.append(Panel(horizon_label(series.horizon, step), "; ".join(notes), image))
        groups.append(Group(loss_label(loss), tuple(styles[model] for model in others), tuple(panels)))
    return groups


def years_section(
    data: ReportData, scored: Scored, ranked: Sequence[str], styles: Mapping[str, ModelStyle], step: str
) -> Years:
    """Loss of every model relative to the reference, by calendar year of the origins."""
    if data.reference not in scored.models:
        return Years((), (), ())
    models = [model for model in ranked if model in scored.models]
    others = [model for model in models if model != data.reference]
    panels, tables = [], []
    shown = summaries.loss_series(scored, data.losses[0])
    for series in shown:
        rows = summaries.yearly(series)
        label = horizon_label(series.horizon, step)
        base = np.array([values[data.reference] for _, _, values in rows])
        years = np.array([year for year, _, _ in rows], dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            lines = [Line(styles[m], years, np.array([values[m] for _, _, values in rows]) / base) for m in others]
        # The few days of a first or last year would set the scale of the whole plot.
        full = np.array([4 * n >= max(n for _, n, _ in rows) for _, n, _ in rows])
        lines = [Line(line.style, years[full], line.y[full]) for line in lines]
        focus = summaries.focus(data, series.horizon, data.losses[0])
        finite = [Line(line.style, line.x, np.where(np.isinf(line.y), np.nan, line.y)) for line in lines]
        visible, _ = figures.visible_range(finite, focus, centre=1.0)
        note = year_plot.off_the_scale(lines, year_plot.year_range(lines, visible)[1])
        alt = f"{loss_label(data.losses[0])} relative to {data.reference} by year, {label}; numbers in the table below."
        image = year_plot.year_panel(lines, visible=visible, alt=alt, size=panel_size(len(shown)))
        panels.append(Panel(label, note, image))
        groups = [(str(year), f"{n:,}", values) for year, n, values in rows]
        caption = f"{label}: {loss_label(data.losses[0])} relative to {data.reference} by year"
        tables.append(ratio_table(caption, groups, models, data.reference, styles, ("Year", "dates")))
    return Years(tuple(styles[model] for model in others), tuple(panels), tuple(tables))


def regime_tables(
    data: ReportData, scored: Scored, ranked: Sequence[str], styles: Mapping[str, ModelStyle], step: str
) -> list[Table]:
    """Loss relative to the reference in calm, normal and turbulent times, one table per horizon."""
    if data.reference not in scored.models:
        return []
    models = [model for model in ranked if model in scored.models]
    head, by = ("Regime", "regime") if summaries.has_regimes(data) else ("Outcome", "size of the outcome")
    tables = []
    for horizon, rows in summaries.by_regime(data):
        groups = [(regime, f"{n:,}", values) for regime, n, values in rows]
        caption = f"{horizon_label(horizon, step)}: {loss_label(data.losses[0])} relative to {data.reference} by {by}"
        tables.append(ratio_table(caption, groups, models, data.reference, styles, (head, "forecasts")))
    return tables


def fold_section(data: ReportData) -> tuple[Image | None, str]:
    """The fold map and what to say above it."""
    folds = data.folds.sort("fold")
    n = folds.height
    if n == 0:
        return None, ""
    fits = folds["fit"].n_unique()
    counted = f"{n:,} {'fold' if n == 1 else 'folds'}, {fits:,} {'fit' if fits == 1 else 'fits'}"
    note = f"{counted} unless a model says otherwise"
    rows = np.unique(np.linspace(0, n - 1, min(n, MAX_FOLD_ROWS)).round().astype(np.int64))
    note += f"; {len(rows)} of them are drawn, evenly spread. " if len(rows) < n else ". "
    note += (
        "Each row is one fold, in time order from the top: what the models learned from, ending at the cutoff, then "
        "the origins that were forecast. "
    )
    reused = (folds["fit"] == folds["fit"].shift(1)).fill_null(False)
    if reused.any():
        note += "Pale rows reuse the fit of an earlier fold. "
    trained = folds["n_train_rows"].drop_nulls()
    if len(trained):
        low, high = int(str(trained.min())), int(str(trained.max()))
        note += f"Training rows per fold: {low:,}." if low == high else f"Training rows per fold: {low:,} to {high:,}."
    dates = {
        name: folds[name].cast(pl.Datetime("us")).to_numpy()
        for name in ("train_start", "validation_start", "cutoff", "test_end")
    }
    bars = [
        FoldBar(
            label=str(folds["fold"][row]),
            train_start=dates["train_start"][row],
            validation_start=None if np.isnat(dates["validation_start"][row]) else dates["validation_start"][row],
            cutoff=dates["cutoff"][row],
            test_end=dates["test_end"][row],
            reused=bool(reused[row]),
        )
        for row in rows.tolist()
    ]
    first, last = date_text(folds["train_start"].min()), date_text(folds["test_end"].max())
    alt = f"Fold map: {n:,} folds from {first} to {last}; training, validation and test span of {len(rows)} of them."
    return figures.fold_map(bars, alt=alt), note
