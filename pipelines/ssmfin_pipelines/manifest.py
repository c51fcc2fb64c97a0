"""Owns manifest.json: what a run was, with what it was computed, and how it ended."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import ssmfin
from ssmfin.errors import InputError
from ssmfin.versions import NUMERIC_PACKAGES, package_versions
from ssmfin_pipelines.atomic import json_bytes, write_atomically
from ssmfin_pipelines.executors.machine import usable_cores
from ssmfin_pipelines.keys import code_version

FORMAT = 1
_PACKAGES = (*NUMERIC_PACKAGES, "pandas", "pyarrow", "pydantic", "ssmfin")


def write_manifest(directory: Path, facts: dict[str, Any]) -> None:
    """Write manifest.json, the last file of a finished run: where it is, the others are."""
    write_atomically(directory / "manifest.json", json_bytes({"format": FORMAT, **facts}, indent=1))


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        InputError: the folder is not a finished run of this program.
    """
    path = Path(directory) / "manifest.json"
    if not Path(directory).is_dir():
        what = "is a file" if Path(directory).exists() else "does not exist"
        raise InputError(f"the run is not a folder, {directory} {what}; give a run folder such as runs/<name>-<hash>.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (Path(directory) / "tasks").is_dir():
            what, remedy = "its run has not ended", "run its study again, which does only what is missing"
        else:
            what, remedy = "it is no run", "give a run folder such as runs/<name>-<hash>"
        raise InputError(f"{directory} holds no manifest.json, {what}; {remedy}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"manifest.json cannot be read, {path} ({error}); run the study again with --fresh.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise InputError(
            f"manifest.json has format {found}, not {FORMAT}, {path}; run the study again with this version."
        )
    return facts


def environment() -> dict[str, Any]:
    """Versions, machine and commit, as far as they bear on the result."""
    return {
        "code_version": code_version(),
        "packages": package_versions(_PACKAGES),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "git": git_commits(),
    }


def git_commits() -> dict[str, str]:
    """Commits of this program's checkout and of the current folder's, where they are; "+" marks local changes."""
    source = Path(ssmfin.__file__).resolve().parents[1]
    found = {"ssmfin": _commit(source) if (source / ".git").exists() else "", "working_directory": _commit(Path.cwd())}
    return {name: commit for name, commit in found.items() if commit}


def now() -> str:
    """The present moment, UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _commit(folder: Path) -> str:
    head = _git(folder, "rev-parse", "HEAD")
    return head + ("+" if head and _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
