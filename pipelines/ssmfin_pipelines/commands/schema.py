"""`ssmfin schema`: the JSON Schema of a study file, for editors."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of a study file.

    For completion and checks in an editor.

    Save it (ssmfin schema > study.schema.json) and begin a study with
    `# yaml-language-server: $schema=study.schema.json`.
    """
    from ssmfin_pipelines.study.json_schema import schema_text

    typer.echo(schema_text(), nl=False)
