"""Owns the embedded source: daily data that the `arch` package ships (S&P 500, NASDAQ, VIX), read without it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import BeforeValidator, Field

from ssmfin.data.sources.base import Part, Source
from ssmfin.errors import InputError

# file below arch/data -> {column there: ours}
_SERIES = {
    "sp500": (
        "sp500/sp500.csv.gz",
        {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"},
    ),
    "nasdaq": (
        "nasdaq/nasdaq.csv.gz",
        {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"},
    ),
    "vix": ("vix/vix.csv.gz", {"vix": "close"}),
}

Name = Literal["sp500", "nasdaq", "vix"]
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=Name | list[Name]
    ),
    Field(min_length=1),
]


class ArchSource(Source):
    """`{kind: arch, series: [sp500, nasdaq]}`: OHLC and volume, 1999 to 2018; `vix`: close, 2014 to 2018.

    In sp500 the open equals the previous close on about 95 % of the days of 1999-2005, so that estimators which use the
    open are biased there; Parkinson's is not.
    """

    kind: Literal["arch"] = "arch"
    series: Names = Field(("sp500", "nasdaq"), description="which of sp500, nasdaq, vix")

    def describe(self) -> str:
        return f"arch.data ({', '.join(self.series)})"

    def parts(self) -> Iterator[Part]:
        if "vix" in self.series and len(set(self.series)) > 1:
            raise InputError(
                f"source.series mixes vix, which has a close only, with indices, {list(self.series)}; "
                "take vix as an exogenous source."
            )
        # find_spec locates the package without running it: importing arch takes seconds
        found = importlib.util.find_spec("arch")
        if found is None or not found.submodule_search_locations:
            raise InputError("source.kind is 'arch', but the package arch is not installed; run `pip install arch`.")
        root = Path(next(iter(found.submodule_search_locations))) / "data"
        for name in sorted(set(self.series)):
            file, names = _SERIES[name]
            if not (root / file).is_file():
                raise InputError(f"{root / file} is missing from the package arch; install it again.")
            table = pl.read_csv(root / file, schema_overrides=dict.fromkeys(names, pl.Float64), null_values=".")
            frame = table.select(
                pl.lit(name).alias("unique_id"),
                pl.col("Date").str.to_date("%m/%d/%Y").alias("ds"),
                *(pl.col(theirs).alias(ours) for theirs, ours in names.items()),
            )
            yield Part(f"arch.data.{name}", frame)
