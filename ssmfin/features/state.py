"""Owns what a transformer learned as plain JSON data: written once, restored to the same bits anywhere.

Numbers pass through JSON without loss (Python writes the shortest text that reads back as the same float64). Arrays
and dates are tagged; anything else is refused rather than pickled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmfin.errors import InputError

_TAG = "numpy"


def to_plain(value: Any, *, name: str = "state") -> Any:
    """A learned value as JSON-able data.

    Raises:
        InputError: it holds something that JSON cannot say.

    >>> from_plain(to_plain({"level": np.array([0.5, np.nan]), "ids": ("a",)}))
    {'level': array([0.5, nan]), 'ids': ['a']}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufMU":
        array = np.asarray(value)
        flat = array.view(np.int64) if array.dtype.kind == "M" else array
        return {_TAG: array.dtype.str, "shape": list(array.shape), "values": flat.ravel().tolist()}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value) and _TAG not in value:
        return {key: to_plain(item, name=f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, name=f"{name}[{i}]") for i, item in enumerate(value)]
    raise InputError(
        f"{name} is a {type(value).__name__}, which JSON cannot hold; keep numbers, texts, lists, dicts and arrays in "
        "what a transformer learns, or give it state() and restore() of its own."
    )


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain` (tuples come back as lists)."""
    if isinstance(value, dict):
        if _TAG in value:
            dtype = np.dtype(value[_TAG])
            array = np.array(value["values"], dtype=np.int64 if dtype.kind == "M" else dtype)
            return (array.view(dtype) if dtype.kind == "M" else array).reshape(value["shape"])
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value
