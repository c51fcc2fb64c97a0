"""Owns what a practitioner looks at after fitting and after a run: residual tests, structure, memory, losses, plots.

    print(diagnose(past))                               # every test of every series, in words; .table as a DataFrame
    plot_diagnostics(past, series=0)                    # six views of the innovations on one page
    plot_states(past, observed=y[0])                    # filtered states with bands
    plot_regimes(prices, probabilities)                 # prices shaded by regime
    print(structure(fit))                               # observability and controllability, by name of the state
    memory(sf.fit(sf.S4D(), panel, target="rv"))        # half-lives of a deep model's modes; plot_memory draws them
    plot_memory("runs/NAME", "s4d")                     # how they change from one fit of a finished run to the next
    plot_cumulative_loss("runs/NAME")                   # where a finished run was won; by year, by regime, by test

`past` is what `filter_series` of `ssmfin.classical` returns. Plots return matplotlib Figures and need no display. The
tests use the whole sample, for instance its variance: they judge a model, and are no features.
"""

from __future__ import annotations

from ssmfin.diagnostics.forecast_losses import (
    confidence_sets,
    forecast_losses,
    ratios_by_id,
    ratios_by_regime,
    ratios_by_year,
)
from ssmfin.diagnostics.loss_plots import (
    plot_confidence_sets,
    plot_cumulative_loss,
    plot_loss_by_id,
    plot_loss_by_regime,
    plot_loss_by_year,
)
from ssmfin.diagnostics.memory import memory, plot_memory, step_sizes
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
    "confidence_sets",
    "cusum",
    "cusum_of_squares",
    "diagnose",
    "forecast_losses",
    "heteroskedasticity",
    "jarque_bera",
    "ljung_box",
    "memory",
    "plot_confidence_sets",
    "plot_correlogram",
    "plot_cumulative_loss",
    "plot_cusum",
    "plot_cusum_of_squares",
    "plot_diagnostics",
    "plot_histogram",
    "plot_loss_by_id",
    "plot_loss_by_regime",
    "plot_loss_by_year",
    "plot_memory",
    "plot_qq",
    "plot_regimes",
    "plot_residuals",
    "plot_states",
    "ratios_by_id",
    "ratios_by_regime",
    "ratios_by_year",
    "step_sizes",
    "structure",
]
