"""Owns how a command writes the one file it was asked for: never over another unasked, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssmfin.errors import InputError


def check_target(path: Path, *, suffix: str, force: bool) -> None:
    """Refuse a file that is there already, a folder, or a folder that is not there, before any work is done.

    Raises:
        InputError: the path cannot or should not be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; give a file name in it, such as {path / ('out' + suffix)}.")
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written, the folder {path.parent} does not exist; make it first.")
    if path.suffix.lower() not in ({".yaml", ".yml"} if suffix == ".yaml" else {suffix}):
        raise InputError(f"{path} does not end in {suffix}, which is what would be in it; rename it.")
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another name, or add --force to overwrite it.")


def write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only their owner may read
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
