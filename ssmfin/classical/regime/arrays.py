"""Owns the shapes of what users give: y, x and starts as float64 arrays, refused when they do not fit the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmfin.classical.regime.model import Specification
from ssmfin.errors import InputError


def as_series(spec: Specification, y: Any) -> np.ndarray:
    """(B, T), or (B, T, P) where the model is of vectors.

    Raises:
        InputError: it has another shape.
    """
    values = np.asarray(y, dtype=np.float64)
    P = spec.components
    if spec.vectors:
        if values.ndim == 2 and P == 1:
            values = values[:, :, None]
        if values.ndim != 3 or values.shape[2] != P:
            raise InputError(
                f"y has shape {values.shape}, not (series, steps, {P}); give the {P} columns of the model."
            )
    elif values.ndim != 2:
        raise InputError(f"y has shape {values.shape}, not (series, steps); give a matrix, one row a series.")
    return values


def as_regressors(spec: Specification, x: Any, shape: tuple[int, int]) -> np.ndarray:
    """(B, T, X), from the same or from (T, X) for all series.

    Raises:
        InputError: it is missing, unwanted, or has another shape.
    """
    X = spec.regressors
    if x is None:
        if X:
            raise InputError(f"x is missing; {spec.kind} has {X} regressors: give (series, steps, {X}).")
        return np.zeros((*shape, 0))
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 2 and (X == 1 and values.shape == shape):
        values = values[:, :, None]
    elif values.ndim == 2 and values.shape == (shape[1], X):
        values = np.broadcast_to(values, (*shape, X))
    if values.shape != (*shape, X):
        raise InputError(f"x has shape {values.shape}, not {(*shape, X)}; give the {X} regressors of the model.")
    return values


def as_starts(spec: Specification, starts: Any, B: int) -> np.ndarray:
    """(B, S, N) parameters to start from.

    Raises:
        InputError: it has another shape.
    """
    values, N = np.asarray(starts, dtype=np.float64), len(spec.parameter_names)
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim != 3 or values.shape[0] != B or values.shape[2] != N:
        raise InputError(f"starts have shape {values.shape}; give a number of them, ({B}, {N}) or ({B}, starts, {N}).")
    return values
