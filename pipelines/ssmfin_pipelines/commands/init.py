"""`ssmfin init`: a first study, written from the columns of a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A csv or parquet file; without one: the embedded S&P 500.", show_default=False
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The study to write.")] = Path("study.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the study if it exists.")] = False,
) -> None:
    """Write a first study for a data file.

    Looks at its columns and chooses target, windows and models, with comments.
    """
    from ssmfin_pipelines.commands.files import check_target, write_atomically

    check_target(output, suffix=".yaml", force=force)
    from ssmfin_pipelines.study import study_from
    from ssmfin_pipelines.study.starter import embedded_facts, look_at, starter_text
    from ssmfin_pipelines.study.tree import parse

    facts = embedded_facts() if data is None else look_at(data)
    text = starter_text(facts)
    study_from(parse(text, str(output)).value)  # what is written is always a valid study
    write_atomically(output, lambda stream: stream.write(text.encode()))
    typer.echo(output)
    typer.echo(f"next: ssmfin validate {output} --data", err=True)
