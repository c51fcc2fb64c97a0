"""`ssmfin measures`: intraday prices to a panel of daily realized measures, and a page on their quality."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def measures(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Parquet or csv: a file, a glob or a folder.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The parquet file to write.", show_default=False)],
    calendar: Annotated[
        str,
        typer.Option(
            "--calendar",
            metavar="EXCHANGE",
            help='XNYS, XLON, 24/7, ..., or hours of every date: "09:30-16:00 America/New_York".',
            show_default=False,
        ),
    ],
    sampling: Annotated[str, typer.Option("--sampling", metavar="LENGTH", help="Interval of the returns.")] = "5min",
    estimators: Annotated[
        str | None,
        typer.Option(
            "--estimators", metavar="NAMES", help="Such as rv,bv,rk; default ten of them.", show_default=False
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=YOURS", help="Such as close=last_price; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another key of data.measures, such as max_gap=1h; may be repeated."
        ),
    ] = None,
    quality: Annotated[
        Path | None, typer.Option("--quality", help="Write the page on quality there (.html).", show_default=False)
    ] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep and use results of earlier calls.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Compute daily realized measures from trades, quotes or bars.

    Reads in pieces, so that the data may be larger than the memory. One row a session; unusable ones are marked and
    empty, and a study reads the file with on_breach: drop. Results are kept in the user's cache folder ($SSMFIN_CACHE).
    """
    from ssmfin_pipelines.commands.files import check_target, write_atomically

    check_target(output, suffix=".parquet", force=force)
    if quality is not None:
        check_target(quality, suffix=".html", force=force)
    names, others = _pairs("--column", column), _pairs("--set", option)
    _refuse_known(others)
    if estimators is not None:
        others["estimators"] = estimators
    from ssmfin.data.realized.measures import realized_measures

    keywords: dict[str, Any] = {**others, "columns": names, "cache": cache}
    result = realized_measures(source, calendar=calendar, sampling=sampling, **keywords)
    write_atomically(output, result.frame.write_parquet)
    if quality is not None:
        from ssmfin.reporting.measures import render_measures

        page = render_measures(result).encode("utf-8", "backslashreplace")
        write_atomically(quality, lambda stream: stream.write(page))
    frame = result.frame
    typer.echo(
        f"{output}: {frame.height:,} sessions of {frame['unique_id'].n_unique():,} ids, "
        f"{int(frame['usable'].sum()):,} usable; {', '.join(frame.columns[5:])}"
    )
    for row in result.quality.by_rule.iter_rows(named=True):
        effect = "unusable" if row["spoils"] else "noted"
        typer.echo(f"{effect}: {row['rule']}, {row['days']:,} days, {row['rows']:,} rows")
    if quality is not None:
        typer.echo(f"quality: {quality}")


def _pairs(flag: str, items: list[str] | None) -> dict[str, str]:
    """`close=last` as {"close": "last"}."""
    from ssmfin.errors import InputError

    out: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(f"{flag} is {item!r}, not of the form NAME=VALUE; write for example {flag} close=last.")
        out[name.strip()] = value.strip()
    return out


def _refuse_known(others: dict[str, str]) -> None:
    """Refuse keys that have a flag of their own, or that are none.

    Raises:
        InputError: names the flag or the nearest key.
    """
    from ssmfin.data.realized.options import RealizedMeasures
    from ssmfin.errors import InputError, nearest

    own = {"kind", "calendar", "sampling", "estimators", "cache"}
    known = set(RealizedMeasures.model_fields) - own
    for name in others:
        if name in own:
            raise InputError(f"--set {name}=... has a flag of its own; use --{name}.")
        if name not in known:
            raise InputError(f"--set {name}=... is no key of data.measures; {nearest(name, known)}")
