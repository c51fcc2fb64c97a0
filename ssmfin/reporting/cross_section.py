"""Owns the report's part on the order of ids: rank IC, spread and turnover of every model, and the IC added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.cross_section import Ranking, group_name, rank_information
from ssmfin.reporting import figures
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.figures import Line
from ssmfin.reporting.inline_images import panel_size
from ssmfin.reporting.rankings import SIGNIFICANT
from ssmfin.reporting.sections import Group, Panel
from ssmfin.reporting.style import (
    ModelStyle,
    count_text,
    decimal_exponent,
    exponent_text,
    p_text,
    scaled_text,
)
from ssmfin.reporting.tables import Cell, Table, horizon_label


@dataclass(frozen=True)
class RankingPart:
    """One table a horizon, the plots, and what a group is called."""

    tables: tuple[Table, ...]
    plots: Group
    group: str


def ranking_part(data: ReportData, styles: Mapping[str, ModelStyle], step: str) -> RankingPart | None:
    """None where the study does not rank ids, or where nothing can be ranked (a report is written all the same)."""
    if data.cross_section is None:
        return None
    try:
        ranking = rank_information(data.predictions, data.cross_section, models=tuple(data.families))
    except InputError:
        return None
    horizons = sorted(set(ranking.table["horizon"]))
    tables = tuple(_table(ranking, horizon, styles, step) for horizon in horizons)
    drawn = [m for m in styles if m in set(ranking.by_date["model"])]
    size = panel_size(len(horizons))
    panels = tuple(_plot(ranking, h, styles, step, drawn, size) for h in horizons)
    plots = Group("Rank IC, added up", tuple(styles[m] for m in drawn), panels)
    return RankingPart(tables, plots, group_name(data.cross_section.groups))


def _table(ranking: Ranking, horizon: int, styles: Mapping[str, ModelStyle], step: str) -> Table:
    rows = ranking.table.filter(pl.col("horizon") == horizon)
    exponent = decimal_exponent(rows["spread"])
    names = ("mean rank IC", "t", "p", "p, all counted", "dates above 0")
    spread = f"spread ×{exponent_text(exponent)}" if exponent else "spread"
    money = (spread, "t of spread", "turnover", "break-even", "dates")
    head = (Cell("Model", "name"), *(Cell(name, "num") for name in (*names, *money)))
    body = []
    for row in rows.iter_rows(named=True):
        sure = row["p_adjusted"] is not None and row["p_adjusted"] < SIGNIFICANT
        tone = ("better" if row["rank_ic"] > 0 else "worse") if sure else ""
        body.append(
            (
                Cell(model=styles[row["model"]], css="name"),
                Cell(_fixed(row["rank_ic"], 4), f"num {tone}".strip()),
                Cell(_fixed(row["t_statistic"], 2), "num"),
                Cell(p_text(row["p_value"]), "num"),
                Cell(p_text(row["p_adjusted"]), "num"),
                Cell(_percent(row["positive_share"]), "num"),
                Cell(scaled_text(row["spread"], exponent), "num"),
                Cell(_fixed(row["spread_t"], 2), "num"),
                Cell(_percent(row["turnover"]), "num"),
                Cell(_basis_points(row["break_even_cost"]), "num"),
                Cell(count_text(row["dates"]), "num soft"),
            )
        )
    ids = rows["ids"].max()
    caption = f"{horizon_label(horizon, step)}: order of the ids, date by date"
    caption += f", {ids:.0f} of them on the average date" if isinstance(ids, float) else ""
    return Table(caption, (head,), tuple(body))


def _plot(
    ranking: Ranking,
    horizon: int,
    styles: Mapping[str, ModelStyle],
    step: str,
    models: list[str],
    size: tuple[int, int],
) -> Panel:
    frame = ranking.by_date.filter(pl.col("horizon") == horizon)
    lines = []
    for model in models:
        part = frame.filter(pl.col("model") == model).sort("ds")
        if part.height:
            lines.append(Line(styles[model], part["ds"].to_numpy(), np.cumsum(part["rank_ic"].to_numpy())))
    ends = ", ".join(f"{line.style.name} {line.y[-1]:.1f}" for line in lines)
    label = horizon_label(horizon, step)
    values = np.concatenate([[0.0], *(line.y for line in lines)])
    image = figures.cumulative_panel(
        lines,
        visible=(float(values.min()), float(values.max())),
        alt=f"Rank IC added up over dates, {label}. Final values: {ends or 'none'}.",
        words="▲ ids in the right order, ▼ in the wrong one",
        size=size,
    )
    return Panel(label, "", image)


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _basis_points(value: float | None) -> str:
    return "–" if value is None or value <= 0 else f"{1e4 * value:.1f} bp"
