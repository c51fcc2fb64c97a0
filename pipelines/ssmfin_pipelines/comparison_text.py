"""Owns a comparison of runs as text for a terminal: what differs, what changed, and where all models stand."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ssmfin.evaluation.changes import Change
from ssmfin.evaluation.losses import loss_named
from ssmfin.evaluation.run_comparison import RunComparison
from ssmfin.evaluation.wording import horizons_named
from ssmfin.reporting.style import date_text, p_text, ratio_text
from ssmfin_pipelines.tables import folded, text_table

if TYPE_CHECKING:
    from ssmfin_pipelines.compare import Comparison

VALUE_LINES = 3  # of one value of the study; all of it is in the JSON and in the run's study.yaml


def comparison_text(found: Comparison, width: int) -> str:
    """The whole comparison in paragraphs and tables of at most `width` columns, as far as names allow."""
    result = found.result
    blocks = ["\n".join(_facts(found, width))]
    if found.differences:
        blocks.append("\n".join(_differences(found, width)))
    blocks += [folded(text, width) for text in (result.headline, *result.paragraphs)]
    for run in result.labels[1:]:
        changes = [change for change in result.claims if change.run == run]
        if changes:
            blocks.append("\n".join(_changes(result, run, changes, width)))
    blocks.append("\n".join(_standings(result, width)))
    verdict = f"All models together: {result.verdict.opening}"
    blocks += [folded(text, width) for text in (verdict, *result.scores.notes)]
    return "\n\n".join(blocks)


def _facts(found: Comparison, width: int) -> list[str]:
    result = found.result
    longest = max(map(len, result.labels))
    lines = [f"{label.ljust(longest)}  {folder}" for label, folder in found.runs.items()]
    lines.append("")
    for what, other in (("data", found.other_data), ("program", found.other_program)):
        lines.append(folded(f"same {what}: no, {other}" if other else f"same {what}: yes", width))
    ids = len(result.scores.ids)
    span = f"{date_text(result.dates.min())} to {date_text(result.dates.max())}"
    series = "one series" if ids == 1 else f"{ids:,} series"
    lines.append(folded(f"common rows: {result.rows:,} on {len(result.dates):,} dates, {span}, {series}", width))
    lines += [folded(str(left), width) for left in result.left_out if left.left_out]
    return lines


def _differences(found: Comparison, width: int) -> list[str]:
    """A table of the keys of the study that differ, values folded."""
    labels = found.result.labels
    key_width = max(map(len, ["study key", *(difference.key for difference in found.differences)]))
    room = max(12, (width - key_width - 2 * len(labels)) // len(labels))
    rows: list[tuple[str, ...]] = []
    for difference in found.differences:
        cells = [
            textwrap.wrap(
                difference.text(label), room, max_lines=VALUE_LINES, placeholder=" ...", break_on_hyphens=False
            )
            for label in labels
        ]
        for line in range(max(map(len, cells))):
            values = (cell[line] if line < len(cell) else "" for cell in cells)
            rows.append((difference.key if line == 0 else "", *values))
    return text_table(("study key", *labels), rows)


def _changes(result: RunComparison, run: str, changes: Sequence[Change], width: int) -> list[str]:
    """Loss in a run over that in the first, a row for each model that changed."""
    cells = {(change.model, change.claim.horizon): change.claim for change in changes}

    def cell(model: str, horizon: int) -> str:
        claim = cells[model, horizon]
        mark = " better" if claim.wins else " worse" if claim.loses else ""
        return f"{ratio_text(claim.ratio)} ({p_text(claim.p_adjusted)}){mark}"

    label = loss_named(result.scores.losses[0]).label
    holm = f" after Holm's correction for {result.tested} comparisons" if result.tested > 1 else ""
    title = f"{label} in {run} over {label} in {changes[0].against} (Diebold-Mariano p{holm})"
    models = [(model, (model,)) for model in dict.fromkeys(change.model for change in changes)]
    return [folded(title, width), *_by_horizon(result, ("model",), models, cell, width)]


def _standings(result: RunComparison, width: int) -> list[str]:
    """Loss of every model and run over the reference's."""
    found = {standing.name: standing for standing in result.standings()}

    def cell(name: str, horizon: int) -> str:
        entry = found[name].entries[horizon]
        return ratio_text(entry["ratio_to_reference"]) + ("*" if entry["in_mcs"] else " ")

    label, percent = loss_named(result.scores.losses[0]).label, f"{(1 - result.scores.mcs_size) * 100:g} %"
    title = f"{label} relative to {result.reference} (* in the {percent} model confidence set)"
    rows, last = [], ""
    for name, standing in found.items():
        rows.append((name, ("" if standing.model == last else standing.model, standing.runs)))
        last = standing.model
    return [folded(title, width), *_by_horizon(result, ("model", "run"), rows, cell, width)]


def _by_horizon(
    result: RunComparison,
    head: tuple[str, ...],
    rows: Sequence[tuple[str, tuple[str, ...]]],
    cell: Callable[[str, int], str],
    width: int,
) -> list[str]:
    """A table with a column for each horizon; where it would be wider than the terminal, several below each other.

    Args:
        rows: (what `cell` is asked for, first cells of the row).
    """
    names = {h: horizons_named([h], result.step) for h in result.horizons}
    columns = {h: [cell(key, h) for key, _ in rows] for h in result.horizons}
    sizes = {h: max(len(names[h]), *map(len, columns[h])) for h in result.horizons}
    first = sum(max(map(len, [title, *(cells[i] for _, cells in rows)])) + 2 for i, title in enumerate(head))
    groups: list[list[int]] = [[]]
    for h in result.horizons:
        if groups[-1] and first + sum(sizes[other] + 2 for other in [*groups[-1], h]) - 2 > width:
            groups.append([])
        groups[-1].append(h)
    lines: list[str] = []
    for group in groups:
        body = [(*cells, *(columns[h][number] for h in group)) for number, (_, cells) in enumerate(rows)]
        right = set() if " (" in columns[group[0]][0] else set(range(len(head), len(head) + len(group)))
        lines += [*([""] if lines else []), *text_table((*head, *(names[h] for h in group)), body, right=right)]
    return lines
