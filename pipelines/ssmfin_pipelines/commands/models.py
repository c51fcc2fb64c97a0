"""`ssmfin models`: the kinds of models and features, and what each parameter means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

FAMILIES = {
    "baseline": "baselines",
    "ssm": "deep state-space models",
    "sequence": "sequence models to compare with",
    "combination": "combinations of other models",
    "custom": "others",
    "feature": "features (under `features:` of a study)",
}
NAME_WIDTH = 34  # names and defaults that are longer get a line of their own


def _complete(incomplete: str) -> list[str]:
    """Kinds that begin so, for the shell."""
    from ssmfin.features.kinds import KINDS as FEATURES
    from ssmfin.models.registry import KINDS

    return sorted(kind for kind in {*KINDS, *FEATURES} if kind.startswith(incomplete))


def models(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="Show the parameters of this kind: default, meaning, what is allowed. Or of a class of your own, "
            "my_module:MyClass, which is imported: how it is used, what it is given.",
            show_default=False,
            autocompletion=_complete,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all kinds with all parameters as JSON.")] = False,
) -> None:
    """List the kinds of models and features, or the parameters of one.

    A line each; * runs in every study, + is run once for each of its seeds.
    """
    import json

    from ssmfin_pipelines.commands.own_classes import is_path, own_entries, own_sheet

    if kind is not None and is_path(kind):
        own = own_entries(kind)
        sheets = ["\n".join(own_sheet(entry, [*map(_explained, entry["parameters"])])) for entry in own]
        typer.echo(json.dumps(own, indent=2, ensure_ascii=False) if as_json else "\n\n".join(sheets))
        return
    found = _catalogue()
    if kind is not None:
        from ssmfin.errors import InputError, nearest

        known = list(dict.fromkeys(entry["kind"] for entry in found))
        if kind not in known:
            raise InputError(f"the kind {kind!r} is unknown; {nearest(kind, known)}.")
        found = [entry for entry in found if entry["kind"] == kind]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif kind is None:
        typer.echo("\n".join(_listing(found)))
    else:
        typer.echo("\n\n".join("\n".join(_sheet(entry)) for entry in found))


def _listing(found: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for family, title in FAMILIES.items():
        entries = [entry for entry in found if entry["family"] == family]
        if entries:
            lines += ["", title] if lines else [title]
        for entry in entries:
            mark = "*" if entry["benchmark"] else "+" if entry["seeded"] else " "
            lines.append(f"  {entry['kind'] + mark:<20}{entry['summary']}")
    return [
        *lines,
        "",
        "* in every study, + once for each of its seeds. Parameters and their meaning: ssmfin models KIND.",
        'Your own class, model or feature: kind: "my_module:MyClass". Explained: ssmfin models my_module:MyClass.',
    ]


def _sheet(entry: Mapping[str, Any]) -> list[str]:
    """One kind: what it is, how it stands in a study, and its parameters."""
    tags = [entry["family"], *(["in every study"] if entry["benchmark"] else [])]
    lines = [f"{entry['kind']} ({', '.join(tags)}): {entry['summary']}"]
    required = [item["name"] for item in entry["parameters"] if item["required"]]
    needed = "".join(f", {name}: ..." for name in required)
    if entry["family"] == "feature":
        lines.append(f"    features: {{my_name: {{kind: {entry['kind']}{needed}}}}}")
    elif entry["benchmark"]:
        lines.append(f"    benchmarks: {{{entry['kind']}: {{}}}}")
    else:
        seeds = ", seeds: [0, 1, 2]" if entry["seeded"] else ""
        lines.append(f"    models: {{my_name: {{kind: {entry['kind']}{needed}{seeds}}}}}")
    for parameter in entry["parameters"]:
        lines += _explained(parameter)
    if entry["family"] != "feature":
        lines.append("  and, as every model: features (names; default all), seeds, refit (fit on every k-th fold)")
    return lines


def _explained(parameter: Mapping[str, Any]) -> list[str]:
    import json
    import textwrap

    from ssmfin_pipelines.tables import terminal_width

    default = "(required)" if parameter["required"] else f"= {json.dumps(parameter['default'])}"
    name = f"  {parameter['name']} {default}"
    text = parameter["description"]
    if parameter["allowed"]:
        text = f"{text.removesuffix('.')} ({parameter['allowed']})" if text else parameter["allowed"]
    width = terminal_width(110, 130)
    indent = " " * NAME_WIDTH
    wrapped = textwrap.wrap(text, width - NAME_WIDTH, break_on_hyphens=False) or [""]
    if len(name) + 2 > NAME_WIDTH:
        return [name, *(indent + line for line in wrapped)]
    return [f"{name:<{NAME_WIDTH}}{wrapped[0]}".rstrip(), *(indent + line for line in wrapped[1:])]


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
    order = list(FAMILIES)
    found.sort(key=lambda entry: (order.index(entry["family"]), not entry["benchmark"]))
    for kind, spec in FEATURES.items():
        parameters = [item for item in _parameters(spec) if item["name"] != "kind"]
        feature = {"kind": kind, "family": "feature", "summary": spec.summary, "benchmark": False, "seeded": False}
        found.append({**feature, "parameters": parameters})
    return found


def _parameters(cls: type[BaseModel]) -> list[dict[str, Any]]:
    from pydantic_core import to_jsonable_python

    properties = cls.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "required": info.is_required(),
            "default": None if info.is_required() else to_jsonable_python(info.get_default(call_default_factory=True)),
            "description": info.description or "",
            "allowed": _allowed(properties.get(name, {}), info.description or ""),
        }
        for name, info in cls.model_fields.items()
    ]


def _allowed(rule: Mapping[str, Any], said: str) -> str:
    """What JSON Schema allows, in words; nothing where the description has named the choices already."""
    if "anyOf" in rule:
        options = [text for option in rule["anyOf"] if (text := _allowed(option, said))]
        return " or ".join(dict.fromkeys(options))
    if "enum" in rule:
        choices = [str(choice) for choice in rule["enum"]]
        if len(choices) > 1 and all(choice in said for choice in choices):
            return ""
        return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
    if "const" in rule:
        return str(rule["const"])
    low = _bound("at least", rule.get("minimum")) or _bound("above", rule.get("exclusiveMinimum"))
    high = _bound("at most", rule.get("maximum")) or _bound("below", rule.get("exclusiveMaximum"))
    if low.startswith("at least ") and high.startswith("at most "):
        return f"{low.removeprefix('at least ')} to {high.removeprefix('at most ')}"
    return ", ".join(part for part in (low, high) if part)


def _bound(words: str, value: float | None) -> str:
    return "" if value is None else f"{words} {value:,}" if isinstance(value, int) else f"{words} {value:g}"
