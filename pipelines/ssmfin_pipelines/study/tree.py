"""Owns the text of a study file: bytes to a plain tree of values, with the line of every key, safely.

YAML 1.2 through ruamel.yaml, whose nodes are converted here and never by a constructor: a tag cannot build anything.
Limits on bytes, nodes (aliases expanded) and depth are checked before anything is expanded.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from ssmfin.errors import InputError
from ssmfin_pipelines.study.syntax import syntax_error

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # every alias counts as a copy of what it stands for
MAX_DEPTH = 24

DATA_ENDINGS = (".csv", ".tsv", ".parquet", ".pq", ".xlsx")

Path_ = tuple[str | int, ...]  # keys and list positions from the root

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+|[0-9]+)$")


@dataclass
class Tree:
    """Plain values (dict, list, str, int, float, bool, None) and where each key or list item stands.

    Attributes:
        value: the root. `lines`: path -> line, 1-based. `problems`: (path, text) found while converting.
    """

    value: Any
    lines: dict[Path_, int] = field(default_factory=dict)
    problems: list[tuple[Path_, str]] = field(default_factory=list)


def read_text(path: Path) -> str:
    """The file as text.

    Raises:
        InputError: it is missing, a directory, unreadable, too large, empty, or not UTF-8.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory, not a study file; give the YAML file in it.")
    if path.suffix.lower() in DATA_ENDINGS and path.is_file():
        raise InputError(
            f"{path} is a file of data, not a study; write a study for it with `ssmfin init {path} -o study.yaml`."
        )
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a study file, or write one with `ssmfin init`.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read, {error}; check the path and its permissions.") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES // 1024} KiB; a study file holds settings, not data.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{raw[error.start]:02x}"
        raise InputError(f"{path}, line {line}: the file is not UTF-8 text, {byte}; save it as UTF-8.") from None
    if not text.strip():
        raise InputError(f"{path} is empty; write a study into it, or start from `ssmfin init`.")
    return text


def parse(text: str, name: str) -> Tree:
    """YAML text to a tree. `name` is how messages call the file.

    Raises:
        InputError: it is not YAML, holds several documents, or exceeds the limits.
    """
    try:
        _check_limits(text, name)
        node = YAML(typ="safe", pure=True).compose(text)
    except InputError:
        raise
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise InputError(
            f"{name}, line {line}: the character #x{code:02x} is not allowed in YAML; remove it."
        ) from None
    except MarkedYAMLError as error:
        raise InputError(syntax_error(error, text, name)) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name} is not valid YAML, {str(error).splitlines()[0]}; correct it.") from None
    if node is None:
        raise InputError(f"{name} holds nothing but comments; write a study into it, or start from `ssmfin init`.")
    _check_expansion(node, name)
    tree = Tree(None)
    tree.value = _convert(node, (), tree)
    return tree


def _check_limits(text: str, name: str) -> None:
    depth = nodes = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, DocumentStartEvent) and event.version is not None:
            raise InputError(f"{name}, line {line}: a %YAML directive is not allowed; remove it (1.2 is what is read).")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        nodes += isinstance(event, NodeEvent) and not isinstance(event, AliasEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"{name}, line {line}: the nesting is deeper than {MAX_DEPTH} levels; flatten it.")
        if nodes > MAX_NODES:
            raise InputError(
                f"{name}, line {line}: more than {MAX_NODES:,} values; a study file holds settings, not data."
            )


def _check_expansion(root: Node, name: str) -> None:
    """Refuse aliases that contain themselves or that expand to too many values ("billion laughs")."""
    known: dict[int, tuple[int, int]] = {}  # node -> (values, depth), aliases expanded
    open_nodes: set[int] = set()

    def measure(node: Node) -> tuple[int, int]:
        if isinstance(node, ScalarNode):
            return 1, 0
        key = id(node)
        if key in known:
            return known[key]
        if key in open_nodes:
            raise InputError(
                f"{name}, line {_line(node)}: the alias *{node.anchor} contains itself; write the value out."
            )
        open_nodes.add(key)
        children = [child for pair in node.value for child in (pair if isinstance(pair, tuple) else (pair,))]
        below = [measure(child) for child in children]
        values = 1 + sum(count for count, _ in below)
        depth = 1 + max((deep for _, deep in below), default=0)
        if values > MAX_NODES or depth > MAX_DEPTH:
            raise InputError(
                f"{name}, line {_line(node)}: the aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} "
                f"levels ({values:,} values, {depth} levels); write them out or remove them."
            )
        open_nodes.remove(key)
        known[key] = (values, depth)
        return known[key]

    measure(root)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _convert(node: Node, path: Path_, tree: Tree) -> Any:
    if isinstance(node, MappingNode):
        if node.tag != _TAG + "map":
            tree.problems.append((path, _tag_problem(node)))
        return _mapping(node, path, tree)
    if isinstance(node, SequenceNode):
        if node.tag != _TAG + "seq":
            tree.problems.append((path, _tag_problem(node)))
        values = []
        for index, child in enumerate(node.value):
            tree.lines[(*path, index)] = _line(child)
            values.append(_convert(child, (*path, index), tree))
        return values
    if not isinstance(node, ScalarNode):
        raise TypeError(f"unexpected node {type(node).__name__}")
    try:
        return scalar(node)
    except ValueError as error:
        tree.problems.append((path, f"{dotted(path)} is {node.value[:40]!r}, {error}"))
        return node.value


def _mapping(node: MappingNode, path: Path_, tree: Tree) -> dict[str, Any]:
    values: dict[str, Any] = {}
    seen: dict[str, int] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node)
        if not isinstance(key_node, ScalarNode):
            tree.lines.setdefault((*path, "?"), line)
            tree.problems.append(((*path, "?"), "a key is a list or a mapping; write a plain name."))
            continue
        if key_node.tag == _TAG + "merge":
            sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for source in reversed(sources):  # the first of the list wins
                if isinstance(source, MappingNode):
                    merged |= _mapping(source, path, tree)
                else:
                    tree.problems.append(
                        (path, f"<< merges {source.value!r:.40}, which is not a mapping; give an alias of one.")
                    )
            continue
        key = key_node.value
        here = (*path, key)
        if key in seen:
            tree.lines.setdefault(here, line)
            where = f"{dotted(path)} has" if path else "the study has"
            problem = f"{where} the key {key!r} twice, on line {seen[key]} and line {line}; remove one of them."
            tree.problems.append((here, problem))
            continue
        seen[key] = line
        tree.lines[here] = line
        values[key] = _convert(value_node, here, tree)
    return {**merged, **values}


def scalar(node: ScalarNode) -> str | int | float | bool | None:
    """The value of a scalar by YAML 1.2's core schema; dates stay text.

    Raises:
        ValueError: a tag that is not allowed, or a number that cannot be held.
    """
    tag, text = str(node.tag), str(node.value)
    kind = tag.removeprefix(_TAG)
    if kind in ("str", "timestamp", "value"):
        return text
    if kind == "null":
        return None
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError("not a truth value; write true or false.")
        return text.lower() == "true"
    number = text.replace("_", "")
    if kind == "int":
        if not _INTEGER.match(number) or len(number) > 19:
            raise ValueError("not a whole number of at most 18 digits; write a smaller one.")
        bare = number.lstrip("+-")
        if len(bare) > 1 and bare[0] == "0" and bare.isdigit():
            return text  # 000001 is an instrument's code; as a number it would lose its zeros
        base = {"0x": 16, "0o": 8, "0b": 2}.get(bare[:2], 10)
        return (-1 if number.startswith("-") else 1) * int(bare[2:] if base != 10 else bare, base)
    if kind == "float":
        value = float(number.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise ValueError("not a finite number; write a plain one, such as 0.1.")
        return value
    raise ValueError(f"with the tag {_short_tag(tag)}; remove the tag: only plain values are read.")


def _short_tag(tag: str) -> str:
    return repr("!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag)


def _tag_problem(node: Node) -> str:
    return f"the tag {_short_tag(str(node.tag))} is not allowed; remove it: only plain values are read."


def dump(values: Mapping[str, Any]) -> str:
    """Plain values as YAML text that `parse` reads back as the same values."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    # ruamel.yaml writes line separators such as U+0085 as they are and folds them on reading: escape those.
    yaml.allow_unicode = json.dumps(values, ensure_ascii=False).isprintable()
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def dotted(path: Path_) -> str:
    """`("target", "horizons", 0)` as `target.horizons[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the study"
