"""`ssmfin compare`: what changed from one run to another, on their common rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders of finished runs; the others are held against the first.",
            show_default=False,
        ),
    ],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="What a run is called; once for each run, in their order."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write the comparison there (.html).", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report that exists.")] = False,
) -> None:
    """Compare runs on their common rows.

    Which keys of their studies differ, whether each model became better or worse beyond chance (Diebold-Mariano, Holm),
    and all models beside each other. Losses and reference are those of the first run.
    """
    import json

    from ssmfin_pipelines.commands.files import check_target, write_atomically
    from ssmfin_pipelines.compare import compare_runs
    from ssmfin_pipelines.tables import terminal_width

    if report is not None:
        check_target(report, suffix=".html", force=force)
    found = compare_runs(runs, label or ())
    if report is not None:
        from ssmfin_pipelines.comparison_files import comparison_page

        page = comparison_page(found).encode("utf-8", "backslashreplace")
        write_atomically(report, lambda stream: stream.write(page))
    if as_json:
        from ssmfin_pipelines.comparison_files import comparison_facts

        typer.echo(json.dumps(comparison_facts(found), indent=2, ensure_ascii=False))
        return
    typer.echo(found.render(terminal_width()))
    if report is not None:
        typer.echo(f"\nreport: {report}")
