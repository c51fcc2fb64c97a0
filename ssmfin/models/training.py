"""Owns the training loop of the deep models: parameter groups, warm-up, clipping, early stopping, repeatability.

The loop knows neither data nor loss: it is given functions that compute them. Module level imports no torch.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ssmfin.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: at most this many passes over the training data.
        patience: epochs without a better validation loss before stopping.
        learning_rate: of AdamW, for all but the slow parameters.
        slow_learning_rate: for parameters that a module lists in `slow_parameters` (A, dt, B and C of an SSM).
        weight_decay: of AdamW, on weight matrices only.
        warmup: epochs of linear increase of both learning rates.
        gradient_clip: largest norm of the gradient over all parameters.
    """

    epochs: int
    patience: int
    learning_rate: float
    slow_learning_rate: float
    weight_decay: float
    warmup: int
    gradient_clip: float


@dataclass(frozen=True)
class History:
    """What training did. `best_epoch` 0 means that the untrained network was never beaten and is kept."""

    best_epoch: int
    epochs: int
    initial_validation_loss: float
    best_validation_loss: float


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` is the GPU where torch finds one, else the CPU.

    Raises:
        InputError: "cuda" on a machine without it.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device is 'cuda', but torch finds no GPU here; use 'auto' or 'cpu'.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextlib.contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Inside: one CPU thread and torch seeded. Afterwards: the caller's generators and thread count, untouched.

    One thread, because sums split over a varying number of threads differ in their last bits.
    """
    import torch

    threads = torch.get_num_threads()
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.set_num_threads(1)
        try:
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices with decay; vectors (biases, norms) without; slow parameters slower and without.

    A module names its slow parameters, its own only, in a class attribute `slow_parameters`.
    """
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    slow: list[Tensor] = []
    for module in network.modules():
        names = getattr(module, "slow_parameters", ())
        for name, parameter in module.named_parameters(recurse=False):
            group = slow if name in names else matrices if parameter.ndim > 1 else vectors
            group.append(parameter)
    return [
        {"params": matrices, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay},
        {"params": vectors, "lr": recipe.learning_rate, "weight_decay": 0.0},
        {"params": slow, "lr": recipe.slow_learning_rate, "weight_decay": 0.0},
    ]


def train(
    network: nn.Module,
    recipe: Recipe,
    *,
    epoch_losses: Callable[[], Iterator[Tensor]],
    validation_loss: Callable[[], float] | None,
) -> History:
    """Minimise, keep the state of the best epoch (the initial state is a candidate), leave the network in eval mode.

    Args:
        network: trained in place.
        epoch_losses: called once an epoch; yields the loss of each step, computed with the network as it then is.
        validation_loss: computed after each epoch in eval mode; None trains for all epochs and keeps the last.
    Raises:
        RuntimeError: the training or validation loss is not finite.
    """
    import torch

    groups = parameter_groups(network, recipe)
    optimizer = torch.optim.AdamW(groups)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, (epoch + 1) / max(1, recipe.warmup)))
    parameters = [parameter for group in groups for parameter in group["params"]]

    def validate(epoch: int) -> float:
        if validation_loss is None:
            return math.nan
        network.eval()
        with torch.no_grad():
            loss = validation_loss()
        _require_finite(loss, "validation", epoch)
        return loss

    initial = best = validate(0)
    best_epoch = epoch = 0
    best_state = copy.deepcopy(network.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for loss in epoch_losses():
            _require_finite(loss.item(), "training", epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
            optimizer.step()
        warm_up.step()
        current = validate(epoch)
        if validation_loss is None or current < best:
            best, best_epoch, best_state = current, epoch, copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    return History(best_epoch, epoch, initial, best)


def _require_finite(loss: float, what: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise RuntimeError(
            f"the {what} loss is not finite in epoch {epoch}, {loss}; lower the learning rate, "
            "or look for extreme values in the features."
        )
