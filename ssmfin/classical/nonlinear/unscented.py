"""Owns the unscented Kalman filter: moments of f and h from a few points, without derivatives.

2 N + 1 sigma points of N(a, P), with P = L L' (`root.py`) and lambda = alpha^2 (N + kappa) - N:

    x_0 = a,   x_{i, N + i} = a +- sqrt(N + lambda) L_i
    w_0 = lambda / (N + lambda),   w_i = 1 / (2 (N + lambda));   in covariances w_0 gains 1 - alpha^2 + beta

alpha = 1, beta = 0 are the points of Julier & Uhlmann (1997), others those of van der Merwe (2004), eq. 3.12.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ssmfin.classical.nonlinear import model as _model
from ssmfin.classical.nonlinear import recursion
from ssmfin.classical.nonlinear.model import Function, GaussianState, NonlinearFiltered, NonlinearModel, Problem
from ssmfin.classical.nonlinear.root import semidefinite_root
from ssmfin.errors import InputError


class SigmaPoints(NamedTuple):
    """Where the sigma points lie and what they weigh.

    The default takes kappa = max(3 - N, 0). Up to three states the points then match the fourth moment of a Gaussian
    along each axis; with more they are those of the cubature filter (Arasaratnam & Haykin, 2009). No weight is
    negative, so covariances stay positive semidefinite. alpha well below 1 makes weights of order 1 / alpha^2, which
    cancel and cost that many digits.

    Attributes:
        alpha: spread, above 0. beta: correction of the central weight in covariances (2 is customary with a small
            alpha). kappa: None for max(3 - N, 0).
    """

    alpha: float = 1.0
    beta: float = 0.0
    kappa: float | None = None


_DEFAULT = SigmaPoints()


def unscented_kalman_filter(
    y: Tensor,
    model: NonlinearModel,
    *,
    parameters: Mapping[str, Tensor] | None = None,
    inputs: Tensor | None = None,
    carry: GaussianState | None = None,
    points: SigmaPoints = _DEFAULT,
) -> NonlinearFiltered:
    """Unscented Kalman filter of many series (additive noise; the points are drawn anew after each prediction).

        m = sum w_i h(x_i),  S = sum w_i (h(x_i) - m)(h(x_i) - m)' + R,  C = sum w_i (x_i - a)(h(x_i) - m)'

    Exact for linear f and h. A covariance may be singular.

    Args:
        y, model, parameters, inputs, carry: as for `extended_kalman_filter`; Jacobians are not used.
        points: spread and weights of the sigma points.
    Returns:
        NonlinearFiltered, float64. Values at t depend on rows up to t alone.
    Raises:
        InputError: a shape does not fit, a value is infinite, or N + lambda is not positive.
    References:
        Julier & Uhlmann (1997); van der Merwe (2004), Sigma-Point Kalman Filters, algorithm 3.1; Durbin & Koopman
        (2012), section 10.3.

    >>> square = NonlinearModel(
    ...     lambda a, p, u: a, lambda a, p, u: a**2, torch.eye(1), torch.eye(1), torch.eye(1)
    ... )
    >>> seen = unscented_kalman_filter(torch.tensor([[[1.5]]]), square)  # y = a^2 + e: mean 1, variance 2 + 1
    >>> round(seen.innovation.item(), 12), round(seen.innovation_covariance.item(), 12)
    (0.5, 3.0)
    """
    problem = _model.prepare(y, model, parameters, inputs, carry)
    scale, mean_weights, covariance_weights = sigma_weights(problem.start.mean.shape[-1], points)

    def transformed(problem: Problem, function: Function, state: GaussianState, t: int) -> recursion.Transformed:
        around, valid = _deviations(state.covariance, scale)  # (B, S, N)
        values = problem.over_points(function, state.mean[:, None] + around, t)  # (B, S, n)
        mean = (values.mT @ mean_weights[:, None])[..., 0]
        mean = torch.where(valid[:, None], mean, torch.nan)
        deviation = values - mean[:, None]
        covariance = recursion.outer_product(deviation, deviation, covariance_weights)
        return mean, recursion.symmetric(covariance), recursion.outer_product(around, deviation, covariance_weights)

    return recursion.run(
        problem,
        lambda problem, state, t: transformed(problem, problem.model.observation, state, t),
        lambda problem, state, t: transformed(problem, problem.model.transition, state, t),
    )


def sigma_weights(states: int, points: SigmaPoints) -> tuple[float, Tensor, Tensor]:
    """sqrt(N + lambda), weights (2 N + 1,) in means and in covariances; the central point first.

    >>> scale, mean, covariance = sigma_weights(1, SigmaPoints())
    >>> round(scale**2), mean.tolist() == covariance.tolist(), round(mean[0].item(), 4)
    (3, True, 0.6667)
    """
    kappa = max(3.0 - states, 0.0) if points.kappa is None else points.kappa
    total = points.alpha**2 * (states + kappa)  # N + lambda
    if not (points.alpha > 0.0 and total > 0.0):
        raise InputError(
            f"points has alpha {points.alpha} and kappa {kappa} with {states} states; "
            f"use alpha > 0 and kappa > {-states}."
        )
    mean = torch.full((2 * states + 1,), 0.5 / total, dtype=torch.float64)
    mean[0] = (total - states) / total
    covariance = mean.clone()
    covariance[0] += 1.0 - points.alpha**2 + points.beta
    return math.sqrt(total), mean, covariance


def _deviations(covariance: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Sigma points less the mean, (B, 2 N + 1, N), and (B,) whether the covariance had a root."""
    root, valid = semidefinite_root(covariance)
    axes = scale * root.mT  # row i is column i of L
    return torch.cat([torch.zeros_like(axes[:, :1]), axes, -axes], 1), valid
