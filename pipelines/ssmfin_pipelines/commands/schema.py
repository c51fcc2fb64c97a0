"""`ssmfin schema`: the JSON Schema of a study file, for editors."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of a study file.

    For completion and checks in an editor.

    Save it (ssmfin schema > study.schema.json) and begin a study with
    `# yaml-language-server: $schema=study.schema.json`.
    """
    import json

    from ssmfin_pipelines.study.json_schema import study_schema

    typer.echo(json.dumps(study_schema(), indent=2, ensure_ascii=False))
