"""Owns the first study for a data file: commented YAML that fits the file, tried on it before it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ssmfin.data.date_formats import read_as
from ssmfin.errors import InputError
from ssmfin_pipelines.study.looking import LEAST_DATES, Facts, scalar, too_few

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin_pipelines.study.schema import Study

LONG = 10_000  # dates; there are not that many trading days, these are hours or minutes
RANKED_IDS = 40  # with fewer ids the order of a date says little
MOST_LEFT_OUT = 0.1  # of the rows; where more breach the contract, the file is not what it seems to be


def settle(facts: Facts, *, schema: str | None = None) -> tuple[str, Study, Facts]:
    """The study for a file, as text and as it reads, tried on the file's own rows: its folds can be cut.

    Rows that breach the panel's contract are left out where that mends it and they are few; the text and the facts,
    which are returned as the panel has them, say how many.

    Raises:
        InputError: no study can be made of the file as it is; says why.
    """
    where = facts.source.get("path", "the source")
    if facts.dates < LEAST_DATES:
        raise InputError(too_few(where, facts.dates, "date"))
    panel, facts = _loaded(facts)
    dates = len(panel.dates)
    if dates < LEAST_DATES:
        raise InputError(too_few(where, dates, "usable date"))
    facts = replace(facts, dates=dates, ids=len(panel.ids), minutes=_minutes(panel))
    text = starter_text(facts, schema=schema)
    study = _read(text)
    study.experiment(panel).tasks()
    return text, study, facts


def _loaded(facts: Facts) -> tuple[Panel, Facts]:
    try:
        return _read(starter_text(facts)).load(), facts
    except InputError as error:
        if "on_breach" not in str(error):
            raise
        dropping = replace(facts, dropped=(("rows", 0),))
        panel = _read(starter_text(dropping)).load()
        dropped = tuple(panel.notes["dropped"].items()) or dropping.dropped
        left_out = facts.rows - panel.frame.height - int(panel.notes.get("warm_up_rows", 0))
        if left_out > MOST_LEFT_OUT * facts.rows:
            where = facts.source.get("path", "the source")
            raise InputError(
                f"{where}: {left_out:,} of {facts.rows:,} rows cannot be used, too many to leave out "
                f"({reasons(dropped)}); correct or delete them in the file."
            ) from None
        return panel, replace(facts, dropped=dropped, left_out=left_out)


def reasons(dropped: tuple[tuple[str, int], ...]) -> str:
    """What is wrong with how many rows, in a line.

    >>> reasons((("high is below low", 2), ("low is not a positive price", 1)))
    'high is below low: 2 rows, low is not a positive price: 1 row'
    """
    return ", ".join(f"{what}: {count:,} row{'' if count == 1 else 's'}" for what, count in dropped)


def _read(text: str) -> Study:
    from ssmfin_pipelines.study.reading import study_from
    from ssmfin_pipelines.study.tree import parse

    return study_from(parse(text, "study.yaml").value)


def _minutes(panel: Panel) -> float:
    """The usual distance between two dates in minutes, 0 from half a day on."""
    import numpy as np

    gaps = np.diff(panel.dates.astype("datetime64[s]")).astype(np.float64) / 60.0
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    return usual if usual < 720 else 0.0


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value) if isinstance(value, str) else json.dumps(value)


def starter_text(facts: Facts, *, schema: str | None = None) -> str:
    """The study as YAML; windows and horizons fit the number of dates. `schema`: file that an editor completes from."""
    dates = max(facts.dates, 2)
    train = LONG // 4 if dates >= LONG else 1000 if dates >= 1500 else max(12, dates // 2)
    horizons = [h for h in ((5,) if facts.of_returns and train >= 60 else (1, 5, 22)) if 12 * h <= train]
    windows = [w for w in (1, 5, 22) if 4 * w <= train]
    validation = max(horizons[-1] + 2, train // 8)
    test = max(63, dates // 80) if dates >= 1500 else max(1, dates // 20)
    return "\n".join(
        [
            "# Check:  ssmfin validate FILE --data      Cost:  ssmfin plan FILE      Run:  ssmfin run FILE",
            "# Every model and feature with its parameters:  ssmfin models, ssmfin models KIND",
            *_editor(schema),
            f"name: {scalar(facts.name)}",
            "seed: 0",
            *_data(facts),
            *_target(facts, horizons),
            "walk_forward:  # sizes in dates",
            f"  train: {{kind: rolling, size: {train}}}  # or expanding",
            f"  validation: {{size: {validation}}}  # tail of the window for early stopping and penalties",
            f"  test: {{size: {test}}}  # forecast origins between two fits",
            "  refit: 1  # fit on every k-th fold",
            *_features(facts, windows),
            *_models(facts, train),
            *_evaluate(facts),
            "execution: {backend: local, workers: auto, on_error: record}",
            "output: {directory: runs, report: html}",
            "",
        ]
    )


def _editor(schema: str | None) -> list[str]:
    if schema is not None:
        return [f"# yaml-language-server: $schema={schema}"]
    return [
        "# Completion in an editor:  ssmfin schema > study.schema.json, and here the line",
        '#   "# yaml-language-server: $schema=study.schema.json"  (or let ssmfin init --schema do it)',
    ]


def _data(facts: Facts) -> list[str]:
    lines = ["data:", f"  source: {_flow(facts.source)}"]
    if facts.columns:
        guessed = "; the id column was found by its values" if facts.id_guessed else ""
        lines.append(f"  columns: {_flow(facts.columns)}  # our names: the file's{guessed}")
    if facts.date_format:
        read = read_as(facts.first_date, facts.date_format)
        lines.append(f"  date_format: {json.dumps(facts.date_format)}  # {facts.first_date} is {read}")
    if facts.ids > 1:
        lines.append("  # ids: [...]  # a subset; start: and end: limit the dates")
    if facts.measures:
        lines.append(
            "  measures: {kind: range, estimators: [parkinson]}  # variance of a row, decimal, from high and low"
        )
    lines += [
        "  # A further series, known from the next day on; features: {fear: {kind: columns, columns: [vix__close]}}",
        "  # exogenous: [{name: vix, source: {kind: csv, path: vix.csv}, columns: {ds: Date, close: Close}}]",
    ]
    if facts.minutes:
        lines += [
            f"  # Rows are {facts.minutes:g} minutes apart, and horizons below count rows. For one variance a day:",
            "  # measures: {kind: realized, calendar: XNYS, sampling: 5min, estimators: [rv, bv]}  # and target rv",
        ]
    if facts.dropped:
        lines += ["  on_breach: drop  # leaves out, and counts in the report:"]
        lines += [f"  #   {reasons((item,))}" for item in facts.dropped]
    return lines


def _target(facts: Facts, horizons: list[int]) -> list[str]:
    others = f"  # or {', '.join(facts.others[:6])}" if facts.others else ""
    aggregate = "sum" if facts.of_returns else "mean"
    also = "mean" if facts.of_returns else "sum"
    return [
        "target:",
        f"  column: {scalar(facts.target)}{others}",
        f"  transform: {'log' if facts.positive else 'none':<4}  # log, or none where values may be zero or negative",
        f"  horizons: {_flow(horizons)}  # rows ahead",
        f"  aggregate: {aggregate}  # over t+1 .. t+h; or {also}, last",
    ]


def _features(facts: Facts, windows: list[int]) -> list[str]:
    lines = ["features:", f"  har: {{kind: har_lags, windows: {_flow(windows)}}}  # means over the last w rows"]
    if facts.returns is not None and not facts.of_returns:
        column = _flow({"kind": "leverage", "column": facts.returns, "windows": windows})
        lines.append(f"  leverage: {column}  # falls raise volatility")
    return lines


def _models(facts: Facts, train: int) -> list[str]:
    context = min(128, max(8, train // 4))
    lines = [
        "models:  # beside random_walk, har, log_har, ridge and lightgbm, which always run",
        f"  s4d: {{kind: s4d, context: {context}, seeds: [0], refit: 8}}",
    ]
    if facts.of_returns:
        lines += [
            "  zero: {kind: historical_mean, weight: 0.0}  # returns can hardly be forecast: the benchmark to beat",
            "  historical_mean: {kind: historical_mean}",
        ]
    return [*lines, "benchmarks: {}  # tune or add, such as {lightgbm: {num_leaves: 31}, ewma: {}}"]


def _evaluate(facts: Facts) -> list[str]:
    losses = ["qlike", "mse", "mae"] if facts.positive else ["mse", "mae"]
    reference = "log_har" if facts.positive else "zero" if facts.of_returns else "har"
    ranks = ", cross_section: {groups: 10, least_ids: 20}" if facts.of_returns and facts.ids >= RANKED_IDS else ""
    return [f"evaluate: {{losses: {_flow(losses)}, reference: {reference}, mcs_size: 0.1{ranks}}}"]
