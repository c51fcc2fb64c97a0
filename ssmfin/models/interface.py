"""Owns what a model is given and what it must answer: Target, Design, TrainingSet, Forecaster, Fitted, Forecast.

A model never sees a panel. It sees a `Design`: one row per (unique_id, ds), in that order, cut by the harness so that
nothing later than the moment of fitting (or of forecasting) is in it. Everything in row r was known at the origin of
row r, except `labels`, which the harness blanks (NaN) wherever they were not complete at the cutoff.

Shapes: R rows, K ids, T dates, F features, H horizons.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ssmfin.errors import InputError, nearest, validation_message

FloatArray = np.ndarray  # float64 unless a name says otherwise
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of quantiles, unless a model is told others


def check_levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Levels of quantiles as a field may hold them.

    Raises:
        ValueError: they do not increase, or one is not between 0 and 1.
    """
    if not (all(0 < level < 1 for level in levels) and all(a < b for a, b in itertools.pairwise(levels))):
        raise ValueError("levels must increase and lie between 0 and 1")
    return levels


@dataclass(frozen=True)
class Target:
    """What is forecast: an aggregate of one column over the next h rows of the same id."""

    column: str
    horizons: tuple[int, ...]
    transform: Literal["log", "none"] = "log"
    aggregate: Literal["mean", "sum", "last"] = "mean"
    bias_correction: Literal["lognormal", "none"] = "lognormal"

    def to_model_scale(self, values: FloatArray) -> FloatArray:
        """Original scale to the scale on which linear and boosted models are fitted."""
        return np.log(values) if self.transform == "log" else values

    def to_original_scale(self, mu: FloatArray, residual_variance: FloatArray | float) -> FloatArray:
        """Forecast of the mean on the original scale, exp(mu + s2 / 2) under a log, `mu` itself otherwise.

        Args:
            mu: forecasts on the model's scale, any shape.
            residual_variance: s2, broadcastable to `mu`, learned in the training window alone.
        """
        if self.transform == "none":
            return mu
        if self.bias_correction == "none":
            return np.asarray(np.exp(mu))
        return np.asarray(np.exp(mu + 0.5 * np.asarray(residual_variance)))


@dataclass(frozen=True)
class Design:
    """Rows of a panel as arrays, sorted by (id, date); every value in row r was known at the origin of row r.

    Attributes:
        ids: (K,) names. `dates`: (T,) datetime64, the sorted distinct dates of the panel.
        id_index, date_index: (R,) int64, positions in `ids` and `dates`.
        starts: (K + 1,) int64, the rows of id k are starts[k]:starts[k + 1].
        observed: (R,) the newest value of the target column known at the origin, original scale.
        lag_means: (R, 3) means of the target column over the last 1, 5, 22 known rows, original scale; NaN at the
            start.
        features: (R, F) the study's features (already on the scale that their transformer chose), NaN where undefined.
        feature_names: (F,).
        labels: (R, H) aggregate of the target over the next h rows of the id, original scale; NaN if unknown.
        label_known: (R, H) int64 index of the date at which the label is known; T where never.
        columns: other numeric value columns of the panel (`close`, `log_return`, ...), (R,) each, as known at the
            origin.
    """

    target: Target
    ids: tuple[str, ...]
    dates: np.ndarray
    id_index: np.ndarray
    date_index: np.ndarray
    starts: np.ndarray
    observed: FloatArray
    lag_means: FloatArray
    features: FloatArray
    feature_names: tuple[str, ...]
    labels: FloatArray
    label_known: np.ndarray
    columns: dict[str, FloatArray]
    usable: np.ndarray | None = None  # (R,) bool, set by the harness: complete in ALL features of the study

    @property
    def rows(self) -> int:
        return len(self.date_index)

    @property
    def complete(self) -> np.ndarray:
        """(R,) bool: the row may train and be forecast from, for every model of the study alike.

        A model with fewer features than the study must not get more rows for it, so the harness sets `usable`; without
        it: every feature and every lag mean of the row is finite.
        """
        if self.usable is not None:
            return self.usable
        complete: np.ndarray = np.isfinite(self.features).all(axis=1) & np.isfinite(self.lag_means).all(axis=1)
        return complete

    def rows_of(self, k: int) -> slice:
        return slice(int(self.starts[k]), int(self.starts[k + 1]))

    def column(self, name: str) -> FloatArray:
        if name not in self.columns:
            raise InputError(f"column {name!r} is not in the panel; {nearest(name, self.columns)}")
        return self.columns[name]


@dataclass(frozen=True)
class Window:
    """One fit: where it may learn and from which rows it then forecasts. All are positions in `Design.dates` or rows.

    Attributes:
        train_start: first date of the training window. `cutoff`: its last date, the moment of fitting.
        labels_until: a training label must be known at or before this date (the cutoff less the embargo).
        validation_start: first origin of the validation tail.
        fit_labels_until: labels of the part before the tail must be known at or before this date.
        test_rows: (n,) int64, the rows to forecast from, sorted; all complete, their ids have enough training rows.
    """

    train_start: int
    cutoff: int
    labels_until: int
    validation_start: int
    fit_labels_until: int
    test_rows: np.ndarray


@dataclass(frozen=True)
class TrainingSet:
    """What a model may learn from at one cutoff. The design ends at the cutoff; unknown labels are NaN.

    Rows before the window are there as context (lags, sequences), never as training origins.

    Attributes:
        design: rows up to the cutoff only.
        window: the same window, with `test_rows` empty.
        train: (R, H) bool, origins inside the window whose features are complete and whose label is known in time.
        fit, validation: (R, H) bool, the same split into an early part and the purged tail: no label of `fit` ends
            after the first origin of `validation`. Together they are fewer than `train` (the purge).
    """

    design: Design
    window: Window
    train: np.ndarray
    fit: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, design: Design, window: Window) -> TrainingSet:
        """Masks by label dates. `design` must already end at `window.cutoff`."""
        date = design.date_index[:, None]
        usable = design.complete[:, None] & np.isfinite(design.labels) & (date >= window.train_start)
        return cls(
            design=design,
            window=window,
            train=usable & (design.label_known <= window.labels_until),
            fit=usable & (design.label_known <= window.fit_labels_until) & (date < window.validation_start),
            validation=usable & (design.label_known <= window.labels_until) & (date >= window.validation_start),
        )


@dataclass(frozen=True)
class Forecast:
    """What a model says at n origins: always the mean, and where it knows more, quantiles or the odds of an event.

    Attributes:
        mean: (n, H) on the original scale, finite.
        levels: (Q,) in (0, 1), increasing. `quantiles`: (n, H, Q) on the original scale, not falling along the levels;
            a horizon of which the model cannot tell them is NaN throughout.
        event: (n, H) probability that the label exceeds `threshold`, (n, H), which the model learned in its training
            window alone; both or neither.
    """

    mean: FloatArray
    levels: tuple[float, ...] = ()
    quantiles: FloatArray | None = None
    event: FloatArray | None = None
    threshold: FloatArray | None = None


class LayerMemory(NamedTuple):
    """How long the modes of one layer of one network remember: (channels, modes) rows until one has decayed to 1/e.

    learned: false where training left the network as it started.
    """

    network: int
    layer: int
    learned: bool
    time_scales: FloatArray


class Memory(NamedTuple):
    """What a fitted network remembers: by the modes of its layers, and by the rows that its forecasts hang on.

    sensitivity: (ages,) how much a forecast changes with the row that many rows before its origin; zeros if it learned
    nothing.
    """

    layers: list[LayerMemory]
    sensitivity: FloatArray


class Fitted(ABC):
    """A fitted model.

    `notes` holds plain facts worth showing. Over many fits integers are added up (they are counts: filtered forecasts),
    floats are averaged (epochs, penalties, losses), texts are collected.
    """

    notes: dict[str, Any]

    @abstractmethod
    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        """Forecast of the mean on the original scale.

        Args:
            design: rows up to the last origin asked for; all labels are NaN.
            rows: (n,) int64, the origins to forecast from; all are `complete`.
        Returns:
            (n, H), finite. Row i may use rows <= rows[i] of its own id (and rows of other ids no later in date).
        """

    def forecast(self, design: Design, rows: np.ndarray) -> Forecast:
        """All that the model says, which is what the harness asks for: here the mean alone.

        A model that knows more overrides this (then `predict` answers its `mean`). Arguments as of `predict`.
        """
        return Forecast(self.predict(design, rows))

    def memory(self, design: Design) -> Memory | None:
        """What it remembers at the newest rows of a design, which it was fitted on; None, unless it is a network."""
        return None


class Forecaster(BaseModel, ABC):
    """A model's configuration: frozen, typed, and able to fit.

    Subclasses add fields (with units in their descriptions) and `fit`. The class attributes tell the harness how to
    schedule it; `seconds_per_fit` (of one id) is only a first guess for `plan`, replaced by measured times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    family: ClassVar[Literal["baseline", "ssm", "sequence", "combination", "custom"]] = "custom"
    summary: ClassVar[str] = ""
    uses_features: ClassVar[bool] = True  # False: only lag_means, observed, columns
    column_fields: ClassVar[tuple[str, ...] | None] = None  # fields that name the columns read; None: not told
    stochastic: ClassVar[bool] = False  # True: run once per seed
    positive_target: ClassVar[bool] = False  # True: has no meaning for a target that is zero or negative somewhere
    fits_per_task: ClassVar[int] = 1  # how many refits share a task of the store
    seconds_per_fit: ClassVar[float] = 0.1

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**parameters)
        except ValidationError as error:
            raise InputError(validation_message(type(self).__name__, type(self), error)) from None

    @abstractmethod
    def fit(self, training: TrainingSet, *, seed: int) -> Fitted:
        """Learn from the training set alone. The same arguments give the same bits."""

    @property
    def typical_epochs(self) -> int | None:
        """Passes over the training window that a fit is likely to make; None of a model that makes no such passes."""
        return None

    def guessed_seconds(self, rows: int, ids: int) -> float:
        """What one fit should take on one core, roughly, before any was measured.

        Args:
            rows: of the training window, all ids together.
        """
        return self.seconds_per_fit * ids

    def columns_read(self) -> tuple[str, ...] | None:
        """Which of `Design.columns` it reads; None: perhaps all. A row to forecast from needs these and no others."""
        if self.column_fields is None:
            return None
        named = (getattr(self, field) for field in self.column_fields)
        return tuple(name for names in named for name in ((names,) if isinstance(names, str) else names))


class WalkForecaster(Forecaster):
    """A forecaster that can do many refits in one pass (rolling least squares by updated moments).

    `walk` answers exactly what `fit` then `predict` would, window by window, to rounding; the harness prefers it
    whenever all windows share one design. It is given the whole design, so its code must honour the windows itself:
    the test that perturbs the future holds it to that, bit by bit.
    """

    fits_per_task: ClassVar[int] = 512

    @abstractmethod
    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        """Forecasts (n, H) for the test rows of every window, and notes over all of them."""
