"""Owns the fit of one model for use: on the newest rows of a panel, with the walk-forward's own cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.errors import InputError
from ssmfin.evaluation.design import build_design, cut, training_panel
from ssmfin.features.kinds import feature_specs
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.live.trained import Trained
from ssmfin.models.external import SklearnForecaster
from ssmfin.models.interface import Forecaster, Target, TrainingSet, Window

if TYPE_CHECKING:
    from ssmfin.live.trained import Frame


def fit(
    model: Forecaster | Any,
    panel: Frame,
    *,
    target: str | Target,
    horizons: Sequence[int] = (1, 5, 22),
    features: Mapping[str, FeatureSpec | Mapping[str, Any]] | None = None,
    train: int = 1000,
    validation: int = 125,
    seed: int = 0,
) -> Trained:
    """Fit one model on the newest rows of a panel, for use: no test period is left, `evaluate` is what judges.

    Args:
        model: a forecaster such as `sf.S4D()`, or a regressor in scikit-learn's manner.
        panel: long, with `unique_id` and `ds`; its last date is the moment of fitting.
        target: a column (log, mean over t+1 .. t+h), or a `Target`, which brings its own horizons.
        horizons: rows ahead. features: name -> spec, or its mapping as in a study file; default: HAR lags.
        train: dates of the training window; older rows serve as history. validation: dates of its tail on which early
            stopping and penalties are chosen.
        seed: of a stochastic model.
    Raises:
        InputError: the panel, the target or a feature is wrong, or the window is too short.

    >>> from ssmfin.data.synthetic import simulate_volatility_panel
    >>> from ssmfin.models.baselines.har.members import LogHAR
    >>> panel = simulate_volatility_panel(ids=2, dates=500).frame
    >>> fit(LogHAR(), panel, target="rv", horizons=[1], train=300).forecast(panel).columns
    ['unique_id', 'ds', 'horizon', 'y_hat']
    """
    from ssmfin.features.transformer import as_panel

    if isinstance(model, type) or not callable(getattr(model, "fit", None)):
        raise InputError(f"model is {model!r}, no forecaster; give an instance such as sf.S4D() or a regressor.")
    history = as_panel(panel)
    wanted = Target(column=target, horizons=tuple(horizons)) if isinstance(target, str) else target
    specs = feature_specs({"har": {"kind": "har_lags"}} if features is None else features)
    forecaster = model if isinstance(model, Forecaster) else SklearnForecaster(estimator=model)
    cutoff = len(history.dates) - 1
    needed = validation + max(wanted.horizons) + 2
    if not needed <= train <= cutoff + 1:
        raise InputError(
            f"train is {train}; use at least {needed} dates (validation tail, longest horizon), at most the panel's "
            f"{cutoff + 1}."
        )
    start = cutoff - train + 1
    learned = {
        name: spec.transformer(column=wanted.column, log=wanted.transform == "log").fit(
            training_panel(history, start, cutoff)
        )
        for name, spec in specs.items()
        if isinstance(spec, LearnedSpec)
    }
    design = build_design(history, wanted, specs, learned=learned)
    past, _ = cut(replace(design, usable=design.complete), cutoff, labels_until=cutoff)
    window = Window(
        train_start=start,
        cutoff=cutoff,
        labels_until=cutoff,
        validation_start=cutoff - validation,
        fit_labels_until=cutoff - validation,
        test_rows=np.empty(0, dtype=np.int64),
    )
    training = TrainingSet.of(past, window)
    if not training.train.any(axis=0).all():
        undefined = np.isnan(past.features).sum(axis=0)
        most = past.feature_names[int(undefined.argmax())] if len(undefined) else "the means over 22 rows"
        raise InputError(
            "the training window holds no row with complete features and a known label; most often undefined is "
            f"{most}: lengthen train, or leave that feature out."
        )
    fitted = forecaster.fit(training, seed=seed)
    rows = int(training.train.any(axis=1).sum())
    columns = history.value_columns
    return Trained(forecaster, fitted, wanted, specs, learned, history.ids, history.dates[-1], rows, columns)
