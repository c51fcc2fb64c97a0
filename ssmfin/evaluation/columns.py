"""Owns the columns of predictions.parquet: those that are always there, quantiles by their level, the event.

    unique_id, ds, horizon, fold, cutoff, model, seed, y, y_hat     always
    q05, q25, q50, ...                                              quantiles, where a model of the study gives them
    event, event_threshold                                          P(y > event_threshold), likewise

Null where a model does not say. A quantile is named by the digits of its level after the point, at least two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from ssmfin.models.interface import Forecast

SORT_KEYS = ("model", "seed", "unique_id", "ds", "horizon")
EVENT, THRESHOLD = "event", "event_threshold"
_QUANTILE = re.compile(r"q(\d{2,})")


def quantile_column(level: float) -> str:
    """Name of the column of a quantile.

    >>> quantile_column(0.05), quantile_column(0.5), quantile_column(0.975)
    ('q05', 'q50', 'q975')
    """
    return "q" + np.format_float_positional(level, trim="-").partition(".")[2].ljust(2, "0")


def quantile_levels(columns: Iterable[str]) -> dict[str, float]:
    """The quantile columns among `columns` and their levels, lowest level first.

    >>> quantile_levels(["y", "q975", "q05"])
    {'q05': 0.05, 'q975': 0.975}
    """
    found = {name: float(f"0.{match[1]}") for name in columns if (match := _QUANTILE.fullmatch(name))}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def distribution_columns(columns: Iterable[str]) -> list[str]:
    """Those among `columns` that say more than the mean: quantiles, lowest level first, then the event's.

    >>> distribution_columns(["event", "y", "q95", "q05"])
    ['q05', 'q95', 'event']
    """
    columns = list(columns)
    return [*quantile_levels(columns), *(name for name in (EVENT, THRESHOLD) if name in columns)]


def forecast_columns(forecast: Forecast) -> dict[str, pl.Series]:
    """y_hat and what else a forecast says, by column, (n H) each: origin after origin, its horizons in their order."""
    found = {"y_hat": forecast.mean}
    if forecast.quantiles is not None:
        quantiles = np.moveaxis(forecast.quantiles, -1, 0)
        found |= {quantile_column(level): values for level, values in zip(forecast.levels, quantiles, strict=True)}
    if forecast.event is not None and forecast.threshold is not None:
        found |= {EVENT: forecast.event, THRESHOLD: forecast.threshold}
    return {name: pl.Series(values.ravel(), dtype=pl.Float64).fill_nan(None) for name, values in found.items()}


def merged(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several models or fits as one frame, sorted; columns that a part lacks are null there.

    The same parts in any order, and cut in any way, give the same frame.
    """
    frame = pl.concat(parts, how="diagonal")
    last = distribution_columns(frame.columns)
    return frame.select(*(name for name in frame.columns if name not in last), *last).sort(*SORT_KEYS)
