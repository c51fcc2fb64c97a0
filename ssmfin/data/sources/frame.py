"""Owns the in-memory source: a polars or pandas frame handed over in Python. Not available from YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import polars as pl
from pydantic import ConfigDict

from ssmfin.data.sources.base import Part, Source
from ssmfin.errors import InputError


class FrameSource(Source):
    """A frame that is already there. A pandas index with a name, or of dates, becomes a column."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: Literal["frame"] = "frame"
    frame: Any

    def describe(self) -> str:
        return f"{type(self.frame).__module__.split('.')[0]} frame"

    def default_id(self) -> str | None:
        return "series"

    def parts(self) -> Iterator[Part]:
        frame = to_polars(self.frame)
        if frame.height == 0:
            raise InputError(f"the {self.describe()} has no rows, columns {frame.columns}; give it data.")
        yield Part(self.describe(), frame)


def is_pandas(value: object) -> bool:
    """Whether `value` is a pandas object, without importing pandas for it."""
    return type(value).__module__.split(".")[0] == "pandas"


def to_polars(frame: Any) -> pl.DataFrame:
    """A polars frame of the same columns.

    Raises:
        InputError: the frame is of another type, repeats a column name, or a column mixes types.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if not is_pandas(frame) or not hasattr(frame, "columns"):
        raise InputError(
            f"the data are of type {type(frame).__name__}; give a path, a polars or pandas frame, or a source."
        )
    import pandas as pd  # type: ignore[import-untyped]

    if isinstance(frame.columns, pd.MultiIndex):
        raise InputError("the pandas frame has columns of several levels; flatten them to plain names.")
    if not isinstance(frame.index, pd.RangeIndex):
        dated = isinstance(frame.index, pd.DatetimeIndex)
        if any(name is not None for name in frame.index.names):
            frame = frame.reset_index(allow_duplicates=True)
        elif dated and "ds" not in frame.columns:
            frame = frame.rename_axis("ds").reset_index(allow_duplicates=True)
    names = [str(name) for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the pandas frame repeats the column names {repeated}; give each column its own name.")
    columns: dict[str, pl.Series] = {}
    for name, (_, column) in zip(names, frame.items(), strict=True):
        try:
            columns[name] = pl.Series(name, pl.from_pandas(column))
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:160]
            raise InputError(
                f"column {name!r} of the pandas frame mixes types or time zones, {reason}; convert it to one type."
            ) from None
    return pl.DataFrame(columns)
