"""Owns how a setting of the loader is named to those who can change it: a keyword in Python, a key in a study file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][\w/-]*")
_NOT_TEXT = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
# keywords of `load_panel` that are not of the data section, and what stands for them in a study
_ELSEWHERE = {"target": "target.column", "positive": "target.transform"}


@dataclass(frozen=True)
class Wording:
    """How messages name settings: `load_panel(on_breach="drop")` or, in a study, `data.on_breach: drop`."""

    study: bool = False

    def __call__(self, name: str, value: Any = None) -> str:
        """A keyword of `load_panel`, with a value if one is given.

        >>> Wording(study=True)("on_breach", "drop"), Wording()("on_breach", "drop")
        ('data.on_breach: drop', 'on_breach="drop"')
        >>> Wording(study=True)("positive", False), Wording()("positive", False), Wording(study=True)("ids")
        ('target.transform: none', 'positive=False', 'data.ids')
        """
        if not self.study:
            return self.entry(name, value)
        head, dot, rest = name.partition(".")
        if name == "positive" and value is not None:
            value = "log" if value else "none"
        return self.entry(_ELSEWHERE.get(head, f"data.{head}") + dot + rest, value)

    def entry(self, name: str, value: Any = None) -> str:
        """A setting inside of another one, by its own name alone.

        >>> Wording(study=True).entry("known_at", {"column": "at", "zone": "Europe/London"})
        'known_at: {column: at, zone: Europe/London}'
        >>> Wording().entry("known_at", {"column": "at"})
        'known_at={"column": "at"}'
        """
        if value is None:
            return name
        return f"{name}: {_yaml(value)}" if self.study else f"{name}={_python(value)}"


KEYWORDS, KEYS_OF_A_STUDY = Wording(study=False), Wording(study=True)


def _python(value: Any) -> str:
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)
