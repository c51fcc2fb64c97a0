"""Owns the adapters around a user's feature class: frames to columns in the panel's order, failures to one line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.features.state import from_plain, to_plain
from ssmfin.features.transformer import PanelTransformer
from ssmfin.outside import class_named

WORDS = (pl.String, pl.Categorical, pl.Enum, pl.Binary, pl.Object)


class FrameTransformer(PanelTransformer):
    """A class with `transform`, and maybe `fit`, over frames, as a transformer.

    The names of its columns are those of the frame it returns, of its own `get_feature_names_out`, or 0, 1, ...
    """

    names_: list[str]

    def __init__(self, kind: str, inner: Any, parameters: Mapping[str, Any]) -> None:
        self.kind, self.inner, self.parameters = kind, inner, parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return dict(self.parameters)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array(self.names_, dtype=object)

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        if callable(getattr(self.inner, "fit", None)):
            with their_code(self.kind, "fit"):
                self.inner.fit(panel.frame)
        self.names_ = list(self._frame(panel).columns)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        frame = self._frame(panel)
        if frame.columns != list(self.names_):
            raise InputError(
                f"{self.kind}.transform gave the columns {frame.columns} and at first {list(self.names_)}; return the "
                "same columns whatever the rows."
            )
        return frame.to_numpy().astype(np.float64)

    def state(self) -> dict[str, Any]:
        learned = {name: to_plain(value, name=f"{self.kind}.{name}") for name, value in vars(self.inner).items()}
        return {"names_": list(self.names_), "learned": learned}

    def restore(self, state: Mapping[str, Any]) -> Self:
        self.names_ = list(state["names_"])
        for name, value in state["learned"].items():
            setattr(self.inner, name, from_plain(value))
        self.fitted_ = True
        return self

    def _frame(self, panel: Panel) -> pl.DataFrame:
        """(R, F) Float64, in the order of the panel's rows, without the keys."""
        given = panel.frame
        with their_code(self.kind, "transform"):
            answer, names = self.inner.transform(given), self._own_names()
        found = _as_frame(self.kind, answer, names)
        if found.height != given.height:
            raise InputError(
                f"{self.kind}.transform gave {found.height} rows for {given.height}; return one for each row of X, NaN "
                "where there is no value."
            )
        keys = [name for name in ("unique_id", "ds") if name in found.columns]
        if len(keys) == 2:
            found = found.sort(keys)
            if not found.select(keys).equals(given.select(keys)):
                raise InputError(f"{self.kind}.transform changed unique_id or ds; return those of X, or neither.")
        elif "__index_level_0__" in found.columns:
            found = found.drop("__index_level_0__")
        found = found.drop(keys)
        if not found.width:
            raise InputError(f"{self.kind}.transform gave no column beside the keys; return at least one.")
        words = [
            name for name, dtype in found.schema.items() if dtype.is_temporal() or dtype.is_nested() or dtype in WORDS
        ]
        if words:
            raise InputError(
                f"{self.kind}.transform gave column {words[0]!r} of type {found.schema[words[0]]}; return numbers."
            )
        return found.select(pl.all().cast(pl.Float64).fill_null(float("nan")))

    def _own_names(self) -> list[str] | None:
        names = getattr(self.inner, "get_feature_names_out", None)
        return [str(name) for name in names()] if callable(names) else None


def _as_frame(kind: str, given: Any, names: list[str] | None) -> pl.DataFrame:
    """What a user's transform returned, as a polars frame."""
    if isinstance(given, pl.LazyFrame):
        given = given.collect()
    if isinstance(given, pl.Series):
        given = given.to_frame(given.name or "0")
    if isinstance(given, pl.DataFrame):
        return given
    if type(given).__module__.partition(".")[0] == "pandas":
        given = given.to_frame() if given.ndim == 1 else given
        return pl.from_pandas(given.rename(columns=str).reset_index(drop=True))
    values = np.asarray(given)
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf":
        raise InputError(
            f"{kind}.transform gave {type(given).__name__}, shape {values.shape}; return a frame or an array of "
            "numbers with one row for each row of X."
        )
    values = values.reshape(len(values), -1)
    names = names or [str(i) for i in range(values.shape[1])]
    if len(names) != values.shape[1]:
        raise InputError(
            f"{kind}.transform gave {values.shape[1]} columns, get_feature_names_out {len(names)} names; give as many."
        )
    return pl.DataFrame({name: values[:, i] for i, name in enumerate(names)})


class OwnTransformer(PanelTransformer):
    """A user's transformer behind a guard: its answers are checked, its failures name the line in its file."""

    def __init__(self, kind: str, inner: PanelTransformer) -> None:
        self.kind, self.inner = kind, inner

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        found: dict[str, Any] = self.inner.get_params(deep=deep)
        return found

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        with their_code(self.kind, "get_feature_names_out"):
            return np.array([str(name) for name in self.inner.get_feature_names_out()], dtype=object)

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        with their_code(self.kind, "fit"):
            self.inner.fit(panel)

    def _columns(self, panel: Panel, starts: np.ndarray) -> np.ndarray:
        with their_code(self.kind, "transform"):
            values = np.asarray(self.inner.values(panel), dtype=np.float64)
        shape = (panel.frame.height, len(self.get_feature_names_out()))
        if values.shape != shape:
            raise InputError(
                f"{self.kind} gave shape {values.shape} for {shape[0]} rows and {shape[1]} names; return {shape}."
            )
        return values

    def state(self) -> dict[str, Any]:
        return self.inner.state()

    def restore(self, state: Mapping[str, Any]) -> Self:
        self.inner.restore(state)
        self.fitted_ = True
        return self

    def start_from(self, previous: Mapping[str, Any]) -> Self:
        self.inner.start_from(previous)
        return self

    def status(self, ids: Sequence[str]) -> list[str]:
        return self.inner.status(ids)

    def remarks(self) -> dict[str, Any]:
        return self.inner.remarks()

    def columns_read(self) -> tuple[str, ...] | None:
        return self.inner.columns_read()


@contextmanager
def their_code(kind: str, doing: str) -> Iterator[None]:
    """Their exceptions as one line that names the place in their file; our own pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever a user's class raises
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise InputError(f"{kind} failed in {doing}{_place(kind, error)}, {said}; correct it there.") from error


def _place(kind: str, error: Exception) -> str:
    """The innermost line of their file on the way to an exception."""
    file = inspect.getsourcefile(class_named(kind))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if file and lines else ""
