"""Owns what a report shows beyond the mean: scores of quantiles and events, reliability, the fan of one id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssmfin.evaluation.columns import quantile_levels
from ssmfin.evaluation.distribution_scores import central
from ssmfin.evaluation.probabilistic import reference_name
from ssmfin.reporting import figures, summaries
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.figures import Band, Line
from ssmfin.reporting.inline_images import panel_size
from ssmfin.reporting.rankings import SIGNIFICANT
from ssmfin.reporting.sections import Group, Panel
from ssmfin.reporting.style import ModelStyle, date_text, p_text, ratio_text
from ssmfin.reporting.tables import Cell, Table, horizon_label

FAN_ORIGINS = 252  # a year of trading days: more would hide the bands behind the points
NAIVE = ("#8b93a1", (1.5, 1.5))


@dataclass(frozen=True)
class Distributions:
    """The section: tables by horizon, plots by horizon; empty where no model says more than the mean."""

    reference: str = ""
    intervals: tuple[Table, ...] = ()
    events: tuple[Table, ...] = ()
    reliability: tuple[Group, ...] = ()
    fans: tuple[Group, ...] = ()
    fan_note: str = ""

    @property
    def shown(self) -> bool:
        return bool(self.intervals or self.events)


def distributions_section(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> Distributions:
    """All of it, from the scores that the study stored and its predictions."""
    scores = data.probabilistic
    if scores is None or scores.is_empty():
        return Distributions()
    naive = reference_name(data.reference) if scores["reference_value"].is_not_null().any() else ""
    known = {**styles, naive: ModelStyle(naive, "baseline", False, *NAIVE, 1.3)}
    horizons = sorted(set(scores["horizon"]))
    fans, note = _fans(data, scores, known, step)
    return Distributions(
        reference=naive,
        intervals=tuple(t for h in horizons if (t := _interval_table(scores, h, naive, known, step)) is not None),
        events=tuple(t for h in horizons if (t := _event_table(scores, h, known, step)) is not None),
        reliability=_reliability(scores, known, step),
        fans=fans,
        fan_note=note,
    )


def _interval_table(
    scores: pl.DataFrame, horizon: int, naive: str, styles: Mapping[str, ModelStyle], step: str
) -> Table | None:
    """Quantile score, coverage with its tests, width; the best score first."""
    at = _at(scores, horizon)
    order = at.filter(pl.col("score") == "coverage")["model"].unique().to_list()
    if not order:
        return None
    wis, wis_log = (
        {row["model"]: row for row in at.filter(pl.col("score") == score).iter_rows(named=True)}
        for score in ("wis", "wis_log")
    )
    order.sort(key=lambda model: (wis[model]["value"] if model in wis else float("inf"), model))
    masses = sorted(at.filter(pl.col("score") == "coverage")["level"].unique().to_list())
    body = []
    for model in order:
        row = [Cell(model=styles[model], css="name"), *_ratio_cells(wis.get(model), model == naive)]
        row += _ratio_cells(wis_log.get(model), model == naive) if wis_log else []
        for mass in masses:
            found = at.filter((pl.col("model") == model) & (pl.col("level") == mass))
            by_score = {entry["score"]: entry for entry in found.iter_rows(named=True)}
            row += _coverage_cells(by_score.get("coverage"))
            width = by_score.get("width", {})
            row.append(Cell("1" if model == naive else ratio_text(width.get("ratio_to_reference")), "num"))
        body.append(tuple(row))
    groups = [Cell("Model", "name", rows=2), Cell("Interval score", "group", span=2)]
    groups += [Cell("in logs", "group", span=2)] if wis_log else []
    names = [Cell("ratio", "num first"), Cell("DM p", "num")] * (2 if wis_log else 1)
    for mass in masses:
        groups.append(Cell(f"{100 * mass:g} % interval", "group", span=5))
        names += [Cell("holds", "num first")]
        names += [Cell(name, "num") for name in ("HAC p", "Kupiec p", "Christoffersen p", "width")]
    dates = f"{max(at['n']):,} dates"
    caption = f"{horizon_label(horizon, step)}: intervals, {dates}"
    return Table(caption, (tuple(groups), tuple(names)), tuple(body), css="wide")


def _coverage_cells(entry: Mapping[str, Any] | None) -> list[Cell]:
    if entry is None:
        return [Cell("–", "num first"), *[Cell("–", "num")] * 3]
    p = entry["coverage_p_value"]
    wrong = p is not None and p < SIGNIFICANT
    share = Cell(f"{100 * entry['value']:.1f} %", f"num first {'worse' if wrong else ''}".strip())
    tests = ("coverage_p_value", "kupiec_p_value", "christoffersen_p_value")
    return [share, *(Cell(p_text(entry[name]), "num") for name in tests)]


def _ratio_cells(entry: Mapping[str, Any] | None, is_naive: bool) -> list[Cell]:
    """A score as a ratio to the naive reference's, coloured where the difference is beyond chance."""
    if entry is None:
        return [Cell("–", "num first"), Cell("–", "num")]
    if is_naive:
        return [Cell("1", "num first"), Cell("–", "num")]
    ratio, p = entry["ratio_to_reference"], entry["dm_p_value"]
    tone = "" if ratio is None or p is None or p >= SIGNIFICANT else "better" if ratio < 1 else "worse"
    return [Cell(ratio_text(ratio), f"num first {tone}".strip()), Cell(p_text(p), "num")]


def _event_table(scores: pl.DataFrame, horizon: int, styles: Mapping[str, ModelStyle], step: str) -> Table | None:
    """Two rows a model: its own probability, and the naive reference's of the same event."""
    at = _at(scores, horizon)
    models = sorted(at.filter(pl.col("score") == "brier")["model"].unique().to_list())
    if not models:
        return None
    body = []
    for model in models:
        own = {row["score"]: row for row in at.filter(pl.col("model") == model).iter_rows(named=True)}
        alarm = own["precision"]["level"]
        share = Cell(f"{100 * own['event_share']['value']:.1f} %", "num")
        row = [Cell(model=styles[model], css="name"), share]
        for score in ("brier", "log_loss"):
            row += _ratio_cells(own[score], is_naive=False)
        for score in ("roc_auc", "pr_auc", "precision", "recall"):
            row.append(Cell(ratio_text(own[score]["value"]), "num first"))
            row.append(Cell(ratio_text(own[score]["reference_value"]), "num soft"))
        body.append(tuple(row))
    groups = [Cell("Model", "name", rows=2), Cell("Events", "num", rows=2)]
    groups += [Cell(label, "group", span=2) for label in ("Brier score", "Log loss", "ROC area", "PR area")]
    groups += [Cell(f"{label} at p > {alarm:g}", "group", span=2) for label in ("Precision", "Recall")]
    names = [Cell(name, f"num {first}".strip()) for name, first in (("ratio", "first"), ("DM p", "")) * 2]
    names += [Cell(name, f"num {first}".strip()) for name, first in (("model", "first"), ("naive", "")) * 4]
    caption = f"{horizon_label(horizon, step)}: events, {max(at['n']):,} dates"
    return Table(caption, (tuple(groups), tuple(names)), tuple(body), css="wide")


def _reliability(scores: pl.DataFrame, styles: Mapping[str, ModelStyle], step: str) -> tuple[Group, ...]:
    """Share of outcomes below each quantile less its level, one panel a horizon."""
    below = scores.filter(pl.col("score") == "below").sort("horizon", "model", "level")
    panels, seen = [], set()
    size = panel_size(below["horizon"].n_unique())
    for (horizon,), part in below.group_by("horizon", maintain_order=True):
        lines = []
        for (model,), own in part.group_by("model", maintain_order=True):
            level = own["level"].to_numpy()
            lines.append(Line(styles[str(model)], level, 100 * (own["value"].to_numpy() - level)))
            seen.add(str(model))
        label = horizon_label(int(str(horizon)), step)
        apart = max(1, max(part["n"]) // int(str(horizon)))
        said = "; ".join(f"{line.style.name} {', '.join(f'{y:+.1f}' for y in line.y)}" for line in lines)
        alt = f"Share of outcomes below the quantile less its level, in points, {label}: {said}."
        panels.append(Panel(label, "", figures.reliability_panel(lines, apart=apart, alt=alt, size=size)))
    if not panels:
        return ()
    return (Group("Reliability of quantiles", tuple(styles[model] for model in sorted(seen)), tuple(panels)),)


def _fans(
    data: ReportData, scores: pl.DataFrame, styles: Mapping[str, ModelStyle], step: str
) -> tuple[tuple[Group, ...], str]:
    """The central intervals of the model with the best score, for one id, over its last origins."""
    levels = quantile_levels(data.predictions.columns)
    name_of = {level: name for name, level in levels.items()}
    best: dict[int, str] = {}
    ranked = scores.filter((pl.col("score") == "wis") & pl.col("model").is_in(list(data.families)))
    for horizon, model in ranked.sort("horizon", "value", "model").select("horizon", "model").iter_rows():
        own = data.families[model] != "baseline"
        if horizon not in best or (own and data.families[best[horizon]] == "baseline"):
            best[horizon] = model
    groups, unique_id = [], ""
    for horizon, model in sorted(best.items()):
        shown = summaries.shown_ids(data, horizon)
        unique_id = unique_id or shown[len(shown) // 2].unique_id
        frame = data.predictions.filter(
            (pl.col("horizon") == horizon) & (pl.col("model") == model) & (pl.col("unique_id") == unique_id)
        )
        given = [level for level, name in name_of.items() if frame[name].null_count() == 0]
        pairs = central(given)
        if frame.is_empty() or not pairs:
            continue
        frame = (
            frame.group_by("ds")
            .agg(pl.col("y").first(), *(pl.col(name_of[level]).mean() for level in given))
            .sort("ds")
        ).tail(FAN_ORIGINS)
        dates = frame["ds"].to_numpy()
        bands = [Band(frame[name_of[low]].to_numpy(), frame[name_of[high]].to_numpy()) for low, high in pairs]
        middle = frame[name_of[0.5]].to_numpy() if 0.5 in given else None
        span = f"{date_text(frame['ds'].min())} to {date_text(frame['ds'].max())}"
        label = horizon_label(horizon, step)
        alt = f"Central intervals of {model} for {unique_id} and what was realised, {label}, origins {span}."
        realised = frame["y"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        log = data.target.get("transform") == "log"
        size = panel_size(len(best))
        image = figures.fan_panel(dates, realised, bands, middle, styles[model], log=log, alt=alt, size=size)
        held = ", ".join(f"{100 * (high - low):g} %" for low, high in pairs)
        groups.append((model, Panel(label, f"{model}, intervals of {held}", image)))
    if not groups:
        return (), ""
    used = tuple(styles[model] for model in dict.fromkeys(model for model, _ in groups))
    return (Group(unique_id, used, tuple(panel for _, panel in groups)),), (
        f"The last {FAN_ORIGINS} origins of {unique_id}, of the best model by the interval score besides the baselines."
        if any(data.families[model] != "baseline" for model, _ in groups)
        else f"The last {FAN_ORIGINS} origins of {unique_id}."
    )


def _at(scores: pl.DataFrame, horizon: int) -> pl.DataFrame:
    return scores.filter(pl.col("horizon") == horizon)
