"""Owns what the Gaussian nonlinear filters are given and what they return: NonlinearModel, NonlinearFiltered.

    y_t = h(alpha_t) + eps_t,   eps_t ~ N(0, R);     alpha_{t+1} = f(alpha_t) + eta_t,   eta_t ~ N(0, Q)

f, h and, where they are not constant, Q and R are functions of (state, parameters, inputs) of one series at one time;
the filters carry them over series and sigma points by `torch.func.vmap`. So they are written without batch dimensions,
in torch operations, without branches on values. Give matrices through `parameters` rather than by closure: a matrix
that all series share becomes one BLAS product over the batch, whose last bits depend on the size of the batch.

Shapes: B series, T time, P observed columns, N states, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ssmfin.errors import InputError

Parameters = Mapping[str, Tensor]
Function = Callable[[Tensor, Parameters, Tensor], Tensor]
Moment = Callable[[Parameters], Tensor]


class NonlinearModel(NamedTuple):
    """A nonlinear state-space model with additive Gaussian noise; fields in the order of `ssmfin_kernels.StateSpace`.

    Attributes:
        transition: f, (state (N,), parameters, inputs (K,)) -> (N,).
        observation: h, (state (N,), parameters, inputs (K,)) -> (P,).
        process_covariance: Q as (N, N), (B, N, N), or a function of the same arguments -> (N, N), taken at the filtered
            mean (so that noise may depend on the state, as in a square-root process).
        observation_covariance: R likewise, (P, P), taken at the predicted mean.
        initial_covariance: (N, N) or (B, N, N), of alpha_1 before any observation, may be singular; or a function of
            the parameters of one series -> (N, N), such as the stationary one.
        initial_mean: (N,) or (B, N) or a function of the parameters -> (N,); zero if None.
        transition_jacobian: df/dalpha, same arguments -> (N, N); by torch.func where None.
        observation_jacobian: dh/dalpha, -> (P, N); likewise.
    """

    transition: Function
    observation: Function
    process_covariance: Tensor | Function
    observation_covariance: Tensor | Function
    initial_covariance: Tensor | Moment
    initial_mean: Tensor | Moment | None = None
    transition_jacobian: Function | None = None
    observation_jacobian: Function | None = None


class GaussianState(NamedTuple):
    """The state predicted for the next observation: what a run that goes on starts from.

    Attributes:
        mean: (B, N). covariance: (B, N, N).
    """

    mean: Tensor
    covariance: Tensor


class NonlinearFiltered(NamedTuple):
    """What the extended and the unscented filter return; the names are those of `ssmfin_kernels.KalmanFiltered`.

    Where a covariance stops being positive definite (the approximation broke down) that series is NaN from there on.

    Attributes:
        predicted_mean: (B, T, N), of alpha_t given y_1 .. y_{t-1}.
        predicted_covariance: (B, T, N, N).
        filtered_mean: (B, T, N), of alpha_t given y_1 .. y_t.
        filtered_covariance: (B, T, N, N).
        innovation: (B, T, P), y_t less its prediction; NaN where y is missing.
        innovation_covariance: (B, T, P, P), of the prediction of y_t, also where y is missing.
        log_likelihood: (B,), Gaussian and hence approximate.
        log_likelihood_steps: (B, T); 0 where all is missing.
        carry: the state predicted for step T + 1.
    """

    predicted_mean: Tensor
    predicted_covariance: Tensor
    filtered_mean: Tensor
    filtered_covariance: Tensor
    innovation: Tensor
    innovation_covariance: Tensor
    log_likelihood: Tensor
    log_likelihood_steps: Tensor
    carry: GaussianState

    @property
    def standardised_innovation(self) -> Tensor:
        """(B, T, P), innovation over its standard deviation, each component by itself."""
        variance = torch.diagonal(self.innovation_covariance, dim1=-2, dim2=-1)
        return self.innovation / torch.sqrt(variance)


class Problem(NamedTuple):
    """Checked arguments in float64: y (B, T, P), parameters (B, ...), inputs (B, T, K), the first predicted state."""

    y: Tensor
    model: NonlinearModel
    parameters: dict[str, Tensor]
    inputs: Tensor
    start: GaussianState

    def at(self, function: Function, state: Tensor, t: int) -> Tensor:
        """`function` of every series' state (B, N) at step t."""
        return torch.func.vmap(function)(state, self.parameters, self.inputs[:, t])

    def over_points(self, function: Function, points: Tensor, t: int) -> Tensor:
        """`function` of several states (B, S, N) of every series at step t."""
        over_states = torch.func.vmap(function, (0, None, None))
        return torch.func.vmap(over_states)(points, self.parameters, self.inputs[:, t])

    def covariance(self, given: Tensor | Function, state: Tensor, t: int) -> Tensor:
        """Q or R as (b, n, n)."""
        return given.expand(len(self.y), *given.shape[-2:]) if isinstance(given, Tensor) else self.at(given, state, t)


def prepare(
    y: Tensor,
    model: NonlinearModel,
    parameters: Mapping[str, Tensor] | None,
    inputs: Tensor | None,
    carry: GaussianState | None,
) -> Problem:
    """Check and align the arguments of a filter.

    Raises:
        InputError: a shape does not fit, or a value is infinite.
    """
    if y.ndim != 3:
        raise InputError(f"y has shape {tuple(y.shape)}; use (series, time, columns).")
    y = y.double()
    B, T, _ = y.shape
    if torch.isinf(y).any():
        b, t, p = (int(i) for i in torch.isinf(y).nonzero()[0])
        raise InputError(f"y is infinite at series {b}, step {t}, column {p}; use NaN where it is missing.")
    inputs = y.new_zeros(B, T, 0) if inputs is None else inputs.double()
    if inputs.ndim != 3 or inputs.shape[:2] != (B, T):
        raise InputError(f"inputs has shape {tuple(inputs.shape)}; use ({B}, {T}, K), as y has.")
    if not torch.isfinite(inputs).all():
        b, t, k = (int(i) for i in (~torch.isfinite(inputs)).nonzero()[0])
        raise InputError(f"inputs is not finite at series {b}, step {t}, column {k}; fill it, or blank y there.")
    by_series = {name: _for_every_series(name, value, B) for name, value in (parameters or {}).items()}
    first = _first_state(model, by_series, B) if carry is None else _checked_state(*carry, B)
    noise = {
        name: value.double() if isinstance(value, Tensor) else value
        for name, value in (
            ("process_covariance", model.process_covariance),
            ("observation_covariance", model.observation_covariance),
        )
    }
    problem = Problem(y, model._replace(**noise), by_series, inputs, first)  # type: ignore[arg-type]
    if T > 0 and B > 0:
        _check_functions(problem)
    return problem


def _first_state(model: NonlinearModel, parameters: dict[str, Tensor], series: int) -> GaussianState:
    covariance = _moment("covariance", model.initial_covariance, parameters)
    if model.initial_mean is None:
        mean = covariance.new_zeros(covariance.shape[-1])
    else:
        mean = _moment("mean", model.initial_mean, parameters)
    return _checked_state(mean, covariance, series)


def _moment(name: str, given: Tensor | Moment, parameters: dict[str, Tensor]) -> Tensor:
    if isinstance(given, Tensor):
        return given
    if not parameters:
        raise InputError(f"model.initial_{name} is a function of parameters, and there are none; give a tensor.")
    value: Tensor = torch.func.vmap(given)(parameters)
    return value


def _checked_state(mean: Tensor, covariance: Tensor, series: int) -> GaussianState:
    mean, covariance = mean.double(), covariance.double()
    N = mean.shape[-1]
    for name, value, shape in (("mean", mean, (N,)), ("covariance", covariance, (N, N))):
        if value.shape not in (shape, (series, *shape)):
            raise InputError(f"the initial {name} has shape {tuple(value.shape)}; use {shape} or {(series, *shape)}.")
    return GaussianState(mean.expand(series, N), covariance.expand(series, N, N))


def _for_every_series(name: str, value: Tensor, series: int) -> Tensor:
    value = value.double()
    if value.ndim == 0:
        return value.expand(series)
    if value.shape[0] != series:
        raise InputError(
            f"parameters[{name!r}] has shape {tuple(value.shape)}; use a scalar or a first dimension of {series}, "
            "one entry a series."
        )
    return value


def _check_functions(problem: Problem) -> None:
    """One call of each function for the first series: a wrong shape is named here rather than deep in the recursion."""
    y, model, parameters, inputs, start = problem
    P, N = y.shape[-1], start.mean.shape[-1]
    one = {name: value[0] for name, value in parameters.items()}
    for name, given, shape in (
        ("transition", model.transition, (N,)),
        ("observation", model.observation, (P,)),
        ("process_covariance", model.process_covariance, (N, N)),
        ("observation_covariance", model.observation_covariance, (P, P)),
        ("transition_jacobian", model.transition_jacobian, (N, N)),
        ("observation_jacobian", model.observation_jacobian, (P, N)),
    ):
        if given is None:
            continue
        if isinstance(given, Tensor):
            if given.shape not in (shape, (len(y), *shape)):
                allowed = f"{shape} or {(len(y), *shape)}"
                raise InputError(f"model.{name} has shape {tuple(given.shape)}; use {allowed}.")
            continue
        with torch.no_grad():
            value = given(start.mean[0], one, inputs[0, 0])
        if not isinstance(value, Tensor) or value.shape != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"model.{name} returns {found} for one state; let it return a tensor of shape {shape}.")
