"""`ssmfin validate`: check a study, and with --data its data, without running anything."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study


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
        panel = checked.load()
        experiment = checked.experiment(panel)
        folds, rows = experiment.folds, sum(map(len, experiment.test_rows))
        lines.append(
            f"data: {len(panel.frame):,} rows, {len(panel.ids)} ids, {len(panel.dates):,} dates from "
            f"{str(panel.dates[0])[:10]} to {str(panel.dates[-1])[:10]}."
        )
        lines.append(f"folds: {len(folds)}, {rows:,} origins to forecast from, {len(experiment.tasks())} tasks.")
    for line in lines:
        typer.echo(line, err=show)
