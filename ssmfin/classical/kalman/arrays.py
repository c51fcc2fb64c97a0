"""Owns how arrays of a user become tensors of a model: shapes, scales, and what makes a series unfit to be fitted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssmfin.classical.kalman.model import Specification
from ssmfin.classical.kalman.moments import residual_variance, row_sum
from ssmfin.errors import InputError

COLLINEAR = 1e-10  # share of a regressor's sum of squares that the others leave


class Data(NamedTuple):
    """What a model sees, float64 on one device.

    Attributes:
        y: (B, T, P) as the model observes it, NaN = missing, all NaN where `broken`.
        x: (B, T, J), zero where missing (y is missing there too), or None.
        broken: index of a series -> the step of its first infinite value.
    """

    y: Tensor
    x: Tensor | None
    broken: dict[int, int]


class Scales(NamedTuple):
    """y' = (y - shift) / y, x' = x / x; powers of two, so that scaling rounds nothing."""

    y: Tensor  # (B, P)
    shift: Tensor  # (B, P)
    x: Tensor  # (B, J)


def as_data(spec: Specification, y: Any, x: Any, device: str | torch.device = "cpu") -> Data:
    """Check shapes and bring y and x to (B, T, P) and (B, T, J).

    Raises:
        InputError: a shape does not fit the specification.
    """
    P, J = spec.components, spec.regressors
    given = _tensor("y", y, device)
    if given.ndim == 2 and P == 1:
        given = given[:, :, None]
    if given.ndim != 3 or given.shape[2] != P or given.shape[1] == 0:
        want = "(series, steps)" if P == 1 else f"(series, steps, {P})"
        raise InputError(f"y of {spec.kind} has shape {tuple(given.shape)}; give {want}, one step at least.")
    B, T, _ = given.shape
    regressors = None
    if J:
        if x is None:
            raise InputError(f"x is missing, {spec.kind} has {J} regressor(s); give x of shape (series, steps, {J}).")
        regressors = _regressors(_tensor("x", x, device), B, T, J, spec.kind)
    elif x is not None:
        raise InputError(f"x is given, {spec.kind} has no regressors; leave it out, or take dynamic_regression.")
    broken: dict[int, int] = {}
    wild = [v for v in (given, regressors) if v is not None and _any_infinite(v)]
    if wild:
        infinite = torch.stack([torch.isinf(v).any(2) for v in wild]).any(0)
        for b in torch.nonzero(infinite.any(1))[:, 0].tolist():
            broken[b] = int(torch.nonzero(infinite[b])[0, 0])
        given = torch.where(infinite.any(1)[:, None, None], torch.nan, given)
    observed = spec.observe(given)
    if regressors is not None:
        unknown = ~torch.isfinite(regressors).all(2)
        observed = torch.where(unknown[:, :, None], torch.nan, observed)
        regressors = torch.where(unknown[:, :, None], 0.0, regressors)
    return Data(observed, regressors, broken)


def scales_of(spec: Specification, data: Data) -> Scales:
    """Scales and means of every series, from its own observations alone."""
    B, _, P = data.y.shape
    shifts, spreads = [], []
    for p in range(P):
        seen = ~torch.isnan(data.y[:, :, p])
        many = torch.clamp(row_sum(seen.double()), min=1.0)
        mean = row_sum(torch.where(seen, data.y[:, :, p], 0.0)) / many
        centred = torch.where(seen, data.y[:, :, p] - mean[:, None], 0.0)
        # by the largest first: squares of numbers near 1e200 overflow
        largest = torch.clamp(centred.abs().amax(1), min=1e-300)
        shifts.append(mean)
        spreads.append(largest * (row_sum((centred / largest[:, None]) ** 2) / many).sqrt())
    shift, spread = torch.stack(shifts, 1), torch.stack(spreads, 1)
    if spec.shifting == "common":
        shift = _mean(shift)
    if spec.scaling == "common":
        spread = _mean(spread)
    if spec.shifting == "none":
        shift = torch.zeros_like(shift)
    scale = torch.ones_like(spread) if spec.scaling == "none" else _power_of_two(spread)
    x = data.x
    if x is None:
        return Scales(scale, shift, scale.new_ones(B, 0))
    norms = [
        row_sum(x[:, :, j] ** 2) / torch.clamp(row_sum((x[:, :, j] != 0).double()), min=1.0) for j in range(x.shape[2])
    ]
    x_scale = _power_of_two(torch.stack(norms, 1).sqrt())
    return Scales(scale, shift, torch.ones_like(x_scale) if spec.scaling == "none" else x_scale)


def standardise(data: Data, scales: Scales) -> tuple[Tensor, Tensor | None]:
    """y', x'."""
    y = (data.y - scales.shift[:, None]) / scales.y[:, None]
    return y, None if data.x is None else data.x / scales.x[:, None]


def unfit(spec: Specification, data: Data, diffuse: int) -> dict[int, str]:
    """Series that cannot be fitted -> why, and what to do. `diffuse`: states whose start is unknown."""
    y, x = data.y, data.x
    seen = ~torch.isnan(y)
    counts = np.stack([row_sum(seen[:, :, p].double()).cpu().numpy() for p in range(y.shape[2])], 1)
    low = torch.where(seen, y, torch.inf).amin(1)
    high = torch.where(seen, y, -torch.inf).amax(1)
    constant = (high <= low).cpu().numpy()
    least = len(spec.parameters) + diffuse
    reasons: dict[int, str] = {
        b: f"has an infinite value at step {t}; replace it by NaN, which means missing." for b, t in data.broken.items()
    }
    totals, fewest = counts.sum(1).astype(np.int64), counts.min(1)
    for b in np.flatnonzero((totals < least) | (fewest < 2) | constant.any(1)).tolist():
        if b in reasons:
            continue
        total = totals[b]
        if total == 0:
            reasons[b] = "has no observation; drop the series, or give it a longer window."
        elif total < least or fewest[b] < 2:
            reasons[b] = (
                f"has {total} observation(s), {spec.kind} needs {least} at least ({len(spec.parameters)} parameters, "
                f"{diffuse} unknown starting values), and two of every component; give it a longer window."
            )
        else:
            value = float(low[b][constant[b].argmax()])
            reasons[b] = f"is constant ({value:g}); there is nothing to estimate: drop it."
    if x is not None:
        intercept = any(state.name == "alpha" for state in spec.states)
        _, share = residual_variance(y[:, :, 0], x, intercept)
        for b, j in torch.nonzero(share < COLLINEAR).tolist():
            reasons.setdefault(
                b,
                f"has a regressor, x_{j + 1}, that is constant or a combination of those before it; "
                "leave it out, or leave out the intercept.",
            )
    return reasons


def _tensor(name: str, value: Any, device: str | torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(device=device, dtype=torch.float64)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no array of numbers ({error}); give floats, NaN where missing.") from None
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)  # never written to


def _any_infinite(values: Tensor) -> bool:
    # numpy's test writes flags only, torch's the absolute values first
    return bool(np.isinf(values.numpy()).any() if values.device.type == "cpu" else torch.isinf(values).any())


def _regressors(x: Tensor, B: int, T: int, J: int, kind: str) -> Tensor:
    if x.ndim == 2 and J == 1 and x.shape == (B, T):
        x = x[:, :, None]
    elif x.ndim == 2 and x.shape == (T, J):
        x = x.expand(B, T, J)
    if x.shape != (B, T, J):
        raise InputError(
            f"x of {kind} has shape {tuple(x.shape)}; give ({B}, {T}, {J}), or ({T}, {J}) where all series share it."
        )
    return x


def _power_of_two(spread: Tensor) -> Tensor:
    usable = (spread > 0) & torch.isfinite(spread)
    return torch.exp2(torch.round(torch.log2(torch.where(usable, spread, 1.0))))


def _mean(values: Tensor) -> Tensor:
    """(B, P) -> the mean of each row in every column, summed in order."""
    total = values[:, 0]
    for p in range(1, values.shape[1]):
        total = total + values[:, p]
    return (total / values.shape[1])[:, None].expand_as(values)
