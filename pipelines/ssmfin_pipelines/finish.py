"""Owns the last step of a run: from finished tasks to predictions, leaderboard, verdict, manifest and report."""

from __future__ import annotations

import io
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.columns import merged
from ssmfin.evaluation.cross_section import CrossSection
from ssmfin.evaluation.judging import combinations_of, issued, judge
from ssmfin.evaluation.leaderboard import SCHEMA
from ssmfin.evaluation.learning import learned_notes
from ssmfin.evaluation.memory import merged_memory
from ssmfin.evaluation.plan import experiment_plan, skipped_ids, skipped_origins
from ssmfin.evaluation.probabilistic import Probabilistic
from ssmfin.evaluation.walk_forward import merge_notes
from ssmfin_pipelines.atomic import parquet_bytes, storage, write_atomically
from ssmfin_pipelines.manifest import environment, now, read_manifest, write_manifest
from ssmfin_pipelines.prepare import Prepared, data_facts
from ssmfin_pipelines.store import Mark

RESULT_FILES = (
    "predictions.parquet",
    "leaderboard.parquet",
    "leaderboard.csv",
    "leaderboard_by_id.parquet",
    "folds.parquet",
    "study.yaml",
)
# only where a model gives quantiles or events
PROBABILISTIC_FILES = ("probabilistic.parquet", "probabilistic.csv", "probabilistic_by_id.parquet")


@dataclass(frozen=True)
class Results:
    """What a run found."""

    headline: str
    paragraphs: tuple[str, ...]
    leaderboard: pl.DataFrame
    failures: list[dict[str, Any]]


def finish(prepared: Prepared, failures: list[dict[str, Any]], *, seconds: float) -> Results:
    """Write everything a run leaves besides its tasks. The manifest comes last.

    Args:
        failures: of the tasks that are not done; all others must be.
        seconds: wall clock of the tasks in this call, for the manifest.
    Raises:
        InputError: nothing can be compared; StorageError: the disk refuses.
    """
    study, store, directory = prepared.study, prepared.store, prepared.directory
    marks = {item.key: mark for item in prepared.items if (mark := store.mark(item.key)) is not None}
    learnt = {item.key: mark for item in prepared.learnings if (mark := store.mark(item.key)) is not None}
    if not marks:
        first = failures[0]["error"] if failures else "there are no tasks"
        return Results(f"No task succeeded: {first}", (), pl.DataFrame(schema=SCHEMA), failures)
    scoring = study.evaluate.scoring()
    predictions = issued(prepared.experiment, merged([store.predictions(key) for key in marks]), scoring)
    write_atomically(directory / "predictions.parquet", parquet_bytes(predictions))
    if weights := [store.weights(item.key) for item in prepared.combinations if item.key in marks]:
        write_atomically(directory / "weights.parquet", parquet_bytes(pl.concat(weights)))
    memory = merged_memory([found for key in marks if (found := store.memory(key)) is not None])
    if memory is not None:
        write_atomically(directory / "memory.parquet", parquet_bytes(memory))
    else:
        with storage(directory):  # of an earlier run in which no network failed
            (directory / "memory.parquet").unlink(missing_ok=True)

    models = model_facts(prepared, list(marks.values()))
    costs = {name: (facts["fit_seconds"], facts["predict_seconds"]) for name, facts in models.items()}
    try:
        board, spread, verdict = judge(prepared.experiment, predictions, scoring, costs)
    except InputError as error:
        if failures:  # every model lacks a task: nothing is comparable before they are run again
            return Results(str(error), (), pl.DataFrame(schema=SCHEMA), failures)
        raise
    write_atomically(directory / "leaderboard.parquet", parquet_bytes(board.pooled))
    write_atomically(directory / "leaderboard.csv", csv_bytes(board.pooled))
    write_atomically(directory / "leaderboard_by_id.parquet", parquet_bytes(board.by_id))
    if board.ranking is not None:
        write_atomically(directory / "ranking.parquet", parquet_bytes(board.ranking.table))
    _write_probabilistic(directory, spread)
    write_atomically(directory / "folds.parquet", parquet_bytes(experiment_plan(prepared.experiment)))
    write_atomically(directory / "study.yaml", study.to_yaml().encode())
    facts = {
        "name": study.name,
        "written": now(),
        "started_in": str(Path.cwd()),
        "config": study.resolved(),
        "data": {
            "fingerprint": prepared.data_fingerprint,
            "source": study.data.source.describe(),
            **data_facts(prepared.panel),
            "notes": prepared.panel.notes,
            "never_forecast": skipped_ids(prepared.experiment),
            "origins_not_forecast": skipped_origins(prepared.experiment),
        },
        "environment": environment(),
        "seeds": {
            "study": study.seed,
            "models": {name: list(e.runs) for name, e in prepared.experiment.models.items()},
        },
        "device": sorted({mark.device for mark in marks.values()}),
        "tasks": [item.key for item in prepared.everything],
        "done": len(marks) + len(learnt),
        "timings": {
            "wall_seconds": seconds,
            "task_seconds": sum(mark.seconds for mark in [*marks.values(), *learnt.values()]),
            "workers": prepared.workers,
        },
        "models": models,
        "features": prepared.experiment.learner.facts(),
        "left_out": dict(prepared.experiment.left_out),
        "failures": failures,
        "probabilistic": spread is not None,
        "memory": memory is not None,
        "verdict": {"headline": verdict.headline, "paragraphs": list(verdict.paragraphs)},
    }
    if study.output.report == "html":
        _write_report(directory, facts)
    else:
        with storage(directory):
            (directory / "report.html").unlink(missing_ok=True)
    write_manifest(directory, facts)
    return Results(verdict.headline, verdict.paragraphs, board.pooled, failures)


def finished(prepared: Prepared) -> Results | None:
    """The results of a run that has nothing left to do, None if there is anything."""
    directory = prepared.directory
    try:
        facts = read_manifest(directory)
    except InputError:
        return None
    wanted = [*_result_files(facts), *(["report.html"] if prepared.study.output.report == "html" else [])]
    wanted += ["weights.parquet"] if prepared.combinations else []
    wanted += ["ranking.parquet"] if prepared.study.evaluate.cross_section is not None else []
    keys = [item.key for item in prepared.everything]
    if facts["failures"] or facts["tasks"] != keys or not all((directory / name).is_file() for name in wanted):
        return None
    if not all((prepared.store.tasks / key / "done").is_file() for key in keys):
        return None
    try:
        leaderboard = pl.read_parquet(directory / "leaderboard.parquet")
    except (OSError, pl.exceptions.PolarsError):
        return None
    verdict = facts["verdict"]
    return Results(verdict["headline"], tuple(verdict["paragraphs"]), leaderboard, [])


def rebuild_report(run_directory: str | Path) -> Path:
    """Write report.html of a finished run again, from its own files alone.

    Raises:
        InputError: the folder is not a finished run.
    """
    directory = Path(run_directory)
    facts = read_manifest(directory)
    missing = [name for name in _result_files(facts) if not (directory / name).is_file()]
    if missing:
        raise InputError(
            f"the run lacks {', '.join(missing)}, {directory}; run its study again: finished tasks are kept."
        )
    return _write_report(directory, facts)


def model_facts(prepared: Prepared, marks: list[Mark]) -> dict[str, dict[str, Any]]:
    """Model -> kind, family, what it was given, what it took, what it noted; in the order of the study."""
    by_model: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        by_model[mark.model].append(mark)
    facts, combined = {}, combinations_of(prepared.experiment)
    for name, entry in prepared.experiment.models.items():
        found = by_model[name]
        facts[name] = {
            "kind": prepared.study.entries[name].kind,
            "family": type(entry.forecaster).family,
            "features": list(prepared.experiment.features if entry.features is None else entry.features),
            "seeds": list(entry.runs),
            "members": list(prepared.experiment.members(name)),
            "without": combined.without.get(name),  # the same without its state-space members
            "refit": prepared.experiment.refit(name),
            "tasks": len(found),
            "fits": sum(mark.fits for mark in found),
            "fit_seconds": sum(mark.fit_seconds for mark in found),
            "predict_seconds": sum(mark.predict_seconds for mark in found),
            "notes": merge_notes([mark.notes for mark in found]),
        }
    return facts


def _result_files(facts: dict[str, Any]) -> tuple[str, ...]:
    return (
        *RESULT_FILES,
        *(PROBABILISTIC_FILES if facts.get("probabilistic") else ()),
        *(["memory.parquet"] if facts.get("memory") else []),
    )


def _write_probabilistic(directory: Path, spread: Probabilistic | None) -> None:
    if spread is None:
        with storage(directory):
            for name in PROBABILISTIC_FILES:  # of an earlier run in which a model that gives them did not fail
                (directory / name).unlink(missing_ok=True)
        return
    for name, data in zip(
        PROBABILISTIC_FILES,
        (parquet_bytes(spread.pooled), csv_bytes(spread.pooled), parquet_bytes(spread.by_id)),
        strict=True,
    ):
        write_atomically(directory / name, data)


def csv_bytes(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    return buffer.getvalue()


def _write_report(directory: Path, facts: dict[str, Any]) -> Path:
    from ssmfin.reporting.data import ReportData
    from ssmfin.reporting.page import render_report

    config, models, data = facts["config"], facts["models"], facts["data"]
    with storage(directory):
        text = (directory / "study.yaml").read_text(encoding="utf-8")
    columns = ("tasks", "fits", "fit_seconds", "predict_seconds")
    report = ReportData(
        name=facts["name"],
        headline=facts["verdict"]["headline"],
        paragraphs=tuple(facts["verdict"]["paragraphs"]),
        leaderboard=_read(directory, "leaderboard.parquet"),
        leaderboard_by_id=_read(directory, "leaderboard_by_id.parquet"),
        predictions=_read(directory, "predictions.parquet"),
        folds=_read(directory, "folds.parquet"),
        reference=config["evaluate"]["reference"],
        families={name: model["family"] for name, model in models.items()},
        target={key: config["target"][key] for key in ("column", "transform", "horizons", "aggregate")},
        losses=tuple(config["evaluate"]["losses"]),
        failures=facts["failures"],
        costs=pl.DataFrame(
            [
                {"model": name, "family": model["family"], **{c: model[c] for c in columns}}
                for name, model in models.items()
            ]
        ),
        notes={name: model["notes"] for name, model in models.items() if model["notes"]},
        data_notes={
            **data["notes"],
            **{key: data[key] for key in data if key not in ("notes", "fingerprint")},
            **learned_notes(facts.get("features", {})),
        },
        study_yaml=text,
        reproduce=reproduce_commands(directory, facts),
        environment={**facts["environment"]["packages"], "python": facts["environment"]["python"]},
        probabilistic=_read(directory, "probabilistic.parquet") if facts.get("probabilistic") else None,
        cross_section=CrossSection(**ranked) if (ranked := config["evaluate"].get("cross_section")) else None,
        memory=_read(directory, "memory.parquet") if facts.get("memory") else None,
    )
    write_atomically(directory / "report.html", render_report(report).encode())
    return directory / "report.html"


def reproduce_commands(directory: Path, facts: dict[str, Any]) -> str:
    """The commands that run the study of a run folder again.

    They begin in the folder in which the run was started: relative paths of data and output and the user's own modules
    are found from there. Absolute paths in the study would do so too, but would give the run another hash.

    Args:
        facts: of the manifest; one of an earlier version, or of another machine, means the current folder.
    """
    here, told = Path.cwd(), facts.get("started_in", "")
    start = Path(told) if told and Path(told).is_dir() else here
    study = directory.absolute() / "study.yaml"
    if study.is_relative_to(start):
        study = study.relative_to(start)
    entries = [*facts["models"].values(), *facts["config"].get("features", {}).values()]
    own = any(":" in entry["kind"] for entry in entries)
    command = ["ssmfin", "run", str(study), *(["--allow-imports"] if own else [])]
    return f"{shlex.join(['cd', str(start)])}\n{shlex.join(command)}"


def _read(directory: Path, name: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(directory / name)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{name} of the run cannot be read, {directory / name} ({error}); delete it and run the study again."
        ) from None
