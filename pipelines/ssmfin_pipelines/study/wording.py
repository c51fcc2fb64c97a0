"""Owns the words for a wrong study: pydantic's error records to `<what> <is wrong>, <the value>; <what to do>.`

A record's `loc` mixes keys with the tags of unions. It is walked along the user's own values, so that names and
lines are those of the file.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from ssmfin.errors import nearest
from ssmfin_pipelines.study.tree import Path_, dotted

NESTED = "nested_problems"  # the type of a record that carries others, from a class validated on its own


class Problem(NamedTuple):
    """One mistake: where in the study (keys and list positions) and the sentence about it."""

    path: Path_
    text: str


def show(value: Any) -> str:
    """A value as the user would recognise it, at most 60 characters.

    >>> show(True), show("NO"), show({"a": 1}), show([1, 2])
    ('true', "'NO'", 'a mapping', '[1, 2]')
    """
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, Mapping):
        return "a mapping"
    elif value is None:
        return "empty"
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= 60 else text[:56] + " ..."


class _Scope(NamedTuple):
    """Which configuration class a record speaks of, and where in the study its value stands."""

    cls: type[BaseModel]
    base: Path_
    root: Any  # the whole study


def problems(records: Iterable[Mapping[str, Any]], root: Any, cls: type[BaseModel]) -> list[Problem]:
    """Pydantic's records about `root`, which was to be a `cls`, one problem a place."""
    found: dict[Path_, list[str]] = {}
    for path, record, scope in _flatten(records, _Scope(cls, (), root)):
        if record["type"] == "too_short" and len(_at(path, root) or ()) >= record["ctx"]["min_length"]:
            continue  # its items are wrong, which has a record of its own
        text = _sentence(path, record, scope).replace("?.", "?")
        texts = found.setdefault(path, [])
        if text not in texts:
            texts.append(text)
    return [Problem(path, printable(texts[0] if len(texts) == 1 else _merged(texts))) for path, texts in found.items()]


def printable(text: str) -> str:
    """The text with control characters escaped: keys and values of a study must not steer a terminal.

    >>> print(printable("a" + chr(27) + "[31m"))
    a\\x1b[31m
    """
    return "".join(part if part.isprintable() else part.encode("unicode_escape").decode("ascii") for part in text)


def _merged(texts: list[str]) -> str:
    """A union of types makes one record a type: say what is wrong once, and every remedy."""
    parts = [text.partition("; ") for text in texts]
    if len({head.partition(", not ")[0] for head, _, _ in parts}) > 1:
        return " ".join(texts)
    remedies = dict.fromkeys(tail.rstrip(".") for _, _, tail in parts)
    return f"{parts[0][0].partition(', not ')[0]}; {', or '.join(remedies)}."


def _flatten(records: Iterable[Mapping[str, Any]], scope: _Scope) -> Iterator[tuple[Path_, Mapping[str, Any], _Scope]]:
    for record in records:
        path = _walk((*scope.base, *record["loc"]), scope.root, record["type"])
        if record["type"] == NESTED:
            context = record["ctx"]
            yield from _flatten(context["records"], _Scope(context["cls"], path, scope.root))
        else:
            yield path, record, scope


def _walk(loc: Path_, root: Any, kind: str) -> Path_:
    """The part of a record's `loc` that names keys of the study; tags of unions are left out."""
    path: list[str | int] = []
    here = root
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            path.append(part)
            here = here[part]
        elif last and kind == "missing" and isinstance(part, str):
            path.append(part)
    return tuple(path)


def _at(path: Path_, root: Any) -> Any:
    here = root
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here


def _sentence(path: Path_, record: Mapping[str, Any], scope: _Scope) -> str:
    name, kind, context = dotted(path), record["type"], record.get("ctx", {})
    value = _at(path, scope.root)
    if "[key]" in record["loc"]:  # the record is about a key, not about what stands under it
        value = path[-1]
    if kind == "missing":
        return f"{name} is missing; add `{path[-1]}:`{_hint(path, scope)}."
    if kind == "extra_forbidden":
        parent = path[:-1]
        known = {key for model in _classes(parent, scope) for key in model.model_fields}
        where = dotted(parent) if parent else "the study"
        return f"{where} has no key {str(path[-1])!r}; {nearest(str(path[-1]), known)}."
    if kind == "value_error":
        text = str(context.get("error") or record["msg"]).removeprefix("Value error, ")
        text = text if text.endswith((".", "?")) else text + "."
        if ";" not in text:
            return f"{name} is {show(value)}; {text}"
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        text = text.replace(" is True,", " is true,").replace(" is False,", " is false,")
        return text if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text) else f"{name}: {text}"
    if kind == "union_tag_not_found":
        return f"{name} has no kind; add `kind:` ({_kinds(path, scope)})."
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
        kind_given = show(_at((*path, "kind"), scope.root))
        return f"{name}.kind is {kind_given}, which is unknown; {_choice(context.get('tag'), tags)}."
    return f"{name} is {show(value)}{_complaint(kind)}; {_remedy(record, value, path, scope)}."


def _complaint(kind: str) -> str:
    """What is wrong, where the remedy alone does not say it."""
    if kind.startswith("int_"):
        return ", not a whole number"
    if kind.startswith(("float_", "decimal_")):
        return ", not a number"
    if kind.startswith("string_type"):
        return ", not text"
    if kind.startswith("date"):
        return ", not a date"
    return ""


def _remedy(record: Mapping[str, Any], value: Any, path: Path_, scope: _Scope) -> str:
    kind, context = record["type"], record.get("ctx", {})
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context["ge"] if kind.startswith("greater") else context["le"]
        return f"give at {'least' if kind.startswith('greater') else 'most'} {bound}"
    if kind in ("greater_than", "less_than"):
        return f"give more than {context['gt']}" if kind == "greater_than" else f"give less than {context['lt']}"
    if kind in ("literal_error", "enum"):
        return _choice(value, re.findall(r"'([^']*)'|\b(\d+)\b", str(context.get("expected", ""))))
    if kind.startswith("int_"):
        return "give a whole number, such as 5"
    if kind.startswith(("float_", "decimal_")):
        return "give a number, such as 0.1"
    if kind.startswith("string_type"):
        scalar = value is not None and not isinstance(value, list | dict)
        return (
            f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
            if scalar
            else "give a name"
        )
    if kind.startswith("bool"):
        return "write true or false"
    if kind.startswith("date"):
        return "write it as 2020-01-31"
    if kind in ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"):
        plain = value is not None and not isinstance(value, dict)
        return f"give a list, such as [{value}]" if plain else "give a list, such as [a, b]"
    if kind in ("model_type", "dict_type", "model_attributes_type", "dataclass_type", "mapping_type"):
        known = sorted({key for model in _classes(path, scope) for key in model.model_fields})
        if isinstance(value, str) and {"kind", "seeds"} <= set(known):  # a model by its kind alone
            return f"write {{kind: {value}}}, with its parameters beside"
        if "kind" in known:
            known = ["kind", *(key for key in known if key != "kind")]
        return f"give keys below it: {', '.join(known)}" if known else "write names below it, each with its settings"
    if kind == "too_short":
        least = context.get("min_length", 1)
        return f"give at least {least} item{'' if least == 1 else 's'}"
    if kind == "too_long":
        return f"give at most {context.get('max_length')} items"
    if kind == "multiple_of":
        return f"give a multiple of {context['multiple_of']}"
    if kind in ("string_too_long", "string_too_short"):
        limit = context["max_length"] if kind.endswith("long") else context["min_length"]
        return f"give at {'most' if kind.endswith('long') else 'least'} {limit} character{'s' if limit != 1 else ''}"
    if kind == "string_pattern_mismatch":
        return f"write it in the form {context.get('pattern')}"
    message = str(record["msg"])
    return message[:1].lower() + message[1:].rstrip(".")


def _choice(value: Any, expected: Iterable[Any]) -> str:
    names = [next((part for part in item if part), "") if isinstance(item, tuple) else str(item) for item in expected]
    answer = nearest(str(value), names)
    if answer.startswith("did you mean"):
        return f"{answer} (known: {', '.join(names)})" if len(names) > 1 else answer
    return (
        f"use one of: {', '.join(names)}" if len(names) > 1 else f"use {names[0]!r}" if names else "see `ssmfin schema`"
    )


def _hint(path: Path_, scope: _Scope) -> str:
    """The description of a missing key's field, else the kinds that it may have."""
    for model in _classes(path[:-1], scope):
        info = model.model_fields.get(str(path[-1]))
        if info is not None and info.description:
            text = info.description.rstrip(".")
            return f" ({text[:1].lower()}{text[1:]})"
    kinds = sorted({str(kind) for model in _classes(path, scope) for kind in _kind_of(model)})
    return f" (with a kind: {', '.join(kinds)})" if kinds else ""


def _kinds(path: Path_, scope: _Scope) -> str:
    kinds = {str(kind) for model in _classes(path, scope) for kind in _kind_of(model)}
    return ", ".join(sorted(kinds)) or "see `ssmfin schema`"


def _kind_of(model: type[BaseModel]) -> tuple[Any, ...]:
    info = model.model_fields.get("kind")
    return (
        typing.get_args(info.annotation) if info is not None and typing.get_origin(info.annotation) is Literal else ()
    )


def _classes(path: Path_, scope: _Scope) -> list[type[BaseModel]]:
    """The configuration classes that the value at `path` could be, by the field annotations of the scope's class."""
    candidates: list[type[BaseModel]] = [scope.cls]
    annotations: list[Any] = []
    for depth in range(len(scope.base), len(path)):
        part = str(path[depth])
        if candidates:
            annotations = [model.model_fields[part].annotation for model in candidates if part in model.model_fields]
        else:  # inside a dict or a list: what it holds
            annotations = [argument for annotation in annotations for argument in typing.get_args(annotation)]
        found = [model for annotation in annotations for model in _models_in(annotation)]
        here = _at(path[: depth + 1], scope.root)
        kind = here.get("kind") if isinstance(here, dict) else None
        candidates = [model for model in found if kind in _kind_of(model)] or found
    return candidates


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Classes in an annotated, optional or union type, not those inside containers."""
    origin = typing.get_origin(annotation)
    if origin is None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
    elif origin not in (dict, list, tuple, set, frozenset):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)
