"""Owns the checks between parts of a study: names that refer to other names, windows that must hold a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ssmfin.errors import InputError, nearest
from ssmfin.models.combination.spec import Combination, member_problems
from ssmfin.models.registry import BENCHMARKS
from ssmfin_pipelines.study.nested import record

if TYPE_CHECKING:
    from ssmfin_pipelines.study.entries import StudyModel

Values = TypeVar("Values", bound=tuple[Any, ...])


def distinct(what: str) -> Callable[[Values], Values]:
    """A validator that refuses a list that holds a value twice."""

    def check(values: Values) -> Values:
        twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if twice is not None:
            raise InputError(f"{what} holds {twice!r} twice, {list(values)}; remove one of them.")
        return values

    return check


def cross_records(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Records of everything that does not fit together. A part that is wrong in itself is left out of `parts`."""
    records: list[dict[str, Any]] = []
    target, walk_forward = parts.get("target"), parts.get("walk_forward")
    if target is not None and walk_forward is not None:
        records += _window_records(target.horizons, walk_forward)
    models, benchmarks = parts.get("models"), parts.get("benchmarks")
    if models is not None and benchmarks is not None:
        for name in models:
            if name in benchmarks:
                text = f"the model name {name!r} is also a benchmark's; rename it, or tune it under benchmarks.{name}."
                records.append(record(("models", name), text))
    if benchmarks is not None:
        for name in BENCHMARKS:
            if name in benchmarks and benchmarks[name].kind != name:
                text = (
                    f"benchmarks.{name}.kind is {benchmarks[name].kind!r}, but this benchmark always runs as itself; "
                    "give the other model a name of its own."
                )
                records.append(record(("benchmarks", name, "kind"), text))
    for part in ("models", "benchmarks"):
        for name, entry in (parts.get(part) or {}).items():
            records += _feature_records(part, name, entry, parts.get("features"))
    if models is not None and benchmarks is not None:
        for part, entries in (("models", models), ("benchmarks", benchmarks)):
            for name, entry in entries.items():
                records += _combination_records(part, name, entry, {**benchmarks, **models})
    evaluate = parts.get("evaluate")
    if evaluate is not None and models is not None and benchmarks is not None:
        known = [*benchmarks, *models]
        if evaluate.reference not in known:
            remedy = nearest(evaluate.reference, known)
            text = f"evaluate.reference is {evaluate.reference!r}, not a model of this study; {remedy}."
            records.append(record(("evaluate", "reference"), text))
    return records


def _window_records(horizons: tuple[int, ...], walk_forward: Any) -> list[dict[str, Any]]:
    if walk_forward.horizons is not None:
        given = list(walk_forward.horizons)
        text = f"walk_forward.horizons is {given}, but the target has them; remove it and set target.horizons."
        return [record(("walk_forward", "horizons"), text)]
    try:
        walk_forward.check(horizons)
    except InputError as error:
        text = str(error)
        key = "validation" if text.startswith("walk_forward.validation") else "train"
        return [record(("walk_forward", key, "size"), text)]
    return []


def _combination_records(
    part: str, name: str, entry: StudyModel, entries: Mapping[str, StudyModel]
) -> list[dict[str, Any]]:
    if entry.kind != Combination.kind:
        return []
    records = [
        record((part, name, key), f"{part}.{name}.{key} says nothing to a combination, which is not fitted; remove it.")
        for key in ("features", "refit")
        if getattr(entry, key) is not None
    ]
    kinds = {other: found.kind for other, found in entries.items()}
    try:
        combination = Combination(**entry.parameters)
    except InputError:  # told already, as a mistake of the entry itself
        return records
    return records + [
        record((part, name, "members", index), text.replace("models.", f"{part}.", 1))
        for index, text in member_problems(name, combination, kinds)
    ]


def _feature_records(
    part: str, name: str, entry: StudyModel, features: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    if entry.features is None or features is None:
        return records
    for index, feature in enumerate(entry.features):
        loc = (part, name, "features", index)
        if feature not in features:
            text = (
                f"{part}.{name}.features names {feature!r}, not a feature of this study; {nearest(feature, features)}."
            )
            records.append(record(loc, text))
        elif feature in entry.features[:index]:
            records.append(record(loc, f"{part}.{name}.features names {feature!r} twice; remove one of them."))
    return records
