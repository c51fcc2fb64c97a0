"""Owns the search for where a number that is not finite began in training. Module level imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def not_finite(place: str, where: str) -> str:
    """What the error says."""
    return f"{place}; it began {where}; lower the learning rate, or look for extreme values in the features."


def first_parameter(network: nn.Module) -> str | None:
    """The first parameter that is not finite; None where all are."""
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            return f"in parameter {name!r}"
    return None


def first_gradient(network: nn.Module) -> str:
    """The parameter nearest to the loss whose gradient is not finite: gradients go from the last to the first."""
    for name, parameter in reversed(list(network.named_parameters())):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"in the gradient of {name!r}"
    return "in the norm of the gradient, which is too large for its type"


def first_activation(network: nn.Module, compute: Callable[[], Tensor]) -> str:
    """Where a forward pass first is not finite: a parameter, else the first module with such an output."""
    import torch

    found = first_parameter(network)
    if found is not None:
        return found
    names: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor) and not first.isfinite().all():
                names.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            compute()
    finally:
        for handle in handles:
            handle.remove()
    return f"in the activation of {names[0]!r}" if names else "in the loss itself, from finite outputs of the network"
