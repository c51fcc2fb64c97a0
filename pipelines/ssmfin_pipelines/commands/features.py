"""`ssmfin features`: the features of a study as a parquet file, for use in some other model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study


def features(
    study: StudyFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The parquet file to write.", show_default=False)],
    windows: Annotated[
        bool, typer.Option("--windows", help="Also each fold's training window, as learned at its cutoff.")
    ] = False,
    set_: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Write the features of a study to parquet.

    Keyed by unique_id, ds and fold: what was known at ds, learned at the fold's cutoff. Needs no model and no target.
    A class of your own (kind: "my_features:Momentum") is explained by ssmfin models my_features:Momentum.
    """
    from ssmfin_pipelines.commands.files import check_target, write_atomically

    check_target(output, suffix=".parquet", force=force)
    checked = open_study(study, set_, allow_imports, needs_target=False)
    from ssmfin_pipelines.feature_table import feature_table

    table = feature_table(checked, windows=windows)
    write_atomically(output, table.frame.write_parquet)
    for line in table.remarks:
        typer.echo(f"note: {line}", err=True)
    typer.echo(f"{output}: {table.frame.height:,} rows, {len(table.names)} features ({', '.join(table.names)})")
