"""Owns the interface of a data source: a frozen specification that yields tables, file by file.

A further source is one file with one class (`kind`, its keys, `parts`) plus one line in the registry, `__init__.py`.
A source only reads: it neither renames, converts nor checks; `ssmfin.data.columns` and `ssmfin.data.contract` do that.
Nothing is opened before `parts` is iterated, and nothing that is read is ever executed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel, ConfigDict

from ssmfin.errors import InputError


@dataclass(frozen=True)
class Part:
    """One table of a source, as it was stored.

    Attributes:
        label: what to call it in a message, usually the path.
        frame: the columns under the names and with the types they have there (csv: all text).
        decimal: the decimal mark of numbers that are text.
        line_of: row (from 0) to line of the file (from 1), where lines exist.
    """

    label: str
    frame: pl.DataFrame
    decimal: str = "."
    line_of: Callable[[int], int] | None = None

    def where(self, row: int) -> str:
        """How a message calls row `row` (counted from 0; shown from 1)."""
        if self.line_of is not None:
            return f"line {self.line_of(row)}"
        return f"row {row + 1}"


class Source(BaseModel, ABC):
    """Where a panel's rows come from. Subclasses add `kind: Literal[...]`, their keys, and `parts`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """The tables of this source in an order that does not depend on how it was written down.

        Raises:
            InputError: a table cannot be read; names the file, the line where there is one, and the remedy.
        """

    @abstractmethod
    def describe(self) -> str:
        """A short name for messages and reports."""

    def default_id(self) -> str | None:
        """The id of the rows when no column holds one and the source is one single series."""
        return None

    def read(self) -> pl.DataFrame:
        """All tables as one frame, as stored.

        Raises:
            InputError: a table cannot be read, or two tables have different columns.
        """
        parts = list(self.parts())
        for part in parts[1:]:
            require_same_columns(parts[0], part)
        return pl.concat([part.frame for part in parts], how="vertical_relaxed")


def require_same_columns(first: Part, other: Part) -> None:
    """Refuse to stack two tables that do not have the same columns (their order may differ).

    Raises:
        InputError: names both tables and the columns that only one of them has.
    """
    missing = [c for c in first.frame.columns if c not in other.frame.columns]
    extra = [c for c in other.frame.columns if c not in first.frame.columns]
    if missing or extra:
        differences = [f"without {missing}"] * bool(missing) + [f"with {extra} in addition"] * bool(extra)
        raise InputError(
            f"{other.label} has other columns than {first.label}, {' and '.join(differences)}; "
            f"give the files the same columns, or read them as separate sources."
        )
