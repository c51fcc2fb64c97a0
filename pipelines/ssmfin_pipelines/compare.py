"""Owns the comparison of several runs: the tests of one study, over the rows that all runs forecast.

Runs may differ in models, features and windows. Their targets may not: a loss on another target is another number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.leaderboard import make_leaderboard
from ssmfin.evaluation.verdict import Combinations, make_verdict
from ssmfin_pipelines.manifest import read_manifest
from ssmfin_pipelines.tables import text_table

ROW = ("unique_id", "ds", "horizon")
ROUNDING = 1e-9  # relative; the same data through another file format differ by less
NEEDED = (*ROW, "model", "seed", "y", "y_hat")


@dataclass(frozen=True)
class Run:
    """One run as it lies on disk."""

    label: str
    directory: Path
    manifest: Mapping[str, Any]
    predictions: pl.DataFrame

    @property
    def target(self) -> Mapping[str, Any]:
        target: Mapping[str, Any] = self.manifest["config"]["target"]
        return target


@dataclass(frozen=True)
class Comparison:
    """What several runs say together.

    Attributes:
        runs: label -> folder. `rows`: rows (unique_id, ds, horizon) that all runs forecast and whose outcome is known.
        rows_of: label -> such rows of the run alone.
        models: model in the comparison -> where it comes from, (label, model there) of each run that has it.
        headline, paragraphs: the verdict. `leaderboard`, `by_id`: as of a single run, on the common rows.
    """

    runs: dict[str, Path]
    rows: int
    rows_of: dict[str, int]
    models: dict[str, tuple[tuple[str, str], ...]]
    headline: str
    paragraphs: tuple[str, ...]
    leaderboard: pl.DataFrame
    by_id: pl.DataFrame

    def render(self) -> str:
        """The comparison as text for a terminal."""
        out = [self.headline, "", *self.paragraphs, ""]
        out += [f"{label}: {folder}, {self.rows_of[label]} rows" for label, folder in self.runs.items()]
        out += [f"common rows: {self.rows}", ""]
        columns = ("horizon", "loss", "model", "value", "ratio_to_reference", "dm_p_value", "in_mcs", "n")
        rows = [tuple(_cell(value) for value in row) for row in self.leaderboard.select(columns).iter_rows()]
        head = ("horizon", "loss", "model", "value", "ratio", "p (DM)", "in MCS", "n")
        return "\n".join([*out, *text_table(head, rows, right={0, 3, 4, 5, 7})])

    def __str__(self) -> str:
        return self.render()


def compare_runs(paths: Sequence[str | Path]) -> Comparison:
    """Compare the forecasts of several runs by the losses and the reference of the first.

    A model that all runs name alike and forecast alike (the benchmarks of studies on the same data) appears once; names
    that clash otherwise are prefixed by their run, `<run>:<model>`.

    Args:
        paths: run folders, two or more.
    Raises:
        InputError: a folder is not a finished run, the targets differ (says how), or no row is common.
    """
    folders = [Path(path) for path in paths]
    if len(folders) < 2:
        raise InputError(f"a comparison needs two runs or more, {len(folders)} given; name their folders.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"a run is named twice, {', '.join(map(str, folders))}; name different folders.")
    runs = _read(folders)
    for other in runs[1:]:
        _refuse_other_target(runs[0], other)
    common, rows_of = _common_rows(runs)
    for other in runs[1:]:
        _refuse_other_outcomes(runs[0], other, common)

    names, origins = _names(runs, common)
    predictions = pl.concat(
        run.predictions.join(common, on=ROW, how="semi")
        .filter(pl.col("model").is_in(list(chosen)))
        .with_columns(pl.col("model").replace_strict(chosen))
        .select(NEEDED)  # runs may differ in their quantiles
        for run, chosen in zip(runs, names, strict=True)
        if chosen
    )
    # Outcomes agree to rounding; the first run's are taken for all, so that every model is judged by the same bits.
    outcomes = runs[0].predictions.select(*ROW, "y").unique(ROW)
    predictions = predictions.drop("y").join(outcomes, on=ROW, how="left").select(NEEDED)
    evaluate = runs[0].manifest["config"]["evaluate"]
    reference = _reference(runs[0], evaluate["reference"], names[0])
    by_label = {run.label: run.manifest["models"] for run in runs}
    facts = {name: by_label[found[0][0]][found[0][1]] for name, found in origins.items()}
    board = make_leaderboard(
        predictions,
        losses=tuple(evaluate["losses"]),
        reference=reference,
        mcs_size=evaluate["mcs_size"],
        seed=runs[0].manifest["seeds"]["study"],
        costs={name: (fact["fit_seconds"], fact["predict_seconds"]) for name, fact in facts.items()},
        models=tuple(origins),
    )
    families = {name: fact["family"] for name, fact in facts.items()}
    verdict = make_verdict(board, families=families, combined=_combined(facts, origins))
    return Comparison(
        runs={run.label: run.directory for run in runs},
        rows=common.height,
        rows_of=rows_of,
        models=origins,
        headline=verdict.headline,
        paragraphs=tuple(verdict.paragraphs),
        leaderboard=board.pooled,
        by_id=board.by_id,
    )


def _read(folders: list[Path]) -> list[Run]:
    manifests = [read_manifest(folder) for folder in folders]
    plain = [str(manifest["name"]) for manifest in manifests]
    labels = plain if len(set(plain)) == len(plain) else [folder.resolve().name for folder in folders]
    if len(set(labels)) < len(labels):
        labels = [f"{label}#{number}" for number, label in enumerate(labels, start=1)]
    runs = []
    for label, folder, manifest in zip(labels, folders, manifests, strict=True):
        try:
            predictions = pl.read_parquet(folder / "predictions.parquet")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"predictions.parquet cannot be read, {folder} ({error}); run the study of that run again."
            ) from None
        missing = [name for name in NEEDED if name not in predictions.columns]
        if missing:
            raise InputError(
                f"predictions.parquet lacks {', '.join(missing)}, {folder}; run the study of that run again."
            )
        runs.append(Run(label, folder, manifest, predictions))
    return runs


def _refuse_other_target(first: Run, other: Run) -> None:
    """The transform may differ: forecasts and outcomes are on the original scale in any case."""
    differences = [
        f"target.{key} is {first.target[key]!r} in {first.label} and {other.target[key]!r} in {other.label}"
        for key in ("column", "aggregate")
        if first.target[key] != other.target[key]
    ]
    ours, theirs = first.target["horizons"], other.target["horizons"]
    if not set(ours) & set(theirs):
        differences.append(
            f"target.horizons are {ours} in {first.label} and {theirs} in {other.label}, with none in common"
        )
    a, b = first.predictions.schema["ds"], other.predictions.schema["ds"]
    if a != b:
        differences.append(f"origins are of type {a} in {first.label} and {b} in {other.label}")
    if differences:
        raise InputError(f"the targets of the runs differ, {'; '.join(differences)}; compare runs with one target.")


def _common_rows(runs: list[Run]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows with a known outcome that every run forecasts, sorted; and how many each run has."""
    known = [run.predictions.filter(pl.col("y").is_not_null()).select(ROW).unique() for run in runs]
    common = known[0]
    for rows in known[1:]:
        common = common.join(rows, on=ROW, how="semi")
    if common.is_empty():
        spans = "; ".join(
            f"{run.label}: {rows['unique_id'].n_unique()} ids, {rows['ds'].min()!s} to {rows['ds'].max()!s}"
            for run, rows in zip(runs, known, strict=True)
        )
        raise InputError(
            f"the runs have no row (unique_id, ds, horizon) in common, {spans}; compare runs over the same data."
        )
    return common.sort(ROW), {run.label: rows.height for run, rows in zip(runs, known, strict=True)}


def _refuse_other_outcomes(first: Run, other: Run, common: pl.DataFrame) -> None:
    a, b = (run.predictions.select(*ROW, "y").unique(ROW).join(common, on=ROW, how="semi") for run in (first, other))
    both = a.join(b, on=ROW, suffix="_other").sort(ROW)
    off = both.filter(
        (pl.col("y") - pl.col("y_other")).abs() > ROUNDING * pl.max_horizontal(pl.col("y", "y_other").abs())
    )
    if off.height:
        row = off.row(0, named=True)
        raise InputError(
            f"the targets of the runs differ, {off.height} of {both.height} common outcomes are not the same, the "
            f"first ({row['unique_id']}, {row['ds']}, horizon {row['horizon']}) is {row['y']:g} in {first.label} and "
            f"{row['y_other']:g} in {other.label}; compare runs over the same data and measures."
        )


def _names(
    runs: list[Run], common: pl.DataFrame
) -> tuple[list[dict[str, str]], dict[str, tuple[tuple[str, str], ...]]]:
    """For every run: its models -> their names in the comparison; and for every such name where it comes from."""
    holders: dict[str, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        for model in run.predictions["model"].unique(maintain_order=True).to_list():
            holders[model].append(number)
    names: list[dict[str, str]] = [{} for _ in runs]
    origins: dict[str, tuple[tuple[str, str], ...]] = {}
    for model, numbers in holders.items():
        frames = [
            runs[number]
            .predictions.filter(pl.col("model") == model)
            .join(common, on=ROW, how="semi")
            .select(*ROW, "seed", "y_hat")
            .sort(*ROW, "seed")
            for number in numbers
        ]
        if all(_agree(frames[0], frame) for frame in frames[1:]):
            names[numbers[0]][model] = model
            origins[model] = tuple((runs[number].label, model) for number in numbers)
            continue
        for number in numbers:
            name = f"{runs[number].label}:{model}"
            names[number][model] = name
            origins[name] = ((runs[number].label, model),)
    return names, origins


def _combined(
    facts: Mapping[str, Mapping[str, Any]], origins: Mapping[str, tuple[tuple[str, str], ...]]
) -> Combinations:
    """The combinations under the names of the comparison."""
    names = {origin: name for name, found in origins.items() for origin in found}
    members, without = {}, {}
    for name, fact in facts.items():
        label = origins[name][0][0]
        if fact.get("members"):
            members[name] = tuple(names.get((label, member), member) for member in fact["members"])
        if (other := names.get((label, fact.get("without") or ""))) is not None:
            without[name] = other
    return Combinations(members, without)


def _agree(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    """Whether two models forecast the same, to rounding; twins would make a confidence set meaningless."""
    if not a.drop("y_hat").equals(b.drop("y_hat")):
        return False
    ours, theirs = a["y_hat"], b["y_hat"]
    return bool(((ours - theirs).abs() <= ROUNDING * ours.abs()).all())


def _reference(first: Run, reference: str, names: Mapping[str, str]) -> str:
    if reference not in names:
        raise InputError(
            f"the reference {reference!r} of {first.label} has no forecasts there; run its failed tasks again, or name "
            f"another run first."
        )
    return names[reference]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
