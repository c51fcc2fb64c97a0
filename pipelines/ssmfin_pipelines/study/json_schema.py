"""Owns the JSON Schema of a study file, in which every kind of model and feature shows its own parameters."""

from __future__ import annotations

import copy
import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ssmfin.features.kinds import KINDS as FEATURE_KINDS
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.models.registry import KINDS, forecaster_class
from ssmfin.outside import PATH
from ssmfin_pipelines.study.names import NAME_PATTERN
from ssmfin_pipelines.study.schema import Study


def schema_text() -> str:
    """The JSON Schema as a file holds it."""
    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


def study_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a study file."""
    forecasters: dict[str, type[BaseModel]] = {kind: forecaster_class(kind) for kind in KINDS}
    classes: list[type[BaseModel]] = [Study, *forecasters.values(), *FEATURE_KINDS.values()]
    references, shared = models_json_schema([(cls, "validation") for cls in classes])
    definitions = shared["$defs"]

    def resolve(cls: type[BaseModel]) -> dict[str, Any]:
        name = references[(cls, "validation")]["$ref"].rpartition("/")[2]
        return copy.deepcopy(definitions[name])

    study = resolve(Study)
    own = copy.deepcopy(definitions["StudyModel"]["properties"])
    entries = {kind: _model_entry(kind, resolve(cls), own, cls) for kind, cls in forecasters.items()}
    features = {kind: _feature_entry(kind, resolve(cls), cls) for kind, cls in FEATURE_KINDS.items()}
    path = {
        "type": "string",
        "pattern": f"^{PATH.pattern}$",
        "description": "A class of your own, package.module:Class.",
    }
    for name in ("StudyModel", *(references[(cls, "validation")]["$ref"].rpartition("/")[2] for cls in classes)):
        definitions.pop(name, None)
    definitions |= {f"model_{kind}": entry for kind, entry in entries.items()}
    definitions |= {f"feature_{kind}": entry for kind, entry in features.items()}
    definitions["model_external"] = _own_entry({**own, "kind": path})
    definitions["feature_external"] = _own_entry({**_learned_keys(), "kind": path})
    any_model = {"anyOf": [{"$ref": f"#/$defs/model_{kind}"} for kind in [*entries, "external"]]}
    any_feature = {"anyOf": [{"$ref": f"#/$defs/feature_{kind}"} for kind in [*features, "external"]]}
    properties = study["properties"]
    _named(properties["features"], any_feature)
    _named(properties["models"], any_model)
    _named(properties["benchmarks"], any_model)
    properties["benchmarks"]["properties"] = {
        kind: {"anyOf": [{**entry, "required": []}, {"type": "null"}]} for kind, entry in entries.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ssmfin study",
        **{key: value for key, value in study.items() if key != "title"},
        "$defs": definitions,
    }


def _own_entry(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": "package.module:Class",
        "description": "A class of your own, its parameters beside `kind`; only with --allow-imports.",
        "type": "object",
        "properties": properties,
        "required": ["kind"],
        "additionalProperties": True,
    }


def _learned_keys() -> dict[str, Any]:
    """What any feature that learns may say beside its parameters."""
    found: dict[str, Any] = LearnedSpec.model_json_schema()["properties"]
    return {name: rule for name, rule in found.items() if name != "kind"}


def _named(field: dict[str, Any], entry: dict[str, Any]) -> None:
    field.pop("default", None)
    field.pop("patternProperties", None)
    field |= {"type": "object", "propertyNames": {"pattern": NAME_PATTERN}, "additionalProperties": entry}


def _model_entry(kind: str, parameters: dict[str, Any], own: dict[str, Any], cls: Any) -> dict[str, Any]:
    properties = {**own, "kind": {"const": kind, "description": cls.summary}, **parameters.get("properties", {})}
    return {
        "title": kind,
        "description": cls.summary,
        "type": "object",
        "properties": properties,
        "required": ["kind", *parameters.get("required", [])],
        "additionalProperties": False,
    }


def _feature_entry(kind: str, parameters: dict[str, Any], cls: type[FeatureSpec]) -> dict[str, Any]:
    properties = {**parameters["properties"], "kind": {"const": kind, "description": cls.summary}}
    required = ["kind", *(name for name in parameters.get("required", []) if name != "kind")]
    return {
        "title": kind,
        "description": cls.summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
