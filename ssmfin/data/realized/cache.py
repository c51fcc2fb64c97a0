"""Owns results kept on disk by data and options: one folder an entry, whole or absent.

The key hashes the files' paths, sizes and times of change, the options and this package's own code of both rooms, so
that a changed file, option or program is another entry. Entries lie in $SSMFIN_CACHE, else the user's cache folder
(~/.cache/ssmfin/measures); they may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import polars as pl

from ssmfin.data.intraday.scan import TickSource
from ssmfin.data.realized.options import RealizedMeasures
from ssmfin.data.realized.result import Quality, RealizedPanel
from ssmfin.data.sources.files import FileSource

_TABLES = ("frame", "days", "flags", "signature", "periodicity")


def default_folder() -> Path:
    """Where entries lie: $SSMFIN_CACHE, $XDG_CACHE_HOME/ssmfin/measures, or ~/.cache/ssmfin/measures."""
    own = os.environ.get("SSMFIN_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ssmfin" / "measures"


def key(ticks: TickSource, options: RealizedMeasures, date_format: str | None) -> str | None:
    """Hash of everything that can change the result; None for sources that are no files."""
    if not isinstance(ticks.source, FileSource):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for file in ticks.source.files():
        facts = file.stat()
        digest.update(f"{file.resolve()}|{facts.st_size}|{facts.st_mtime_ns}\n".encode())
    spec = {
        "source": ticks.source.model_dump(mode="json"),
        "columns": dict(sorted(ticks.columns.items())),
        "ids": ticks.ids,
        "options": options.model_dump(mode="json", exclude={"cache"}),
        "date_format": date_format,
        "code": _code(),
        "polars": pl.__version__,
    }
    digest.update(json.dumps(spec, sort_keys=True).encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.blake2b(digest_size=16)
    here = Path(__file__).parent
    for file in sorted([*here.glob("*.py"), *(here.parent / "intraday").glob("*.py"), here.parent / "moments.py"]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def load(entry: str, folder: Path | None) -> RealizedPanel | None:
    """The entry, or None if there is none that can be read."""
    place = (folder or default_folder()) / entry
    if not place.is_dir():
        return None
    try:
        tables = {name: pl.read_parquet(place / f"{name}.parquet") for name in _TABLES}
        notes = json.loads((place / "notes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None
    frame = tables.pop("frame")
    return RealizedPanel(frame, Quality(**tables), notes)


def save(entry: str, result: RealizedPanel, folder: Path | None) -> None:
    """Write an entry under another name, then rename it. A cache that cannot be written is no reason to fail."""
    base = folder or default_folder()
    temporary: str | None = None
    quality = result.quality
    tables = (result.frame, quality.days, quality.flags, quality.signature, quality.periodicity)
    try:
        base.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{entry}.", dir=base)
        for name, table in zip(_TABLES, tables, strict=True):
            table.write_parquet(Path(temporary) / f"{name}.parquet")
        (Path(temporary) / "notes.json").write_text(json.dumps(result.notes), encoding="utf-8")
        place = base / entry
        if place.exists():  # one that could not be read
            shutil.rmtree(place, ignore_errors=True)
        os.replace(temporary, place)
        temporary = None
    except OSError:
        pass
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)
