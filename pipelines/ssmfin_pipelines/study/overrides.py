"""Owns `--set walk_forward.test.size=21`: any key of a study, changed from the command line."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssmfin.errors import InputError, nearest
from ssmfin_pipelines.study.tree import Path_, parse

ENTRIES = ("features", "models")  # sections of named entries, each of which may be left out


class Override(NamedTuple):
    """One `--set`: the key's path, its value, and the text it was given as."""

    path: Path_
    value: Any
    text: str


def read_override(text: str) -> Override:
    """`a.b=value` with the value read as YAML (`[1, 5]`, `{kind: csv}`, `21`, `null`); `a.0` is a list's first item.

    Raises:
        InputError: there is no `=`, no key, or the value is not YAML.

    >>> read_override("target.horizons=[1, 5]").value
    [1, 5]
    """
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise InputError(
            f"--set {text!r} is not of the form KEY=VALUE; write for example --set walk_forward.test.size=21."
        )
    path = tuple(int(part) if part.isdigit() else part for part in parts)
    if not value.strip():
        return Override(path, None, text)
    if value.lstrip()[0] in "*&!%@`|>":  # a file pattern such as *.parquet, not an alias
        return Override(path, value, text)
    tree = parse(value, f"--set {text}")
    if tree.problems:
        raise InputError("\n".join(f"--set {text}: {problem}" for _, problem in tree.problems))
    return Override(path, tree.value, text)


def apply_overrides(root: Any, overrides: Sequence[Override]) -> Any:
    """A copy of the study's values with the overrides applied in order; missing mappings on the way are made.

    `null` takes a model or a feature out of the study: `models.s4d=null`.

    Raises:
        InputError: an override goes through a value that holds no keys, past the end of a list, or leaves out what is
            not there.
    """
    root = copy.deepcopy(root)
    for path, value, text in overrides:
        here = root
        for position, part in enumerate(path[:-1]):
            here = _enter(here, part, path[: position + 1], text)
        last = path[-1]
        if isinstance(here, list):
            here[_index(here, last, path, text)] = value
        elif value is None and len(path) == 2 and path[0] in ENTRIES:
            if str(last) not in here:
                raise InputError(f"--set {text}: {path[0]} has no {last!r} to leave out; {nearest(str(last), here)}.")
            del here[str(last)]
        else:
            here[str(last)] = value
    return root


def _enter(here: Any, part: str | int, path: Path_, text: str) -> Any:
    below: Any
    if isinstance(here, list):
        below = here[_index(here, part, path, text)]
    else:
        below = here.get(str(part))
        if below is None:
            below = here[str(part)] = {}
    if not isinstance(below, dict | list):
        name = ".".join(map(str, path))
        raise InputError(f"--set {text}: {name} is {below!r}, which has no keys; set {name} itself.")
    return below


def _index(here: list[Any], part: str | int, path: Path_, text: str) -> int:
    if not isinstance(part, int) or part >= len(here):
        name = ".".join(map(str, path[:-1]))
        raise InputError(
            f"--set {text}: {name} is a list of {len(here)} items, and {part!r} is none of them; use 0 to "
            f"{len(here) - 1}."
        )
    return part
