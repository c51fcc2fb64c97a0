"""Owns files that are either whole or absent, and what the disk's refusals mean to the user.

A file or folder is filled under a temporary name, flushed to the disk, and renamed: whoever looks sees all of it or
nothing, whatever is killed when. The name `.tmp~<host>~<pid>~<start>~<n>~<what>` says who writes, so that leftovers of
the dead are told from live work.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.errors import InputError

PREFIX = ".tmp~"
FOREIGN_AGE = 24 * 3600.0  # seconds after which the leftovers of another machine count as dead
_counter = itertools.count()


class StorageError(InputError):
    """The disk refuses: full, read-only, or something else stands where the run should be."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by new content in one step.

    Raises:
        StorageError: the disk is full or cannot be written; the old file is then still there and whole.
    """
    with storage(path):
        fresh = temporary(path.parent, path.name)
        try:
            write_through(fresh, data)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(path.parent)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line in a single write, so that lines of several processes do not mix."""
    line = json.dumps(plain(record), ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
    with storage(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.name == "posix" and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a machine that lost power can leave half a line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as parquet; the same frame gives the same bytes (same polars version)."""
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, row_group_size=1 << 18)
    return buffer.getvalue()


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent).encode() + b"\n"


def plain(value: Any) -> Any:
    """The value in JSON's own types; numbers that JSON cannot say become null, unknown objects their text.

    >>> plain({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a path into what the user can do about it."""
    try:
        yield
    except OSError as error:
        raise StorageError(_in_words(path, error)) from error


def write_through(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the folder's entries; a rename is not durable before."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary(folder: Path, what: str) -> Path:
    """A name in `folder` that no other writer uses and that tells who this one is."""
    pid = os.getpid()
    return folder / f"{PREFIX}{_host()}~{pid}~{_start_of(pid)}~{next(_counter)}~{what}"


def clean_folder(folder: Path) -> int:
    """Remove what killed writers left in a folder; returns how many. Live writers are not touched."""
    removed = 0
    for entry in sorted(folder.glob(PREFIX + "*")):
        if not _writer_lives(entry):
            _remove(entry)
            removed += 1
    return removed


def _writer_lives(entry: Path) -> bool:
    parts = entry.name.removeprefix(PREFIX).split("~")
    if len(parts) < 4 or parts[0] != _host() or not parts[1].isdigit():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - entry.stat().st_mtime < FOREIGN_AGE
        return True
    pid, start = int(parts[1]), parts[2]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start_of(pid) == start


def _start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells a process from a later one of the same number.

    "dead" for one that was killed and waits for its parent to notice; "0" where the kernel does not say.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "0"
    return "dead" if fields[0] in "ZX" else fields[19]


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "host"


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()


def _in_words(path: Path, error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return (
            f"the disk of the run is full, {path} ({why}); "
            f"free some space or choose another output.directory, then run again: finished tasks are kept."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the run folder cannot be written, {path} ({why}); change its permissions or output.directory."
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"something else stands where the run should be, {path} ({why}); move it or change output.directory."
    return f"the run folder cannot be used, {path} ({why}); check the disk or change output.directory."
