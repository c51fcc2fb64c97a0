"""Owns the pass that makes realized covariances of several assets: day by day, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.intraday.calendars import calendar_named
from ssmfin.data.intraday.scan import TickSource
from ssmfin.data.realized.covariance import covariance_matrices
from ssmfin.data.realized.measures import BATCH_ROWS, checked_options, intraday_source, sampled_returns
from ssmfin.errors import InputError

_SCHEMA = {
    "ds": pl.Date,
    "id_1": pl.String,
    "id_2": pl.String,
    "covariance": pl.Float64,
    "correlation": pl.Float64,
    "beta": pl.Float64,
}


def realized_covariances(
    source: Any,
    *,
    calendar: str,
    sampling: str = "15min",
    ids: Iterable[str] | None = None,
    columns: Mapping[str, str] | None = None,
    date_format: str | None = None,
    batch_rows: int = BATCH_ROWS,
    **options: Any,
) -> pl.DataFrame:
    """Realized covariance, correlation and beta of every pair of assets, by session.

    RCov_ij = sum_k r_ik r_jk,  corr_ij = RCov_ij / sqrt(RCov_ii RCov_jj),  beta_ij = RCov_ij / RCov_jj

    Returns are sampled by previous tick at the same times. Assets that do not trade at the same moments have
    covariances that are too small at short intervals (Epps 1979), hence the longer default. Returns of all assets are
    held at once (500 assets x 10 years at 15 minutes: 260 MB), prices are not.

    Args:
        source, calendar, columns, date_format, batch_rows, options: as in `realized_measures`.
        ids: these assets; default all, at most 1000.
    Returns:
        ds, id_1, id_2, covariance, correlation, beta (of id_1 to id_2), sorted; all ordered pairs with id_1 != id_2,
        and on the diagonal the variances. Only days on which both are usable.
    Raises:
        InputError: as `realized_measures`, or fewer than two assets are there.
    References:
        Barndorff-Nielsen, Shephard (2004), Econometric analysis of realized covariation, Econometrica 72.
    """
    checked = checked_options(
        {**options, "calendar": calendar, "sampling": sampling, "estimators": ("rv",), "cache": False},
        "realized_covariances",
    )
    wanted = None if ids is None else tuple(ids)
    ticks = TickSource(intraday_source(source), dict(columns or {}), checked.input, wanted, checked.factors)
    # days of equal length only are comparable: a half day of one exchange is a whole one of another
    by_day: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    names: set[str] = set()
    for name, label, length, returns in sampled_returns(
        ticks, checked, calendar_named(calendar), date_format, batch_rows
    ):
        by_day.setdefault((label, length), {})[name] = returns
        names.add(name)
    missing = [name for name in wanted or () if name not in names]
    if missing or len(names) < 2:
        what = f"no usable session of {missing[0]!r}" if missing else f"{len(names)} assets with a usable session"
        raise InputError(f"{ticks.describe()} has {what}; covariances need two assets, correct ids.")
    if len(names) > 1000:
        raise InputError(f"{ticks.describe()} has {len(names):,} assets, too many for all pairs; choose some by ids.")
    # days on which the same assets are there go together
    alike: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for (label, length), own in by_day.items():
        if len(own) > 1:
            alike.setdefault((length, tuple(sorted(own))), []).append(label)
    tables = [
        _pairs(labels, who, np.array([[by_day[label, length][name] for name in who] for label in labels]))
        for (length, who), labels in alike.items()
    ]
    return pl.concat(tables).sort("ds", "id_1", "id_2") if tables else pl.DataFrame(schema=_SCHEMA)


def _pairs(labels: list[int], names: tuple[str, ...], returns: np.ndarray) -> pl.DataFrame:
    """All pairs on some days; `returns` is (days, assets, n)."""
    matrix = covariance_matrices(returns)  # (D, A, A)
    variance = np.diagonal(matrix, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = matrix / np.sqrt(variance[:, :, None] * variance[:, None, :])
        beta = matrix / variance[:, None, :]
    series = pl.Series(names)
    first, second = np.divmod(np.arange(len(names) ** 2), len(names))
    return pl.DataFrame(
        {
            "ds": pl.Series(np.repeat(labels, len(first)).astype(np.int32)).cast(pl.Date),
            "id_1": series.gather(np.tile(first, len(labels))),
            "id_2": series.gather(np.tile(second, len(labels))),
            "covariance": matrix.ravel(),
            "correlation": correlation.ravel(),
            "beta": beta.ravel(),
        },
        schema=_SCHEMA,
    )
