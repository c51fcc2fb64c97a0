"""`ssmfin models`: the kinds of models and features, with their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel


def models(
    kind: Annotated[str | None, typer.Argument(help="Only this kind.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the kinds of models and features.

    Family, what they are, and all parameters with default and unit.
    """
    import json

    found = _catalogue()
    if kind is not None:
        from ssmfin.errors import InputError, nearest

        known = [entry["kind"] for entry in found]
        if kind not in known:
            raise InputError(f"the kind {kind!r} is unknown; {nearest(kind, known)}.")
        found = [entry for entry in found if entry["kind"] == kind]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for entry in found:
        tags = [
            entry["family"],
            *(["always runs"] if entry["benchmark"] else []),
            *(["seeded"] if entry["seeded"] else []),
        ]
        typer.echo(f"{entry['kind']} ({', '.join(tags)}): {entry['summary']}")
        for parameter in entry["parameters"]:
            default = "required" if parameter["required"] else f"= {json.dumps(parameter['default'])}"
            typer.echo(f"    {parameter['name']} {default}{'   ' + text if (text := parameter['description']) else ''}")


def _catalogue() -> list[dict[str, Any]]:
    from ssmfin.features.kinds import KINDS as FEATURES
    from ssmfin.models.registry import BENCHMARKS, KINDS, forecaster_class

    found: list[dict[str, Any]] = []
    for kind in KINDS:
        cls = forecaster_class(kind)
        found.append(
            {
                "kind": kind,
                "family": cls.family,
                "summary": cls.summary,
                "benchmark": kind in BENCHMARKS,
                "seeded": cls.stochastic,
                "parameters": _parameters(cls),
            }
        )
    order = ("baseline", "ssm", "sequence", "custom")
    found.sort(key=lambda entry: (order.index(entry["family"]), not entry["benchmark"]))
    for kind, spec in FEATURES.items():
        parameters = [item for item in _parameters(spec) if item["name"] != "kind"]
        feature = {"kind": kind, "family": "feature", "summary": spec.summary, "benchmark": False, "seeded": False}
        found.append({**feature, "parameters": parameters})
    return found


def _parameters(cls: type[BaseModel]) -> list[dict[str, Any]]:
    from pydantic_core import to_jsonable_python

    return [
        {
            "name": name,
            "required": info.is_required(),
            "default": None if info.is_required() else to_jsonable_python(info.get_default(call_default_factory=True)),
            "description": info.description or "",
        }
        for name, info in cls.model_fields.items()
    ]
