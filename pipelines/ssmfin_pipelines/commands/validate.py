"""`ssmfin validate`: check a study, and with --data its data, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ssmfin_pipelines.commands.options import AllowImports, Overrides, StudyFile, open_study

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin.evaluation.experiment import Experiment
    from ssmfin_pipelines.study import Study

NAMED = 5  # ids at most that a line names


def validate(
    study: StudyFile,
    set_: Overrides = None,
    data: Annotated[
        bool, typer.Option("--data", help="Load and check the data too, cut the folds, try the features.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the study with every default filled in.")] = False,
    allow_imports: AllowImports = False,
) -> None:
    """Check a study file without running it.

    Every mistake is named with its line, the value and the remedy. With --data also all that a run checks before its
    first task: the data, the folds, and that no feature sees the future.
    """
    checked = open_study(study, set_, allow_imports)
    if show:
        typer.echo(checked.to_yaml(), nl=False)
        if not data:
            return
    models, features = len(checked.entries), len(checked.features)
    lines = [
        f"{study} is valid: {_count(models, 'model')} ({_count(len(checked.benchmarks), 'benchmark')}), "
        f"{_count(features, 'feature')}.",
        *(_of_data(checked) if data else _without_data(checked)),
    ]
    for line in lines:
        typer.echo(line, err=show)


def _without_data(study: Study) -> list[str]:
    """What was not looked at, and whether files of that name are there at all."""
    from ssmfin.data.sources.files import FileSource
    from ssmfin.errors import InputError

    lines = ["the data were not looked at, only the study itself: keys, values, names; add --data to load them."]
    for source in (study.data.source, *(item.source for item in study.data.exogenous)):
        if isinstance(source, FileSource):
            try:
                source.files()
            except InputError as error:
                lines.append(f"warning: {error}")
    return lines


def _of_data(study: Study) -> list[str]:
    """All that a run checks before its first task, and what it found.

    Raises:
        InputError: a run would end with it.
    """
    from ssmfin.data.levels import price_warning
    from ssmfin_pipelines.prepare import few_forecasts, prepare
    from ssmfin_pipelines.run import CHECKING, check

    prepared = prepare(study)
    if prepared.learnings:
        typer.echo(f"{study.name}: {CHECKING}", err=True)
    forecasts = check(prepared)
    panel, experiment = prepared.panel, prepared.experiment
    folds, rows = experiment.folds, sum(map(len, experiment.test_rows))
    target = study.target
    columns = len(experiment.design.feature_names)
    lines = [
        f"data: {len(panel.frame):,} rows, {_count(len(panel.ids), 'id')}, {len(panel.dates):,} dates from "
        f"{str(panel.dates[0])[:10]} to {str(panel.dates[-1])[:10]}; each id and date once and in order, numbers "
        f"finite, {target.column} {'positive' if target.transform == 'log' else 'there'} in every row.",
        f"features: {', '.join(experiment.features) or 'none'} ({_count(columns, 'column')}); none moved up to "
        f"{str(panel.dates[folds[len(folds) // 2].cutoff])[:10]} when all values after it were changed.",
        f"folds: {len(folds)}, {rows:,} origins to forecast from, {forecasts:,} forecasts in "
        f"{_count(len(prepared.everything), 'task')}.",
    ]
    doubt = price_warning(panel, target.column, target.transform)
    lines += [f"warning: {warning}" for warning in (few_forecasts(prepared), doubt) if warning]
    return lines + _losses(panel, experiment)


def _losses(panel: Panel, experiment: Experiment) -> list[str]:
    """What of the data a run would not use, a line each: rows left out, origins and ids not forecast, models."""
    from ssmfin.evaluation.plan import skipped_ids, skipped_origins

    lines = [f"left out: {_count(count, 'row')}, {what}." for what, count in panel.notes.get("dropped", {}).items()]
    lines += [
        f"not forecast from: {_count(count, 'row')}, {why}." for why, count in skipped_origins(experiment).items()
    ]
    never = skipped_ids(experiment)
    for name, why in list(never.items())[:NAMED]:
        lines.append(f"never forecast: {name}, which {why}.")
    if len(never) > NAMED:
        lines.append(f"never forecast: {len(never) - NAMED:,} more ids.")
    return [*lines, *(f"left out: {name}, which {why}." for name, why in experiment.left_out.items())]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
