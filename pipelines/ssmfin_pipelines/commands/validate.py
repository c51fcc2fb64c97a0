"""`ssmfin validate`: check a study, and with --data its data, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin.evaluation.experiment import Experiment

NAMED = 5  # ids at most that a line names


def validate(
    study: StudyFile,
    set_: Overrides = None,
    data: Annotated[bool, typer.Option("--data", help="Load and check the data too, and cut the folds.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the study with every default filled in.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Check a study file without running it.

    Every mistake is named with its line, the value and the remedy.
    """
    checked = open_study(study, set_, allow_imports)
    if show:
        typer.echo(checked.to_yaml(), nl=False)
        if not data:
            return
    lines = [f"{study} is valid: {len(checked.entries)} models ({len(checked.benchmarks)} benchmarks)."]
    if data:
        from ssmfin.data.levels import price_warning

        panel = checked.load()
        experiment = checked.experiment(panel)
        folds, rows = experiment.folds, sum(map(len, experiment.test_rows))
        lines.append(
            f"data: {len(panel.frame):,} rows, {len(panel.ids)} ids, {len(panel.dates):,} dates from "
            f"{str(panel.dates[0])[:10]} to {str(panel.dates[-1])[:10]}."
        )
        lines.append(f"folds: {len(folds)}, {rows:,} origins to forecast from, {len(experiment.tasks())} tasks.")
        doubt = price_warning(panel, checked.target.column, checked.target.transform)
        lines += [f"warning: {doubt}"] if doubt else []
        lines += _losses(panel, experiment)
    for line in lines:
        typer.echo(line, err=show)


def _losses(panel: Panel, experiment: Experiment) -> list[str]:
    """What of the data a run would not use, a line each: rows left out, origins and ids not forecast, models."""
    from ssmfin.evaluation.plan import skipped_ids, skipped_origins

    lines = [f"left out: {_rows(count)}, {what}." for what, count in panel.notes.get("dropped", {}).items()]
    lines += [f"not forecast from: {_rows(count)}, {why}." for why, count in skipped_origins(experiment).items()]
    never = skipped_ids(experiment)
    for name, why in list(never.items())[:NAMED]:
        lines.append(f"never forecast: {name}, which {why}.")
    if len(never) > NAMED:
        lines.append(f"never forecast: {len(never) - NAMED:,} more ids.")
    return [*lines, *(f"left out: {name}, which {why}." for name, why in experiment.left_out.items())]


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
