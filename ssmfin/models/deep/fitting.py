"""Owns one fit of a deep model: base, sequences, loss, early stopping, seeds.

The loss is averaged over the origins of all ids within a horizon, then over horizons, so that long horizons, which have
fewer labels, count as much as short ones.

What a network says is multiplied by c_h, a credibility, n / (n + k): labels of h rows overlap, so a window of T dates
holds only n = T / h that do not, and ids move together, so more ids hardly help. Without it the correction of 22-day
forecasts was mostly noise: it could halve the loss inside the training window and double it after. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.heads import HEADS, Head, HeadOptions, Targets
from ssmfin.models.deep.monitors import time_scale_notes
from ssmfin.models.deep.prediction import FittedDeep, Group
from ssmfin.models.deep.sequences import InputScale, Reader, input_rows, training_segments
from ssmfin.models.deep.sizing import match_parameters
from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.deep.training import History, Recipe, choose_device, repeatable, train
from ssmfin.models.interface import FloatArray, TrainingSet

if TYPE_CHECKING:
    from ssmfin.models.deep.forecaster import DeepForecaster

SEGMENTS_AT_ONCE = 64  # in validation: bounds the memory
GROWTH = 8  # the curriculum starts with segments of an eighth


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


def fit_deep(model: DeepForecaster, training: TrainingSet, *, seed: int) -> FittedDeep:
    """Fit the base on `train`, the networks on `fit`, and stop by `validation`.

    Raises:
        InputError: no features, or a horizon without a label to fit on or to validate with.
    """
    require_labels(training)
    device = choose_device(model.device)
    if model.precision == "bf16" and device.type != "cuda":
        raise InputError("precision is 'bf16', but the device is the CPU; use float32 there.")
    design = training.design
    base = Base.of(training, model.residual)
    started = np.asarray(training.fit.any(axis=1))
    training = _without_newcomers(training)
    require_labels(training)
    dtype = torch.float64 if model.precision == "float64" else torch.float32
    learnt = np.asarray(training.fit.any(axis=1))
    known = [name for k, name in enumerate(design.ids) if learnt[design.rows_of(k)].any()]
    numbers = {name: 1 + number for number, name in enumerate(known)} if model.pooled and model.id_embedding else {}
    reader = Reader(InputScale.of(design, started, learnt), numbers, model.sessions == "reset", dtype)
    residual, threshold = _residuals(model, training, base)
    groups: list[Group] = []
    histories: list[History] = []
    for ids in [None] if model.pooled else [frozenset([name]) for name in known]:
        own = _of(training, ids)
        if ids is not None and not (own.fit.any(axis=0) & own.validation.any(axis=0)).all():
            continue  # too little of its own: it keeps the base
        task = Task(own, reader, _sequences_of(own, ids), residual, threshold, device)
        group, stories = _fit_group(model, task, ids, [seed, len(groups)] if len(groups) else [seed])
        groups.append(group)
        histories += stories
    if not groups:
        raise InputError(
            f"no id has labels both before and in the validation tail of the window that ends at "
            f"{design.dates[training.window.cutoff]}; use pooled: true, or lengthen the window."
        )
    return FittedDeep(
        forecaster=model,
        target=design.target,
        ids=design.ids,
        feature_names=design.feature_names,
        base=base,
        reader=reader,
        groups=groups,
        notes=_notes(groups, histories),
    )


def network_of(model: DeepForecaster, *, features: int, horizons: int, head: Head, ids: int, bound: float) -> Network:
    """The network of a forecaster, untrained, its start drawn from torch's global generator."""

    def make(width: int) -> Network:
        return Network(
            features=features,
            horizons=horizons,
            limits=head.limits(bound),
            blocks=model.blocks(width),
            width=width,
            dropout=model.dropout,
            calendar=model.calendar,
            ids=ids,
        )

    if model.match_parameters is None:
        return make(model.width)
    return make(match_parameters(make, model.match_parameters, multiple_of=model.width_step))


def bound_of(model: DeepForecaster) -> float:
    """The largest correction; levels from scratch move further than corrections."""
    if model.bound is not None:
        return model.bound
    return 8.0 if model.residual == "none" else 1.0


def _fit_group(
    model: DeepForecaster, task: Task, ids: frozenset[str] | None, seeds: list[int]
) -> tuple[Group, list[History]]:
    training, device = task.training, task.device
    options = HeadOptions(model.loss, model.levels, model.event_quantile, model.focal)
    errors = [task.residual[used, h] for h, used in enumerate(training.fit.T)]
    head = HEADS[model.head].calibrated(errors, training.design.target.transform == "log", options)
    half_trust = model.half_trust if model.half_trust is not None else 0.0 if model.residual == "none" else 100.0
    labels = independent_labels(training)
    credibility = labels / (labels + half_trust)
    networks, histories = [], []
    for member in range(model.ensemble):
        entropy = [*seeds, *([member] if member else [])]
        drawn = seeds[0] if len(entropy) == 1 else int(np.random.SeedSequence(entropy).generate_state(1)[0])
        with repeatable(drawn, device):
            network = network_of(
                model,
                features=training.design.features.shape[1],
                horizons=training.design.labels.shape[1],
                head=head,
                ids=len(task.reader.numbers),
                bound=bound_of(model),
            ).to(device, task.reader.dtype)
            histories.append(_train(model, task, network, head, credibility))
        networks.append(network)
    return Group(ids, networks, head, credibility), histories


def _train(model: DeepForecaster, task: Task, network: Network, head: Head, credibility: FloatArray) -> History:
    training, device = task.training, task.device
    validation = task.sequences(training.validation, model.context, model.segment)
    shrink = torch.from_numpy(credibility).to(device, task.reader.dtype)[:, None]
    growing: dict[int, Sequences] = {}
    autocast = model.precision == "bf16" and device.type == "cuda"

    def loss(part: Sequences, factor: Tensor | float) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            raw, _ = network(part.inputs)
        return (head.loss(factor * raw, part.targets) * part.weight).sum()

    def epoch_losses(epoch: int) -> Iterator[Callable[[], Tensor]]:
        length = segment_length(epoch, model)
        if length not in growing:
            growing.clear()
            growing[length] = task.sequences(training.fit, model.context, length)
        fit = growing[length]
        at_once = model.batch * -(-model.segment // length)  # as many origins in a step, however short the segments
        for some in torch.split(torch.randperm(len(fit), device=device), at_once):
            share = len(fit) / len(some)
            yield lambda some=some, share=share: loss(fit[some], 1.0) * share  # type: ignore[misc]

    def validation_loss() -> float:
        everything = torch.arange(len(validation), device=device)
        return math.fsum(loss(validation[some], shrink).item() for some in torch.split(everything, SEGMENTS_AT_ONCE))

    recipe = Recipe(
        epochs=model.epochs,
        patience=model.patience,
        learning_rate=model.learning_rate,
        slow_learning_rate=model.ssm_learning_rate,
        weight_decay=model.weight_decay,
        warmup=model.warmup,
        gradient_clip=model.gradient_clip,
        averaging=model.averaging,
    )
    return train(network, recipe, epoch_losses=epoch_losses, validation_loss=validation_loss)


def segment_length(epoch: int, model: DeepForecaster) -> int:
    """Training origins in a sequence in an epoch (1, 2, ...): doubling over the curriculum's epochs."""
    growing = model.curriculum * model.epochs
    if epoch > growing:
        return model.segment
    doublings = math.log2(GROWTH)
    done = int(doublings * (epoch - 1) / growing)
    return max(1, model.segment * (1 << done) // GROWTH)


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


def _without_newcomers(training: TrainingSet) -> TrainingSet:
    """The training set, of which ids with a quarter of the fullest id's labels or less teach nothing.

    A base of a few rows is far off, and its errors would be most of the pooled loss. Such an id keeps its base and its
    own centre, and may be forecast.
    """
    design = training.design
    labels = np.stack([training.fit[design.rows_of(k)].sum(axis=0) for k in range(len(design.ids))])  # (K, H)
    teaches = (labels > 0.25 * labels.max(axis=0)).all(axis=1)[design.id_index][:, None]
    return replace(training, fit=training.fit & teaches, validation=training.validation & teaches)


def _of(training: TrainingSet, ids: frozenset[str] | None) -> TrainingSet:
    """The training set with the labels of some ids alone."""
    if ids is None:
        return training
    design = training.design
    mine = np.array([name in ids for name in design.ids])[design.id_index][:, None]
    return replace(
        training, train=training.train & mine, fit=training.fit & mine, validation=training.validation & mine
    )


def _sequences_of(training: TrainingSet, ids: frozenset[str] | None) -> list[np.ndarray]:
    design = training.design
    return [rows for name, rows in zip(design.ids, input_rows(design), strict=True) if ids is None or name in ids]


def _residuals(model: DeepForecaster, training: TrainingSet, base: Base) -> tuple[FloatArray, FloatArray]:
    """(R, H) residuals of the base, and the residual at which each id's event begins; zero where nothing is learned."""
    design = training.design
    learnable = training.fit | training.validation
    rows = np.flatnonzero(learnable.any(axis=1))
    forecast = base.forecast(design, rows)
    residual, threshold = np.zeros(design.labels.shape), np.zeros(design.labels.shape)
    residual[rows] = base.residual(np.where(learnable[rows], design.labels[rows], forecast), forecast)
    if model.head == "event":
        labels = np.where(training.fit, design.labels, np.nan)
        level = np.full((len(design.ids), labels.shape[1]), np.nan)
        for k in range(len(design.ids)):
            own = labels[design.rows_of(k)]
            if np.isfinite(own).any(axis=0).all():
                level[k] = np.nanquantile(own, model.event_quantile, axis=0)
        threshold[rows] = base.residual(level[design.id_index[rows]], forecast)
    return residual, threshold


def _notes(groups: list[Group], histories: list[History]) -> dict[str, Any]:
    """Integers are added up over fits, floats are averaged."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(history, name) for history in histories]))

    first = groups[0].networks[0]
    return {
        "fits": len(histories),
        "fits_that_stayed_at_the_baseline": sum(history.best_epoch == 0 for history in histories),
        "best_epoch": mean("best_epoch"),
        "epochs": mean("epochs"),
        "validation_loss_at_start": mean("initial_validation_loss"),
        "validation_loss": mean("best_validation_loss"),
        "slow_gradient_norm": mean("slow_gradient_norm"),
        "parameters": float(sum(parameter.numel() for parameter in first.parameters())),
        **time_scale_notes([network for group in groups for network in group.networks]),
    }
