"""Owns the task that a deep model is given: correct a frozen linear baseline at every origin, for all ids and horizons.

    log target:   forecast = log_har exp(g),       loss QLIKE = exp(r - g) - (r - g) - 1,   r = log(label / log_har)
    no transform: forecast = har + s g,            loss = (r - g)^2,                        r = (label - har) / s

g = c_h times the network's output, which is bounded, and zero before training; s is the standard deviation of the
training labels. The loss is averaged over the origins of all ids within a horizon, then over horizons, so that long
horizons, which have fewer labels, count as much as short ones.

c_h is a credibility, n / (n + k): labels of h rows overlap, so a window of T dates holds only n = T / h that do not,
and ids move together, so more ids hardly help. Without it the correction of 22-day forecasts was mostly noise: it could
halve the loss inside the training window and double it after. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssmfin.errors import InputError
from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.interface import Design, Fitted, FloatArray, TrainingSet
from ssmfin.models.ssm.sequences import InputScale, forecast_windows, training_segments
from ssmfin.models.training import Recipe, repeatable, train

WINDOWS_AT_ONCE = 64  # always this many: a matrix product of another shape may round differently


@dataclass(frozen=True)
class Baseline:
    """The frozen forecast and what a correction of it means.

    Attributes:
        fitted: log-HAR under a log, HAR otherwise, fitted on the whole training window.
        label_scale: (H,) s, standard deviations of the training labels; not used under a log.
        label_range: (2, H) least and greatest training label; not used under a log.
    """

    fitted: Fitted
    log: bool
    label_scale: FloatArray
    label_range: FloatArray

    @classmethod
    def of(cls, training: TrainingSet) -> Baseline:
        log = training.design.target.transform == "log"
        labels = [column[used] for column, used in zip(training.design.labels.T, training.train.T, strict=True)]
        scale = np.array([values.std() for values in labels])
        return cls(
            fitted=(LogHAR() if log else HAR()).fit(training, seed=0),
            log=log,
            label_scale=np.where(scale > 0, scale, 1.0),
            label_range=np.array([[values.min() for values in labels], [values.max() for values in labels]]),
        )

    def residual(self, labels: FloatArray, base: FloatArray) -> FloatArray:
        """r: the correction that would have been right."""
        if self.log:
            return np.asarray(np.log(labels / base))
        return np.asarray((labels - base) / self.label_scale)

    def loss(self, residual: Tensor, correction: Tensor) -> Tensor:
        """Elementwise, least where the correction equals the residual."""
        error = residual - correction
        return torch.exp(error) - error - 1 if self.log else torch.square(error)

    def corrected(self, base: FloatArray, correction: FloatArray) -> tuple[FloatArray, int]:
        """Forecasts, and how many corrections were refused.

        An additive correction that leaves the range of the training labels is dropped, as HAR's insanity filter would
        do: it may be negative where the target never is. A factor within exp(+-bound) cannot be.
        """
        if self.log:
            return base * np.exp(correction), 0
        forecast = base + self.label_scale * correction
        insane = ((forecast < self.label_range[0]) | (forecast > self.label_range[1])) & (correction != 0)
        return np.where(insane, base, forecast), int(insane.sum())


@dataclass(frozen=True)
class Sequences:
    """Training segments as tensors: x (S, T, F), present (S, T), residual and weight (S, T, H).

    The weights of all origins of a horizon sum to 1 / H; steps that are only context weigh nothing.
    """

    x: Tensor
    present: Tensor
    residual: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, design: Design, mask: np.ndarray, residual: FloatArray, scale: InputScale, context: int, length: int
    ) -> Sequences:
        """Segments of at most `length` origins that cover the origins of `mask` ((R, H) bool)."""
        index, is_origin = training_segments(design, np.asarray(mask.any(axis=1)), context, length)
        x, present = scale.apply(design, index)
        used = mask[index] & is_origin[..., None]  # (S, T, H)
        counts = used.sum(axis=(0, 1))
        weight = used / np.maximum(counts, 1) / (counts > 0).sum()
        tensors = (x, present, np.where(used, residual[index], 0.0), weight)
        return cls(*(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in tensors))

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Sequences:
        return Sequences(self.x.to(device), self.present.to(device), self.residual.to(device), self.weight.to(device))

    def __getitem__(self, segments: Tensor) -> Sequences:
        return Sequences(self.x[segments], self.present[segments], self.residual[segments], self.weight[segments])


class FittedResidual(Fitted):
    """A baseline and the network that corrects it."""

    def __init__(
        self,
        *,
        baseline: Baseline,
        credibility: FloatArray,
        scale: InputScale,
        network: nn.Module,
        context: int,
        notes: dict[str, Any],
    ) -> None:
        self.baseline = baseline
        self.credibility = credibility
        self.scale = scale
        self.network = network
        self.context = context
        self.notes = notes

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        base = self.baseline.fitted.predict(design, rows)
        forecast, refused = self.baseline.corrected(base, self.correction(design, rows))
        if not self.baseline.log:
            self.notes["insanity_filter"] = self.notes.get("insanity_filter", 0) + refused
        return forecast

    def correction(self, design: Design, rows: np.ndarray) -> FloatArray:
        """g, (n, H): row i from the window that ends at rows[i], alone, so that later rows cannot touch its bits."""
        device = next(self.network.parameters()).device
        answers = np.empty((len(rows), len(design.target.horizons)))
        with repeatable(0, device), torch.inference_mode():
            for begin in range(0, len(rows), WINDOWS_AT_ONCE):
                windows = forecast_windows(design, rows[begin : begin + WINDOWS_AT_ONCE], self.context)
                batch = np.full((WINDOWS_AT_ONCE, self.context), -1, dtype=np.int64)
                batch[: len(windows)] = windows
                x, present = (torch.from_numpy(array).to(device) for array in self.scale.apply(design, batch))
                g = self.network(x, present)[: len(windows), -1]  # (n, T, H) -> (n, H)
                answers[begin : begin + WINDOWS_AT_ONCE] = g.cpu().double().numpy()
        return np.asarray(answers * self.credibility)


def fit_residual(
    training: TrainingSet,
    make_network: Callable[[int, int], nn.Module],
    recipe: Recipe,
    *,
    context: int,
    segment: int,
    batch: int,
    half_trust: float,
    device: torch.device,
    seed: int,
) -> FittedResidual:
    """Fit the baseline on `train`, the network on `fit`, and stop by `validation`.

    Args:
        make_network: (features, horizons) -> a network x (B, T, F), present (B, T) -> g (B, T, H) whose output at a
            step depends on the last `context` steps and is zero at the start.
        context: rows. segment: training origins in one sequence. batch: sequences in one step of the optimiser.
        half_trust: k, labels without overlap for which a correction is halved; 0 trusts it fully.
    Raises:
        InputError: no features, or a horizon without a label to fit on or to validate with.
    """
    _require_labels(training)
    design = training.design
    baseline = Baseline.of(training)
    started = np.asarray(training.fit.any(axis=1))
    training = _without_newcomers(training)
    _require_labels(training)
    scale = InputScale.of(design, started, np.asarray(training.fit.any(axis=1)))
    learnable = training.fit | training.validation
    rows = np.flatnonzero(learnable.any(axis=1))
    base = baseline.fitted.predict(design, rows)
    residual = np.zeros(design.labels.shape)
    residual[rows] = baseline.residual(np.where(learnable[rows], design.labels[rows], base), base)
    fit = Sequences.of(design, training.fit, residual, scale, context, segment).to(device)
    validation = Sequences.of(design, training.validation, residual, scale, context, segment).to(device)
    labels = independent_labels(training)
    credibility = labels / (labels + half_trust)
    shrink = torch.from_numpy(credibility.astype(np.float32)).to(device)

    def loss(correction: Tensor, part: Sequences) -> Tensor:
        return (baseline.loss(part.residual, correction) * part.weight).sum()

    def epoch_losses() -> Iterator[Tensor]:
        for some in torch.split(torch.randperm(len(fit), device=device), batch):
            part = fit[some]
            yield loss(network(part.x, part.present), part) * (len(fit) / len(some))

    def validation_loss() -> float:
        everything = torch.arange(len(validation), device=device)
        parts = (validation[some] for some in torch.split(everything, WINDOWS_AT_ONCE))
        return math.fsum(loss(shrink * network(part.x, part.present), part).item() for part in parts)

    with repeatable(seed, device):
        network = make_network(design.features.shape[1], design.labels.shape[1]).to(device)
        history = train(network, recipe, epoch_losses=epoch_losses, validation_loss=validation_loss)
    notes = {  # integers are added up over fits, floats are averaged
        "fits": 1,
        "fits_that_stayed_at_the_baseline": int(history.best_epoch == 0),
        "best_epoch": float(history.best_epoch),
        "epochs": float(history.epochs),
        "validation_loss_at_start": history.initial_validation_loss,
        "validation_loss": history.best_validation_loss,
        "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
    }
    return FittedResidual(
        baseline=baseline, credibility=credibility, scale=scale, network=network, context=context, notes=notes
    )


def independent_labels(training: TrainingSet) -> FloatArray:
    """(H,) n: dates with a label in the fit part over the horizon, the labels that do not overlap; at least one."""
    dates = training.design.date_index
    counts = [len(np.unique(dates[of_horizon])) for of_horizon in training.fit.T]
    return np.asarray(np.maximum(np.array(counts) / np.array(training.design.target.horizons), 1.0))


def _without_newcomers(training: TrainingSet) -> TrainingSet:
    """The training set, of which ids with a quarter of the fullest id's labels or less teach nothing.

    A baseline of a few rows is far off, and its errors would be most of the pooled loss. Such an id keeps its baseline
    and its own centre, and may be forecast.
    """
    design = training.design
    labels = np.stack([training.fit[design.rows_of(k)].sum(axis=0) for k in range(len(design.ids))])  # (K, H)
    teaches = (labels > 0.25 * labels.max(axis=0)).all(axis=1)[design.id_index][:, None]
    return replace(training, fit=training.fit & teaches, validation=training.validation & teaches)


def _require_labels(training: TrainingSet) -> None:
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
