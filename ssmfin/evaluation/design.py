"""Owns the step from a panel to arrays: labels with the date at which they are known, features as of each origin.

A `Design` holds every row of the panel; `cut` gives the part of it that exists at a date. Nothing else in the harness
touches the panel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.data.rows import forward_aggregate, group_starts, trailing_means
from ssmfin.errors import InputError, nearest
from ssmfin.features.smoothed import refuse_smoothed
from ssmfin.features.spec import FeatureSpec
from ssmfin.features.transformer import PanelTransformer, panel_column
from ssmfin.models.interface import Design, Target

HAR_WINDOWS = (1, 5, 22)


def check_target(panel: Panel, target: Target) -> None:
    """Refuse smoothed columns, and a target that is missing, not finite, or not positive where a log is taken.

    Raises:
        InputError: naming the first such row.
    """
    refuse_smoothed(None, panel.value_columns)  # any of them would reach the models
    if target.column not in panel.value_columns:
        raise InputError(
            f"target.column is {target.column!r}, which the panel does not have; "
            f"{nearest(target.column, panel.value_columns)}."
        )
    values = panel_column(panel, target.column)
    bad = ~np.isfinite(values) | (values <= 0 if target.transform == "log" else False)
    if bad.any():
        row = panel.frame.row(int(np.flatnonzero(bad)[0]), named=True)
        raise InputError(
            f"target column {target.column!r} has {int(bad.sum())} values that are not finite"
            f"{' and positive, as its log needs' if target.transform == 'log' else ''}, the first "
            f"{row[target.column]} at ({row['unique_id']}, {row['ds']}); repair those rows or leave them out"
            f"{', or forecast it without a log' if target.transform == 'log' else ''} (the settings on_breach of the "
            "data and transform of the target)."
        )


def build_design(
    panel: Panel,
    target: Target,
    features: Mapping[str, FeatureSpec],
    *,
    learned: Mapping[str, PanelTransformer] | None = None,
) -> Design:
    """The design of a whole panel.

    Args:
        features: name -> spec; columns are called `<name>__<column>`.
        learned: for each feature that learns, its transformer with what it learned.
    Raises:
        InputError: the target does not fit, or a feature that learns is not in `learned`.
    """
    check_target(panel, target)
    dates = panel.dates
    starts = group_starts(panel.frame["unique_id"].to_numpy())
    date_index = np.searchsorted(dates, panel.frame["ds"].to_numpy()).astype(np.int64)
    values = panel_column(panel, target.column)
    known_row = _known_rows(panel, starts)

    names: list[str] = []
    blocks: list[np.ndarray] = []
    for name, spec in features.items():
        if spec.fitted and name not in (learned or {}):
            raise InputError(f"feature {name!r} learns from the data and needs a training window; none was given.")
        try:
            if spec.fitted and learned is not None:
                transformer = learned[name]
            else:
                transformer = spec.transformer(column=target.column, log=target.transform == "log").fit(panel)
            names += [f"{name}__{column}" for column in transformer.get_feature_names_out()]
            blocks.append(transformer.values(panel))
        except InputError as error:
            raise InputError(f"feature {name!r}: {error}") from error
    matrix = np.column_stack(blocks) if blocks else np.empty((len(values), 0))
    lag_means = trailing_means(values, starts, HAR_WINDOWS)
    labels, label_known = _labels(panel, values, starts, date_index, target)
    columns = {
        name: _as_of(panel_column(panel, name), known_row)
        for name in panel.value_columns
        if panel.frame.schema[name].is_numeric()
    }
    return Design(
        target=target,
        ids=panel.ids,
        dates=dates,
        id_index=np.repeat(np.arange(len(starts) - 1), np.diff(starts)),
        date_index=date_index,
        starts=starts,
        observed=_as_of(values, known_row),
        lag_means=_as_of(lag_means, known_row),
        features=_as_of(matrix, known_row),
        feature_names=tuple(names),
        labels=labels,
        label_known=label_known,
        columns=columns,
    )


def feature_columns(panel: Panel, transformer: PanelTransformer) -> np.ndarray:
    """(R, F) values of one feature as known at each row, as they stand in a design."""
    starts = group_starts(panel.frame["unique_id"].to_numpy())
    return _as_of(transformer.values(panel), _known_rows(panel, starts))


def training_panel(panel: Panel, train_start: int, cutoff: int) -> Panel:
    """The rows that a feature may learn from: dated from `train_start` on, known by `cutoff` (positions of dates)."""
    date_index = np.searchsorted(panel.dates, panel.frame["ds"].to_numpy()).astype(np.int64)
    inside = (date_index >= train_start) & (_known_dates(panel, date_index) <= cutoff)
    return replace(panel, frame=panel.frame.filter(pl.Series(inside)))


def _known_rows(panel: Panel, starts: np.ndarray) -> np.ndarray | None:
    """(R,) newest row of the id that is known at each row's own date, -1 if none; None where that is the row itself."""
    if "known_at" not in panel.frame.columns:
        return None
    known, origin = panel.frame["known_at"].to_numpy(), panel.frame["ds"].to_numpy()
    if (known <= origin).all():
        return None
    out = np.empty(len(origin), dtype=np.int64)
    for first, last in itertools.pairwise(starts):
        inside = np.searchsorted(known[first:last], origin[first:last], side="right") - 1
        out[first:last] = np.where(inside >= 0, first + inside, -1)
    return out


def _known_dates(panel: Panel, date_index: np.ndarray) -> np.ndarray:
    """(R,) position of the first date at which each row is known (T: after the last one)."""
    if "known_at" not in panel.frame.columns:
        return date_index
    return np.searchsorted(panel.dates, panel.frame["known_at"].to_numpy(), side="left").astype(np.int64)


def _as_of(values: np.ndarray, known_row: np.ndarray | None) -> np.ndarray:
    if known_row is None:
        return values
    out: np.ndarray = values[known_row]
    out[known_row < 0] = np.nan
    return out


def label_dates(panel: Panel, horizons: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every row: id position (R,), date position (R,), and the date position at which each label is known (R, H).

    T (the number of dates) stands for never.
    """
    dates = panel.dates
    starts = group_starts(panel.frame["unique_id"].to_numpy())
    date_index = np.searchsorted(dates, panel.frame["ds"].to_numpy()).astype(np.int64)
    known = _known_dates(panel, date_index)
    out = np.full((len(date_index), len(horizons)), len(dates), dtype=np.int64)
    ends = np.repeat(starts[1:], np.diff(starts))
    for j, horizon in enumerate(horizons):
        # known_at never falls within an id (the panel contract), so the last row of a label is the last one known
        rows = np.flatnonzero(np.arange(len(known)) + horizon < ends)
        out[rows, j] = known[rows + horizon]
    id_index = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return id_index, date_index, out


def _labels(
    panel: Panel, values: np.ndarray, starts: np.ndarray, date_index: np.ndarray, target: Target
) -> tuple[np.ndarray, np.ndarray]:
    known = label_dates(panel, target.horizons)[2]
    labels = np.column_stack([forward_aggregate(values, starts, h, target.aggregate) for h in target.horizons])
    return labels, known


def cut(design: Design, last_date: int, *, labels_until: int | None) -> tuple[Design, np.ndarray]:
    """The design as it stands at a date: later rows gone, later labels blank.

    Args:
        last_date: position of the last date to keep.
        labels_until: labels known after this date become NaN; None blanks all of them.
    Returns:
        the cut design, and (R,) the new position of each old row (-1 where it is gone).
    """
    keep = design.date_index <= last_date
    position = np.where(keep, np.cumsum(keep) - 1, -1)
    labels, known = design.labels[keep], design.label_known[keep]
    never = last_date + 1
    blank = np.ones_like(known, dtype=bool) if labels_until is None else known > labels_until
    counts = np.add.reduceat(keep, design.starts[:-1]) if len(keep) else np.zeros(0, dtype=np.int64)
    return (
        replace(
            design,
            dates=design.dates[:never],
            id_index=design.id_index[keep],
            date_index=design.date_index[keep],
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            observed=design.observed[keep],
            lag_means=design.lag_means[keep],
            features=design.features[keep],
            labels=np.where(blank, np.nan, labels),
            label_known=np.where(blank, never, known),
            columns={name: column[keep] for name, column in design.columns.items()},
            usable=None if design.usable is None else design.usable[keep],
        ),
        position,
    )
