"""Owns what `ssmfin models my_module:MyClass` says of a user's own class: what it is taken for, what it takes and is
given, and how a study names it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmfin.errors import InputError
from ssmfin.outside import class_named, parameters_of, summary_of

if TYPE_CHECKING:
    from pydantic import BaseModel

DOC_LINES = 20
REGRESSOR = """
fit(X, y) is called at each refit, once for each horizon, on an instance of its own:
  X  (rows, features) float64, the training window without gaps, rows of all ids together, by id and date;
     columns in the order of the study's features (har__lag_1, har__lag_5, ...)
  y  (rows,) the target's aggregate over the next h rows: its log with `transform: log`, itself with `none`
predict(X) answers (rows,) on the scale of y. The log's bias is corrected for it (`bias_correction`).
"""
SEEDED = "random_state is set from the study's seed unless the study gives one.\n"
FORECASTER = """
fit(training, *, seed) returns an sf.Fitted, whose predict(design, rows) answers (rows, horizons) on the original scale
of the target. What they are given, with shapes: python -c "import ssmfin.models.interface as i; help(i)"
"""
NETWORK = """
blocks(width) returns the network's blocks, each an sf.SequenceBlock over (batch, time, channels); sequences, training,
seeds, saving and streaming are the base class's. An example: notebooks/5_bring_your_own.py
"""
FRAMES = """
transform(X) is given the panel, a polars frame of unique_id, ds and the value columns, sorted by both. It returns one
row for each row of X, as a frame (its columns' names are used), a series or an array; NaN where there is no value.
A row may use rows of its id up to itself and other ids' rows of earlier dates.
"""
LEARNS = "fit(X) is given the training window of a fold alone. Numbers, texts and arrays in its attributes are kept.\n"
TRANSFORMER = """
_columns(panel, starts) is given the whole panel and the first row of each id. It returns (rows, columns) float64, in
the order of get_feature_names_out(), NaN where there is no value. A row may use rows of its id up to itself and other
ids' rows of earlier dates. What _learn(panel, starts) leaves in attributes that end in an underscore is kept.
"""
SPEC = """
transformer(column=..., log=...) returns an sf.PanelTransformer, given the target's column and whether a log is taken.
"""
CANARY = "Before a study starts, values and rows after a date are changed: a feature that moves before it is refused.\n"


def own_entries(path: str) -> list[dict[str, Any]]:
    """What there is to say of a class: once, or twice where it can be a model and a feature. Imports and runs its code.

    Raises:
        InputError: it cannot be imported, or is neither.
    """
    from ssmfin.features.spec import FeatureSpec
    from ssmfin.models.external import what_it_lacks
    from ssmfin.models.interface import Forecaster

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    cls = class_named(path)
    models = issubclass(cls, Forecaster) or callable(getattr(cls, "predict", None))
    features = issubclass(cls, FeatureSpec) or callable(getattr(cls, "transform", None))
    if not (models or features):
        raise InputError(
            f"{path} is neither a model nor a feature; {what_it_lacks(cls)}, or, as a feature, transform(X)."
        )
    return [*([_model(path, cls)] if models else []), *([_feature(path, cls)] if features else [])]


def own_sheet(entry: dict[str, Any], parameters: list[list[str]]) -> list[str]:
    """One entry for a terminal; `parameters`: the lines of each."""
    said = "".join(f", {name}: {_yaml(value)}" for name, value in entry["example"].items())
    section = "features" if entry["family"] == "feature" else "models"
    seeds = ", seeds: [0, 1, 2]" if entry["seeded"] else ""
    lines = [f"{entry['kind']} ({entry['interface']}, {entry['file']})"]
    doc = entry["doc"].splitlines()
    doc[DOC_LINES:] = ["..."] * (len(doc) > DOC_LINES)
    lines += [f"  {line}".rstrip() for line in doc]
    lines += [
        f'    {section}: {{my_name: {{kind: "{entry["kind"]}"{said}{seeds}}}}}',
        "    ssmfin run study.yaml --allow-imports",
        *(line for item in parameters for line in item),
        *([] if parameters else ["  no parameters"]),
    ]
    if section == "models":
        lines.append("  and, as every model: features (names; default all), refit (fit on every k-th fold)")
    elif entry["learns"]:
        lines.append("  and, as every feature that learns: refit (learn at every k-th fold), warm_start")
    return [*lines, *(f"  {line}" for line in entry["given"].strip().splitlines())]


def _model(path: str, cls: type) -> dict[str, Any]:
    from ssmfin.models.external import check_model
    from ssmfin.models.interface import Forecaster

    check_model(path, cls)
    if issubclass(cls, Forecaster):
        network = any(base.__name__ == "DeepForecaster" for base in cls.__mro__)
        interface, given = ("torch network, sf.DeepForecaster", NETWORK) if network else ("sf.Forecaster", FORECASTER)
        return _entry(path, cls, interface, given, family=cls.family, seeded=cls.stochastic)
    sklearn = callable(getattr(cls, "get_params", None))
    interface = "regressor in scikit-learn's manner" if sklearn else "class with fit and predict"
    given = REGRESSOR + (SEEDED if "random_state" in parameters_of(cls).model_fields else "")
    return _entry(path, cls, interface, given, family="custom")


def _feature(path: str, cls: type) -> dict[str, Any]:
    from ssmfin.features.external import own_class

    own = own_class(path)
    interface = {
        "FeatureSpec": "sf.FeatureSpec",
        "PanelTransformer": "sf.PanelTransformer",
        "transform": "class with transform",
    }[own.interface]
    learns = own.learns
    given = {
        "FeatureSpec": SPEC,
        "PanelTransformer": TRANSFORMER,
        "transform": FRAMES + (LEARNS if learns else ""),
    }[own.interface] + CANARY
    found = _entry(path, cls, interface + (" that learns" if learns else ""), given, family="feature", learns=learns)
    if own.takes_target:
        found["example"].pop("column", None)
        (column,) = (item for item in found["parameters"] if item["name"] == "column")
        column.update(required=False, default=None, description="the target's column unless given")
    return found


def _entry(
    path: str, cls: type, interface: str, given: str, *, family: str, seeded: bool = False, learns: bool = False
) -> dict[str, Any]:
    record = parameters_of(cls)
    known = {name: info for name, info in record.model_fields.items() if not (family == "feature" and name == "kind")}
    example = {name: _example(info) for name, info in known.items() if info.is_required() or len(known) <= 3}
    return {
        "kind": path,
        "family": family,
        "summary": summary_of(cls),
        "interface": interface,
        "file": _file(cls),
        "doc": inspect.cleandoc(vars(cls).get("__doc__") or "(no docstring)"),
        "example": example,
        "benchmark": False,
        "seeded": seeded,
        "learns": learns,
        "parameters": [_parameter(name, record) for name in known],
        "given": given,
    }


def _parameter(name: str, record: type[BaseModel]) -> dict[str, Any]:
    info = record.model_fields[name]
    annotation = "" if info.annotation in (None, Any) else inspect.formatannotation(info.annotation)
    return {
        "name": name,
        "required": info.is_required(),
        "default": None if info.is_required() else _plain(info.get_default(call_default_factory=True)),
        "description": info.description or annotation,
        "allowed": "",
    }


def _example(info: Any) -> Any:
    return "..." if info.is_required() else _plain(info.get_default(call_default_factory=True))


def _plain(value: Any) -> Any:
    """A default as JSON can say it."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return repr(value)


def _yaml(value: Any) -> str:
    import json

    return value if value == "..." else json.dumps(value, ensure_ascii=False)


def _file(cls: type) -> str:
    try:
        file = inspect.getsourcefile(cls)
    except (TypeError, OSError):
        file = None
    return Path(file).name if file else cls.__module__


def is_path(kind: str) -> bool:
    """Whether what was given as a kind is meant as the path of a class; an unfinished one counts, too."""
    return any(mark in kind for mark in ":./")
