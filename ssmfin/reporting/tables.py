"""Owns tables as plain cells, and those of losses by group, of costs and of the data's records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssmfin.evaluation.losses import LOSSES
from ssmfin.evaluation.wording import horizons_named
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.style import (
    ModelStyle,
    count_text,
    decimal_exponent,
    exponent_text,
    fact_text,
    label_text,
    ratio_text,
    scaled_text,
    seconds_text,
)

MAX_ROWS = 300  # more rows than that in one table are for a data frame, not for a reader


@dataclass(frozen=True)
class Bar:
    """A ratio as a bar from the centre: `start` and `width` in percent of the cell; `clipped` where it goes on."""

    start: float
    width: float
    better: bool
    clipped: bool


@dataclass(frozen=True)
class Cell:
    """One cell: its text, CSS classes, and what is drawn beside the text."""

    text: str = ""
    css: str = ""
    title: str = ""
    model: ModelStyle | None = None
    bar: Bar | None = None
    in_mcs: bool | None = None  # None: the cell has no place for the mark
    note: str = ""  # small, below the text
    span: int = 1
    rows: int = 1


@dataclass(frozen=True)
class Table:
    """Rows of cells. `css` marks the kind of table; `caption` is read out first and shown above."""

    caption: str
    head: tuple[tuple[Cell, ...], ...]
    body: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = field(default=())
    css: str = ""


def loss_label(name: str) -> str:
    return LOSSES[name].label if name in LOSSES else name


def horizon_label(horizon: int, step: str) -> str:
    """How a horizon is called.

    >>> horizon_label(1, "day"), horizon_label(22, "day")
    ('1 day ahead', '22 days ahead')
    """
    return f"{horizons_named([horizon], step)} ahead"


def ratio_table(
    caption: str,
    groups: Sequence[tuple[str, str, Mapping[str, float]]],
    models: Sequence[str],
    reference: str,
    styles: Mapping[str, ModelStyle],
    heads: tuple[str, str],
) -> Table:
    """Mean losses of groups (years, regimes) as ratios to the reference, shaded by size; the reference's loss last.

    Args:
        groups: (label, how many forecasts, model -> mean loss), one per row.
        heads: of the label and of the count column.
    """
    exponent = decimal_exponent(values.get(reference) for _, _, values in groups)
    scale = f" ×{exponent_text(exponent)}" if exponent else ""
    others = [model for model in models if model != reference]
    body = []
    for label, count, values in groups:
        base = values.get(reference)
        ratios = {m: values[m] / base for m in others if base is not None and base > 0 and values.get(m) is not None}
        best = min([1.0, *(ratio for ratio in ratios.values() if not math.isnan(ratio))])
        row = [Cell(label, "name"), Cell(count, "num soft")]
        for model in others:
            ratio = ratios.get(model)
            bold = "best" if ratio is not None and ratio <= best else ""
            row.append(Cell(ratio_text(ratio), f"num {_shade(ratio)} {bold}".strip()))
        row.append(Cell(scaled_text(base, exponent), "num soft"))
        body.append(tuple(row))
    head = (
        Cell(heads[0], "name"),
        Cell(heads[1], "num"),
        *(Cell(model=styles[model], css="num model-head") for model in others),
        Cell(f"loss of {reference}{scale}", "num"),
    )
    return Table(caption, (head,), tuple(body), css="shaded")


def _shade(ratio: float | None) -> str:
    """The class of a ratio by its size alone, for tables without a test."""
    if ratio is None or math.isnan(ratio):
        return ""
    size = abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf
    strength = 0 if size < 0.02 else 1 if size < 0.07 else 2 if size < 0.2 else 3
    return f"{'b' if ratio < 1 else 'w'}{strength}" if strength else ""


def cost_table(data: ReportData, styles: Mapping[str, ModelStyle]) -> Table:
    """Seconds per model, dearest first, and per thousand forecasts."""
    forecasts = dict(data.predictions.group_by("model").len().iter_rows()) if data.predictions.height else {}
    rows = sorted(
        data.costs.iter_rows(named=True), key=lambda row: (-(row["fit_seconds"] + row["predict_seconds"]), row["model"])
    )
    totals = {row["model"]: row["fit_seconds"] + row["predict_seconds"] for row in rows}
    base = totals.get(data.reference)
    body = []
    for row in rows:
        model, total = row["model"], totals[row["model"]]
        made = forecasts.get(model, 0)
        body.append(
            (
                Cell(model=styles[model], css="name"),
                Cell(count_text(row["tasks"]), "num"),
                Cell(count_text(row["fits"]), "num"),
                Cell(seconds_text(row["fit_seconds"]), "num"),
                Cell(seconds_text(row["fit_seconds"] / row["fits"]) if row["fits"] else "–", "num"),
                # models that fit and forecast in one pass report all their seconds as fitting
                Cell(seconds_text(row["predict_seconds"]) if row["predict_seconds"] else "in fitting", "num"),
                Cell(count_text(made), "num"),
                Cell(seconds_text(1000 * total / made) if made else "–", "num"),
                Cell(_multiple(total, base), "num"),
            )
        )
    names = ("tasks", "fits", "fitting", "per fit", "predicting", "forecasts", "per 1,000 forecasts")
    head = (Cell("Model", "name"), *(Cell(name, "num") for name in (*names, f"total against {data.reference}")))
    fit, predict = sum(row["fit_seconds"] for row in rows), sum(row["predict_seconds"] for row in rows)
    foot = (
        (
            Cell("all", "name"),
            Cell(count_text(sum(row["tasks"] for row in rows)), "num"),
            Cell(count_text(sum(row["fits"] for row in rows)), "num"),
            Cell(seconds_text(fit), "num"),
            Cell("", "num"),
            Cell(seconds_text(predict), "num"),
            Cell(count_text(sum(forecasts.values())), "num"),
            Cell("", "num"),
            Cell("", "num"),
        ),
    )
    return Table("Compute time, summed over processes", (head,), tuple(body), foot)


def _multiple(total: float, base: float | None) -> str:
    if not base:
        return "–"
    times = total / base
    return "<0.1×" if times < 0.05 else f"{times:,.1f}×" if times < 100 else f"{times:,.0f}×"


def record_table(label: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """Facts that come as records (gaps, breaches), one row each, no more than a reader would look at."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    body = [
        tuple(Cell(fact_text(record.get(key)), "num" if _is_number(record.get(key)) else "") for key in keys)
        for record in records[:MAX_ROWS]
    ]
    head = tuple(Cell(label_text(key), "num" if _is_number(records[0].get(key)) else "") for key in keys)
    return Table(label if len(records) <= MAX_ROWS else f"{label}, the first {MAX_ROWS}", (head,), tuple(body))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
