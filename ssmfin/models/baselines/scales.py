"""Owns taking logs of targets: what may be logged, and the error that says why not."""

from __future__ import annotations

import numpy as np

from ssmfin.data.rows import log_or_nan
from ssmfin.errors import InputError
from ssmfin.models.interface import Design, FloatArray, TrainingSet, Window


def model_response(design: Design) -> FloatArray:
    """(R, H) labels on the model's scale; NaN where unknown, and under a log where not positive."""
    if design.target.transform == "log":
        return log_or_nan(design.labels)
    return np.asarray(design.target.to_model_scale(design.labels))


def require_positive_training(training: TrainingSet, *, model: str) -> None:
    """Refuse a training set with labels whose log does not exist."""
    _refuse(training.design, training.train & ~(training.design.labels > 0), model)


def require_positive_windows(design: Design, windows: list[Window], *, model: str) -> None:
    """Refuse windows with labels whose log does not exist: labels that some window may learn from, no others."""
    if not windows:
        return
    date = design.date_index[:, None]
    learnt = (date >= min(w.train_start for w in windows)) & design.complete[:, None] & np.isfinite(design.labels)
    learnt &= design.label_known <= max(w.labels_until for w in windows)
    _refuse(design, learnt & ~(design.labels > 0), model)


def require_positive_rows(design: Design, values: FloatArray, rows: np.ndarray, *, model: str) -> None:
    """Refuse rows to forecast from at which a regressor has no log. Args: values: (R, p)."""
    wrong = np.zeros(values.shape, dtype=bool)
    wrong[rows] = ~(values[rows] > 0)
    _refuse(design, wrong, model, values)


def _refuse(design: Design, wrong: np.ndarray, model: str, values: FloatArray | None = None) -> None:
    if not wrong.any():
        return
    row, column = (int(i) for i in np.argwhere(wrong)[0])
    value = (design.labels if values is None else values)[row, column]
    raise InputError(
        f"{model} takes logs and the target {design.target.column!r} is not positive, {value:g} for "
        f"{design.ids[design.id_index[row]]!r} around {design.dates[design.date_index[row]]}; "
        "use a positive target (a variance) or leave out the models in logs."
    )
