"""Owns what a comparison of runs leaves for machines and for readers: plain facts for JSON, and the page."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from ssmfin_pipelines.compare import Comparison


def comparison_facts(found: Comparison) -> dict[str, Any]:
    """Everything as plain values; what is not a finite number is null."""
    result = found.result
    left = {each.run: each for each in result.left_out}
    facts: dict[str, Any] = {
        "runs": [
            {
                "label": label,
                "folder": str(folder),
                "rows": left[label].rows,
                "left_out": left[label].left_out,
                "why": left[label].why,
            }
            for label, folder in found.runs.items()
        ],
        "same_data": not found.other_data,
        "same_program": not found.other_program,
        "differences": [
            {"key": each.key, "values": [{"run": k, "value": v} for k, v in each.values.items()]}
            for each in found.differences
        ],
        "common": {
            "rows": result.rows,
            "dates": len(result.dates),
            "first": str(result.dates.min()),
            "last": str(result.dates.max()),
            "ids": list(result.scores.ids),
            "horizons": result.horizons,
        },
        "loss": result.scores.losses[0],
        "reference": result.scores.reference,
        "headline": result.headline,
        "paragraphs": list(result.paragraphs),
        "changes": result.changes.to_dicts(),
        "models": {name: [{"run": r, "model": m} for r, m in held] for name, held in result.models.items()},
        "leaderboard": result.leaderboard.to_dicts(),
        "verdict": {"headline": result.verdict.headline, "paragraphs": list(result.verdict.paragraphs)},
    }
    plain: dict[str, Any] = _plain(facts)
    return plain


def comparison_page(found: Comparison) -> str:
    """The comparison as one self-contained HTML page."""
    from ssmfin.reporting.run_comparison import ComparedRun, render_comparison

    left = {each.run: each for each in found.result.left_out}
    runs = [ComparedRun(label, str(folder), left[label]) for label, folder in found.runs.items()]
    return render_comparison(
        found.result,
        runs=runs,
        differences=[(each.key, [each.text(label) for label in found.runs]) for each in found.differences],
        other_data=found.other_data,
        other_program=found.other_program,
        reproduce=reproduce_command(found),
    )


def reproduce_command(found: Comparison) -> str:
    """The command that makes the comparison again, from the current folder."""
    labels = [part for label in found.runs for part in ("--label", label)]
    command = ["ssmfin", "compare", *map(str, found.runs.values()), *labels, "--report", "comparison.html"]
    return f"{shlex.join(['cd', str(Path.cwd())])}\n{shlex.join(command)}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
