"""Owns the one-page report on realized measures: what was computed, from how much, and what was wrong with it."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.data.intraday.durations import microseconds
from ssmfin.data.intraday.rules import RULES
from ssmfin.data.realized.estimators import ESTIMATORS
from ssmfin.data.realized.result import RealizedPanel
from ssmfin.data.realized.settings import MINUTE
from ssmfin.errors import InputError
from ssmfin.reporting import measures_figures
from ssmfin.reporting.inline_images import drawing
from ssmfin.reporting.style import count_text, date_text, decimal_exponent, exponent_text, typeset

MAX_ASSETS = 40  # rows of the coverage map; the worst ones
MAX_PERIODS = 48  # its columns: months, quarters or years
MAX_DAYS = 200  # unusable days listed
LEAST_MARK = 20.0  # percent of a cell's height that show unusable days, however few they are
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def measures_report(measures: RealizedPanel, path: str | os.PathLike[str]) -> Path:
    """Write the quality report of realized measures as one self-contained HTML page.

    Args:
        measures: what `realized_measures` returned.
        path: of the file; an existing file is replaced. It appears whole or not at all.
    Returns:
        The path written.
    Raises:
        InputError: the folder does not exist, or the file cannot be written.
    """
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"report cannot be written to {str(target)!r}, no such folder; name a file in a folder.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(render_measures(measures).encode("utf-8", "backslashreplace"))
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise InputError(f"report cannot be written to {str(target)!r}, {reason}; choose another path.") from error
    return target


def render_measures(measures: RealizedPanel) -> str:
    """The page as HTML text; ids and paths are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ssmfin.reporting", "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["typeset"] = typeset
    css = resources.files("ssmfin.reporting").joinpath("templates/report.css").read_text("utf-8")
    with drawing():
        context = _context(measures)
    page = environment.get_template("measures.html.j2").render(css=Markup(css), **context)
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", page)


def _context(measures: RealizedPanel) -> dict[str, Any]:
    quality, notes = measures.quality, measures.notes
    days = quality.days
    ids = days["unique_id"].n_unique()
    usable = int(days["usable"].sum())
    minutes = microseconds(str(notes["sampling"])) / MINUTE
    bad = quality.unusable
    flagged, legend = measures_figures.flagged_plot(quality)
    names = [name for name in measures.frame.columns if name in ESTIMATORS]
    return {
        "headline": f"{count_text(usable)} of {count_text(days.height)} sessions are usable.",
        "why": _why(measures),
        "facts": [
            ("Source", *_source(str(notes["source"]), f"{notes['kind']}, {count_text(notes['rows'])} rows")),
            ("Assets", count_text(ids), days["unique_id"][0] if ids == 1 else ""),
            ("Sessions", f"{date_text(days['ds'].min())} to {date_text(days['ds'].max())}", f"{notes['calendar']}"),
            ("Sampling", str(notes["sampling"]), f"finest grid {notes['fine']}"),
            ("Coverage", f"{100.0 * _mean(days['coverage']):.1f} %", "mean share of intervals with a row"),
            (
                "Splits and dividends",
                "adjusted" if notes["factors"] else "as in the source",
                f"by {', '.join(notes['factors'])}" if notes["factors"] else "",
            ),
        ],
        "calendar_map": measures_figures.calendar_map(days) if ids == 1 else None,
        "map": _coverage_map(days) if ids > 1 else None,
        "signature": measures_figures.signature_plot(quality, minutes),
        "pattern": measures_figures.pattern_plot(quality, minutes),
        "sampling": notes["sampling"],
        "flagged": flagged,
        "legend": legend,
        "rules": [
            (
                row["rule"],
                bool(row["spoils"]),
                count_text(row["days"]),
                count_text(row["rows"]),
                *RULES[row["rule"]][2:],
            )
            for row in quality.by_rule.iter_rows(named=True)
        ],
        "assets": _assets(days) if ids > 1 else [],
        "more_assets": max(0, ids - MAX_ASSETS),
        "bad": [(row[0], date_text(row[1]), row[2] or "") for row in bad.head(MAX_DAYS).iter_rows()],
        "more_bad": max(0, bad.height - MAX_DAYS),
        "estimators": [(name, ESTIMATORS[name].meaning) for name in names],
        "numbers": _numbers(measures.frame, names),
        "spoiled_colour": measures_figures.SPOILED,
        "closed": measures_figures.CLOSED,
        "low": measures_figures.LOW,
        "high": measures_figures.HIGH,
    }


def _mean(column: pl.Series) -> float:
    return float(column.mean() or 0.0)  # type: ignore[arg-type]


def _why(measures: RealizedPanel) -> str:
    rules = measures.quality.by_rule.filter("spoils").head(3)
    if rules.is_empty():
        return "No rule made a day unusable."
    parts = [
        f"{row['rule']} ({count_text(row['days'])} {'day' if row['days'] == 1 else 'days'}: "
        f"{RULES[row['rule']].meaning})"
        for row in rules.iter_rows(named=True)
    ]
    dropped = " Bad ticks were left out (bad_ticks: drop)." if measures.notes.get("bad_ticks") == "drop" else ""
    return (
        f"Most often: {'; '.join(parts)}. Unusable days are marked and have no values; a study leaves them out and "
        f"says so (one that reads the file: with on_breach: drop).{dropped}"
    )


def _source(source: str, what: str) -> tuple[str, str]:
    """The file's name in large, its folder below."""
    folder, slash, name = source.rstrip("/").rpartition("/")
    return (name, f"{what}; in {folder or slash}") if slash else (source, what)


def _coverage_map(days: pl.DataFrame) -> dict[str, Any]:
    """Mean coverage of each asset by period, the worst assets first; red from below: the share of unusable days."""
    lengths = [(every, days["ds"].dt.truncate(every).unique().sort()) for every in ("1mo", "1q", "1y")]
    every, periods = next((item for item in lengths if len(item[1]) <= MAX_PERIODS), lengths[-1])
    form = "%Y" if every == "1y" else "%Y-%m"
    worst = _worst(days).head(MAX_ASSETS)["unique_id"].to_list()
    cells = (
        days.filter(pl.col("unique_id").is_in(worst))
        .group_by("unique_id", pl.col("ds").dt.truncate(every).alias("period"))
        .agg(pl.col("coverage").mean(), (~pl.col("usable")).mean().alias("bad"), pl.len().alias("days"))
    )
    found = {(row[0], row[1]): row[2:] for row in cells.iter_rows()}
    rows = []
    for name in worst:
        line = []
        for period in periods:
            item = found.get((name, period))
            if item is None:
                line.append((measures_figures.CLOSED, "no rows"))
                continue
            coverage, bad, count = item
            colour = _blend(coverage)
            if bad > 0:
                mark = f"{max(100.0 * bad, LEAST_MARK):.0f}%"
                colour = f"linear-gradient(to top, {measures_figures.SPOILED} {mark}, {colour} {mark})"
            title = (
                f"{name}, {period.strftime(form)}: coverage {100 * coverage:.0f} %, "
                f"{round(bad * count):,} of {count:,} days unusable"
            )
            line.append((colour, title))
        rows.append((name, line))
    width = int(min(max(900 / len(periods), 15), 34))  # pixels of a cell
    return {"periods": [period.strftime(form) for period in periods], "rows": rows, "width": width}


def _blend(share: float) -> str:
    low, high = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (measures_figures.LOW, measures_figures.HIGH))
    mixed = [round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(low, high, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _worst(days: pl.DataFrame) -> pl.DataFrame:
    return (
        days.group_by("unique_id")
        .agg(
            pl.len().alias("sessions"),
            pl.col("usable").sum().alias("usable"),
            pl.col("coverage").mean(),
            pl.col("longest_gap_s").max(),
            pl.col("longest_stale_s").max(),
        )
        .with_columns((pl.col("usable") / pl.col("sessions")).alias("share"))
        .sort("share", "unique_id")
    )


def _assets(days: pl.DataFrame) -> list[tuple[str, ...]]:
    return [
        (
            row["unique_id"],
            count_text(row["sessions"]),
            count_text(row["usable"]),
            f"{100 * row['share']:.2f} %",
            f"{100 * row['coverage']:.1f} %",
            f"{row['longest_gap_s'] / 60:,.0f} min",
            f"{row['longest_stale_s'] / 60:,.0f} min",
        )
        for row in _worst(days).head(MAX_ASSETS).iter_rows(named=True)
    ]


def _numbers(frame: pl.DataFrame, names: list[str]) -> list[tuple[str, ...]]:
    """Quantiles of every estimator over usable days and their unit, for a first look at whether the scale is right."""
    out = []
    for name in names:
        known = frame[name].drop_nulls()
        if len(known):
            marks = [float(known.quantile(q, "linear") or 0.0) for q in (0.05, 0.5, 0.95)]
            exponent = decimal_exponent(marks)
            texts = (f"{mark / 10.0**exponent:,.4g}" for mark in marks)
            out.append((name, *texts, f"×{exponent_text(exponent)}" if exponent else "", count_text(len(known))))
    return out
