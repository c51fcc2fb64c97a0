"""Owns in what the studies of several runs differ: dotted keys, and the value that each run has there.

How and where a study is run (`execution`, `output`) and what it is called cannot change a forecast and are not shown.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssmfin.errors import InputError
from ssmfin_pipelines.keys import NOT_RESULTS

_ENTRIES = ("features", "models", "benchmarks")
_PLAIN = re.compile(r"[A-Za-z_./*][\w ./*-]*")


@dataclass(frozen=True)
class Difference:
    """A key of the study that is not the same in all runs. `values`: label -> value; absent where the key is."""

    key: str
    values: Mapping[str, Any]

    def text(self, label: str) -> str:
        """The value as in a study file, on one line, without what is a default; "-" where the run lacks the key."""
        return flow_text(_short(self.key, self.values[label])) if label in self.values else "-"


def study_differences(studies: Mapping[str, Mapping[str, Any]]) -> tuple[Difference, ...]:
    """The keys in which resolved studies differ, in the order of the first that has them.

    A model or feature that a run lacks, or that is of another kind there, is one key with all of its parameters.

    Args:
        studies: label -> resolved study, two or more.

    >>> one, other = {"seed": 1, "train": {"kind": "rolling", "size": 5}}, {"train": {"kind": "rolling", "size": 7}}
    >>> [(found.key, dict(found.values)) for found in study_differences({"a": one, "b": other})]
    [('seed', {'a': 1}), ('train.size', {'a': 5, 'b': 7})]
    """
    plain = {
        label: {k: v for k, v in study.items() if k not in ("name", *NOT_RESULTS)} for label, study in studies.items()
    }
    return tuple(_differences("", plain, len(plain)))


def _differences(path: str, values: Mapping[str, Any], runs: int) -> list[Difference]:
    sections = [value for value in values.values() if isinstance(value, Mapping)]
    kinds = {str(section.get("kind")) for section in sections}
    if len(sections) < runs or len(kinds) > 1:
        first, *others = values.values()
        return [] if len(values) == runs and all(other == first for other in others) else [Difference(path, values)]
    found = []
    for key in dict.fromkeys(key for section in sections for key in section):
        inner = {label: section[key] for label, section in values.items() if key in section}
        if len(inner) == runs or any(value != _default(path, kinds, key) for value in inner.values()):
            found += _differences(f"{path}.{key}" if path else str(key), inner, runs)
    return found


def _default(path: str, kinds: set[str], key: str) -> Any:
    """What a run means that lacks a key: one of a version that did not know it yet."""
    section, _, name = path.partition(".")
    of_kind = section in _ENTRIES and name and "." not in name
    return _defaults(section, *kinds).get(key) if of_kind else None


def flow_text(value: Any) -> str:
    """A plain value in YAML's flow style.

    >>> flow_text({"kind": "ewma", "windows": [1, 5], "column": None, "on": "no"})
    "{kind: ewma, windows: [1, 5], column: null, 'on': 'no'}"
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow_text(key)}: {flow_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow_text, value)) + "]"
    if isinstance(value, str):
        word = value.lower() in ("null", "true", "false", "yes", "no", "on", "off", "")
        return value if _PLAIN.fullmatch(value) and not word else repr(value)
    return json.dumps(value)


def _short(key: str, value: Any) -> Any:
    """A model or feature without the parameters that have their default; anything else as it is."""
    section, _, name = key.partition(".")
    if section not in _ENTRIES or "." in name or not isinstance(value, Mapping):
        return value
    defaults = _defaults(section, str(value.get("kind")))
    return {k: v for k, v in value.items() if k == "kind" or k not in defaults or defaults[k] != v}


@functools.cache
def _defaults(section: str, kind: str) -> dict[str, Any]:
    """Parameters of a kind and of its entry in a study; empty for one's own classes and kinds of other versions."""
    from pydantic_core import to_jsonable_python

    from ssmfin.features.kinds import KINDS as FEATURES
    from ssmfin.features.kinds import spec_class
    from ssmfin.models.registry import KINDS as MODELS
    from ssmfin.models.registry import forecaster_class

    if kind not in (FEATURES if section == "features" else MODELS):
        return {}
    try:
        fields = (spec_class(kind) if section == "features" else forecaster_class(kind)).model_fields
    except (InputError, ImportError):
        return {}
    found: dict[str, Any] = {} if section == "features" else {"features": None, "refit": None}
    given = {
        name: info.get_default(call_default_factory=True) for name, info in fields.items() if not info.is_required()
    }
    return {**found, **to_jsonable_python(given)}
