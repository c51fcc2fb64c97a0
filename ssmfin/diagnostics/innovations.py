"""Owns where standardised innovations come from: a filtered result of any kind, or plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmfin.classical.smoothed import Smoothed
from ssmfin.errors import InputError

FloatArray = np.ndarray  # float64


def standardised_innovations(source: Any) -> FloatArray:
    """(B, T, P) standardised one-step innovations, NaN where missing or diffuse.

    Args:
        source: what a filter of `ssmfin.classical` returned, or an array (T,), (B, T) or (B, T, P).
    Raises:
        InputError: the source has none, or its shape is another.
    """
    if isinstance(source, Smoothed):
        raise InputError("source is Smoothed, which has no one-step innovations; give what filter_series returns.")
    values = getattr(source, "standardised_innovation", source)
    if hasattr(values, "detach"):  # a torch tensor that may carry a gradient
        values = values.detach()
    try:
        z = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(
            f"source is {type(source).__name__}, without standardised_innovation; give a filtered result or an array."
        ) from None
    if z.ndim not in (1, 2, 3):
        raise InputError(f"source has shape {z.shape}; use (T,), (B, T) or (B, T, P).")
    if np.isinf(z).any():
        raise InputError("source has infinite values; use NaN where missing.")
    return z.reshape(1, -1, 1) if z.ndim == 1 else z[..., None] if z.ndim == 2 else z


def one_of(z: FloatArray, series: int, component: int) -> FloatArray:
    """(T,) of one series and component of (B, T, P)."""
    for what, place, size in (("series", series, z.shape[0]), ("component", component, z.shape[2])):
        if not 0 <= place < size:
            raise InputError(f"{what} is {place}, of {size}; use 0 to {size - 1}.")
    return z[series, :, component]


def time_axis(dates: Any, length: int) -> np.ndarray:
    """(T,) what stands on the horizontal axis: the dates given (datetimes or numbers), else 1 .. T."""
    if dates is None:
        return np.arange(1, length + 1)
    values = np.asarray(dates.to_numpy() if hasattr(dates, "to_numpy") else dates)
    if values.dtype == object:
        values = values.astype("datetime64[us]")
    if values.shape != (length,):
        raise InputError(f"dates has shape {values.shape}; use ({length},), one for each step.")
    return values
