"""`ssmfin init`: a first study, written from the columns of a data file and tried on its rows."""

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
    date_format: Annotated[
        str | None,
        typer.Option(
            "--date-format",
            metavar="FORM",
            help="How dates are written, such as %d/%m/%Y; default: found out.",
            show_default=False,
        ),
    ] = None,
    id_name: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="Which column names the series; default: found out.", show_default=False
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Also write study.schema.json beside it, from which editors complete.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the study if it exists.")] = False,
) -> None:
    """Write a first study for a data file.

    Looks at its columns, chooses target, windows and models, with comments, and tries the study on the data.
    """
    from ssmfin_pipelines.commands.files import check_target, write_atomically

    check_target(output, suffix=".yaml", force=force)
    completion = output.parent / "study.schema.json"
    if schema:
        check_target(completion, suffix=".json", force=force)
    for option, given in (("--date-format", date_format), ("--id", id_name)):
        if data is None and given is not None:
            from ssmfin.errors import InputError

            raise InputError(f"{option} is {given!r}, but no file is named; name it: ssmfin init FILE.")
    from ssmfin.evaluation.wording import listed
    from ssmfin_pipelines.study.looking import embedded_facts, look_at
    from ssmfin_pipelines.study.starter import reasons, settle

    text, study, facts = settle(
        embedded_facts() if data is None else look_at(data, date_format, id_name),
        schema=completion.name if schema else None,
    )
    write_atomically(output, lambda stream: stream.write(text.encode()))
    if schema:
        from ssmfin_pipelines.study.json_schema import schema_text

        write_atomically(completion, lambda stream: stream.write(schema_text().encode()))
    typer.echo(output)
    how = study.target
    typer.echo(
        f"forecasts the {how.aggregate} of {how.column} over {listed(map(str, how.horizons))} rows ahead", err=True
    )
    if "unique_id" in facts.columns:
        column = facts.columns["unique_id"]
        how_known = ", by its values; if that is wrong: --id COLUMN --force" if facts.id_guessed else ""
        typer.echo(f"{facts.ids:,} series, named by column {column}{how_known}", err=True)
    if facts.dropped:
        count = f"{facts.left_out:,} of {facts.rows:,} rows are left out (on_breach: drop)"
        typer.echo(f"{count}: {reasons(facts.dropped)}", err=True)
    typer.echo(f"next: look at it, then  ssmfin run {output}", err=True)
