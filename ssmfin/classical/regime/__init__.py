"""Owns the regime models: Markov switching regressions and autoregressions, Gaussian HMMs and switching Kalman filters.

Arrays in, NumPy arrays out (float64); B series, T steps, K regimes: y (B, T), for `gaussian_hmm` (B, T, P); x (B, T, X)
regressors where the specification names some. NaN = missing, so series that start later begin with NaN.

    from ssmfin.classical.regime import RegimeFit, filter_series, fit, smooth, specification

    spec = specification("markov_regression", regimes=2, mean="common", variance="switching")   # kinds: KINDS
    found = fit(spec, y, x=None, *, starts=8, follow=2, max_iterations=200, tolerance=1e-4, standard_errors=False,
                previous=None)                     # previous: a RegimeFit whose numbering of regimes is kept
    found.parameters          (B, N) in the order of spec.parameter_names, user's units, NaN where status is failed
    found.transition          (B, K, K), P(s_{t+1} = j | s_t = i) at [i, j]
    found.log_likelihood      (B,)
    found.status              (B,) str: converged | not_converged | failed  (given: RegimeFit.at)
    found.reason              tuple of B str, "" where nothing is to be said
    found.matching            tuple of B str: "ordered", "matched", or why regimes could not be matched to `previous`
    found.iterations, found.observations (B,), found.standard_errors (B, N) or None
    found.select(index) -> RegimeFit of those series;  found.to_dict() / RegimeFit.from_dict(d): JSON
    RegimeFit.at(spec, parameters)                 # known parameters instead of fitted ones

    past = filter_series(found, y, x=None, *, carry=None)          -> RegimeFiltered
    past.predicted, past.filtered       (B, T, K): at t from rows before t; from rows up to t. NaN where the fit failed
    past.log_score                      (B, T), log p(y_t | rows before t); NaN where y_t says nothing
    past.carry                          filter_series(found, later, carry=past.carry) equals the run over all of it
    past.carry.to_dict() / RegimeCarry.from_dict(d): JSON
    expected_duration(found.transition) (B, K) steps;  entropy(past.filtered) (B, T) nats
    most_probable(past.filtered)        (B, T) int64, -1 where NaN;  stationary(found.transition) (B, K)
    smooth(found, y, x=None)            -> ssmfin.classical.smoothed.Smoothed    # two-sided: the harness refuses it

Regimes are numbered by variance, from calm to wild, or by mean where only the mean switches, or as in `previous`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ssmfin.classical.regime.chain": ["stationary"],
    "ssmfin.classical.regime.filtering": ["RegimeCarry", "RegimeFiltered", "filter_series", "smooth"],
    "ssmfin.classical.regime.fitting": ["fit"],
    "ssmfin.classical.regime.gaussian_hmm": ["GaussianHMM"],
    "ssmfin.classical.regime.kinds": ["KINDS", "specification"],
    "ssmfin.classical.regime.regression": ["MarkovAutoregression", "MarkovRegression"],
    "ssmfin.classical.regime.result": ["RegimeFit"],
    "ssmfin.classical.regime.model": ["Specification"],
    "ssmfin.classical.regime.summaries": ["entropy", "expected_duration", "most_probable"],
    "ssmfin.classical.regime.switching_kalman": ["SwitchingKalman"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)

if TYPE_CHECKING:
    from ssmfin.classical.regime.chain import stationary
    from ssmfin.classical.regime.filtering import RegimeCarry, RegimeFiltered, filter_series, smooth
    from ssmfin.classical.regime.fitting import fit
    from ssmfin.classical.regime.gaussian_hmm import GaussianHMM
    from ssmfin.classical.regime.kinds import KINDS, specification
    from ssmfin.classical.regime.model import Specification
    from ssmfin.classical.regime.regression import MarkovAutoregression, MarkovRegression
    from ssmfin.classical.regime.result import RegimeFit
    from ssmfin.classical.regime.summaries import entropy, expected_duration, most_probable
    from ssmfin.classical.regime.switching_kalman import SwitchingKalman


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ssmfin.classical.regime' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
