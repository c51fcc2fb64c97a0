"""Owns one fit of a deep model: base, sequences, loss, early stopping, seeds.

What a network says is multiplied by c_h, a credibility, n / (n + k): labels of h rows overlap, so a window of T dates
holds only n = T / h that do not, and ids move together, so more ids hardly help. Without it the correction of 22-day
forecasts was mostly noise: it could halve the loss inside the training window and double it after. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.heads import HEADS, Head, HeadOptions
from ssmfin.models.deep.monitors import spectrum_notes, time_scale_notes
from ssmfin.models.deep.prediction import FittedDeep, Group
from ssmfin.models.deep.sequences import InputScale, Reader
from ssmfin.models.deep.sizing import match_parameters
from ssmfin.models.deep.skeleton import Network
from ssmfin.models.deep.training import History, Recipe, choose_device, repeatable, train
from ssmfin.models.deep.training_data import (
    Sequences,
    Task,
    event_levels,
    independent_labels,
    labels_of,
    require_labels,
    residuals_of,
    sequences_of,
    without_newcomers,
)
from ssmfin.models.interface import FloatArray, TrainingSet

if TYPE_CHECKING:
    from ssmfin.models.deep.forecaster import DeepForecaster

SEGMENTS_AT_ONCE = 64  # in validation: bounds the memory
GROWTH = 8  # the curriculum starts with segments of an eighth


def fit_deep(model: DeepForecaster, training: TrainingSet, *, seed: int) -> FittedDeep:
    """Fit the base on `train`, the networks on `fit`, and stop by `validation`; without early stopping all on `train`.

    Raises:
        InputError: no features, or a horizon without a label to fit on or to validate with.
    """
    require_labels(training)
    device = choose_device(model.device)
    if model.precision == "bf16" and device.type != "cuda":
        raise InputError("precision is 'bf16', but the device is the CPU; use float32 there.")
    if not model.early_stopping:
        training = replace(training, fit=training.train)
    design = training.design
    base = Base.of(training, model.residual, rows=model.residual_rows)
    training = base.teaching(training)
    started = np.asarray(training.fit.any(axis=1))
    event_level = event_levels(training, model.event_quantile) if model.head == "event" else None
    training = without_newcomers(training)
    require_labels(training)
    dtype = torch.float64 if model.precision == "float64" else torch.float32
    learnt = np.asarray(training.fit.any(axis=1))
    known = [name for k, name in enumerate(design.ids) if learnt[design.rows_of(k)].any()]
    numbers = {name: 1 + number for number, name in enumerate(known)} if model.pooled and model.id_embedding else {}
    reader = Reader(InputScale.of(design, started, learnt), numbers, model.sessions == "reset", dtype)
    residual, threshold = residuals_of(training, base, event_level)
    groups: list[Group] = []
    histories: list[History] = []
    for ids in [None] if model.pooled else [frozenset([name]) for name in known]:
        own = labels_of(training, ids)
        if ids is not None and not (own.fit.any(axis=0) & own.validation.any(axis=0)).all():
            continue  # too little of its own: it keeps the base
        task = Task(own, reader, sequences_of(own, ids), residual, threshold, device)
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
        event_level=event_level,
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
    return train(
        network,
        recipe,
        epoch_losses=epoch_losses,
        validation_loss=validation_loss if model.early_stopping else None,
    )


def segment_length(epoch: int, model: DeepForecaster) -> int:
    """Training origins in a sequence in an epoch (1, 2, ...): doubling over the curriculum's epochs."""
    growing = model.curriculum * model.epochs
    if epoch > growing:
        return model.segment
    doublings = math.log2(GROWTH)
    done = int(doublings * (epoch - 1) / growing)
    return max(1, model.segment * (1 << done) // GROWTH)


def _notes(groups: list[Group], histories: list[History]) -> dict[str, Any]:
    """Integers are added up over fits, floats are averaged. Time scales are of the fits that learned."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(history, name) for history in histories]))

    networks = [network for group in groups for network in group.networks]
    losses = {
        "validation_loss_at_start": mean("initial_validation_loss"),
        "validation_loss": mean("best_validation_loss"),
    }
    return {
        "fits": len(histories),
        "fits_that_stayed_at_the_baseline": sum(history.best_epoch == 0 for history in histories),
        "best_epoch": mean("best_epoch"),
        "epochs": mean("epochs"),
        **{name: value for name, value in losses.items() if math.isfinite(value)},  # none without early stopping
        "slow_gradient_norm": mean("slow_gradient_norm"),
        "step_size_gradient_norm": mean("step_size_gradient_norm"),
        "parameters": float(sum(parameter.numel() for parameter in networks[0].parameters())),
        **time_scale_notes([n for n, history in zip(networks, histories, strict=True) if history.best_epoch]),
        **spectrum_notes(networks),
    }
