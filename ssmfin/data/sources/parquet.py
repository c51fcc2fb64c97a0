"""Owns the parquet source."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from ssmfin.data.sources.base import Part
from ssmfin.data.sources.files import FileSource
from ssmfin.errors import InputError

_MAGIC = b"PAR1"


class ParquetSource(FileSource):
    """Parquet files: `{kind: parquet, path: "rv/*.parquet"}`."""

    kind: Literal["parquet"] = "parquet"

    def read_file(self, file: Path) -> Part:
        size = file.stat().st_size
        if size == 0:
            raise InputError(f"{file} is empty, 0 bytes; write it again.")
        with file.open("rb") as stream:
            head = stream.read(4)
            stream.seek(max(size - 4, 0))
            tail = stream.read(4)
        if head != _MAGIC:
            raise InputError(f"{file} is not a parquet file, it starts with {head!r}; use kind: csv if it is text.")
        if tail != _MAGIC:
            raise InputError(f"{file} is a truncated parquet file, its footer is missing; copy or write it again.")
        # pyarrow, because polars answers some damaged pages with a panic of its own on standard error
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(file).read()
            table.validate(full=True)  # text that is not UTF-8 would end the process further on
            names = table.column_names
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"{file} is a damaged parquet file, {reason}; copy or write it again.") from None
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{file} repeats the column names {repeated}; give each column its own name.")
        try:
            plain = pa.Table.from_arrays(table.columns, names=names)  # without the metadata of the fields
            frame = pl.DataFrame(pl.from_arrow(plain, rechunk=False))
        except (pl.exceptions.PolarsError, pa.ArrowException, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"{file} holds a type that cannot be used, {reason}; leave that column out.") from None
        return Part(str(file), frame)
