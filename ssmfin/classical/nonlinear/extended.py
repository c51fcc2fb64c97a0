"""Owns the extended Kalman filter: f and h replaced by their tangents at the newest mean.

f(alpha) ~ f(a) + F (alpha - a),  F = df/dalpha at a;     h(alpha) ~ h(a) + H (alpha - a),  H = dh/dalpha at a
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ssmfin.classical.nonlinear import model as _model
from ssmfin.classical.nonlinear import recursion
from ssmfin.classical.nonlinear.model import Function, GaussianState, NonlinearFiltered, NonlinearModel, Problem


def extended_kalman_filter(
    y: Tensor,
    model: NonlinearModel,
    *,
    parameters: Mapping[str, Tensor] | None = None,
    inputs: Tensor | None = None,
    carry: GaussianState | None = None,
) -> NonlinearFiltered:
    """Extended Kalman filter of many series.

        m = h(a),  S = H P H' + R,  C = P H';     a <- f(a),  P <- F P F' + Q

    Exact for linear f and h. The tangent sees no curvature: at an extremum of h (a square at zero) nothing is learned,
    where `unscented_kalman_filter` still gets the right mean and variance of y.

    Args:
        y: (B, T, P), NaN where missing, each component by itself.
        model: functions of one series at one time and the initial moments.
        parameters: what the functions read by name, scalars or (B, ...); tensors that require a gradient get one
            through `log_likelihood`.
        inputs: (B, T, K) known regressors; the row t is given to observation and transition at t.
        carry: the `carry` of an earlier run, to go on from there; None for the model's initial moments.
    Returns:
        NonlinearFiltered, float64. Values at t depend on rows up to t alone.
    Raises:
        InputError: a shape does not fit, or a value is infinite.
    References:
        Anderson & Moore (1979), Optimal Filtering, section 8.2; Durbin & Koopman (2012), section 10.2.

    >>> drift = NonlinearModel(
    ...     lambda a, p, u: a + torch.sin(a), lambda a, p, u: torch.exp(a),
    ...     torch.eye(1), 0.1 * torch.eye(1), torch.eye(1),
    ... )
    >>> extended_kalman_filter(torch.tensor([[[2.0], [float("nan")]]]), drift).filtered_mean.flatten()
    tensor([0.9091, 1.6980], dtype=torch.float64)
    """
    return recursion.run(_model.prepare(y, model, parameters, inputs, carry), _observe, _predict)


def _observe(problem: Problem, state: GaussianState, t: int) -> recursion.Transformed:
    mean, H = _tangent(problem, problem.model.observation, problem.model.observation_jacobian, state.mean, t)
    C = state.covariance @ H.mT
    return mean, H @ C, C


def _predict(problem: Problem, state: GaussianState, t: int) -> recursion.Transformed:
    mean, F = _tangent(problem, problem.model.transition, problem.model.transition_jacobian, state.mean, t)
    C = state.covariance @ F.mT
    return mean, recursion.symmetric(F @ C), C


def _tangent(
    problem: Problem, function: Function, jacobian: Function | None, point: Tensor, t: int
) -> tuple[Tensor, Tensor]:
    """Value (B, n) and Jacobian (B, n, N) of a function at a point of every series."""
    if jacobian is not None:
        return problem.at(function, point, t), problem.at(jacobian, point, t)

    def twice(state: Tensor, parameters: _model.Parameters, inputs: Tensor) -> tuple[Tensor, Tensor]:
        value = function(state, parameters, inputs)
        return value, value

    both = torch.func.vmap(torch.func.jacrev(twice, has_aux=True))
    slope, value = both(point, problem.parameters, problem.inputs[:, t])
    return value, slope
