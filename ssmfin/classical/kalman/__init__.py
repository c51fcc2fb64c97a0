"""Owns linear Gaussian models of a whole panel: specifications, maximum likelihood, filter, smoother, forecast.

Arrays in, numpy arrays out (float64); B series, T steps, P observed components, J regressors, N states, K parameters.
NaN = missing, at either end too: series of different lengths are padded with NaN, which changes no result.

    from ssmfin.classical.kalman import KalmanFit, filter_series, fit, forecast, smooth, specification

    spec = specification("local_level")                       # kinds: KINDS; options by keyword, frozen dataclasses
    found = fit(spec, y, x=None, *, starts=None, standard_errors=False, tolerance=1e-6, max_iterations=200,
                device="cpu")                                 # y (B, T) or (B, T, P); x (T, J), (B, T) or (B, T, J)
    found.parameters          (B, K) in the order of spec.parameter_names, user's units, NaN where status is failed
    found.log_likelihood      (B,) diffuse where the start is; user's units
    found.status              (B,) str: converged | not_converged | failed   (given: KalmanFit.at)
    found.reason              tuple of B str, "" where converged; the remedy where failed. Series by their index
    found.iterations, found.observations (B,), found.standard_errors (B, K) or None
    found.select(index) -> KalmanFit of those series;  found.to_dict() / KalmanFit.from_dict(d): JSON
    KalmanFit.at(spec, parameters)                            # known parameters instead of fitted ones
    fit(..., starts=found.parameters)                         # warm start (B, K) or (B, S, K), user's units

    past = filter_series(found, y, x=None, *, carry=None) -> Filtered      # everything at t uses data up to t only
    past.outputs              names of what the model means: spec.output_names, e.g. level, slope, alpha, beta_1
    past.output(name)         -> (mean, variance), each (B, T), filtered; past.output(name, predicted=True): before y_t
    past.predicted_mean, past.predicted_variance, past.innovation, past.standardised_innovation  (B, T, P)
                              one-step predictions of y_t and what they missed; NaN while diffuse
    past.log_score            (B, T), log p(y_t | past)
    past.gain (B, T, N, P), past.filtered_state (B, T, N), past.filtered_covariance, past.predicted_state, ...
    past.log_likelihood (B,), past.diffuse (B, T) bool
    past.carry                -> filter_series(found, later, carry=past.carry) equals the run over all of it
    past.carry.to_dict() / Carry.from_dict(d)
    updater = Updater(found, carry); updater.update(y (B,) or (B, P), x=None (B, J)) -> Filtered of one step, fast

    forecast(found, carry, steps, x=None) -> Forecast.mean (B, h, P), .covariance (B, h, P, P) of y, .state_mean ...
    smooth(found, y, x=None) -> ssmfin.classical.smoothed.Smoothed          # the harness refuses it

Specification (frozen dataclass): kind, parameter_names, state_names, output_names, components P, regressors J,
natural(theta (B, K)) -> natural (B, K), free(natural) -> theta, starts(y, x) -> natural (B, S, K),
state_space(natural, T, x) -> ssmfin_kernels.StateSpace, observe(y) -> what is filtered (log squared returns for
stochastic_volatility), to_dict() / specification(**d). `custom.py` says how to write one's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ssmfin.classical.kalman.custom": ["Custom"],
    "ssmfin.classical.kalman.filtering": ["Carry", "Filtered", "filter_series", "smooth"],
    "ssmfin.classical.kalman.updating": ["Updater"],
    "ssmfin.classical.kalman.fitting": ["KalmanFit", "fit"],
    "ssmfin.classical.kalman.forecasting": ["Forecast", "forecast"],
    "ssmfin.classical.kalman.kinds": ["KINDS", "specification"],
    "ssmfin.classical.kalman.model": ["Parameter", "Specification"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)

if TYPE_CHECKING:
    from ssmfin.classical.kalman.custom import Custom
    from ssmfin.classical.kalman.filtering import Carry, Filtered, filter_series, smooth
    from ssmfin.classical.kalman.fitting import KalmanFit, fit
    from ssmfin.classical.kalman.forecasting import Forecast, forecast
    from ssmfin.classical.kalman.kinds import KINDS, specification
    from ssmfin.classical.kalman.model import Parameter, Specification
    from ssmfin.classical.kalman.updating import Updater


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ssmfin.classical.kalman' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value
