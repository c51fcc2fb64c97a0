"""Owns the tables that rank models: at a glance, all losses and tests, and id by id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from ssmfin.reporting.confidence import membership_text
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.style import (
    ModelStyle,
    decimal_exponent,
    exponent_text,
    p_text,
    ratio_text,
    scaled_text,
)
from ssmfin.reporting.tables import MAX_ROWS, Bar, Cell, Table, horizon_label, loss_label

SIGNIFICANT = 0.05


def _tone(ratio: float | None, p: float | None) -> str:
    """The class of a ratio whose difference from the reference is statistically visible."""
    if ratio is None or p is None or not p < SIGNIFICANT:
        return ""
    return "better" if ratio < 1 else "worse"


def ranked_models(data: ReportData) -> list[str]:
    """Models of the leaderboard, lowest loss first: by the mean over horizons of their log ratio in the first loss."""
    primary = data.leaderboard.filter(pl.col("loss") == data.losses[0])
    scores: dict[str, list[float]] = {}
    for row in primary.iter_rows(named=True):
        value = row["ratio_to_reference"]
        value = row["value"] if value is None else value
        good = value is not None and 0 < value < math.inf
        scores.setdefault(row["model"], []).append(math.log(value) if good else math.inf)
    others = sorted(set(data.leaderboard["model"]) - set(scores))
    return [*sorted(scores, key=lambda name: (sum(scores[name]) / len(scores[name]), name)), *others]


def _index(frame: pl.DataFrame, keys: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[key] for key in keys): row for row in frame.iter_rows(named=True)}


def _is_best(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any] | None]) -> bool:
    values = [r["value"] for r in rows if r is not None and r["value"] is not None and math.isfinite(r["value"])]
    return bool(values) and row["value"] is not None and row["value"] <= min(values)


def _bar(ratio: float | None, reach: float) -> Bar | None:
    """A bar to the left of the centre for less loss than the reference, to the right for more; `reach` fills a half."""
    if ratio is None or math.isnan(ratio):
        return None
    share = (ratio - 1) / reach if math.isfinite(ratio) else math.inf
    length = min(abs(share), 1.0) * 50
    return Bar(round(50 - length if share < 0 else 50.0, 2), round(length, 2), share < 0, abs(share) > 1.0)


def glance_table(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> Table:
    """Models by horizons in the first loss: ratio, bar, membership in the confidence set."""
    loss = data.losses[0]
    primary = data.leaderboard.filter(pl.col("loss") == loss)
    cells = _index(primary, ("model", "horizon"))
    horizons = sorted(set(primary["horizon"]))
    models = ranked_models(data)
    gaps = sorted(
        abs(row["ratio_to_reference"] - 1)
        for row in cells.values()
        if row["ratio_to_reference"] not in (None, 1.0) and math.isfinite(row["ratio_to_reference"])
    )
    # The bars must tell the good models apart: one very bad model is cut off instead of squeezing the others.
    reach = max(0.05, gaps[len(gaps) // 2] * 1.5) if gaps else 1.0
    body = []
    for model in models:
        row = [Cell(model=styles[model], css="name")]
        for horizon in horizons:
            entry = cells.get((model, horizon))
            if entry is None:
                row.append(Cell("–", "num"))
                continue
            ratio = entry["ratio_to_reference"]
            best = _is_best(entry, (cells.get((other, horizon)) for other in models))
            tone = _tone(ratio, entry["dm_p_value"])
            row.append(
                Cell(
                    ratio_text(ratio),
                    f"num glance {tone} {'best' if best else ''}".strip(),
                    membership_text(entry, data.reference),
                    bar=_bar(ratio, reach),
                    in_mcs=bool(entry["in_mcs"]),
                )
            )
        body.append(tuple(row))
    head = (Cell("Model", "name"), *(Cell(horizon_label(horizon, step), "num") for horizon in horizons))
    return Table(f"{loss_label(loss)} relative to {data.reference}", (head,), tuple(body), css="glance-table")


def leaderboard_tables(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> list[tuple[int, Table]]:
    """All losses and tests, one table per horizon."""
    models = ranked_models(data)
    cells = _index(data.leaderboard, ("model", "horizon", "loss"))
    tables = []
    for horizon in sorted(set(data.leaderboard["horizon"])):
        present = [model for model in models if any((model, horizon, loss) in cells for loss in data.losses)]
        present.sort(key=lambda model: _sort_value(cells.get((model, horizon, data.losses[0]))))
        groups = [Cell("Model", "name", rows=2)]
        names = []
        body: list[list[Cell]] = [[Cell(model=styles[model], css="name")] for model in present]
        for loss in data.losses:
            entries = [cells.get((model, horizon, loss)) for model in present]
            exponent = decimal_exponent(None if e is None else e["value"] for e in entries)
            scale = f" ×{exponent_text(exponent)}" if exponent else ""
            groups.append(Cell(loss_label(loss), "group", span=4))
            names += [
                Cell("ratio", "num first"),
                Cell("DM p", "num"),
                Cell("MCS p", "num"),
                Cell(f"loss{scale}", "num"),
            ]
            for row, entry in zip(body, entries, strict=True):
                row += _loss_cells(entry, entries, exponent)
        slopes = [cells.get((model, horizon, data.losses[0])) for model in present]
        groups.append(Cell("Mincer-Zarnowitz", "group", span=2))
        names += [Cell("R²", "num first"), Cell("slope", "num")]
        for row, entry in zip(body, slopes, strict=True):
            row.append(Cell(ratio_text(None if entry is None else entry.get("mz_r2")), "num first"))
            row.append(Cell(ratio_text(None if entry is None else entry.get("mz_slope")), "num"))
        counts = sorted({entry["n"] for entry in slopes if entry is not None})
        dates = f"{counts[0]:,} dates" if len(counts) == 1 else "dates differ by model"
        caption = f"{horizon_label(horizon, step)}, {dates}"
        tables.append((horizon, Table(caption, (tuple(groups), tuple(names)), tuple(map(tuple, body)), css="wide")))
    return tables


def _sort_value(entry: Mapping[str, Any] | None) -> float:
    value = None if entry is None else entry["value"]
    return math.inf if value is None or math.isnan(value) else float(value)


def _loss_cells(
    entry: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any] | None], exponent: int
) -> list[Cell]:
    if entry is None:
        return [Cell("–", "num first"), *(Cell("–", "num") for _ in range(3))]
    tone = _tone(entry["ratio_to_reference"], entry["dm_p_value"])
    best = "best" if _is_best(entry, entries) else ""
    return [
        Cell(ratio_text(entry["ratio_to_reference"]), f"num first {tone} {best}".strip()),
        Cell(p_text(entry["dm_p_value"]), "num"),
        Cell(p_text(entry["mcs_p_value"]), "num", in_mcs=bool(entry["in_mcs"])),
        Cell(scaled_text(entry["value"], exponent), f"num soft {best}".strip()),
    ]


def id_tables(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> list[tuple[int, Table]]:
    """Ratios in the first loss, ids by models, one table per horizon; the foot counts and takes medians."""
    frame = data.leaderboard_by_id.filter(pl.col("loss") == data.losses[0])
    cells = _index(frame, ("unique_id", "model", "horizon"))
    models = [model for model in ranked_models(data) if model in set(frame["model"])]
    tables = []
    for horizon in sorted(set(frame["horizon"])):
        ids = sorted(set(frame.filter(pl.col("horizon") == horizon)["unique_id"]))
        body: list[tuple[Cell, ...]] = []
        ratios: dict[str, list[float]] = {model: [] for model in models}
        for name in ids:
            entries = [cells.get((name, model, horizon)) for model in models]
            row = [Cell(name, "name id")]
            for model, entry in zip(models, entries, strict=True):
                ratio = None if entry is None else entry["ratio_to_reference"]
                if ratio is not None and math.isfinite(ratio):
                    ratios[model].append(ratio)
                css = "" if entry is None else _tone(ratio, entry["dm_p_value"])
                best = "best" if entry is not None and _is_best(entry, entries) else ""
                mcs = None if entry is None else bool(entry["in_mcs"])
                row.append(Cell(ratio_text(ratio), f"num {css} {best}".strip(), in_mcs=mcs))
            body.append(tuple(row))
        head = (Cell("Id", "name"), *(Cell(model=styles[model], css="num model-head") for model in models))
        median = tuple(Cell(ratio_text(_median(ratios[model])), "num") for model in models)
        wins = tuple(
            Cell(
                "–" if model == data.reference else f"{sum(r < 1 for r in ratios[model])} of {len(ratios[model])}",
                "num",
            )
            for model in models
        )
        foot = (
            ()
            if len(ids) == 1
            else ((Cell("median", "name"), *median), (Cell("ids better than the reference", "name"), *wins))
        )
        caption = f"{horizon_label(horizon, step)}: {loss_label(data.losses[0])} relative to {data.reference}"
        if len(ids) > MAX_ROWS:
            caption += f"; the first {MAX_ROWS} of {len(ids):,} ids, the foot is over all"
        tables.append((horizon, Table(caption, (head,), tuple(body[:MAX_ROWS]), foot, css="ids")))
    return tables


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
