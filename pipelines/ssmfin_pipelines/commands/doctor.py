"""`ssmfin doctor`: what this machine offers and what is missing."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

REQUIRED = (
    "numpy", "polars", "pandas", "pyarrow", "scipy", "scikit-learn", "statsmodels", "lightgbm", "torch", "arch",
    "numba", "pydantic", "ruamel.yaml", "typer", "rich", "jinja2", "matplotlib",
)  # fmt: skip
MODULES = {"scikit-learn": "sklearn"}
OPTIONAL = {"triton": "GPU kernels"}


def doctor(
    output: Annotated[Path, typer.Option("--output", help="Folder that runs would be written to.")] = Path("runs"),
) -> None:
    """Show what this machine offers and what is missing.

    Versions, cores, memory, GPU, and whether runs can be written. Exit code 1 if something needed is missing.
    """
    import platform
    import sys

    from ssmfin import __version__
    from ssmfin_pipelines.executors.machine import usable_cores

    typer.echo(f"ssmfin        {__version__}")
    typer.echo(f"python        {platform.python_version()} ({sys.executable})")
    typer.echo(f"platform      {platform.platform()}")
    typer.echo(f"cores         {usable_cores()}")
    if memory := _memory():
        typer.echo(f"memory        {memory / 2**30:.1f} GiB")
    wrong = []
    for package in REQUIRED:
        state, works = _import(package)
        typer.echo(f"{package:<14}{state}")
        if not works:
            wrong.append(f"{package} does not import; reinstall it with `pip install {package}`")
    for package, purpose in OPTIONAL.items():
        state, works = _import(package)
        typer.echo(f"{package:<14}{state if works else 'absent'} (optional: {purpose})")
    typer.echo(f"gpu           {_gpu()}")
    problem = _write_problem(output)
    typer.echo(f"output        {output}: {problem or 'can be written'}")
    if problem:
        wrong.append(f"{output} {problem}; choose another with output.directory")
    for text in wrong:
        typer.echo(f"error: {text}.", err=True)
    typer.echo("all is well" if not wrong else f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}", err=bool(wrong))
    if wrong:
        raise typer.Exit(1)


def _import(package: str) -> tuple[str, bool]:
    """The version, and whether the package really imports (a wheel for another machine has a version, too)."""
    import importlib
    import importlib.metadata

    try:
        importlib.import_module(MODULES.get(package, package))
    except Exception as error:  # a broken binary can raise anything
        return f"cannot be imported ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})", False
    try:
        return importlib.metadata.version(package), True
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version", True


def _memory() -> int | None:
    import os

    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _gpu() -> str:
    try:
        import torch
    except Exception:
        return "unknown, torch does not import"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return ", ".join(names)
    return "none that torch can use; deep models train on the CPU"


def _write_problem(folder: Path) -> str | None:
    """Why nothing can be written there, or None. Leaves nothing behind."""
    import tempfile

    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"cannot be made, {existing} is a file"
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".ssmfin-") as stream:
            stream.write(b"x" * 4096)
            stream.flush()
    except OSError as error:
        return f"cannot be written, {(error.strerror or str(error)).lower()}"
    return None
