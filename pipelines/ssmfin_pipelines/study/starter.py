"""Owns the first study for a data file: what its columns seem to mean, said as commented YAML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.data.sources import CsvSource, ParquetSource
from ssmfin.errors import InputError

_DATE_NAMES = ("ds", "date", "datetime", "timestamp", "time", "day", "trade_date", "index")
_ID_NAMES = ("unique_id", "symbol", "ticker", "id", "asset", "instrument", "permno", "ric", "isin", "name")
_TARGET_NAMES = (
    "rv5",
    "rv",
    "realized_variance",
    "realised_variance",
    "rvar",
    "variance",
    "rv5_ss",
    "parkinson",
    "bv",
    "rk",
)
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Facts:
    """What a file's columns seem to mean.

    Attributes:
        name: of the study. source: its `data.source`. columns: our names to the file's, where they differ.
        target: column to forecast. positive: a log can be taken of it. dates: number of distinct dates, roughly.
        measures: the target is computed from open, high, low, close. others: columns that could be targets instead.
    """

    name: str
    source: dict[str, Any]
    columns: dict[str, str]
    target: str
    positive: bool
    dates: int
    measures: bool = False
    others: tuple[str, ...] = field(default=())


def embedded_facts() -> Facts:
    """The S&P 500 that the package `arch` ships."""
    return Facts("sp500-volatility", {"kind": "arch", "series": ["sp500"]}, {}, "parkinson", True, 5_000, measures=True)


def look_at(path: Path) -> Facts:
    """Facts about a csv or parquet file.

    Raises:
        InputError: it cannot be read, or no column can be a date or a target.
    """
    source = _source(path)
    frame = next(iter(source.parts())).frame
    named = {name.lower(): name for name in frame.columns}
    dates = next((named[name] for name in _DATE_NAMES if name in named), None)
    dates = dates or next((name for name in frame.columns if frame.schema[name].is_temporal()), None)
    if dates is None:
        raise InputError(
            f"{path} has no column that looks like a date, {frame.columns}; rename the date column to `date`."
        )
    ids = next((named[name] for name in _ID_NAMES if name in named), None)
    mark = source.decimal if isinstance(source, CsvSource) else "."
    numbers = {name: _numbers(frame[name], mark) for name in frame.columns if name not in (dates, ids) and name.strip()}
    values = {name: column for name, column in numbers.items() if column is not None}
    columns = {"ds": dates, **({"unique_id": ids} if ids is not None else {})}
    prices = {name: named[name] for name in _PRICES if named.get(name) in values}
    wanted = next((named[name] for name in _TARGET_NAMES if named.get(name) in values), None)
    measures = wanted is None and {"high", "low"} <= set(prices)
    if measures:
        columns |= prices
        target, positive = "parkinson", True
    else:
        target = wanted or next((name for name, column in values.items() if _positive(column)), next(iter(values), ""))
        if not target:
            raise InputError(f"{path} has no column of numbers beside {sorted(columns.values())}; add one to forecast.")
        positive = _positive(values[target])
    columns = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    others = tuple(name for name in values if name != target and not (measures and name in prices.values()))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.split(".")[0]).strip("-_")[:64] or "study"
    spec = {key: value for key, value in source.model_dump(mode="json", exclude_defaults=True).items() if key != "path"}
    spec = {"kind": source.kind, "path": str(path), **spec}
    return Facts(name, spec, columns, target, positive, frame[dates].n_unique(), measures, others)


def _source(path: Path) -> CsvSource | ParquetSource:
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
    body = "".join(lines[1:])
    decimal = "," if delimiter != "," and re.search(r"\d,\d", body) and not re.search(r"\d\.\d", body) else "."
    return CsvSource(path=(str(path),), delimiter=delimiter, decimal=decimal)


def _numbers(column: pl.Series, mark: str) -> pl.Series | None:
    """The column as numbers, None if it is mostly something else."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    if column.dtype != pl.String:
        return None
    text = column.str.strip_chars().replace("", None)
    number = (text.str.replace(",", ".", literal=True) if mark == "," else text).cast(pl.Float64, strict=False)
    return number if 2 * (len(number) - number.null_count()) > max(len(text) - text.null_count(), 1) else None


def _positive(column: pl.Series) -> bool:
    known = column.drop_nulls().drop_nans()
    return len(known) > 0 and bool((known > 0).all())


def _scalar(value: str) -> str:
    """Text as a YAML scalar that reads back as the same text."""
    return value if re.fullmatch(r"[A-Za-z_/.][A-Za-z0-9_./-]*", value) and value.lower() not in (
        "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    ) else json.dumps(value, ensure_ascii=False)  # fmt: skip


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def starter_text(facts: Facts) -> str:
    """The study as YAML; windows and horizons fit the number of dates."""
    dates = max(facts.dates, 2)
    train = 1000 if dates >= 1500 else max(12, dates // 2)
    horizons = [h for h in (1, 5, 22) if 12 * h <= train]
    windows = [w for w in (1, 5, 22) if 4 * w <= train]
    validation = max(horizons[-1] + 2, train // 8)
    test = 63 if dates >= 1500 else max(1, dates // 20)
    others = f"  # or {', '.join(facts.others[:6])}" if facts.others else ""
    scale = "log" if facts.positive else "none"
    losses = ["qlike", "mse", "mae"] if facts.positive else ["mse", "mae"]
    lines = [
        "# Check:  ssmfin validate FILE --data      Cost:  ssmfin plan FILE      Run:  ssmfin run FILE",
        "# All keys, with completion in an editor:  ssmfin schema > study.schema.json, then the line",
        "# yaml-language-server: $schema=study.schema.json",
        f"name: {_scalar(facts.name)}",
        "seed: 0",
        "data:",
        f"  source: {_flow(facts.source)}",
    ]
    if facts.columns:
        lines.append(f"  columns: {_flow(facts.columns)}  # our names: the file's")
    lines.append("  # ids: [SPX, DAX]        # a subset; start: and end: limit the dates")
    if facts.measures:
        lines.append("  measures: {kind: range, estimators: [parkinson]}  # daily variance, decimal, from high and low")
    lines += [
        "target:",
        f"  column: {_scalar(facts.target)}{others}",
        f"  transform: {scale:<4}  # log, or none where values may be zero or negative",
        f"  horizons: {_flow(horizons)}  # rows ahead",
        "  aggregate: mean  # over t+1 .. t+h; or sum, last",
        "walk_forward:  # sizes in dates",
        f"  train: {{kind: rolling, size: {train}}}  # or expanding",
        f"  validation: {{size: {validation}}}  # tail of the window for early stopping and penalties",
        f"  test: {{size: {test}}}  # forecast origins between two fits",
        "  refit: 1  # fit on every k-th fold",
        "features:",
        f"  har: {{kind: har_lags, windows: {_flow(windows)}}}  # means over the last w rows",
        "models:  # beside random_walk, har, log_har, ridge and lightgbm, which always run",
        f"  s4d: {{kind: s4d, features: [har], context: {min(128, max(8, train // 4))}, seeds: [0], refit: 8}}",
        "benchmarks: {}  # tune or add, such as {lightgbm: {num_leaves: 31}, ewma: {}}",
        f"evaluate: {{losses: {_flow(losses)}, reference: {'log_har' if facts.positive else 'har'}, mcs_size: 0.1}}",
        "execution: {backend: local, workers: auto, on_error: record}",
        "output: {directory: runs, report: html}",
    ]
    return "\n".join(lines) + "\n"
