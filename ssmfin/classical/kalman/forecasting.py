"""Owns forecasts of the observations from a carried state: means and covariances of every step ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssmfin.classical.kalman import arrays
from ssmfin.classical.kalman.filtering import Carry, Scaled
from ssmfin.classical.kalman.fitting import KalmanFit
from ssmfin.errors import InputError
from ssmfin_kernels import kalman_filter


@dataclass(frozen=True)
class Forecast:
    """The h steps after a carried state, in the user's units; NaN in series without parameters or still diffuse.

    Attributes:
        mean: (B, h, P), E(y_{T+k} | y_1 .. y_T), of what the model observes (log squared returns for stochastic
            volatility).
        covariance: (B, h, P, P), noise of the observation included.
        state_mean: (B, h, N).
        state_covariance: (B, h, N, N).
    """

    mean: np.ndarray
    covariance: np.ndarray
    state_mean: np.ndarray
    state_covariance: np.ndarray


def forecast(fit: KalmanFit, carry: Carry, steps: int, x: Any = None) -> Forecast:
    """Means and covariances of the next observations.

        E(alpha_{T+1+k}) = c + F E(alpha_{T+k}),   Var = F Var F' + Q,   y = d + H alpha + eps

    Args:
        fit: parameters of B series.
        carry: the state after the last observation (`Filtered.carry`).
        steps: h, 1 or more.
        x: (B, h, J) or (h, J), where the model has regressors: their future must be known.
    Returns:
        Forecast.
    Raises:
        InputError: steps below 1, or x missing.
    References:
        Durbin & Koopman (2012), section 4.11: the filter over missing observations.

    >>> from ssmfin.classical.kalman.filtering import filter_series
    >>> from ssmfin.classical.kalman.trends import LocalLevel
    >>> level = KalmanFit.at(LocalLevel(), [[1.0, 0.5]])
    >>> ahead = forecast(level, filter_series(level, [[3.0, 4.0]]).carry, 2)
    >>> ahead.mean[0, :, 0].tolist(), ahead.covariance[0, :, 0, 0].tolist()
    ([3.6, 3.6], [2.1, 2.6])
    """
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps is {steps!r}; give a whole number, 1 or more.")
    spec, scaled = fit.specification, Scaled.of(fit)
    B = len(fit.reason)
    nothing = np.full((B, int(steps), spec.components), np.nan)
    data = arrays.as_data(spec, nothing, x)
    regressors = None if data.x is None else data.x / scaled.x_scale[:, None]
    model = scaled.with_carry(spec.state_space(scaled.natural, int(steps), regressors), carry)
    found = kalman_filter(data.y, model, outputs=("predicted", "innovation"))
    H = model.observation if model.observation.ndim == 4 else model.observation[None, None]
    mean = (H * found.predicted_mean[:, :, None, :]).sum(3)
    if model.observation_intercept is not None:
        mean = mean + model.observation_intercept
    y, state = scaled.y_scale[:, None], scaled.state[:, None]
    unknown = found.diffuse | ~scaled.usable[:, None]
    parts = (
        mean * y,
        found.innovation_covariance * y[:, :, :, None] * y[:, :, None, :],
        found.predicted_mean * state,
        found.predicted_covariance * state[:, :, :, None] * state[:, :, None, :],
    )
    return Forecast(*(torch.where(_wide(unknown, part), torch.nan, part).numpy() for part in parts))


def _wide(flags: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return flags.reshape(*flags.shape, *[1] * (part.ndim - 2))
