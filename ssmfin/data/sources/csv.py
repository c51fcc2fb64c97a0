"""Owns the csv source: text in, text out. Every cell stays text here, so that the ids 007 and NO survive.

What polars would mend in silence (short lines, repeated column names) is refused here, with the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ssmfin.data.sources.base import Part
from ssmfin.data.sources.files import FileSource
from ssmfin.errors import InputError

_BOM = b"\xef\xbb\xbf"


class CsvSource(FileSource):
    """Text files with one header line: `{kind: csv, path: "rv/*.csv", delimiter: ";", decimal: ","}`; `.gz` is fine."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(",", min_length=1, max_length=1, description="the character between two columns")
    decimal: Literal[".", ","] = Field(".", description="the decimal mark")
    encoding: Literal["utf-8"] = Field("utf-8", description="of the text; a byte order mark is fine")

    @model_validator(mode="after")
    def _marks_differ(self) -> CsvSource:
        if self.delimiter == self.decimal:
            raise ValueError(
                f"delimiter and decimal are both {self.decimal!r}; files with a decimal comma use ';' between columns"
            )
        if self.delimiter in '"\n\r' or not self.delimiter.isascii():
            raise ValueError(f"delimiter is {self.delimiter!r}; use ',', ';', '|' or a tab (\"\\t\")")
        return self

    def read_file(self, file: Path) -> Part:
        raw = _text_bytes(file)
        header = self._header(file, raw)
        self._require_full_lines(file, raw, len(header))
        try:
            frame = pl.read_csv(
                raw.lstrip(b"\r\n"),  # polars takes a blank first line for the header
                separator=self.delimiter,
                infer_schema=False,
            )
        except pl.exceptions.NoDataError:
            raise InputError(f"{file} has no rows, columns {header}; give it data or leave it out.") from None
        except pl.exceptions.PolarsError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(f"{file} is not readable as csv, {reason}; check its quotes and its delimiter.") from None
        blank = pl.all_horizontal(pl.all().fill_null("") == "")
        if frame.select(blank.any()).item():
            frame = frame.filter(~blank)
        return Part(str(file), frame, self.decimal, partial(self._line_of, file))

    def _header(self, file: Path, raw: bytes) -> list[str]:
        """Column names. Raises InputError where they are unusable."""
        header = next((row for _, row in self._records(file, raw) if row), [])
        if len(header) == 1 and self.delimiter not in header[0]:
            other = next((mark for mark in ";\t|," if mark in header[0] and mark != self.delimiter), None)
            if other:
                raise InputError(
                    f"{file} line 1 has no {self.delimiter!r} between columns, {header[0][:80]!r}; "
                    f"set delimiter: {_quoted(other)}."
                )
        repeated = sorted({name for name in header if name and header.count(name) > 1})
        if repeated:
            raise InputError(f"{file} line 1 repeats the column names {repeated}; give each column its own name.")
        return header

    def _require_full_lines(self, file: Path, raw: bytes, width: int) -> None:
        """Every line must have as many fields as the header: a short line is a file that was cut off."""
        if b'"' in raw:
            for line, row in self._records(file, raw):
                if row and len(row) != width:
                    self._refuse_width(file, line, len(row), width, self.delimiter.join(row))
            return
        data = np.frombuffer(raw, dtype=np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        if len(data) and data[-1] != ord("\n"):
            ends = np.append(ends, len(data))
        marks = np.flatnonzero(data == ord(self.delimiter))
        fields = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
        lengths = np.diff(ends, prepend=-1) - 1
        starts = ends - lengths
        # a line of nothing but \r is blank too
        blank = (lengths == 0) | ((lengths == 1) & (data[np.minimum(starts, len(data) - 1)] == ord("\r")))
        wrong = np.flatnonzero((fields != width) & ~blank)
        if len(wrong):
            line = int(wrong[0])
            text = raw[int(starts[line]) : int(ends[line])].decode().rstrip("\r")
            self._refuse_width(file, line + 1, int(fields[line]), width, text)

    def _refuse_width(self, file: Path, line: int, fields: int, width: int, text: str) -> None:
        remedy = (
            "complete the line (was the file cut off?)" if fields < width else "quote text that holds the delimiter"
        )
        if fields > width and self.delimiter == "," and self.decimal == ".":
            remedy += ", or set delimiter and decimal if commas are decimal marks"
        raise InputError(
            f"{file} line {line} has {fields} fields where the header has {width}, {text[:80]!r}; {remedy}."
        )

    def _line_of(self, file: Path, row: int) -> int:
        """Line of the file of data row `row`; only called to word a message."""
        return int(_data_lines(self, file)[row])

    def _records(self, file: Path, raw: bytes) -> Iterator[tuple[int, list[str]]]:
        """(first line, fields) of every record; a quoted field may span lines. Raises InputError for a stray quote."""
        text = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", newline="")
        reader = csv.reader(text, delimiter=self.delimiter, strict=True)
        line = 1
        try:
            for row in reader:
                yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{file} line {line} is not readable as csv, {error}; check its quotes.") from None


@lru_cache(maxsize=2)
def _data_lines(source: CsvSource, file: Path) -> np.ndarray:
    rows = [line for line, row in source._records(file, _text_bytes(file)) if any(field != "" for field in row)]
    return np.array(rows[1:])


def _text_bytes(file: Path) -> bytes:
    """The file's bytes, known to be UTF-8 text without null bytes, byte order mark removed."""
    raw = file.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{file} is a damaged gzip file, {error}; copy or write it again.") from None
    if not raw.strip():
        raise InputError(f"{file} is empty, {len(raw)} bytes of no text; write it again.")
    if raw[:4] == b"PAR1":
        raise InputError(f"{file} is a parquet file, not csv; use kind: parquet.")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{file} line 1 is UTF-16 text, not UTF-8; save it as UTF-8.")
    null = raw.find(b"\0")
    if null >= 0:
        line = raw.count(b"\n", 0, null) + 1
        raise InputError(
            f"{file} line {line} holds a null byte, at byte {null}; the file is damaged or binary: write it again."
        )
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start : error.start + 1]
        raise InputError(
            f"{file} line {line} is not UTF-8, byte {byte!r} at {error.start}; save it as UTF-8."
        ) from None
    return raw.removeprefix(_BOM)


def _quoted(mark: str) -> str:
    return '"\\t"' if mark == "\t" else f'"{mark}"'
