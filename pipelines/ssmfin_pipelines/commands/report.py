"""`ssmfin report`: write the report of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
) -> None:
    """Write report.html of a run again.

    From what the run left on disk; prints the path.
    """
    from ssmfin_pipelines.run import rebuild_report

    typer.echo(rebuild_report(run))
