"""`ssmfin features`: the features of a study as a parquet file, for use in some other model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study


def features(
    study: StudyFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The parquet file to write.", show_default=False)],
    set_: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Write the features of a study to parquet.

    Keyed by unique_id and ds: row t holds what was known at t.
    """
    from ssmfin_pipelines.commands.files import check_target, write_atomically

    check_target(output, suffix=".parquet", force=force)
    checked = open_study(study, set_, allow_imports)
    import polars as pl

    panel = checked.load()
    design = checked.experiment(panel).design
    frame = pl.DataFrame(
        {
            "unique_id": pl.Series(design.ids, dtype=pl.String).gather(design.id_index),
            "ds": pl.Series(design.dates[design.date_index]).cast(panel.frame.schema["ds"]),
            **{name: design.features[:, index] for index, name in enumerate(design.feature_names)},
        }
    )
    write_atomically(output, frame.write_parquet)
    typer.echo(
        f"{output}: {frame.height:,} rows, {len(design.feature_names)} features ({', '.join(design.feature_names)})"
    )
