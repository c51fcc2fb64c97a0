"""`ssmfin compare`: the tests of a study across several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs.", show_default=False)],
) -> None:
    """Compare runs on their common rows.

    The same losses and tests as in a study, over the models of all runs.
    """
    from ssmfin_pipelines.compare import compare_runs

    typer.echo(compare_runs(runs).render())
