"""Owns how a data file is opened: its kind by its ending, delimiter and decimal mark by its first lines."""

from __future__ import annotations

import re
from pathlib import Path

from ssmfin.data.sources import CsvSource, ParquetSource
from ssmfin.errors import InputError


def source_of(path: Path) -> CsvSource | ParquetSource:
    """The source that reads a csv or parquet file.

    Raises:
        InputError: there is no such file, it is of another kind, or it cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a csv or parquet file.")
    if path.is_dir():
        raise InputError(f"{path} is a directory; give one of its csv or parquet files.")
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] in (".parquet", ".pq"):
        return ParquetSource(path=(str(path),))
    if not {".csv", ".tsv", ".txt"} & set(endings[-2:]):
        raise InputError(f"{path} ends in neither .csv nor .parquet; convert it to one of them.")
    return _csv_source(path)


def _csv_source(path: Path) -> CsvSource:
    """The delimiter is what the header holds most of; a comma is the decimal mark where it is not the delimiter."""
    import gzip

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            lines = [line.decode("utf-8-sig", "replace") for line in stream.readlines(16_384)]
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read, {error}; copy or write it again.") from None
    header = lines[0] if lines else ""
    delimiter = max(",;\t|", key=header.count)
    body = delimiter.join(lines[1:])
    cells = [cell.strip() for cell in body.replace("\n", "").split(delimiter)]
    commas = sum(bool(re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", cell)) for cell in cells)
    decimal = "," if delimiter != "," and commas > points else "."
    return CsvSource(path=(str(path),), delimiter=delimiter, decimal=decimal)
