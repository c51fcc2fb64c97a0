"""Owns the particle filter of stochastic volatility: the latent volatility of returns, with its whole distribution.

    r_t = exp(h_t / 2) e_t,   h_{t+1} = mu + phi (h_t - mu) + sigma eta_t,   h_1 ~ N(mu, sigma^2 / (1 - phi^2))

eta_t is standard normal; e_t is too, or Student's t scaled to variance one: e_t = sqrt((nu - 2) / nu) t_nu. So exp(h_t)
is the variance of r_t either way.

The quasi-likelihood of log r_t^2 (Harvey, Ruiz, Shephard, 1994: `specification("stochastic_volatility")`) is fast and
loses much, as log e_t^2 is far from normal; this filter uses the exact density.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssmfin.classical.nonlinear.particle import FloatArray, ParticleModel, ParticleState, Values, bootstrap_filter
from ssmfin.errors import InputError


class VolatilityParameters(NamedTuple):
    """Parameters of the model, scalars or one a series (B,).

    The first three are those of `specification("stochastic_volatility")`, in its order, so that a quasi-likelihood
    fit gives `VolatilityParameters(*fit.parameters.T)`.

    Attributes:
        mean: mu, of log variance (daily returns in decimal: about -9).
        persistence: phi, within (-1, 1).
        variance_log_variance: sigma^2, of log variance's innovation, above 0.
        degrees_of_freedom: nu, above 2; None for Gaussian returns.
    """

    mean: FloatArray | float
    persistence: FloatArray | float
    variance_log_variance: FloatArray | float
    degrees_of_freedom: FloatArray | float | None = None


class FilteredVolatility(NamedTuple):
    """What `filter_volatility` returns, given r_1 .. r_t unless a name says predicted (given r_1 .. r_{t-1}).

    Attributes:
        mean: (B, T), of the volatility exp(h_t / 2), in the unit of the returns. variance: (B, T), of the same.
        quantiles: (B, T, Q), of the same.
        return_variance: (B, T), E exp(h_t). predicted_return_variance: likewise, the forecast of r_t^2.
        log_variance_mean, log_variance_variance: (B, T), of h_t.
        effective_size: (B, T), of the particles before resampling.
        log_likelihood: (B,), its exponential unbiased. log_likelihood_steps: (B, T); 0 where missing.
        carry: the state after the last step.
    """

    mean: FloatArray
    variance: FloatArray
    quantiles: FloatArray
    return_variance: FloatArray
    predicted_return_variance: FloatArray
    log_variance_mean: FloatArray
    log_variance_variance: FloatArray
    effective_size: FloatArray
    log_likelihood: FloatArray
    log_likelihood_steps: FloatArray
    carry: ParticleState


def filter_volatility(
    returns: FloatArray,
    model: VolatilityParameters,
    *,
    particles: int = 1000,
    seed: int = 0,
    ids: Sequence[object] | None = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    resample_below: float = 0.5,
    carry: ParticleState | None = None,
) -> FilteredVolatility:
    """Bootstrap particle filter of stochastic volatility, for many series of returns.

    Args:
        returns: (B, T) demeaned, decimal, NaN where missing. A return of zero is fine (its log square is not taken).
        model: the parameters.
        particles, seed, ids, quantiles, resample_below, carry: as for `bootstrap_filter`.
    Returns:
        FilteredVolatility. Values at t depend on returns up to t alone; a series' do not depend on the other series.
    Raises:
        InputError: a parameter is out of its range, a shape does not fit, or a value is infinite.
    References:
        Durbin & Koopman (2012), section 12.4.5; Kim, Shephard, Chib (1998), Review of Economic Studies 65, section 3.

    >>> model = VolatilityParameters(mean=-9.0, persistence=0.97, variance_log_variance=0.04)
    >>> found = filter_volatility(np.array([[0.001, 0.05, np.nan]]), model, particles=500)
    >>> bool(found.mean[0, 1] > found.mean[0, 0]), found.log_likelihood_steps[0, 2].item()
    (True, 0.0)
    """
    _check(model)
    parameters = {
        "mean": model.mean,
        "persistence": model.persistence,
        "shock": np.sqrt(np.asarray(model.variance_log_variance, dtype=float)),
    }
    if model.degrees_of_freedom is not None:
        parameters["degrees_of_freedom"] = model.degrees_of_freedom
    density = _gaussian if model.degrees_of_freedom is None else _student
    found = bootstrap_filter(
        returns,
        ParticleModel(_initial, _transition, density),
        parameters=parameters,
        particles=particles,
        seed=seed,
        ids=ids,
        quantiles=quantiles,
        moments={"volatility": lambda h: np.exp(0.5 * h), "variance": np.exp},
        resample_below=resample_below,
        carry=carry,
    )
    volatility, variance = found.moments["volatility"], found.moments["variance"]
    return FilteredVolatility(
        volatility,
        np.maximum(variance - volatility**2, 0.0),
        np.exp(0.5 * found.quantiles),  # monotone, so quantiles go through
        variance,
        found.predicted_moments["variance"],
        found.mean,
        found.variance,
        found.effective_size,
        found.log_likelihood,
        found.log_likelihood_steps,
        found.carry,
    )


def _initial(normals: FloatArray, p: Values) -> FloatArray:
    spread = p["shock"] / np.sqrt(1.0 - p["persistence"] ** 2)
    return np.asarray(p["mean"] + spread * normals)


def _transition(h: FloatArray, normals: FloatArray, p: Values) -> FloatArray:
    return np.asarray(p["mean"] + p["persistence"] * (h - p["mean"]) + p["shock"] * normals)


def _gaussian(r: FloatArray, h: FloatArray, p: Values) -> FloatArray:
    with np.errstate(over="ignore"):  # a variance that is far too small is impossible, not an error
        return np.asarray(-0.5 * (math.log(2 * math.pi) + h + r * r * np.exp(-h)))


def _student(r: FloatArray, h: FloatArray, p: Values) -> FloatArray:
    nu = p["degrees_of_freedom"]
    constant = np.array([math.lgamma((v + 1) / 2) - math.lgamma(v / 2) for v in nu.ravel()]).reshape(nu.shape)
    constant = constant - 0.5 * np.log(math.pi * (nu - 2.0))
    with np.errstate(over="ignore"):
        return np.asarray(constant - 0.5 * h - 0.5 * (nu + 1.0) * np.log1p(r * r * np.exp(-h) / (nu - 2.0)))


def _check(model: VolatilityParameters) -> None:
    persistence = np.asarray(model.persistence, dtype=float)
    variance = np.asarray(model.variance_log_variance, dtype=float)
    if not (np.abs(persistence) < 1.0).all():
        raise InputError(f"persistence is {model.persistence}; use values within (-1, 1), else h has no first draw.")
    if not (variance > 0.0).all():
        raise InputError(f"variance_log_variance is {model.variance_log_variance}; use values above 0.")
    nu = model.degrees_of_freedom
    if nu is not None and not (np.asarray(nu, dtype=float) > 2.0).all():
        raise InputError(
            f"degrees_of_freedom is {nu}; use values above 2 (variance one), or None for Gaussian returns."
        )
