"""Owns maximum likelihood of nonlinear models: exact gradients of the filter's likelihood, all series at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssmfin.classical import optimize
from ssmfin.classical.nonlinear.model import NonlinearFiltered, NonlinearModel
from ssmfin.classical.nonlinear.unscented import unscented_kalman_filter
from ssmfin.errors import InputError

Bounds = tuple[float | None, float | None]


class NonlinearFit(NamedTuple):
    """What `fit_nonlinear` returns.

    Attributes:
        parameters: by name (B,) float64, within their bounds; NaN where failed. Ready for the filters.
        log_likelihood: (B,), of the filter's Gaussian approximation; NaN where failed.
        status: B of "converged", "not_converged", "failed".
        reason: B texts, "" where converged, else what to do.
        iterations: (B,).
    """

    parameters: dict[str, Tensor]
    log_likelihood: Tensor
    status: tuple[str, ...]
    reason: tuple[str, ...]
    iterations: np.ndarray


def fit_nonlinear(
    y: Tensor,
    model: NonlinearModel,
    starts: Mapping[str, Tensor | float],
    *,
    bounds: Mapping[str, Bounds] | None = None,
    inputs: Tensor | None = None,
    filtered_by: Callable[..., NonlinearFiltered] = unscented_kalman_filter,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> NonlinearFit:
    """Scalar parameters of a nonlinear model for many series, by quasi-Newton.

    Bounds by reparametrisation: exp(u) + low, high - exp(u), or low + (high - low) / (1 + exp(-u)).

    Args:
        y: (B, T, P), NaN where missing.
        model: its functions read the parameters by name.
        starts: of every parameter that is to be estimated, a scalar or (B,), strictly within its bounds.
        bounds: by name (low, high), None for none; parameters without an entry are free.
        inputs: (B, T, K), as for the filter.
        filtered_by: `unscented_kalman_filter` or `extended_kalman_filter`, or one with other options (partial).
        tolerance: on the gradient of the mean log-likelihood per observation. max_iterations: of each series.
    Returns:
        NonlinearFit. A series that cannot be fitted is marked so and leaves the others as they are.
    Raises:
        InputError: a start lies outside its bounds, or a bound names no parameter.
    """
    names = tuple(starts)
    limits = {name: (bounds or {}).get(name, (None, None)) for name in names}
    unknown = sorted(set(bounds or {}) - set(names))
    if unknown:
        raise InputError(f"bounds has {unknown[0]!r}, which starts has not; parameters: {', '.join(names)}.")
    B = len(y)
    free = torch.stack([_free(name, starts[name], limits[name], B) for name in names], -1)  # (B, K)
    seen = (~torch.isnan(y)).sum((1, 2)).double()
    per_observation = 1.0 / seen.clamp(min=1.0)

    def natural(theta: Tensor) -> dict[str, Tensor]:
        # rows, not strided columns: elementwise functions then give the same bits whatever the batch
        rows = theta.T.contiguous().unbind(0)
        return {name: _natural(row, limits[name]) for name, row in zip(names, rows, strict=True)}

    def loss(theta: Tensor, index: Tensor) -> Tensor:
        rows = inputs[index] if inputs is not None else None
        found = filtered_by(y[index], model, parameters=natural(theta), inputs=rows)
        return -found.log_likelihood * per_observation[index]

    def value_and_grad(theta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            value = loss(theta, index)
            (gradient,) = torch.autograd.grad(value.sum(), theta)
        return value.detach(), gradient

    found = optimize.minimize(value_and_grad, free[:, None], tolerance=tolerance, max_iterations=max_iterations)
    status, reason = _verdicts(found, seen, len(names), max_iterations)
    failed = torch.tensor([word == "failed" for word in status])
    parameters = {name: torch.where(failed, torch.nan, value) for name, value in natural(found.theta).items()}
    log_likelihood = torch.where(failed, torch.nan, -found.value * seen)
    return NonlinearFit(parameters, log_likelihood, status, reason, found.iterations.numpy())


def _verdicts(
    found: optimize.Minimum, seen: Tensor, parameters: int, max_iterations: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Status and reason of every series."""
    words = []
    for b, (code, count) in enumerate(zip(found.status.tolist(), seen.tolist(), strict=True)):
        if count < parameters + 1:
            text = (
                f"series {b} has {count:.0f} observations for {parameters} parameters; give it more, or leave it out."
            )
            words.append(("failed", text))
        elif code == optimize.UNUSABLE:
            text = f"series {b} has no finite likelihood at its start; give other starts, or check its scale."
            words.append(("failed", text))
        elif code == optimize.CONVERGED:
            words.append(("converged", ""))
        elif code == optimize.EXHAUSTED:
            words.append(("not_converged", f"series {b} took {max_iterations} iterations; raise max_iterations."))
        else:
            text = (
                f"series {b} cannot descend further at a gradient of {float(found.grad_norm[b]):.1e}; "
                "a parameter may be at its bound or not identified: give other starts or a simpler model."
            )
            words.append(("not_converged", text))
    return tuple(word for word, _ in words), tuple(text for _, text in words)


def _free(name: str, start: Tensor | float, bounds: Bounds, series: int) -> Tensor:
    value = torch.as_tensor(start, dtype=torch.float64)
    if value.shape not in ((), (series,)):
        raise InputError(f"starts[{name!r}] has shape {tuple(value.shape)}; use a scalar or ({series},).")
    low = -math.inf if bounds[0] is None else bounds[0]
    high = math.inf if bounds[1] is None else bounds[1]
    if not bool(((value > low) & (value < high)).all()):
        raise InputError(f"starts[{name!r}] is {value.tolist()}; use values strictly between {low} and {high}.")
    value = value.expand(series)
    if math.isfinite(low) and math.isfinite(high):
        return torch.logit((value - low) / (high - low))
    if math.isfinite(low):
        return torch.log(value - low)
    if math.isfinite(high):
        return torch.log(high - value)
    return value


def _natural(free: Tensor, bounds: Bounds) -> Tensor:
    low, high = bounds
    if low is not None and high is not None:
        # not torch.sigmoid, whose last bit depends on the place in the batch
        return low + (high - low) * 0.5 * (1.0 + torch.tanh(0.5 * free))
    if low is not None:
        return low + torch.exp(free)
    if high is not None:
        return high - torch.exp(free)
    return free
