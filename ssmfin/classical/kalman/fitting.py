"""Owns maximum likelihood of a whole panel, and what it leaves: parameters, status and reason of every series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssmfin.classical import optimize
from ssmfin.classical.kalman import arrays
from ssmfin.classical.kalman.kinds import specification
from ssmfin.classical.kalman.model import Specification, location_shift, parameter_scale, state_scale
from ssmfin.errors import InputError
from ssmfin_kernels import kalman_log_likelihood

CONVERGED, NOT_CONVERGED, FAILED, GIVEN = "converged", "not_converged", "failed", "given"


@dataclass(frozen=True)
class KalmanFit:
    """Parameters of B series under one specification, and how they were found.

    Attributes:
        specification: the model.
        parameters: (B, K), user's units, in the order of specification.parameter_names; NaN where failed.
        log_likelihood: (B,) nats, of y in the user's units (diffuse where the start is); NaN where failed or given.
        status: (B,) of str: converged; not_converged (parameters are the best point found: use with care); failed (no
            parameters); given (`KalmanFit.at`).
        reason: B strings, empty where converged or given, else what is wrong and what to do.
        iterations: (B,) int, steps of the optimiser.
        observations: (B,) int, observed values used.
        y_scale: (B, P), power of two near the standard deviation of the training sample: the unit of arithmetic.
        x_scale: (B, J), likewise.
        standard_errors: (B, K) by the observed information, NaN at a border; None unless asked for.
    """

    specification: Specification
    parameters: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    reason: tuple[str, ...]
    iterations: np.ndarray
    observations: np.ndarray
    y_scale: np.ndarray
    x_scale: np.ndarray
    standard_errors: np.ndarray | None = None

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.specification.parameter_names

    @property
    def usable(self) -> np.ndarray:
        """(B,) bool: has parameters."""
        found: np.ndarray = np.isfinite(self.parameters).all(1)
        return found

    def select(self, index: Sequence[int] | np.ndarray | slice) -> KalmanFit:
        """The series of an index, in its order."""
        rows = np.arange(len(self.reason))[index if isinstance(index, slice) else np.asarray(index)]
        errors = None if self.standard_errors is None else self.standard_errors[rows]
        return KalmanFit(
            self.specification,
            self.parameters[rows],
            self.log_likelihood[rows],
            self.status[rows],
            tuple(self.reason[int(b)] for b in rows),
            self.iterations[rows],
            self.observations[rows],
            self.y_scale[rows],
            self.x_scale[rows],
            errors,
        )

    @classmethod
    def at(cls, spec: Specification, parameters: Any, *, y_scale: Any = None, x_scale: Any = None) -> KalmanFit:
        """Known parameters (B, K) instead of fitted ones; a row of NaN is a series without.

        Scales only set the unit of arithmetic; they matter where regressors are far from one in size.
        """
        values = _array(parameters)
        K = len(spec.parameters)
        if values.ndim == 1:
            values = values[None]
        if values.ndim != 2 or values.shape[1] != K:
            raise InputError(
                f"parameters of {spec.kind} have shape {values.shape}; give (series, {K}): "
                f"{', '.join(spec.parameter_names)}."
            )
        B = len(values)
        y_ones, x_ones = np.ones((B, spec.components)), np.ones((B, spec.regressors))
        return cls(
            spec,
            values,
            np.full(B, np.nan),
            np.where(np.isfinite(values).all(1), GIVEN, FAILED),
            tuple("" if np.isfinite(row).all() else "has no parameters." for row in values),
            np.zeros(B, dtype=np.int64),
            np.zeros(B, dtype=np.int64),
            y_ones if y_scale is None else y_ones * _two(y_scale),
            x_ones if x_scale is None else x_ones * _two(x_scale),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it: NaN becomes null."""
        return {
            "specification": self.specification.to_dict(),
            "parameter_names": list(self.parameter_names),
            "parameters": nulls(self.parameters),
            "log_likelihood": nulls(self.log_likelihood),
            "status": [str(s) for s in self.status],
            "reason": list(self.reason),
            "iterations": self.iterations.tolist(),
            "observations": self.observations.tolist(),
            "y_scale": self.y_scale.tolist(),
            "x_scale": self.x_scale.tolist(),
            "standard_errors": None if self.standard_errors is None else nulls(self.standard_errors),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any], spec: Specification | None = None) -> KalmanFit:
        """The inverse of `to_dict`; `spec` for a custom model, whose functions are in no JSON."""
        try:
            known = spec if spec is not None else specification(**saved["specification"])
            B = len(saved["parameters"])
            errors = saved["standard_errors"]
            found = cls(
                known,
                _numbers(saved["parameters"]).reshape(B, -1),
                _numbers(saved["log_likelihood"]),
                np.array(saved["status"], dtype=np.str_),
                tuple(saved["reason"]),
                np.array(saved["iterations"], dtype=np.int64),
                np.array(saved["observations"], dtype=np.int64),
                _numbers(saved["y_scale"]).reshape(B, known.components),
                _numbers(saved["x_scale"]).reshape(B, known.regressors),
                None if errors is None else _numbers(errors).reshape(B, -1),
            )
        except KeyError as error:
            raise InputError(f"the saved Kalman fit lacks {error}; save it again with to_dict.") from None
        if found.parameters.shape[1] != len(known.parameters):
            raise InputError(
                f"the saved Kalman fit has {found.parameters.shape[1]} parameters, {known.kind} has "
                f"{len(known.parameters)}; give the specification it was fitted with."
            )
        return found


def fit(
    spec: Specification,
    y: Any,
    x: Any = None,
    *,
    starts: Any = None,
    standard_errors: bool = False,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    device: str | torch.device = "cpu",
) -> KalmanFit:
    """Maximum likelihood, all series at once, each by itself.

        max over theta of  sum_t log p(y_t | y_1 .. y_{t-1}; theta)

    by batched BFGS on exact gradients, from the best of several starts. A series is fitted at a scale of one (its own
    standard deviation, a power of two) and its result taken back. A series that cannot be fitted changes nothing for
    the others; its status and reason say so.

    Args:
        spec: the model.
        y: (B, T), or (B, T, P) where the model has P components; NaN = missing, also before and after a series.
        x: (B, T, J) or (T, J) regressors; where one is missing at t, so is y.
        starts: (B, K) or (B, S, K) natural parameters in the user's units, tried beside the model's own: a warm start.
        standard_errors: whether to compute them: 2 K more gradients.
        tolerance: on the gradient of the mean log-likelihood by unconstrained parameters.
        max_iterations: steps of the optimiser.
        device: "cpu", "cuda", ...; float64 everywhere.
    Returns:
        KalmanFit.
    Raises:
        InputError: shapes do not fit. Never for the content of a series.
    References:
        Durbin & Koopman (2012), section 7.3; Harvey (1989), section 3.4.

    >>> y = np.cumsum(np.sin(np.arange(200.0) ** 2)) + np.cos(np.arange(200.0) ** 3)
    >>> from ssmfin.classical.kalman.trends import LocalLevel
    >>> found = fit(LocalLevel(), [y, np.ones(200)])
    >>> found.status.tolist(), found.reason[1]
    (['converged', 'failed'], 'is constant (1); there is nothing to estimate: drop it.')
    """
    data = arrays.as_data(spec, y, x, device)
    B = data.y.shape[0]
    K = len(spec.parameters)
    scales = arrays.scales_of(spec, data)
    diffuse = _diffuse_states(spec, data)
    reasons = arrays.unfit(spec, data, len(diffuse))
    fitted = torch.tensor([b for b in range(B) if b not in reasons], dtype=torch.int64, device=data.y.device)
    kept = data if not reasons else arrays.Data(data.y[fitted], None if data.x is None else data.x[fitted], {})
    kept_scales = scales if not reasons else arrays.Scales(*(part[fitted] for part in scales))
    given = None if starts is None else _given_starts(starts, B, K, device)[fitted]

    parameters, log_likelihood = np.full((B, K), np.nan), np.full(B, np.nan)
    status, iterations = np.full(B, FAILED, dtype="<U13"), np.zeros(B, dtype=np.int64)
    errors = np.full((B, K), np.nan) if standard_errors else None
    counts = (~torch.isnan(data.y)).sum((1, 2))
    if len(fitted):
        unit = parameter_scale(spec, kept_scales.y, kept_scales.x)
        moved = location_shift(spec, kept_scales.shift)
        problem = _Problem(spec, *arrays.standardise(kept, kept_scales))
        own = spec.starts(problem.y, problem.x)
        if given is not None:
            own = torch.cat([(given - moved[:, None]) / unit[:, None], own], 1)
        n, S, _ = own.shape
        theta = spec.free(own.reshape(n * S, K)).reshape(n, S, K)
        found = optimize.minimize(
            problem.value_and_grad,
            theta,
            value=problem.value,
            follow=1 if K <= 2 else 2,  # more parameters, more hills
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        natural = spec.natural(found.theta) * unit + moved
        # y = s y' + m and alpha = A alpha': the density of y, over diffuse alpha
        levels = state_scale(spec, kept_scales.y, kept_scales.x).log()
        seen = (~torch.isnan(kept.y)).sum(1)
        total = -found.value * problem.count - (seen * kept_scales.y.log()).sum(1) + levels[:, diffuse].sum(1)
        rows = fitted.cpu().numpy()
        codes, norms = found.status.cpu().numpy(), found.grad_norm.cpu().numpy()
        broken = codes == optimize.UNUSABLE
        parameters[rows] = np.where(broken[:, None], np.nan, natural.cpu().numpy())
        log_likelihood[rows] = np.where(broken, np.nan, total.cpu().numpy())
        iterations[rows] = found.iterations.cpu().numpy()
        status[rows] = np.where(broken, FAILED, np.where(codes == optimize.CONVERGED, CONVERGED, NOT_CONVERGED))
        for row, code, norm in zip(rows, codes, norms, strict=True):
            if code == optimize.UNUSABLE:
                reasons[row] = "has no finite likelihood at any start; look at its values, or give other starts."
            elif code != optimize.CONVERGED:
                why = "ran out of iterations" if code == optimize.EXHAUSTED else "found no further ascent"
                reasons[row] = (
                    f"{why} after {iterations[row]} steps, gradient {norm:.1e} (tolerance {tolerance:.0e}); "
                    "take a simpler model, a longer window, or other starts."
                )
        if errors is not None:
            raw = problem.standard_errors(found.theta)
            errors[rows] = np.where(broken[:, None], np.nan, (raw * unit).cpu().numpy())
    return KalmanFit(
        spec,
        parameters,
        log_likelihood,
        status,
        tuple(reasons.get(b, "") for b in range(B)),
        iterations,
        counts.cpu().numpy(),
        scales.y.cpu().numpy(),
        scales.x.cpu().numpy(),
        errors,
    )


class _Problem:
    """The negative mean log-likelihood of every series as a function of theta, on standardised data."""

    def __init__(self, spec: Specification, y: Tensor, x: Tensor | None) -> None:
        self.spec, self.y, self.x = spec, y, x
        self.count = (~torch.isnan(y)).sum((1, 2)).double()
        self._index: Tensor | None = None
        self._rows = (y, x, self.count)

    def value_and_grad(self, theta: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        theta = theta.detach().requires_grad_()
        value = self._value(theta, index)
        (grad,) = torch.autograd.grad(value.sum(), theta)
        return value.detach(), grad

    def value(self, theta: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            return self._value(theta, index)

    def standard_errors(self, theta: Tensor) -> Tensor:
        """(B, K) of the natural parameters: delta method on the inverse Hessian by theta (central differences)."""
        n, K = theta.shape
        everyone = torch.arange(n, device=theta.device)
        columns = []
        for k in range(K):
            step = torch.zeros_like(theta)
            step[:, k] = 1e-4 * torch.clamp(theta[:, k].abs(), min=1.0)
            up, down = (self.value_and_grad(theta + sign * step, everyone)[1] for sign in (1, -1))
            columns.append((up - down) / (2 * step[:, k, None]))
        hessian = torch.stack(columns, 2) * self.count[:, None, None]
        hessian = 0.5 * (hessian + hessian.mT)
        hessian = torch.where(torch.isfinite(hessian).all(2).all(1)[:, None, None], hessian, 0.0)
        covariance, failed = torch.linalg.inv_ex(hessian)
        leaf = theta.detach().requires_grad_()
        natural = self.spec.natural(leaf)
        slopes = [torch.autograd.grad(natural[:, k].sum(), leaf, retain_graph=True)[0] for k in range(K)]
        jacobian = torch.stack(slopes, 1)  # (B, K natural, K theta)
        variance = (jacobian @ covariance * jacobian).sum(2)
        usable = (failed == 0)[:, None] & (variance > 0)
        return torch.where(usable, variance.clamp(min=0.0).sqrt(), torch.nan)

    def _value(self, theta: Tensor, index: Tensor) -> Tensor:
        if index is not self._index:
            everyone = len(index) == len(self.y) and bool((index == torch.arange(len(index)).to(index)).all())
            x = None if self.x is None else (self.x if everyone else self.x[index])
            self._rows = (self.y, x, self.count) if everyone else (self.y[index], x, self.count[index])
            self._index = index
        y, x, count = self._rows
        model = self.spec.state_space(self.spec.natural(theta), y.shape[1], x)
        return -kalman_log_likelihood(y, model) / count


def _diffuse_states(spec: Specification, data: arrays.Data) -> list[int]:
    """Which states start unknown."""
    some = data.y.new_full((1, len(spec.parameters)), 0.5)
    x = None if data.x is None else data.x[:1]
    unknown = spec.state_space(some, data.y.shape[1], x).initial_diffuse
    if unknown is None:
        return []
    found: list[int] = torch.nonzero(unknown.reshape(-1, *unknown.shape[-2:])[0].diagonal() > 0)[:, 0].tolist()
    return found


def _given_starts(starts: Any, B: int, K: int, device: str | torch.device) -> Tensor:
    values = torch.from_numpy(_array(starts)).to(device)
    if values.ndim == 2:
        values = values[:, None]
    if values.ndim != 3 or values.shape[0] != B or values.shape[2] != K:
        raise InputError(f"starts have shape {tuple(values.shape)}; give ({B}, {K}) or ({B}, starts, {K}).")
    return values


def _array(values: Any) -> np.ndarray:
    """A copy in float64."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.array(values, dtype=np.float64)


def _two(scale: Any) -> np.ndarray:
    rounded: np.ndarray = np.exp2(np.round(np.log2(np.asarray(scale, dtype=np.float64))))
    return rounded


def nulls(values: np.ndarray) -> list[Any]:
    """Nested lists for JSON, None where not finite."""
    blank = values.astype(object)
    blank[~np.isfinite(values)] = None
    listed: list[Any] = blank.tolist()
    return listed


def _numbers(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)
