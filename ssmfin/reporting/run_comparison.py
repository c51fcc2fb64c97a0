"""Owns the page of a comparison of runs: what differs, what changed, and where all models stand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import polars as pl

from ssmfin.evaluation.changes import Change
from ssmfin.evaluation.common_rows import LeftOut
from ssmfin.evaluation.losses import losses_named
from ssmfin.evaluation.run_comparison import RunComparison
from ssmfin.evaluation.scores import Scored, align
from ssmfin.reporting import figures, summaries
from ssmfin.reporting.figures import Line
from ssmfin.reporting.inline_images import drawing, panel_size
from ssmfin.reporting.sections import Group, Panel
from ssmfin.reporting.style import (
    ModelStyle,
    count_text,
    date_text,
    fact_text,
    model_styles,
    p_text,
    ratio_text,
    typeset,
)
from ssmfin.reporting.tables import MAX_ROWS, Cell, Table, horizon_label, loss_label

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_KEY = "▲ worse, ▼ better than in the first run"


@dataclass(frozen=True)
class ComparedRun:
    """A run as the page names it. `folder`: as the reader would find it. `rows`: its rows, and those left out."""

    label: str
    folder: str
    rows: LeftOut


def render_comparison(
    found: RunComparison,
    *,
    runs: Sequence[ComparedRun],
    differences: Sequence[tuple[str, Sequence[str]]],
    other_data: str = "",
    other_program: str = "",
    reproduce: str = "",
) -> str:
    """The page as HTML text, self-contained. Every value is escaped.

    Args:
        runs: in the order of the labels. differences: key of the study, its value in each run.
        other_data, other_program: in what the data or the program differ; "" where they are the same.
        reproduce: the command that makes the page again.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ssmfin.reporting", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["typeset"] = typeset
    css = resources.files("ssmfin.reporting").joinpath("templates/report.css").read_text("utf-8")
    styles = _styles(found)
    with drawing():
        changes = [_run_changes(found, run, styles) for run in found.labels[1:]]
    page = environment.get_template("comparison.html.j2").render(
        css=Markup(css),
        title=" against ".join((" and ".join(found.labels[1:]), found.labels[0])),
        first=found.labels[0],
        headline=re.split(r"(?<=[.]) (?=[A-Z])", found.headline),
        paragraphs=found.paragraphs,
        facts=_facts(found, other_data, other_program),
        runs=_runs_table(runs),
        differences=_differences_table(found.labels, differences),
        changes=[change for change in changes if change["table"].body],
        label=loss_label(found.scores.losses[0]),
        reference=found.reference,
        standings=_standings_table(found, found.scores.losses[0], styles),
        others=[_standings_table(found, loss, styles) for loss in found.scores.losses[1:]],
        percent=f"{(1 - found.scores.mcs_size) * 100:g} %",
        verdict=[found.verdict.headline, *found.verdict.paragraphs],
        losses=losses_named(found.scores.losses),
        tested=found.tested,
        reproduce=reproduce,
    )
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", page)


def _styles(found: RunComparison) -> dict[str, ModelStyle]:
    """By the names that models have in their runs."""
    families = {held[0][1]: found.families[name] for name, held in found.models.items()}
    return model_styles(families, families, found.models[found.scores.reference][0][1])


def _facts(found: RunComparison, other_data: str, other_program: str) -> list[tuple[str, str, str]]:
    ids = found.scores.ids
    left = sum(each.left_out for each in found.left_out)
    return [
        ("Runs", count_text(len(found.labels)), f"held against {found.labels[0]}"),
        ("Common rows", count_text(found.rows), "all of every run" if not left else "the rest is left out"),
        (
            "Dates",
            count_text(len(found.dates)),
            f"{date_text(found.dates.min())} to {date_text(found.dates.max())}",
        ),
        ("Ids", count_text(len(ids)), ", ".join(ids) if len(ids) <= 3 else ""),
        ("Same data", "no" if other_data else "yes", other_data),
        ("Same program", "no" if other_program else "yes", other_program),
    ]


def _runs_table(runs: Sequence[ComparedRun]) -> Table:
    head = (Cell("Run", "name"), Cell("folder"), Cell("rows", "num"), Cell("left out", "num"), Cell("which"))
    body = [
        (
            Cell(run.label, "name"),
            Cell(run.folder, "wrap"),
            Cell(count_text(run.rows.rows), "num"),
            Cell(count_text(run.rows.left_out), "num"),
            Cell(run.rows.why, "wrap"),
        )
        for run in runs
    ]
    return Table("Runs and their rows with a known outcome", (head,), tuple(body))


def _differences_table(labels: Sequence[str], differences: Sequence[tuple[str, Sequence[str]]]) -> Table:
    head = (Cell("Key of the study", "name"), *(Cell(label) for label in labels))
    body = [(Cell(key, "name"), *(Cell(value, "wrap code") for value in values)) for key, values in differences]
    return Table("What differs in the studies", (head,), tuple(body))


def _run_changes(found: RunComparison, run: str, styles: Mapping[str, ModelStyle]) -> dict[str, Any]:
    """Everything about one later run: the table of its changes, that by id, and the plots."""
    own = [change for change in found.claims if change.run == run]
    models = list(dict.fromkeys(change.model for change in own))
    plots = []
    if own:
        scored = align(found.predictions)
        plots = [_cumulative(found, scored, loss, own, models, styles) for loss in found.scores.losses]
    return {
        "run": run,
        "table": _changes_table(found, run, own, models, styles),
        "by_id": _id_tables(found, run, own, models, styles),
        "plots": plots,
    }


def _changes_table(
    found: RunComparison, run: str, own: Sequence[Change], models: Sequence[str], styles: Mapping[str, ModelStyle]
) -> Table:
    cells = {(change.model, change.claim.horizon): change.claim for change in own}
    head = [Cell("Model", "name", rows=2)]
    names = []
    for horizon in found.horizons:
        head.append(Cell(horizon_label(horizon, found.step), "group", span=2))
        names += [Cell("ratio", "num first"), Cell("p (Holm)", "num")]
    body = []
    for model in models:
        row = [Cell(model=styles[model], css="name")]
        for horizon in found.horizons:
            claim = cells[model, horizon]
            tone = "better" if claim.wins else "worse" if claim.loses else ""
            alone = f"DM p {p_text(claim.p_value)} on its own" if not claim.reason else claim.reason
            row.append(Cell(ratio_text(claim.ratio), f"num first {tone}".strip(), alone))
            row.append(Cell(p_text(claim.p_adjusted), f"num {tone}".strip(), alone))
        body.append(tuple(row))
    label = loss_label(found.scores.losses[0])
    caption = f"{label} in {run} over {label} in {found.labels[0]}"
    return Table(caption, (tuple(head), tuple(names)), tuple(body), css="changes")


def _id_tables(
    found: RunComparison, run: str, own: Sequence[Change], models: Sequence[str], styles: Mapping[str, ModelStyle]
) -> list[Table]:
    """Ratios for each id, a table for each horizon; none where there is one id."""
    if len(found.scores.ids) == 1 or not own:
        return []
    frame = found.by_id.filter(pl.col("loss") == found.scores.losses[0])
    values = {row[:3]: row[3] for row in frame.select("unique_id", "model", "horizon", "value").iter_rows()}
    names = {change.model: (change.claim.model, change.claim.baseline) for change in own}
    tables = []
    for horizon in found.horizons:
        ratios: dict[str, list[float]] = {model: [] for model in models}
        body = []
        for unique_id in found.scores.ids:
            row = [Cell(unique_id, "name id")]
            for model in models:
                mine, base = (values.get((unique_id, name, horizon)) for name in names[model])
                ratio = mine / base if mine is not None and base else math.nan
                if math.isfinite(ratio):
                    ratios[model].append(ratio)
                row.append(Cell(ratio_text(ratio), "num"))
            body.append(tuple(row))
        head = (Cell("Id", "name"), *(Cell(model=styles[model], css="num model-head") for model in models))
        lower = [f"{sum(ratio < 1 for ratio in ratios[model])} of {len(ratios[model])}" for model in models]
        foot = (Cell(f"ids with less loss in {run}", "name"), *(Cell(text, "num") for text in lower))
        caption = horizon_label(horizon, found.step)
        if len(body) > MAX_ROWS:
            caption += f"; the first {MAX_ROWS} of {len(body):,} ids, the foot is over all"
        tables.append(Table(caption, (head,), tuple(body[:MAX_ROWS]), (foot,), css="ids"))
    return tables


def _cumulative(
    found: RunComparison,
    scored: Scored,
    loss: str,
    own: Sequence[Change],
    models: Sequence[str],
    styles: Mapping[str, ModelStyle],
) -> Group:
    """Running sum of each model's loss less its own in the first run, a panel for each horizon."""
    names = {change.model: (change.claim.model, change.claim.baseline) for change in own}
    # The leading models and state-space models must be seen well; one whose loss jumps may leave the plot.
    focus = {*models[:2], *(model for model in models if styles[model].family == "ssm")}
    shown = summaries.loss_series(scored, loss)
    panels = []
    for series in shown:
        lines = [Line(styles[m], series.dates, series.cumulative_difference(*names[m])) for m in models]
        drawn = [line for line in lines if np.isfinite(line.y).all()]
        visible, cut = figures.visible_range(drawn, focus)
        ends_off = ", ".join(f"{line.style.name} {fact_text(float(line.y[-1]))}" for line in cut)
        notes = [f"off the scale, ending at: {ends_off}"] if cut else []
        notes += [f"{line.style.name} has infinite losses" for line in lines if not np.isfinite(line.y).all()]
        ends = ", ".join(f"{line.style.name} {fact_text(float(line.y[-1]))}" for line in drawn)
        at = horizon_label(series.horizon, found.step)
        alt = f"Cumulative {loss_label(loss)} difference between the runs, {at}. Final values: {ends or 'none'}."
        image = figures.cumulative_panel(drawn, visible=visible, alt=alt, words=_KEY, size=panel_size(len(shown)))
        panels.append(Panel(at, "; ".join(notes), image))
    return Group(loss_label(loss), tuple(styles[model] for model in models), tuple(panels))


def _standings_table(found: RunComparison, loss: str, styles: Mapping[str, ModelStyle]) -> Table:
    """Loss of every model and run relative to the reference's, coloured where a test tells the two apart."""
    frame = found.leaderboard.filter(pl.col("loss") == loss)
    entries = {(row["model"], row["horizon"]): row for row in frame.iter_rows(named=True)}
    standings = found.standings()
    best = {h: min(row["value"] for (_, at), row in entries.items() if at == h) for h in found.horizons}
    body, last = [], ""
    for standing in standings:
        own = Cell(model=styles[standing.model], css="name") if standing.model != last else Cell("", "name")
        row, last = [own, Cell(standing.runs)], standing.model
        for horizon in found.horizons:
            entry = entries[standing.name, horizon]
            ratio, p = entry["ratio_to_reference"], entry["dm_p_value"]
            tone = ("better" if ratio < 1 else "worse") if ratio is not None and p is not None and p < 0.05 else ""
            lowest = "best" if entry["value"] <= best[horizon] else ""
            said = f"DM p {p_text(p)}, MCS p {p_text(entry['mcs_p_value'])}, {entry['n']:,} dates"
            css = " ".join(part for part in ("num", tone, lowest) if part)
            row.append(Cell(ratio_text(ratio), css, said, in_mcs=bool(entry["in_mcs"])))
        body.append(tuple(row))
    head = (Cell("Model", "name"), Cell("run"), *(Cell(horizon_label(h, found.step), "num") for h in found.horizons))
    return Table(f"{loss_label(loss)} relative to {found.reference}", (head,), tuple(body), css="changes")
