"""Owns the paths of file sources: globs, lists, what may be opened, ids from file names."""

from __future__ import annotations

import difflib
import glob
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field

from ssmfin.data.sources.base import Part, Source
from ssmfin.errors import InputError, nearest


def _as_tuple(value: object) -> object:
    """A single path and a list of paths are the same thing; `pathlib.Path` is welcome from Python."""
    if isinstance(value, str | Path):
        return (str(value),)
    if isinstance(value, list | tuple):
        return tuple(str(item) if isinstance(item, Path) else item for item in value)
    return value


Paths = Annotated[
    tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str]), Field(min_length=1)
]


class FileSource(Source):
    """What parquet and csv share. `path` is a path, a glob (`**` for any depth) or a list of them.

    The files are read in the order of their names, whatever the order of the list; a file named twice is read once.
    """

    path: Paths = Field(description="path, glob or list of both; relative paths start at the working directory")
    id_from_filename: bool = Field(False, description="the file's name without its ending becomes unique_id")

    def describe(self) -> str:
        return ", ".join(self.path)

    def default_id(self) -> str | None:
        files = self.files()
        return stem(files[0]) if len(files) == 1 else None

    def files(self) -> list[Path]:
        """The files that `path` names, sorted.

        Raises:
            InputError: a path is missing, is not a file, or a glob matches nothing.
        """
        found: set[Path] = set()
        for pattern in self.path:
            try:
                found.update(expand(pattern))
            except (OSError, RuntimeError) as error:  # a name that is too long, a home directory of nobody
                raise InputError(f"{pattern[:200]} cannot be looked up, {error!s:.200}; check the path.") from None
        return sorted(found)

    def parts(self) -> Iterator[Part]:
        for file in self.files():
            try:
                part = self.read_file(file)
            except OSError as error:
                raise InputError(f"{file} cannot be read, {error.strerror or error}; check its permissions.") from None
            if part.frame.height == 0:
                raise InputError(f"{file} has no rows, columns {part.frame.columns}; give it data or leave it out.")
            if self.id_from_filename:
                if "unique_id" in part.frame.columns:
                    raise InputError(
                        f"{file} has a column unique_id already, and source.id_from_filename is true; "
                        f"set id_from_filename: false, or rename that column in the file."
                    )
                frame = part.frame.with_columns(pl.lit(stem(file)).alias("unique_id"))
                part = Part(part.label, frame, part.decimal, part.line_of)
            yield part

    @abstractmethod
    def read_file(self, file: Path) -> Part:
        """One file as it is stored."""


def stem(file: Path) -> str:
    """File name without any of its format's endings.

    >>> stem(Path("rv/BRK.B.csv.gz"))
    'BRK.B'
    """
    name = file.name
    for ending in (".gz", ".csv", ".tsv", ".txt", ".parquet", ".pq"):
        name = name.removesuffix(ending)
    return name or file.name


def expand(pattern: str) -> list[Path]:
    """The regular files that a path or a glob names.

    Raises:
        InputError: nothing is there, or what is there is a directory or a device.
    """
    if not pattern.strip():
        raise InputError(f"source.path is empty, {pattern!r}; give a path or a glob such as 'rv/*.parquet'.")
    if "\0" in pattern:
        raise InputError(f"source.path holds a null byte, {pattern!r}; give a plain path.")
    if "://" in pattern:
        raise InputError(f"source.path is an address, {pattern!r}; download the file and give its path.")
    path = Path(pattern).expanduser()
    if path.is_dir():
        text = any(path.glob("*.csv")) and not any(path.glob("*.parquet"))
        example = str(path / ("*.csv" if text else "*.parquet"))
        raise InputError(f"{pattern} is a directory, not a file; name its files, {example!r} for example.")
    if path.is_file():
        return [path]
    if path.exists():
        raise InputError(f"{pattern} is not a regular file; give a parquet or csv file.")
    if glob.has_magic(pattern):
        matches = [Path(name) for name in glob.glob(str(path), recursive=True)]
        files = [match for match in matches if match.is_file()]
        if not files:
            found = f"{len(matches)} directories" if matches else "no files"
            raise InputError(f"{pattern} matches {found} (from {Path.cwd()}); check the directory and the ending.")
        return files
    if path.is_symlink():
        raise InputError(f"{pattern} is a link to {str(path.readlink())!r}, where there is nothing; correct the link.")
    raise InputError(f"{pattern} does not exist{_hint(path)}.")


def _hint(path: Path) -> str:
    """Where the search for a missing path should go on."""
    parent = path.parent
    if not parent.is_dir():
        return f" (neither does its directory {str(parent)!r}); check the path, or give it from the root"
    siblings = [item for item in parent.iterdir() if item.is_file()][:10_000]
    # by the stem: endings are alike in any case, and would make a.csv the remedy for every missing csv
    stems = difflib.get_close_matches(path.stem, {item.stem for item in siblings}, n=1, cutoff=0.7)
    close = nearest(path.name, [item.name for item in siblings if item.stem in stems])
    return f"; {close}" if close.startswith("did you mean") else f" in {str(parent.resolve())!r}; check the name"
