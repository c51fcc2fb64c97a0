"""Owns the way from a study file to a `Study`: text, overrides, checks, and one message for all mistakes.

Relative data paths are looked for from the current folder first, then from the folder of the study file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from ssmfin.errors import InputError
from ssmfin_pipelines.study.checks import cross_records
from ssmfin_pipelines.study.entries import StudyModel
from ssmfin_pipelines.study.overrides import Override, apply_overrides, read_override
from ssmfin_pipelines.study.schema import Study, with_benchmarks
from ssmfin_pipelines.study.tree import Path_, Tree, dotted, parse, read_text
from ssmfin_pipelines.study.wording import Problem, printable, problems, show

NO_TARGET = "(no target)"  # stands for the column of a study that forecasts nothing


def read_study(
    path: str | Path, overrides: Sequence[str] = (), allow_imports: bool = False, *, needs_target: bool = True
) -> Study:
    """The study in a YAML file.

    Args:
        path: the file. overrides: texts such as `walk_forward.test.size=21`, applied in order.
        allow_imports: let a model's kind be `package.module:Class`, which imports and runs code of the user's.
        needs_target: without it a study with no `target` gets one that stands for none (`NO_TARGET`).
    Raises:
        InputError: the file or an override is wrong; the message names every mistake with its line.
    """
    path = Path(path)
    tree = parse(read_text(path), str(path))
    changes = [read_override(text) for text in overrides]
    if not isinstance(tree.value, dict):
        raise InputError(f"{path}, line 1: the study is {show(tree.value)}, not a mapping; write `key: value` lines.")
    tree.value = apply_overrides(tree.value, changes)
    _relocate(tree.value, path.parent)
    if not needs_target and "target" not in tree.value:
        tree.value["target"] = {"column": NO_TARGET, "transform": "none", "horizons": [1]}
    study, found = check_study(tree.value, allow_imports=allow_imports)
    # What could not be read as a value is not told once more for its type.
    unread = [Problem(path, printable(text)) for path, text in tree.problems]
    found = [
        *unread,
        *(item for item in found if not any(item.path[: len(path)] == path for path, _ in unread if path)),
    ]
    if study is None or found:
        raise InputError(_message(found, tree, changes, str(path)))
    return study


def study_from(values: Mapping[str, Any], allow_imports: bool = False) -> Study:
    """The study that plain data describe.

    Raises:
        InputError: something in it is wrong; the message names every mistake.
    """
    study, found = check_study(dict(values), allow_imports=allow_imports)
    if study is None or found:
        raise InputError("\n".join(problem.text for problem in found))
    return study


def check_study(values: dict[str, Any], *, allow_imports: bool) -> tuple[Study | None, list[Problem]]:
    """A study and what is wrong with it: every mistake that can be told, not only the first."""
    context = {"allow_imports": allow_imports}
    try:
        study = Study.model_validate(values, context=context)
    except ValidationError as error:
        records: list[Any] = list(error.errors(include_url=False))
        if all(record["loc"] for record in records):  # else the parts are sound and the cross checks have run
            records += cross_records(_sound_parts(values, context))
        return None, problems(records, values, Study)
    return study, _silent_conversions(values, study.resolved(), ())


def _sound_parts(values: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The parts of a study that are right in themselves, so that what is between them can still be checked."""
    filled = with_benchmarks(values)
    parts: dict[str, Any] = {}
    for name, info in Study.model_fields.items():
        if name not in filled:
            if not info.is_required():
                parts[name] = info.get_default(call_default_factory=True, validated_data={})
        elif name in ("models", "benchmarks") and isinstance(filled[name], Mapping):
            parts[name] = {key: _sound_entry(entry, context) for key, entry in filled[name].items()}
        else:
            try:
                annotation: Any = Annotated[info.annotation, name, *info.metadata]  # `name` is ignored
                parts[name] = TypeAdapter(annotation).validate_python(filled[name], context=context)
            except ValidationError:
                if name == "features" and isinstance(filled[name], Mapping):
                    parts[name] = filled[name]  # its names are all that the cross checks need
    return parts


def _sound_entry(entry: Any, context: dict[str, Any]) -> StudyModel:
    try:
        return StudyModel.model_validate(entry, context=context)
    except ValidationError:
        own = entry if isinstance(entry, Mapping) else {}
        features = own.get("features")
        named = (
            tuple(features) if isinstance(features, list) and all(isinstance(item, str) for item in features) else None
        )
        return StudyModel.model_construct(kind=own.get("kind", ""), features=named)


def _silent_conversions(given: Any, result: Any, path: Path_) -> list[Problem]:
    """`"21"` or `true` taken for a number: pydantic converts them, a reader of the study would not."""
    if isinstance(given, dict) and isinstance(result, dict):
        return [
            item
            for key in given
            if key in result
            for item in _silent_conversions(given[key], result[key], (*path, key))
        ]
    if isinstance(given, list) and isinstance(result, list):
        pairs = enumerate(zip(given, result, strict=False))
        return [item for index, (old, new) in pairs for item in _silent_conversions(old, new, (*path, index))]
    number = isinstance(result, int | float) and not isinstance(result, bool)
    name = printable(dotted(path))
    if isinstance(given, str) and number:
        return [Problem(path, f"{name} is {show(given)}, text and not a number; remove the quotes.")]
    if isinstance(given, bool) and number:
        return [Problem(path, f"{name} is {show(given)}, not a number; write a number.")]
    if isinstance(result, bool) and not isinstance(given, bool):
        return [Problem(path, f"{name} is {show(given)}, not a truth value; write true or false.")]
    return []


def _message(found: list[Problem], tree: Tree, changes: Sequence[Override], name: str) -> str:
    """All mistakes in the order of the file, each with its line or with the --set that made it."""
    placed = []
    for path, text in found:
        change = next((item for item in reversed(changes) if _touches(item.path, path, tree)), None)
        line = next((tree.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in tree.lines), None)
        if change is not None:
            placed.append((float("inf"), f"--set {printable(change.text)}: {text}"))
        elif line is not None:
            placed.append((float(line), f"{name}, line {line}: {text}"))
        else:
            placed.append((0.0, f"{name}: {text}"))
    placed.sort(key=lambda item: item[0])
    lines = list(dict.fromkeys(text for _, text in placed))
    if len(lines) == 1:
        return lines[0]
    return f"{name} is wrong in {len(lines)} places; correct each:\n" + "\n".join(f"  {line}" for line in lines)


def _touches(changed: Path_, wrong: Path_, tree: Tree) -> bool:
    """Whether a change at `changed` is what is wrong at `wrong`: it is there, above, or below a key that it made."""
    size = min(len(changed), len(wrong))
    same = size > 0 and tuple(map(str, changed[:size])) == tuple(map(str, wrong[:size]))
    return same and (len(changed) <= len(wrong) or wrong not in tree.lines)


def _relocate(values: dict[str, Any], folder: Path) -> None:
    """Point relative data paths at the study's folder where the current folder has no such file."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    exogenous = data.get("exogenous")
    sources = [data.get("source")]
    for item in exogenous if isinstance(exogenous, list) else []:
        sources += [item, item.get("source")] if isinstance(item, dict) else []
    for source in sources:
        if isinstance(source, dict) and "path" in source:
            paths = source["path"]
            moved = [_moved(path, folder) for path in paths] if isinstance(paths, list) else _moved(paths, folder)
            source["path"] = moved


def _moved(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path or "\0" in path or os.path.isabs(path) or _exists(path):
        return path
    beside = str(folder / path)
    return beside if _exists(beside) else path


def _exists(path: str) -> bool:
    return os.path.exists(path) or next(glob.iglob(path, recursive=True), None) is not None
