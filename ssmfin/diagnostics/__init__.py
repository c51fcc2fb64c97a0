"""Owns what a practitioner looks at after fitting a classical model: residual tests, structure, plots.

    print(diagnose(past))                               # every test of every series, in words; .table as a DataFrame
    plot_diagnostics(past, series=0)                    # six views of the innovations on one page
    plot_states(past, observed=y[0])                    # filtered states with bands
    plot_regimes(prices, probabilities)                 # prices shaded by regime
    print(structure(fit))                               # observability and controllability, by name of the state

`past` is what `filter_series` of `ssmfin.classical` returns. Plots return matplotlib Figures and need no display. The
tests use the whole sample, for instance its variance: they judge a model, and are no features.
"""

from __future__ import annotations

from ssmfin.diagnostics.observability import Structure, structure
from ssmfin.diagnostics.regime_plots import plot_regimes
from ssmfin.diagnostics.residual_plots import (
    plot_correlogram,
    plot_cusum,
    plot_cusum_of_squares,
    plot_diagnostics,
    plot_histogram,
    plot_qq,
    plot_residuals,
)
from ssmfin.diagnostics.residual_tests import (
    autocorrelation,
    cusum,
    cusum_of_squares,
    heteroskedasticity,
    jarque_bera,
    ljung_box,
)
from ssmfin.diagnostics.state_plots import plot_states
from ssmfin.diagnostics.summary import Diagnosis, diagnose

__all__ = [
    "Diagnosis",
    "Structure",
    "autocorrelation",
    "cusum",
    "cusum_of_squares",
    "diagnose",
    "heteroskedasticity",
    "jarque_bera",
    "ljung_box",
    "plot_correlogram",
    "plot_cusum",
    "plot_cusum_of_squares",
    "plot_diagnostics",
    "plot_histogram",
    "plot_qq",
    "plot_regimes",
    "plot_residuals",
    "plot_states",
    "structure",
]
