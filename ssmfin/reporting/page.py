"""Owns the file: what goes into the template, and writing it so that no half-written report is ever seen."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.losses import losses_named
from ssmfin.evaluation.wording import horizons_named, step_name
from ssmfin.reporting import cross_section, distributions, figures, rankings, sections, summaries, tables
from ssmfin.reporting.confidence import confidence_example
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.inline_images import drawing
from ssmfin.reporting.memory import memory_part
from ssmfin.reporting.notes import note_tables
from ssmfin.reporting.style import (
    REALISED,
    count_text,
    date_text,
    fact_text,
    headline_parts,
    label_text,
    model_styles,
    seconds_text,
    typeset,
)

SECTIONS = (
    ("verdict", "Verdict"),
    ("leaderboard", "Leaderboard"),
    ("ranking", "Ranking"),
    ("by-id", "Per id"),
    ("forecasts", "Forecasts"),
    ("distributions", "Intervals and events"),
    ("cumulative", "Cumulative loss"),
    ("years", "By year"),
    ("regimes", "By regime"),
    ("memory", "Memory"),
    ("folds", "Folds"),
    ("failures", "Failures"),
    ("cost", "Cost"),
    ("models", "Model notes"),
    ("data", "Data"),
    ("definitions", "Definitions"),
    ("reproduce", "Reproduce"),
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MCS_TEXT = (
    "The models that the data cannot tell apart from the best one (Hansen, Lunde, Nason 2011). Differences of mean "
    "losses are divided by their standard errors (block bootstrap, all models on the same draws); while the largest "
    "of them is beyond chance, the worse model of the pair drops out. A model is out when its p-value is not above "
    "the size of the test (evaluate.mcs_size in the study; 0.1 gives a set that contains the best model with 90 % "
    "confidence). So a model far behind on a few dates can stay, and one a little behind on most dates drops out. A "
    "large set means that the sample cannot decide, not that all its members are good. Each loss and horizon has a "
    "set of its own."
)


def write_report(data: ReportData, path: str | os.PathLike[str]) -> Path:
    """Write the report of a study as one self-contained HTML file.

    The same data gives the same bytes. The file appears whole or not at all.

    Args:
        data: what the study knows.
        path: of the file; an existing file is replaced.
    Returns:
        The path written.
    Raises:
        InputError: the folder does not exist, the path is a directory, or it cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"report path is a directory, {str(target)!r}; name a file in it, such as report.html.")
    if not target.parent.is_dir():
        raise InputError(f"folder of the report does not exist, {str(target.parent)!r}; create it or choose another.")
    # control characters and lone surrogates (names of files in tracebacks) are no text that a browser could show
    html = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", render_report(data)).encode("utf-8", "backslashreplace")
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "wb", dir=target.parent, prefix=".report-", suffix=".tmp", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private; a report is to be passed on
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise InputError(f"report cannot be written to {str(target)!r}, {reason}; choose another path.") from error
    return target


def render_report(data: ReportData) -> str:
    """The report as HTML text. Every value is escaped; ids and names of models are never trusted."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ssmfin.reporting", "templates"),
        autoescape=True,  # by rule, not by file ending: the template is called .j2
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["typeset"] = typeset
    css = resources.files("ssmfin.reporting").joinpath("templates/report.css").read_text("utf-8")
    with drawing():
        context = _context(data)
    return environment.get_template("report.html.j2").render(data=data, css=Markup(css), **context)


def _context(data: ReportData) -> dict[str, Any]:
    """Everything that the template shows besides the data itself."""
    named = set(data.leaderboard["model"]) | set(data.predictions["model"]) | set(data.costs["model"]) | set(data.notes)
    families = {model: data.families.get(model, "custom") for model in sorted(named | set(data.families))}
    styles = model_styles(families, families, data.reference)
    step = step_name(data.predictions["ds"])
    ranked = rankings.ranked_models(data)
    scored = summaries.scored_rows(data)
    shown = [model for model in styles if model not in set(data.leaderboard["model"])]
    forecasts = sections.forecast_groups(data, styles, step)
    fold_image, fold_note = sections.fold_section(data)
    spread = distributions.distributions_section(data, styles, step)
    years = sections.Years((), (), ())
    if scored is not None:
        years = sections.years_section(data, scored, ranked, styles, step)
    ranking = cross_section.ranking_part(data, styles, step)
    remembered = memory_part(data, styles, step)
    shown_parts = {
        "memory": remembered is not None,
        "ranking": ranking is not None,
        "by-id": data.predictions["unique_id"].n_unique() != 1,  # of a single one the leaderboard has said all
        "distributions": spread.shown,
        "failures": bool(data.failures or shown or not data.leaderboard.height),
    }
    return {
        "sections": [
            (name, "By outcome" if name == "regimes" and not summaries.has_regimes(data) else title)
            for name, title in SECTIONS
            if shown_parts.get(name, True)
        ],
        "shown": shown_parts,
        "spread": spread,
        "headline": headline_parts(data.headline),
        "key_facts": _key_facts(data, step),
        "primary": tables.loss_label(data.losses[0]),
        "steps": lambda horizon: tables.horizon_label(horizon, step),
        "mcs_example": confidence_example(data, scored, step),
        "glance": rankings.glance_table(data, styles, step),
        "leaderboards": rankings.leaderboard_tables(data, styles, step),
        "missing": [styles[model] for model in shown],
        "ranking": ranking,
        "by_id": rankings.id_tables(data, styles, step),
        "forecasts": forecasts,
        "forecast_note": sections.forecast_note(forecasts),
        "has_ssm": any(style.family == "ssm" for group in forecasts for style in group.styles),
        "realised_colour": REALISED,
        "cumulative": [] if scored is None else sections.cumulative_groups(data, scored, ranked, styles, step),
        "years": years,
        "has_regimes": summaries.has_regimes(data),
        "regimes": [] if scored is None else sections.regime_tables(data, scored, ranked, styles, step),
        "outcome": _outcome(data, step),
        "no_reference": f"Not available: {data.reference}, the reference, has no complete forecasts to compare with.",
        "memory": remembered,
        "fold_map": fold_image,
        "fold_note": fold_note,
        "fold_colours": list(figures.FOLD_COLOURS.items()),
        "failures": [_failure(failure) for failure in data.failures],
        "cost": tables.cost_table(data, styles),
        "notes": note_tables(data.notes, styles, step),
        "data_facts": [
            (label_text(k), fact_text(v))
            for k, v in data.data_notes.items()
            if not v or not (isinstance(v, Mapping) or _are_records(v))
        ],
        "data_lists": [
            (label_text(k), [(str(name), fact_text(item)) for name, item in v.items()])
            for k, v in data.data_notes.items()
            if isinstance(v, Mapping) and v
        ],
        "data_tables": [
            (label_text(k), len(v), tables.record_table(label_text(k), v))
            for k, v in data.data_notes.items()
            if v and _are_records(v)
        ],
        "losses": losses_named(data.losses),
        "mcs_text": _MCS_TEXT,
        "target_text": _target_text(data, step),
    }


def _are_records(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value)


def _outcome(data: ReportData, step: str) -> str:
    """What is forecast, in words."""
    what = {"mean": "the mean", "sum": "the sum", "last": "the last value"}.get(
        str(data.target.get("aggregate")), "an aggregate"
    )
    return f"{what} of {data.target.get('column')} over the next h {step}s"


def _target_text(data: ReportData, step: str) -> str:
    return f"The forecast made at origin t for horizon h is of {_outcome(data, step)}, t+1 to t+h."


def _failure(failure: Mapping[str, Any]) -> dict[str, str]:
    seed, folds = failure.get("seed"), failure.get("folds")
    title = str(failure.get("model", "a task"))
    if seed is not None:
        title += f", seed {seed}"
    if isinstance(folds, (list, tuple)) and folds:
        consecutive = len(folds) > 2 and list(folds) == list(range(folds[0], folds[-1] + 1))
        text = f"{folds[0]} to {folds[-1]}" if consecutive else ", ".join(map(str, folds))
        title += f", {'fold' if len(folds) == 1 else 'folds'} {text}"
    elif folds is not None and folds != []:
        title += f", folds {folds}"
    traceback = failure.get("traceback") or failure.get("error") or "no traceback was recorded"
    return {"title": title, "error": str(failure.get("error") or ""), "traceback": str(traceback)}


def _key_facts(data: ReportData, step: str) -> list[dict[str, str]]:
    """The handful of facts beside the verdict: what, on what, when, how much, at which price."""
    target, predictions = data.target, data.predictions
    seconds = sum(map(sum, data.costs.select("fit_seconds", "predict_seconds").iter_rows()))
    scale = {"log": "modelled in logs", "none": "modelled as is"}.get(str(target.get("transform")), "")
    ahead = f"{horizons_named(target.get('horizons', ()), step)} ahead"
    scored = predictions.filter(pl.col("y").is_not_null()).height
    origins = "none"
    if predictions.height:
        origins = f"{date_text(predictions['ds'].min())} to {date_text(predictions['ds'].max())}"
    ids = predictions["unique_id"].n_unique()
    facts = [
        (
            "Target",
            f"{target.get('aggregate', '')} of {target.get('column', '')}".strip(),
            f"{ahead}; {scale}".rstrip("; "),
        ),
        ("Ids", count_text(ids), ", ".join(sorted(set(predictions["unique_id"]))) if 0 < ids <= 3 else ""),
        (
            "Forecast from",
            origins,
            f"{count_text(data.folds.height)} folds, {count_text(data.folds['fit'].n_unique())} fits",
        ),
        (
            "Forecasts",
            count_text(predictions.height),
            f"by all models, seeds and horizons; {count_text(scored)} with a known outcome",
        ),
        ("Compute", seconds_text(seconds), "fitting and predicting, all models"),
        ("Failed tasks", count_text(len(data.failures)), ""),
    ]
    return [{"label": label, "text": text, "note": note} for label, text, note in facts]
