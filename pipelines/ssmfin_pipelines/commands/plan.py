"""`ssmfin plan`: what a run would do."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study


def plan(
    study: StudyFile,
    set_: Overrides = None,
    time: Annotated[
        bool, typer.Option("--time", help="Time one short fit of each model instead of guessing; seconds to a minute.")
    ] = False,
    folds: Annotated[bool, typer.Option("--folds", help="Show every fold of a long table.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Show the folds, fits and cost of a run.

    Dates, rows, expected time, and which tasks are done already. Writes nothing. The time is a guess until --time, or
    a run that was begun, has measured something.
    """
    checked = open_study(study, set_, allow_imports)
    from ssmfin_pipelines.plan import plan_study

    def tell(name: str) -> None:
        typer.echo(f"timing a fit of {name}", err=True)

    typer.echo(plan_study(checked, time=tell if time else None).render(all_folds=folds))
