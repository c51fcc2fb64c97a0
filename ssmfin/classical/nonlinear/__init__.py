"""Owns the nonlinear filters: extended and unscented Kalman filters, and a particle filter of stochastic volatility.

    model = NonlinearModel(transition, observation, process_covariance, observation_covariance, initial_covariance)
    found = unscented_kalman_filter(y, model, parameters={"speed": speed})        # y (B, T, P) torch, NaN = missing
    found.filtered_mean (B, T, N), found.filtered_covariance, found.innovation, found.log_likelihood (B,), ...
    more = unscented_kalman_filter(later, model, parameters=..., carry=found.carry)      # equals the full run
    fitted = fit_nonlinear(y, model, starts={"speed": 0.1}, bounds={"speed": (0.0, None)})   # maximum likelihood

    found = filter_volatility(returns, VolatilityParameters(mean, persistence, variance_log_variance))     # (B, T)
    found.mean, found.quantiles of volatility; found.log_likelihood; filter_volatility(later, ..., carry=found.carry)

`bootstrap_filter` is the particle filter for a model of one's own with one latent state.
"""

from __future__ import annotations

from ssmfin.classical.nonlinear.extended import extended_kalman_filter
from ssmfin.classical.nonlinear.fitting import NonlinearFit, fit_nonlinear
from ssmfin.classical.nonlinear.model import GaussianState, NonlinearFiltered, NonlinearModel
from ssmfin.classical.nonlinear.particle import ParticleFiltered, ParticleModel, ParticleState, bootstrap_filter
from ssmfin.classical.nonlinear.stochastic_volatility import (
    FilteredVolatility,
    VolatilityParameters,
    filter_volatility,
)
from ssmfin.classical.nonlinear.unscented import SigmaPoints, unscented_kalman_filter

__all__ = [
    "FilteredVolatility",
    "GaussianState",
    "NonlinearFiltered",
    "NonlinearFit",
    "NonlinearModel",
    "ParticleFiltered",
    "ParticleModel",
    "ParticleState",
    "SigmaPoints",
    "VolatilityParameters",
    "bootstrap_filter",
    "extended_kalman_filter",
    "filter_volatility",
    "fit_nonlinear",
    "unscented_kalman_filter",
]
