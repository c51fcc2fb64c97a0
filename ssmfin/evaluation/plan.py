"""Owns the table of folds: dates and row counts, for a bare panel and for a whole experiment."""

from __future__ import annotations

import numpy as np
import polars as pl

from ssmfin.evaluation.design import label_dates
from ssmfin.evaluation.experiment import Experiment
from ssmfin.evaluation.splits import WalkForward

__all__ = ["experiment_plan", "fold_table", "label_dates"]


def fold_table(
    walk_forward: WalkForward,
    dates: np.ndarray,
    id_index: np.ndarray,
    date_index: np.ndarray,
    label_known: np.ndarray,
    *,
    usable: np.ndarray | None = None,
    test_rows: list[np.ndarray] | None = None,
) -> pl.DataFrame:
    """One row a fold: fold, fit, train_start, train_end, cutoff, validation_start, test_start, test_end, ids, rows.

    Args:
        id_index, date_index: (R,). label_known: (R, H) date position at which labels are known.
        usable: (R,) rows with complete features (default all). test_rows: rows forecast from, fold by fold (default:
            all usable rows of the test dates).
    Returns:
        `train_end` is the last training origin with a known label of the longest horizon; `n_train_rows` counts such
        origins over all ids, `n_test_rows` the origins forecast from, `n_ids` the ids among them.
    """
    usable = np.ones(len(date_index), dtype=bool) if usable is None else usable
    known = label_known.max(axis=1)
    rows = []
    for fold in walk_forward.folds(dates):
        train = usable & (date_index >= fold.train_start) & (known <= fold.labels_until)
        tested = (
            test_rows[fold.number]
            if test_rows is not None
            else np.flatnonzero(usable & (date_index >= fold.test_start) & (date_index < fold.test_stop))
        )
        rows.append(
            {
                "fold": fold.number,
                "fit": fold.number // walk_forward.refit,
                "train_start": dates[fold.train_start],
                "train_end": dates[date_index[train].max()] if train.any() else None,
                "validation_start": dates[fold.validation_start],
                "cutoff": dates[fold.cutoff],
                "test_start": dates[fold.test_start],
                "test_end": dates[fold.test_stop - 1],
                "n_train_rows": int(train.sum()),
                "n_test_rows": len(tested),
                "n_ids": len(np.unique(id_index[tested])),
            }
        )
    day = pl.Date if np.datetime_data(dates.dtype)[0] == "D" else pl.Datetime("us")
    moments = ("train_start", "train_end", "validation_start", "cutoff", "test_start", "test_end")
    return pl.DataFrame(
        {
            name: _moments([row[name] for row in rows], day) if name in moments else [row[name] for row in rows]
            for name in rows[0]
        }
    )


def experiment_plan(experiment: Experiment) -> pl.DataFrame:
    """The fold table with the rows that the experiment really trains on and forecasts from."""
    design = experiment.design
    experiment.walk_forward.check(experiment.target.horizons)
    return fold_table(
        experiment.walk_forward,
        design.dates,
        design.id_index,
        design.date_index,
        design.label_known,
        usable=design.complete,
        test_rows=experiment.test_rows,
    )


def skipped_ids(experiment: Experiment) -> dict[str, str]:
    """Ids that are never forecast, each with the reason."""
    design = experiment.design
    tested = {int(k) for rows in experiment.test_rows for k in np.unique(design.id_index[rows])}
    required = experiment.walk_forward.train.required_rows
    counts = np.diff(design.starts)
    return {
        name: f"never has {required} complete training rows in a window ({int(counts[k])} rows in all)"
        for k, name in enumerate(design.ids)
        if k not in tested
    }


def skipped_origins(experiment: Experiment) -> dict[str, int]:
    """Reason -> number of rows of the test dates that are not forecast from. Empty if none is lost."""
    design = experiment.design
    tested = np.zeros(design.rows, dtype=bool)
    tested[np.concatenate(experiment.test_rows)] = True
    lost = (design.date_index >= experiment.folds[0].cutoff) & ~tested
    found = {}
    for j, name in enumerate(design.feature_names):
        missing = lost & ~np.isfinite(design.features[:, j])
        if missing.any():
            found[f"feature {name} is missing"] = int(missing.sum())
    short = lost & ~np.isfinite(design.lag_means).all(axis=1)
    if short.any():
        found["the id has no 22 rows behind it"] = int(short.sum())
    rare = lost & design.complete
    if rare.any():
        required = experiment.walk_forward.train.required_rows
        found[f"the id has fewer than {required} complete training rows in the window"] = int(rare.sum())
    return found


def _moments(values: list[np.datetime64 | None], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    missing = np.datetime64("NaT", "us")
    return pl.Series(np.array([missing if value is None else value for value in values], dtype="M8[us]")).cast(dtype)
