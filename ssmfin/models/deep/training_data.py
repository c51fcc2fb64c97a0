"""Owns what deep networks are trained on: residuals of the base, the labels that teach, sequences and their weights.

The loss is averaged over the origins of all ids within a horizon, then over horizons, so that long horizons, which have
fewer labels, count as much as short ones. Imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.heads import Targets
from ssmfin.models.deep.sequences import Reader, input_rows, training_segments
from ssmfin.models.deep.skeleton import Inputs
from ssmfin.models.interface import FloatArray, TrainingSet


@dataclass(frozen=True)
class Sequences:
    """Training sequences as tensors: inputs of (S, T), targets and weight (S, T, H).

    The weights of all origins of a horizon sum to 1 / H; steps that are only warm-up weigh nothing.
    """

    inputs: Inputs
    targets: Targets
    weight: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, which: Tensor) -> Sequences:
        targets = Targets(self.targets.residual[which], self.targets.threshold[which])
        return Sequences(self.inputs.pick(which), targets, self.weight[which])


@dataclass(frozen=True)
class Task:
    """What the networks of one group are trained on: rows, residuals r and event thresholds (R, H), and the masks."""

    training: TrainingSet
    reader: Reader
    rows: list[np.ndarray]
    residual: FloatArray
    threshold: FloatArray
    device: torch.device

    def sequences(self, mask: np.ndarray, context: int, length: int) -> Sequences:
        """Segments of at most `length` origins that cover the origins of `mask` ((R, H) bool)."""
        index, is_origin = training_segments(self.rows, np.asarray(mask.any(axis=1)), context, length)
        used = mask[index] & is_origin[..., None]  # (S, T, H)
        counts = used.sum(axis=(0, 1))
        weight = used / np.maximum(counts, 1) / (counts > 0).sum()

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, self.reader.dtype)

        targets = Targets(*(tensor(np.where(used, values[index], 0.0)) for values in (self.residual, self.threshold)))
        return Sequences(self.reader.inputs(self.training.design, index).to(self.device), targets, tensor(weight))


def independent_labels(training: TrainingSet) -> FloatArray:
    """(H,) n: dates with a label in the fit part over the horizon, the labels that do not overlap; at least one."""
    dates = training.design.date_index
    counts = [len(np.unique(dates[of_horizon])) for of_horizon in training.fit.T]
    return np.asarray(np.maximum(np.array(counts) / np.array(training.design.target.horizons), 1.0))


def require_labels(training: TrainingSet) -> None:
    """Refuse a training set without features, or with a horizon that cannot be fitted or validated.

    Raises:
        InputError: naming the horizons and the remedy.
    """
    design, horizons = training.design, training.design.target.horizons
    if not design.features.shape[1]:
        raise InputError("features is empty, 0 columns; name at least one feature set for a deep model.")
    for part, remedy, mask in (
        ("part before the validation tail", "lengthen walk_forward.train.size", training.fit),
        ("validation tail", "lengthen walk_forward.validation.size", training.validation),
    ):
        missing = [h for h, used in zip(horizons, mask.T, strict=True) if not used.any()]
        if missing:
            raise InputError(
                f"the {part} of the training window that ends at {design.dates[training.window.cutoff]} has no label "
                f"for horizons {missing}; {remedy}, or drop those horizons."
            )


def without_newcomers(training: TrainingSet) -> TrainingSet:
    """The training set, of which ids with a quarter of the fullest id's labels or less teach nothing.

    A base of a few rows is far off, and its errors would be most of the pooled loss. Such an id keeps its base and its
    own centre, and may be forecast.
    """
    design = training.design
    labels = np.stack([training.fit[design.rows_of(k)].sum(axis=0) for k in range(len(design.ids))])  # (K, H)
    teaches = (labels > 0.25 * labels.max(axis=0)).all(axis=1)[design.id_index][:, None]
    return replace(training, fit=training.fit & teaches, validation=training.validation & teaches)


def labels_of(training: TrainingSet, ids: frozenset[str] | None) -> TrainingSet:
    """The training set with the labels of some ids alone."""
    if ids is None:
        return training
    design = training.design
    mine = np.array([name in ids for name in design.ids])[design.id_index][:, None]
    return replace(
        training, train=training.train & mine, fit=training.fit & mine, validation=training.validation & mine
    )


def sequences_of(training: TrainingSet, ids: frozenset[str] | None) -> list[np.ndarray]:
    """Rows that networks read, in time order, one array for each of some ids (None: all)."""
    design = training.design
    return [rows for name, rows in zip(design.ids, input_rows(design), strict=True) if ids is None or name in ids]


def event_levels(training: TrainingSet, quantile: float) -> FloatArray:
    """(K + 1, H) the label beyond which each id's event begins, on the original scale; last, for any other id.

    A quantile of the id's own labels before the validation tail (of all its training labels where none lies there); for
    an id without any, of those of all ids.
    """
    design = training.design
    out = np.empty((len(design.ids) + 1, design.labels.shape[1]))
    for h, labels in enumerate(design.labels.T):
        out[-1, h] = np.quantile(labels[training.train[:, h]], quantile)
        for k in range(len(design.ids)):
            rows = design.rows_of(k)
            own = training.fit[rows, h] if training.fit[rows, h].any() else training.train[rows, h]
            out[k, h] = np.quantile(labels[rows][own], quantile) if own.any() else out[-1, h]
    return out


def residuals_of(training: TrainingSet, base: Base, event_level: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """(R, H) residuals of the base, and the residual at which each id's event begins; zero where nothing is learned."""
    design = training.design
    learnable = training.fit | training.validation
    rows = np.flatnonzero(learnable.any(axis=1))
    forecast = base.forecast(design, rows)
    residual, threshold = np.zeros(design.labels.shape), np.zeros(design.labels.shape)
    residual[rows] = base.residual(np.where(learnable[rows], design.labels[rows], forecast), forecast)
    if event_level is not None:
        threshold[rows] = base.residual(event_level[design.id_index[rows]], forecast)
    return residual, threshold
