"""Owns the leak canary: change every value after a date and demand that nothing before it moves, not by one bit.

It runs on the user's own features and data at the start of every evaluation, so a smoothed (two-sided) state, a scaler
fitted on everything or a fill from the right is refused before it can make a forecast look good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.design import training_panel
from ssmfin.evaluation.splits import Fold
from ssmfin.features.spec import FeatureSpec
from ssmfin.models.interface import Target


def perturb_future(panel: Panel, after: np.datetime64, *, seed: int = 0) -> Panel:
    """The same panel with every numeric value later than `after` multiplied by a random factor in [1/3, 3]."""
    later = pl.Series(panel.frame["ds"].to_numpy() > after)
    factor = np.exp(np.random.default_rng(seed).uniform(-np.log(3), np.log(3), size=len(later)))
    changed = [
        pl.when(later).then(pl.col(name) * pl.Series(factor)).otherwise(pl.col(name)).alias(name)
        for name in panel.value_columns
        if panel.frame.schema[name].is_numeric()
    ]
    return replace(panel, frame=panel.frame.with_columns(changed))


def check_causality(panel: Panel, target: Target, features: Mapping[str, FeatureSpec], folds: list[Fold]) -> None:
    """Refuse a feature whose values up to a date depend on anything after it.

    The date is the cutoff of the middle fold. Features that learn are fitted on that fold's training window, on the
    original and on the perturbed panel alike.

    Raises:
        InputError: naming the feature, its column, and the first row that moved.
    """
    fold = folds[len(folds) // 2]
    cutoff = panel.dates[fold.cutoff]
    changed = perturb_future(panel, cutoff)
    dates = panel.frame["ds"].to_numpy()
    past = dates <= cutoff
    for name, spec in features.items():
        values = []
        for version in (panel, changed):
            transformer = spec.transformer(column=target.column, log=target.transform == "log")
            transformer.fit(training_panel(version, fold.train_start, fold.cutoff))
            values.append(transformer.values(version)[past])
        same = (values[0] == values[1]) | (np.isnan(values[0]) & np.isnan(values[1]))
        if not same.all():
            i, j = (int(x) for x in np.argwhere(~same)[0])
            row = panel.frame.filter(pl.Series(past)).row(i, named=True)
            column = transformer.get_feature_names_out()[j]
            raise InputError(
                f"feature {name!r} sees the future, column {column!r} at ({row['unique_id']}, {row['ds']}) "
                "changes from "
                f"{values[0][i, j]} to {values[1][i, j]} when values after {cutoff} change ({int((~same).sum())} "
                "values move); "
                f"use a filtered (one-sided) feature, learned in the training window only."
            )
