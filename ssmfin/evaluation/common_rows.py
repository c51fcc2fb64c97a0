"""Owns what several runs have in common: one target, the rows that all of them forecast, and a name for every model.

Runs may differ in models, features and windows. Their targets may not: a loss on another target is another number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.claims import Combinations
from ssmfin.evaluation.wording import listed

ROW = ("unique_id", "ds", "horizon")
ROUNDING = 1e-9  # relative; the same data through another file format differ by less
NEEDED = (*ROW, "model", "seed", "y", "y_hat")
Origins = dict[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class RunForecasts:
    """What a comparison must know of a run.

    Attributes:
        label: what the run is called. predictions: at least the columns NEEDED, as in predictions.parquet.
        target: column, aggregate, horizons. families: model -> baseline, ssm, sequence, combination or custom.
        seconds: model -> (fitting, predicting). combined: what its combinations are made of.
    """

    label: str
    predictions: pl.DataFrame
    target: Mapping[str, Any]
    families: Mapping[str, str]
    seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    combined: Combinations = field(default_factory=Combinations)


@dataclass(frozen=True)
class LeftOut:
    """Scored rows of a run (unique_id, ds, horizon), how many of them are not in all runs, and which, in words."""

    run: str
    rows: int
    left_out: int
    why: str

    def __str__(self) -> str:
        return f"{self.run}: {self.left_out:,} of {self.rows:,} rows are left out, {self.why}."


def common_rows(runs: Sequence[RunForecasts]) -> tuple[pl.DataFrame, tuple[LeftOut, ...]]:
    """Rows with a known outcome that every run forecasts, sorted; and what each run has beside them.

    Raises:
        InputError: the targets differ (says how), an outcome does, or no row is common.
    """
    for other in runs[1:]:
        _refuse_other_target(runs[0], other)
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
    for other in runs[1:]:
        _refuse_other_outcomes(runs[0], other, common)
    left = [_left_out(run.label, rows, common) for run, rows in zip(runs, known, strict=True)]
    return common.sort(ROW), tuple(left)


def named_models(runs: Sequence[RunForecasts], common: pl.DataFrame) -> tuple[list[dict[str, str]], Origins]:
    """One name for every model that forecasts in its own way.

    A model keeps its name where all runs that have it forecast the same (the benchmarks of studies on the same data).
    Otherwise every way of forecasting is `<run>:<model>` by the first run that has it: twins would make a confidence
    set meaningless.

    Returns:
        For every run: its models that stand for themselves -> their names. For every name where it comes from,
        (label, model) of each run.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    for number, run in enumerate(runs):
        for model in run.predictions["model"].unique(maintain_order=True).to_list():
            holders[model].append(number)
    names: list[dict[str, str]] = [{} for _ in runs]
    origins: Origins = {}
    for model, numbers in holders.items():
        groups: list[tuple[pl.DataFrame, list[int]]] = []
        for number in numbers:
            own = runs[number].predictions.filter(pl.col("model") == model).join(common, on=ROW, how="semi")
            frame = own.select(*ROW, "seed", "y_hat").sort(*ROW, "seed")
            twin = next((members for first, members in groups if _agree(first, frame)), None)
            if twin is None:
                groups.append((frame, [number]))
            else:
                twin.append(number)
        for _, members in groups:
            name = model if len(groups) == 1 else f"{runs[members[0]].label}:{model}"
            names[members[0]][model] = name
            origins[name] = tuple((runs[number].label, model) for number in members)
    return names, origins


def combinations_under(runs: Sequence[RunForecasts], origins: Origins) -> Combinations:
    """The combinations of all runs under the names of the comparison."""
    names = {origin: name for name, found in origins.items() for origin in found}
    by_label = {run.label: run.combined for run in runs}
    members, without = {}, {}
    for name, ((label, model), *_) in origins.items():
        combined = by_label[label]
        if model in combined.members:
            members[name] = tuple(names.get((label, member), member) for member in combined.members[model])
        if (other := names.get((label, combined.without.get(model, "")))) is not None:
            without[name] = other
    return Combinations(members, without)


def _refuse_other_target(first: RunForecasts, other: RunForecasts) -> None:
    """The transform may differ: forecasts and outcomes are on the original scale in any case."""
    differences = [
        f"target.{key} is {first.target[key]!r} in {first.label} and {other.target[key]!r} in {other.label}"
        for key in ("column", "aggregate")
        if first.target[key] != other.target[key]
    ]
    ours, theirs = list(first.target["horizons"]), list(other.target["horizons"])
    if not set(ours) & set(theirs):
        differences.append(
            f"target.horizons are {ours} in {first.label} and {theirs} in {other.label}, with none in common"
        )
    a, b = first.predictions.schema["ds"], other.predictions.schema["ds"]
    if a != b:
        differences.append(f"origins are of type {a} in {first.label} and {b} in {other.label}")
    if differences:
        raise InputError(f"the targets of the runs differ, {'; '.join(differences)}; compare runs with one target.")


def _refuse_other_outcomes(first: RunForecasts, other: RunForecasts, common: pl.DataFrame) -> None:
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


def _left_out(label: str, rows: pl.DataFrame, common: pl.DataFrame) -> LeftOut:
    """The rows of a run that another lacks, by the first reason that applies: horizon, id, date."""
    rest = rows.join(common, on=ROW, how="anti")
    total, why = rest.height, []

    def said(part: pl.DataFrame, words: str) -> str:
        return words if part.height == total else f"{part.height:,} {words}"

    for column, words in (("horizon", "at horizon"), ("unique_id", "of ids")):
        inside = pl.col(column).is_in(common[column].unique().to_list())
        absent = rest.filter(~inside)
        rest = rest.filter(inside)
        if absent.height:
            values = absent[column].unique().sort().to_list()
            shown = listed([*map(str, values[:5]), *([f"{len(values) - 5} more"] if len(values) > 5 else [])])
            why.append(said(absent, f"{words} {shown}"))
    if rest.height:
        span = f"{_day(rest['ds'].min())} to {_day(rest['ds'].max())}"
        why.append(said(rest, f"at {rest['ds'].n_unique():,} origins from {span}"))
    return LeftOut(label, rows.height, total, "; ".join(why) or "none")


def _day(moment: Any) -> str:
    return str(moment).removesuffix(" 00:00:00")


def _agree(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    """Whether two models forecast the same, to rounding."""
    if not a.drop("y_hat").equals(b.drop("y_hat")):
        return False
    ours, theirs = a["y_hat"], b["y_hat"]
    return bool(((ours - theirs).abs() <= ROUNDING * ours.abs()).all())
