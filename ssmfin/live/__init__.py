"""Owns a model that is used rather than judged: fitted once on a panel, then asked for forecasts, even row by row.

    trained = fit(sf.S4D(), panel, target="rv")
    trained.forecast(panel)                     # from the newest rows
    live = trained.live(panel, keep=64)
    live.update(today)                          # from new rows, as they come

What it is given is cut as in a walk-forward evaluation: training labels end at the moment of fitting, features that
learn do so in the training window alone, and a forecast rests on rows up to its own.
"""

from __future__ import annotations

from ssmfin.live.fitting import fit
from ssmfin.live.trained import Trained
from ssmfin.live.updating import Live

__all__ = ["Live", "Trained", "fit"]
