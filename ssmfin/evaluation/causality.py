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

ROUNDED = 1e-9  # of a value, and of the largest: sums over other numbers of rows may differ by rounding


def _size(values: np.ndarray) -> float:
    """The largest of the finite values, without its sign."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) else 0.0


def perturb_future(panel: Panel, after: np.datetime64, *, seed: int = 0) -> Panel:
    """The same panel with every numeric value later than `after` multiplied by a random factor in [1/3, 3].

    A column that is negative somewhere gets random signs as well: tomorrow's direction is a leak, too.
    """
    later = pl.Series(panel.frame["ds"].to_numpy() > after)
    random = np.random.default_rng(seed)
    factor = np.exp(random.uniform(-np.log(3), np.log(3), size=len(later)))
    signed = factor * np.where(random.random(len(later)) < 0.5, -1.0, 1.0)
    changed = []
    for name in panel.value_columns:
        if panel.frame.schema[name].is_numeric():
            negative = bool((panel.frame[name] < 0).any())
            moved = pl.col(name) * pl.Series(signed if negative else factor)
            changed.append(pl.when(later).then(moved).otherwise(pl.col(name)).alias(name))
    return replace(panel, frame=panel.frame.with_columns(changed))


def check_causality(panel: Panel, target: Target, features: Mapping[str, FeatureSpec], folds: list[Fold]) -> None:
    """Refuse a feature whose values up to a date depend on anything after it.

    The date is the cutoff of the middle fold. Features that learn are fitted on that fold's training window, on the
    original and on the perturbed panel alike. A feature from outside must not mind either that later rows are there
    at all; there sums over another number of rows may be rounded otherwise.

    Raises:
        InputError: naming the feature, its column, and the first row that moved; or that it is random.
    """
    fold = folds[len(folds) // 2]
    cutoff = panel.dates[fold.cutoff]
    dates = panel.frame["ds"].to_numpy()
    past = dates <= cutoff
    changed, shorter = perturb_future(panel, cutoff), replace(panel, frame=panel.frame.filter(pl.Series(past)))

    def values(spec: FeatureSpec, version: Panel) -> tuple[np.ndarray, np.ndarray]:
        transformer = spec.transformer(column=target.column, log=target.transform == "log")
        transformer.fit(training_panel(version, fold.train_start, fold.cutoff))
        found = transformer.values(version)
        return found[past] if version is not shorter else found, transformer.get_feature_names_out()

    for name, spec in features.items():
        before, names = values(spec, panel)
        after, _ = values(spec, changed)
        same = (before == after) | (np.isnan(before) & np.isnan(after))
        what = f"values after {cutoff} change"
        if ":" in spec.kind and same.all():
            after, _ = values(spec, shorter)
            same = np.isclose(before, after, rtol=ROUNDED, atol=ROUNDED * _size(before), equal_nan=True)
            what = f"rows after {cutoff} are taken away"
        if not same.all():
            if not np.array_equal(before, values(spec, panel)[0], equal_nan=True):
                raise InputError(f"feature {name!r} gives other values each time, from the same rows; fix its seed.")
            i, j = (int(x) for x in np.argwhere(~same)[0])
            row = panel.frame.filter(pl.Series(past)).row(i, named=True)
            moved = int((~same).sum())
            remedy = (
                "let each row use rows up to itself alone, and learn in fit"
                if ":" in spec.kind
                else "use a filtered (one-sided) feature, learned in the training window only"
            )
            raise InputError(
                f"feature {name!r} sees the future, column {names[j]!r} at ({row['unique_id']}, {row['ds']}) changes "
                f"from {before[i, j]} to {after[i, j]} when {what} ({moved} value{' moves' if moved == 1 else 's move'}"
                f"); {remedy}."
            )
