"""Owns the training loop of the deep models: rates, clipping, weight averaging, early stopping, repeatability.

The loop knows neither data nor loss: it is given functions that compute them. Module level imports no torch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ssmfin.errors import InputError
from ssmfin.models.deep.not_finite import first_activation, first_gradient, first_parameter, not_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LAST_RATE = 0.05  # of the cosine, as a part of the learning rate: what is left to settle with


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: at most this many passes over the training data.
        patience: epochs without a better validation loss before stopping.
        learning_rate: of AdamW, for all but the slow parameters.
        slow_learning_rate: for parameters that a module lists in `slow_parameters` (A, dt, B and C of an SSM).
        weight_decay: of AdamW, on weight matrices only.
        warmup: epochs of linear increase of both learning rates; then a cosine down to a twentieth at `epochs`.
        gradient_clip: largest norm of the gradient over all parameters.
        averaging: half-life, in epochs, of the exponential moving average of the weights that is validated and kept
            instead of the weights; 0: none.
    """

    epochs: int
    patience: int
    learning_rate: float
    slow_learning_rate: float
    weight_decay: float
    warmup: int
    gradient_clip: float
    averaging: float = 0.0


@dataclass(frozen=True)
class History:
    """What training did. `best_epoch` 0 means that the untrained network was never beaten and is kept.

    `slow_gradient_norm` and `step_size_gradient_norm` are those of the parameters that blocks name in `slow_parameters`
    and `step_sizes`, before clipping, averaged over all steps; 0.0 without such.
    """

    best_epoch: int
    epochs: int
    initial_validation_loss: float
    best_validation_loss: float
    slow_gradient_norm: float
    step_size_gradient_norm: float


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
def one_thread() -> Iterator[None]:
    """Inside: one CPU thread, because sums split over a varying number of threads differ in their last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Inside: one CPU thread and torch seeded. Afterwards: the caller's generators and thread count, untouched."""
    import torch

    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), one_thread(), whole_float32(device):
        torch.manual_seed(seed)
        yield


def whole_float32(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Inside: cuDNN multiplies float32 as it is, not rounded to ten bits (TF32), torch's own choice for it.

    Its recurrent layers would differ from their single steps, which a stream takes, by a thousandth.
    """
    import torch

    if device.type != "cuda":
        return contextlib.nullcontext()
    flags: contextlib.AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False
    )
    return flags


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


def _named(network: nn.Module, attribute: str) -> list[Tensor]:
    """Parameters that the modules themselves name in a class attribute."""
    return [
        parameter
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name in getattr(module, attribute, ())
    ]


def rate_factor(epoch: int, recipe: Recipe) -> float:
    """Of both learning rates in an epoch, counted from 0: linear warm-up, then a cosine.

    >>> recipe = Recipe(12, 3, 1e-3, 1e-4, 0.0, warmup=2, gradient_clip=1.0)
    >>> [round(rate_factor(epoch, recipe), 3) for epoch in (0, 1, 2, 7, 12)]
    [0.5, 1.0, 1.0, 0.525, 0.05]
    """
    if epoch < recipe.warmup:
        return (epoch + 1) / recipe.warmup
    part = min(1.0, (epoch - recipe.warmup) / max(1, recipe.epochs - recipe.warmup))
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * part))


def train(
    network: nn.Module,
    recipe: Recipe,
    *,
    epoch_losses: Callable[[int], Iterator[Callable[[], Tensor]]],
    validation_loss: Callable[[], float] | None,
) -> History:
    """Minimise, keep the state of the best epoch (the initial state is a candidate), leave the network in eval mode.

    Args:
        network: trained in place.
        epoch_losses: called once an epoch (1, 2, ...); yields, for each step, a function that computes its loss with
            the network as it then is. It is called again to find where a number that is not finite came from.
        validation_loss: computed after each epoch in eval mode; None trains for all epochs and keeps the last.
    Raises:
        RuntimeError: a loss or gradient is not finite; says in which epoch and step, and where it began.
    """
    import torch

    groups = parameter_groups(network, recipe)
    slow = groups[-1]["params"]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate_factor(epoch, recipe))
    parameters = [parameter for group in groups for parameter in group["params"]]
    average = _Average(parameters) if recipe.averaging else None
    watched = {"slow": slow, "step size": _named(network, "step_sizes")}
    norms: dict[str, list[Tensor]] = {name: [] for name, group in watched.items() if group}

    def validate(epoch: int) -> float:
        if validation_loss is None:
            return math.nan
        network.eval()
        with torch.no_grad():
            loss = validation_loss()
        if not math.isfinite(loss):
            where = first_parameter(network) or "in an activation"
            raise RuntimeError(not_finite(f"the validation loss is not finite in epoch {epoch}, {loss}", where))
        return loss

    initial = best = validate(0)
    best_epoch = epoch = 0
    best_state = _copy(network)
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        steps = list(epoch_losses(epoch))
        for number, compute in enumerate(steps, start=1):
            loss = compute()
            if not math.isfinite(loss.item()):
                place = f"the training loss is not finite in epoch {epoch}, {loss.item()}, at step {number}"
                raise RuntimeError(not_finite(place, first_activation(network, compute)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for name, found in norms.items():
                found.append(torch.nn.utils.get_total_norm([p.grad for p in watched[name] if p.grad is not None]))
            norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip)
            if not math.isfinite(norm.item()):
                place = f"the gradient is not finite in epoch {epoch}, at step {number}"
                raise RuntimeError(not_finite(place, first_gradient(network)))
            optimizer.step()
            if average is not None:
                average.update(0.5 ** (1 / (recipe.averaging * len(steps))))
        schedule.step()
        with average.in_place() if average is not None else contextlib.nullcontext():
            current = validate(epoch)
            if validation_loss is None or current < best:
                best, best_epoch, best_state = current, epoch, _copy(network)
        if validation_loss is not None and epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    means = {name: torch.stack(found).mean().item() for name, found in norms.items() if found}
    return History(best_epoch, epoch, initial, best, means.get("slow", 0.0), means.get("step size", 0.0))


class _Average:
    """Exponential moving average of parameters, started at their first values."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.average = [parameter.detach().clone() for parameter in parameters]

    def update(self, keep: float) -> None:
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - keep)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters are their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.data.copy_(mean)
            mean.copy_(kept)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
