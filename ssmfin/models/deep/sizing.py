"""Owns the comparison under equal parameters: the width at which a network has as many as the budget."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from ssmfin.errors import InputError

_LOG = logging.getLogger(__name__)


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers, those shared between parts once.

    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def match_parameters(build: Callable[[int], nn.Module], budget: int, *, multiple_of: int = 1) -> int:
    """Width of the network whose parameter count is nearest to a budget, the smaller one of two equally near.

        argmin_w |count(build(w)) - budget|,        w = multiple_of, 2 multiple_of, ...

    Doubles the width until the budget is passed, then bisects. Says in the log how near it came; torch's generator is
    left as it was.

    Args:
        build: width -> network; wider networks have more parameters.
        budget: parameters.
        multiple_of: widths are multiples of it (the heads of an attention block, twice that with rotary positions).
    Raises:
        InputError: the narrowest network is above the budget, a width that does not change the count, or arguments
            below 1.

    >>> match_parameters(lambda width: nn.Linear(width, width, bias=False), 90)
    9
    """
    for name, value in (("match_parameters", budget), ("multiple_of", multiple_of)):
        if value < 1:
            raise InputError(f"{name} is {value}; give at least 1.")

    counts: dict[int, int] = {}

    def count(units: int) -> int:
        if units not in counts:
            with torch.random.fork_rng(devices=[]):
                counts[units] = parameter_count(build(units * multiple_of))
        return counts[units]

    if count(1) > budget:
        raise InputError(
            f"match_parameters is {budget:,}, but the narrowest network (width {multiple_of}) has {count(1):,} "
            f"parameters; give at least {count(1):,}, or fewer layers or states."
        )
    low, high = 1, 2
    while count(high) <= budget:
        if count(high) <= count(low):
            raise InputError(
                f"match_parameters is {budget:,}, but the network has {count(low):,} parameters at width "
                f"{low * multiple_of} and {count(high):,} at width {high * multiple_of}; its width cannot be matched."
            )
        low, high = high, 2 * high
    while high - low > 1:  # count(low) <= budget < count(high)
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    best = low if budget - count(low) <= count(high) - budget else high
    _LOG.info(
        "width %d: %s parameters, %+.1f %% of the budget of %s",
        best * multiple_of,
        f"{count(best):,}",
        100 * (count(best) / budget - 1),
        f"{budget:,}",
    )
    return best * multiple_of
