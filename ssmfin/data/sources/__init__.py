"""Owns the registry of data sources: one line per kind that a study may name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ssmfin.data.sources.arch import ArchSource
from ssmfin.data.sources.base import Part, Source
from ssmfin.data.sources.csv import CsvSource
from ssmfin.data.sources.frame import FrameSource
from ssmfin.data.sources.parquet import ParquetSource

AnySource = Annotated[
    ArchSource | CsvSource | ParquetSource,
    Field(discriminator="kind"),
]

__all__ = ["AnySource", "ArchSource", "CsvSource", "FrameSource", "ParquetSource", "Part", "Source"]
