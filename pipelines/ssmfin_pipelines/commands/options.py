"""Owns the arguments that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ssmfin_pipelines.study import Study

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key, such as walk_forward.test.size=21; may be repeated."
    ),
]
AllowImports = Annotated[
    bool,
    typer.Option(
        "--allow-imports", help="Let the study name model and feature classes of your own. Imports and runs their code."
    ),
]


def open_study(path: Path, overrides: list[str] | None, allow_imports: bool, *, needs_target: bool = True) -> Study:
    """The study of a command. With imports allowed, modules are found in the current and in the study's folder as well.

    Worker processes find them too: a spawned process begins with the search path of the one that starts it.
    """
    from ssmfin_pipelines.study import read_study

    if allow_imports:
        folders = (str(Path.cwd()), str(path.absolute().parent))
        sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    return read_study(path, overrides or (), allow_imports=allow_imports, needs_target=needs_target)
