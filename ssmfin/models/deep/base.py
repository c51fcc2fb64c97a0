"""Owns what a deep model corrects: a linear forecast, or a constant where it is to learn from scratch.

    log target:   forecast = b exp(g),        r = log(y / b)
    no transform: forecast = b + s g,         r = (y - b) / s

with b the base, y the label, g the network's correction, and s the standard deviation of the training labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ssmfin.models.baselines.har.family import FittedHAR, HARFamily
from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.baselines.least_squares import Regression
from ssmfin.models.baselines.linear_walk import Bounds
from ssmfin.models.baselines.panel_ridge import PanelRidge
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.baselines.rolling_ridge import FittedRollingRidge, RollingRidge
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet

Residual = Literal["log_har", "ridge", "panel_ridge", "rolling_ridge", "none"]


@dataclass(frozen=True)
class Base:
    """The linear forecast and what a correction of it means.

    Attributes:
        kind: what the user asked for; log_har is HAR where the target has no log.
        fitted: fitted on the whole training window; a rolling one is estimated anew at each row.
        log: corrections are factors.
        label_scale: (H,) s; not used under a log.
        label_range: (2, H) least and greatest training label; not used under a log.
    """

    kind: Residual
    fitted: Fitted
    log: bool
    label_scale: FloatArray
    label_range: FloatArray

    @classmethod
    def of(cls, training: TrainingSet, kind: Residual, *, rows: int | None = None) -> Base:
        """Fit the base. Args: rows: of a rolling one, what it learns from; default: as many as the window has dates."""
        log = training.design.target.transform == "log"
        labels = [column[used] for column, used in zip(training.design.labels.T, training.train.T, strict=True)]
        scale = np.array([values.std() for values in labels])
        fitted: Fitted
        if kind == "none":
            fitted = Level.of(training)
        elif kind == "ridge":
            fitted = Ridge().fit(training)
        elif kind == "panel_ridge":
            fitted = PanelRidge().fit(training)
        elif kind == "rolling_ridge":
            fitted = RollingRidge(rows=rows).fit(training)
        else:
            fitted = _har(log).fit(training)
        return cls(
            kind=kind,
            fitted=fitted,
            log=log,
            label_scale=np.where(scale > 0, scale, 1.0),
            label_range=np.array([[values.min() for values in labels], [values.max() for values in labels]]),
        )

    def teaching(self, training: TrainingSet) -> TrainingSet:
        """The labels whose residual is of the kind that the network will meet.

        Where a rolling base has too few rows behind it, it stands in by coefficients that have seen the label. Such
        rows teach nothing, unless a horizon had none else.
        """
        if not isinstance(self.fitted, FittedRollingRidge):
            return training
        ready = self.fitted.ready(training.design)
        fit, validation = training.fit & ready, training.validation & ready
        if not (fit.any(axis=0) & validation.any(axis=0)).all():
            return training
        return replace(training, fit=fit, validation=validation)

    def forecast(self, design: Design, rows: np.ndarray) -> FloatArray:
        """b, (n, H)."""
        return self.fitted.predict(design, rows)

    def residual(self, labels: FloatArray, base: FloatArray) -> FloatArray:
        """r: the correction that would have been right."""
        if self.log:
            return np.asarray(np.log(labels / base))
        return np.asarray((labels - base) / self.label_scale)

    def corrected(self, base: FloatArray, correction: FloatArray) -> tuple[FloatArray, int]:
        """Forecasts (n, H), and how many corrections were refused.

        An additive correction that leaves the range of the training labels is dropped, as HAR's insanity filter would
        do: it may be negative where the target never is. A factor within exp(+-bound) cannot be.
        """
        if self.log:
            return base * np.exp(correction), 0
        forecast = base + self.label_scale * correction
        insane = ((forecast < self.label_range[0]) | (forecast > self.label_range[1])) & (correction != 0)
        return np.where(insane, base, forecast), int(insane.sum())

    def on_original_scale(self, base: FloatArray, relative: FloatArray) -> FloatArray:
        """Quantiles (n, H, Q) from a head's: multiples of b in logs, else (q - b) / s."""
        if self.log:
            return np.asarray(base[..., None] * relative)
        return np.asarray(base[..., None] + self.label_scale[:, None] * relative)

    def arrays(self) -> dict[str, FloatArray]:
        """All that was learned, as arrays: the inverse of `restored`."""
        found = {"label_scale": self.label_scale, "label_range": self.label_range}
        if isinstance(self.fitted, Level):
            return found | {"level": self.fitted.level}
        linear: Any = self.fitted
        if isinstance(linear, FittedHAR):
            linear = linear.parts[0]
        elif isinstance(linear, FittedRollingRidge):
            found["rolling"] = np.array([linear.rows, linear.wait], dtype=np.float64)
            linear = linear.frozen
        for (k, h), (regression, bounds) in linear.estimates.items():
            found |= {f"regression.{k}.{h}.{name}": value for name, value in regression._asdict().items()}
            if bounds is not None:
                found |= {f"bounds.{k}.{h}.{name}": value for name, value in bounds._asdict().items()}
        return found

    @classmethod
    def restored(cls, kind: Residual, log: bool, ids: tuple[str, ...], arrays: dict[str, FloatArray]) -> Base:
        """The base that `arrays` describes."""
        fitted: Fitted
        if kind == "none":
            fitted = Level(arrays["level"])
        else:
            names = [name.split(".") for name in arrays if name.endswith(".intercept")]
            estimates = {
                (int(k), int(h)): (
                    Regression(*(arrays[f"regression.{k}.{h}.{name}"] for name in Regression._fields)),
                    Bounds(*(arrays[f"bounds.{k}.{h}.{name}"] for name in Bounds._fields))
                    if f"bounds.{k}.{h}.mean" in arrays
                    else None,
                )
                for _, k, h, _ in names
            }
            if kind == "log_har":
                fitted = _har(log).from_estimates(ids, estimates)
            else:
                fitted = Ridge().from_estimates(ids, estimates)
                if kind == "rolling_ridge":
                    rows, wait = (int(number) for number in arrays["rolling"])
                    fitted = FittedRollingRidge(fitted, rows, wait)
        return cls(kind, fitted, log, arrays["label_scale"], arrays["label_range"])


class Level(Fitted):
    """The mean training label of the id and horizon; of all ids for one without any. `level` is (K, H)."""

    def __init__(self, level: FloatArray) -> None:
        self.level = level
        self.notes: dict[str, Any] = {}

    @classmethod
    def of(cls, training: TrainingSet) -> Level:
        design = training.design
        labels = np.where(training.train, design.labels, 0.0)

        def mean(rows: slice) -> tuple[FloatArray, FloatArray]:
            counts = training.train[rows].sum(axis=0)
            return labels[rows].sum(axis=0) / np.maximum(counts, 1), counts

        overall, _ = mean(slice(None))
        levels = [
            np.where(count, own, overall) for own, count in (mean(design.rows_of(k)) for k in range(len(design.ids)))
        ]
        return cls(np.stack(levels))

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        return np.asarray(self.level[design.id_index[rows]])


def _har(log: bool) -> HARFamily:
    return LogHAR() if log else HAR()


def rows_alone(like: Design, id_index: np.ndarray, features: FloatArray, lag_means: FloatArray) -> Design:
    """A design of some rows without dates, in the order of their ids (numbers), for a base to forecast from."""
    n, H = len(id_index), len(like.target.horizons)
    return replace(
        like,
        dates=np.zeros(1, dtype="datetime64[us]"),
        id_index=id_index,
        date_index=np.zeros(n, dtype=np.int64),
        starts=np.searchsorted(id_index, np.arange(len(like.ids) + 1)),
        observed=lag_means[:, 0],
        lag_means=lag_means,
        features=features,
        labels=np.full((n, H), np.nan),
        label_known=np.ones((n, H), dtype=np.int64),
        columns={},
        usable=None,
    )
