"""The JSON Schema: what the reader accepts, with the parameters of every kind, so that an editor can complete them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ssmfin.models.registry import BENCHMARKS, KINDS, forecaster_class
from ssmfin_pipelines.study.json_schema import study_schema
from ssmfin_pipelines.study.schema import Study
from ssmfin_pipelines.study.tree import parse

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SCHEMA = study_schema()


def accepts(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON Schema that our schema uses; an unknown keyword fails the test that meets it."""
    if "$ref" in schema:
        return accepts(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    checks = {
        "anyOf": lambda rule: any(accepts(value, option) for option in rule),
        "oneOf": lambda rule: sum(accepts(value, option) for option in rule) == 1,
        "const": lambda rule: value == rule and type(value) is type(rule),
        "enum": lambda rule: value in rule,
        "type": lambda rule: _is(value, rule),
        "minimum": lambda rule: not _number(value) or value >= rule,
        "maximum": lambda rule: not _number(value) or value <= rule,
        "exclusiveMinimum": lambda rule: not _number(value) or value > rule,
        "exclusiveMaximum": lambda rule: not _number(value) or value < rule,
        "minLength": lambda rule: not isinstance(value, str) or len(value) >= rule,
        "maxLength": lambda rule: not isinstance(value, str) or len(value) <= rule,
        "pattern": lambda rule: not isinstance(value, str) or re.search(rule, value) is not None,
        "minItems": lambda rule: not isinstance(value, list) or len(value) >= rule,
        "maxItems": lambda rule: not isinstance(value, list) or len(value) <= rule,
        "items": lambda rule: not isinstance(value, list) or all(accepts(item, rule) for item in value),
        "required": lambda rule: not isinstance(value, dict) or set(rule) <= set(value),
        "properties": lambda rule: (
            not isinstance(value, dict) or all(accepts(item, rule[key]) for key, item in value.items() if key in rule)
        ),
        "minProperties": lambda rule: not isinstance(value, dict) or len(value) >= rule,
        "maxProperties": lambda rule: not isinstance(value, dict) or len(value) <= rule,
        "propertyNames": lambda rule: not isinstance(value, dict) or all(accepts(key, rule) for key in value),
        "additionalProperties": lambda rule: (
            not isinstance(value, dict)
            or rule is True
            or all(
                rule and accepts(item, rule) for key, item in value.items() if key not in schema.get("properties", {})
            )
        ),
    }
    passive = {"title", "description", "default", "discriminator", "format", "$schema", "$defs"}
    return all(checks[keyword](rule) for keyword, rule in schema.items() if keyword not in passive)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is(value: Any, name: str) -> bool:
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return _number(value) if name == "number" else isinstance(value, types[name])


def test_it_is_json_and_refers_only_to_what_it_holds() -> None:
    text = json.dumps(SCHEMA)
    assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) <= set(SCHEMA["$defs"])


def test_every_key_of_a_study_is_in_it() -> None:
    assert set(SCHEMA["properties"]) == set(Study.model_fields)
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["required"]) == {"name", "data", "target"}


def test_every_kind_shows_its_parameters_with_their_description() -> None:
    for kind in KINDS:
        entry = SCHEMA["$defs"][f"model_{kind}"]
        assert entry["additionalProperties"] is False
        for name, info in forecaster_class(kind).model_fields.items():
            assert entry["properties"][name].get("description", "") == (info.description or "")
    assert set(BENCHMARKS) <= set(SCHEMA["properties"]["benchmarks"]["properties"])


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_it_accepts_the_shipped_studies(config: Path) -> None:
    assert accepts(parse(config.read_text(encoding="utf-8"), config.name).value, SCHEMA)


BASE: dict[str, Any] = {"name": "x", "data": {"source": {"kind": "arch"}}, "target": {"column": "close"}}


@pytest.mark.parametrize(
    "change, fine",
    [
        ({}, True),
        ({"seed": 1}, True),
        ({"seed": "1"}, False),
        ({"sede": 1}, False),
        ({"name": "../x"}, False),
        ({"models": {"a": {"kind": "s4d", "context": 5}}}, True),
        ({"models": {"a": {"kind": "s4d", "contxt": 5}}}, False),
        ({"models": {"a": {"kind": "s4dd"}}}, False),
        ({"models": {"a b": {"kind": "s4d"}}}, False),
        ({"models": {"a": {"kind": "my.package:Model", "anything": 5}}}, True),
        ({"features": {"h": {"kind": "har_lags", "windows": [0]}}}, False),
        ({"features": {"h": {"kind": "my.package:Feature", "anything": 5, "refit": 2}}}, True),
        ({"features": {"h": {"kind": "my.package:Feature", "refit": 0}}}, False),
        ({"features": {"h": {"kind": "my.package.Feature"}}}, False),
        ({"benchmarks": {"lightgbm": {"num_leaves": 5}, "ewma": {}, "har": None}}, True),
        ({"benchmarks": {"lightgbm": {"leaves": 5}}}, False),
        ({"execution": {"workers": "auto"}}, True),
        ({"execution": {"workers": 0}}, False),
        ({"evaluate": {"mcs_size": 1}}, False),
        ({"walk_forward": {"train": {"kind": "rollling"}}}, False),
    ],
)
def test_it_agrees_with_the_reader(change: dict[str, Any], fine: bool) -> None:
    assert accepts({**BASE, **change}, SCHEMA) is fine
