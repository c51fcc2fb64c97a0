"""Owns the classical state-space models: estimation and filtering of whole panels, arrays in and out, no tables.

    optimize.py   batched quasi-Newton, one path a series
    smoothed.py   the type of everything two-sided, which the harness refuses
    kalman/       linear Gaussian models: specifications, maximum likelihood, filter, smoother, forecast
    regime/       Markov switching
    nonlinear/    extended, unscented and particle filters

Nothing here imports polars or pydantic: it runs where only numpy, torch and numba are.
"""
