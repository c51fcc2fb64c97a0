"""Owns names by content: the key of a task, the hash of a run folder, the version of the code that computes.

Two tasks share a key exactly if nothing that can change their predictions differs: what the harness says of the task
(data, features, model, parameters, folds, seed), the data, and the code. A key is never derived from the schedule.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssmfin.versions import NUMERIC_PACKAGES, package_versions

SOURCE_PACKAGES = ("ssmfin", "ssmfin_kernels")
# A report cannot change a prediction: the floors' contract forbids every other room to import it.
NOT_COMPUTING = ("ssmfin/reporting/",)
NOT_RESULTS = ("execution", "output")


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone: sorted keys, no spaces, floats by shortest round trip.

    >>> canonical_json({"b": (1, 2.50), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_as_plain)


def digest(*parts: str | bytes, size: int = 16) -> str:
    """Hex hash of the parts, each preceded by its length so that no two lists of parts run together.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def task_key(identity: Mapping[str, Any], *, data_fingerprint: str, code: str) -> str:
    """Key of one task: 32 hex digits, safe as a folder name.

    Args:
        identity: `Experiment.identity(task)`, everything that can change the result except data and code.
        data_fingerprint: `Panel.fingerprint()`.
        code: `code_version()`.
    """
    return digest(canonical_json(identity), data_fingerprint, code)


def run_folder(name: str, resolved_study: Mapping[str, Any], data_fingerprint: str) -> str:
    """Folder name of a run, `<name>-<hash10>`; how and where it is run does not enter the hash.

    >>> study = {"name": "vol", "seed": 1}
    >>> run_folder("vol", study, "f") == run_folder("vol", study | {"execution": {"workers": 2}}, "f")
    True
    """
    relevant = {key: value for key, value in resolved_study.items() if key not in NOT_RESULTS}
    return f"{name}-{digest(canonical_json(relevant), data_fingerprint, size=5)}"


@functools.cache
def code_version() -> str:
    """Hash of our computing sources and of the versions of the numeric packages, 32 hex digits."""
    parts: list[str | bytes] = [canonical_json(package_versions())]
    for package in SOURCE_PACKAGES:
        parts.extend(_sources_of(package))
    return digest(*parts)


def code_of(kinds: Iterable[str]) -> str:
    """Version of the code behind these kinds of models and features; of the user's own classes also their sources.

    >>> code_of(["s4d", "har_lags"]) == code_version()
    True
    """
    modules = sorted({module for module, colon, _ in (kind.partition(":") for kind in kinds) if colon})
    return digest(code_version(), *map(external_code_version, modules)) if modules else code_version()


@functools.cache
def external_code_version(module: str) -> str:
    """Hash of the sources of the top-level package (or file) that a user's own class comes from.

    Packages whose version is already in `code_version` are not read again.
    """
    top = module.partition(".")[0]
    if top in {name.replace("scikit-learn", "sklearn") for name in NUMERIC_PACKAGES} | set(SOURCE_PACKAGES):
        return ""
    return digest(*_sources_of(top))


def _sources_of(package: str) -> list[str | bytes]:
    """Name and content of every Python file of a top-level package or module, in the order of their names."""
    loaded = sys.modules.get(package)
    spec = getattr(loaded, "__spec__", None) or importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        roots = [Path(location) for location in spec.submodule_search_locations]
        files = {
            f"{package}/{file.relative_to(root).as_posix()}": file for root in roots for file in root.rglob("*.py")
        }
    elif spec.origin and Path(spec.origin).is_file():
        files = {Path(spec.origin).name: Path(spec.origin)}
    else:
        return []
    parts: list[str | bytes] = []
    for name in sorted(files):
        if not name.startswith(NOT_COMPUTING):
            parts += [name, files[name].read_bytes()]
    return parts


def _as_plain(value: Any) -> Any:
    """numpy scalars, paths, dates and the like inside an identity, as JSON can say them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form; identities hold plain values only.")
