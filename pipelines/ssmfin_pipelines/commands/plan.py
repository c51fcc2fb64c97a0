"""`ssmfin plan`: what a run would do."""

from __future__ import annotations

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study


def plan(study: StudyFile, set_: Overrides = None, allow_imports: AllowImports = False) -> None:
    """Show the folds, fits and cost of a run.

    Dates, rows, expected time, and which tasks are done already. Writes nothing.
    """
    checked = open_study(study, set_, allow_imports)
    from ssmfin_pipelines.plan import plan_study

    typer.echo(plan_study(checked).render())
