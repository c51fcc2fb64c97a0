"""`ssmfin run`: run a study, or the rest of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study

if TYPE_CHECKING:
    import polars as pl


def run(
    study: StudyFile,
    set_: Overrides = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Compute everything again, or only what is missing.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Do the I-th of N parts, such as 1/4.", show_default=False),
    ] = None,
    allow_imports: AllowImports = False,
) -> None:
    """Run a study and print its verdict.

    Interrupted at any moment, the same command goes on where it stopped.
    """
    part = _shard(shard) if shard is not None else None
    try:
        checked = open_study(study, set_, allow_imports)
        from ssmfin_pipelines.run import run_study

        outcome = run_study(checked, fresh=fresh, shard=part)
    except KeyboardInterrupt as stop:
        again = "without --fresh " if fresh and str(stop) else ""
        done = f" ({stop})" if str(stop) else ""
        typer.echo(f"interrupted; run the same command again {again}to go on{done}", err=True)
        raise typer.Exit(130) from None
    typer.echo(_folded(outcome.headline))
    for paragraph in outcome.paragraphs:
        typer.echo(f"\n{_folded(paragraph)}")
    if outcome.leaderboard.height:
        typer.echo("\n" + "\n".join(leaderboard_lines(outcome.leaderboard, checked.evaluate.losses[0])))
    typer.echo(f"\nrun: {outcome.directory}")
    if outcome.complete and checked.output.report == "html":
        typer.echo(f"report: {outcome.directory / 'report.html'}")
    for line in outcome.failure_lines():
        typer.echo(line, err=True)
    if outcome.failures:
        raise typer.Exit(1)


def _folded(text: str) -> str:
    """Text as wide as the terminal, as `compare` prints it; unchanged in a pipe or a file."""
    if not sys.stdout.isatty():
        return text
    from ssmfin_pipelines.tables import folded, terminal_width

    width = terminal_width()
    return "\n".join(folded(line, width) for line in text.split("\n"))


def leaderboard_lines(leaderboard: pl.DataFrame, loss: str) -> list[str]:
    """Loss of every model at every horizon relative to the reference; a star: in the model confidence set."""
    import polars as pl

    rows = leaderboard.filter(pl.col("loss") == loss)
    horizons = rows["horizon"].unique().sort().to_list()
    cells = {(row["model"], row["horizon"]): row for row in rows.iter_rows(named=True)}
    names = sorted(rows["model"].unique().to_list(), key=lambda name: _mean_ratio(cells, name, horizons))
    width = max(map(len, [*names, "model"]))
    lines = [f"{loss} relative to the reference (* in the model confidence set)"]
    lines.append("model".ljust(width) + "".join(f"h={horizon}".rjust(10) for horizon in horizons))
    for name in names:
        shown = []
        for horizon in horizons:
            row = cells.get((name, horizon))
            known = row is not None and row["ratio_to_reference"] is not None
            shown.append(f"{row['ratio_to_reference']:.3f}{'*' if row['in_mcs'] else ' '}" if row and known else "- ")
        lines.append(name.ljust(width) + "".join(text.rjust(10) for text in shown))
    return lines


def _mean_ratio(cells: dict[tuple[str, int], dict[str, float]], name: str, horizons: list[int]) -> tuple[float, str]:
    ratios = [cells[name, horizon]["ratio_to_reference"] for horizon in horizons if (name, horizon) in cells]
    known = [ratio for ratio in ratios if ratio is not None]
    return (sum(known) / len(known) if known else float("inf"), name)


def _shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4)."""
    from ssmfin.errors import InputError

    index, slash, count = text.partition("/")
    if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise InputError(f"--shard is {text!r}, not of the form I/N; write for example --shard 1/4.")
    if not 1 <= int(index) <= int(count):
        raise InputError(
            f"--shard is {text!r}, but I must lie between 1 and N; write for example --shard 1/{max(1, int(count))}."
        )
    return int(index), int(count)
