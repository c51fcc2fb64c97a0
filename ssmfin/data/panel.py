"""Owns the panel: long data, one row per (unique_id, ds), sorted, checked, immutable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.data.breaches import Breaches
from ssmfin.data.contract import check_target, value_columns
from ssmfin.errors import InputError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


@dataclass(frozen=True, eq=False)
class Panel:
    """What `load_panel` returns. Rows are sorted by (unique_id, ds), keys are unique.

    Attributes:
        frame: unique_id (String), ds (Date if no moment has a time of day, else Datetime("us")), maybe known_at (as
            ds), and value columns (Float64; missing is null, never NaN).
        notes: plain facts about the loading: source, rows, ids, first, last, dropped, gaps, left_out_columns, ...
    """

    frame: pl.DataFrame
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        schema = self.frame.schema
        if schema.get("unique_id") != pl.String or schema.get("ds") not in (pl.Date, pl.Datetime("us")):
            raise InputError(
                f"a Panel needs unique_id (String) and ds (Date or Datetime('us')), not {dict(schema)}; use load_panel."
            )

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, sorted."""
        heads = self.frame["unique_id"]
        return tuple(sorted(heads.unique().to_list()))

    @cached_property
    def dates(self) -> np.ndarray:
        """(T,) datetime64, the sorted distinct ds of all ids: [D] if ds are dates, else [us]."""
        return self.frame["ds"].unique().sort().to_numpy()

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The names of the value columns, in their order."""
        return value_columns(self.frame)

    def fingerprint(self) -> str:
        """Hash of the content (names, types, order of columns and rows, every bit of every value), 32 hex digits.

        It does not depend on the process, the machine, the files' layout or the notes.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr([(name, str(dtype)) for name, dtype in self.frame.schema.items()]).encode())
        digest.update(str(self.frame.height).encode())
        for name in self.frame.columns:
            column = self.frame[name]
            if column.dtype == pl.String:
                runs = column.rle()
                lengths = runs.struct.field("len").to_numpy().astype("<i8")
                digest.update(lengths.tobytes())
                digest.update("\0".join(map(repr, runs.struct.field("value").to_list())).encode())
                continue
            missing = column.is_null()
            if missing.any():
                digest.update(np.packbits(missing.to_numpy()).tobytes())
            if column.dtype.is_temporal():
                digest.update(column.to_physical().fill_null(0).to_numpy().astype("<i8").tobytes())
            else:
                # 0.0 under the mask: what a null hides is arbitrary
                digest.update(column.cast(pl.Float64).fill_null(0.0).to_numpy().astype("<f8", copy=False).tobytes())
        return digest.hexdigest()

    def require_target(self, target: str, *, positive: bool = False) -> None:
        """Check the column that will be forecast on a panel that was loaded without naming it.

        Raises:
            InputError: no such column, missing values, or values that have no logarithm if `positive`; lists the rows.
        """
        frame = self.frame.with_row_index("__row")
        breaches = Breaches(str(self.notes.get("source", "the panel")), lambda row: f"row {row + 1}")
        check_target(frame, target, positive, breaches)
        if breaches.kinds:
            raise InputError(breaches.message())

    def to_pandas(self) -> pd.DataFrame:
        """A pandas copy; missing values are NaN."""
        import pandas as pd  # type: ignore[import-untyped]

        frame = self.frame
        columns: dict[str, Any] = {}
        for name in frame.columns:
            column = frame[name]
            columns[name] = column.to_list() if column.dtype == pl.String else column.to_numpy()
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        first, last = (self.dates[0], self.dates[-1]) if self.frame.height else ("-", "-")
        return (
            f"Panel({self.frame.height:,} rows, {len(self.ids)} ids, {first} to {last}, "
            f"columns {', '.join(self.value_columns)})"
        )
