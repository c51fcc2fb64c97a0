"""Owns gradient boosted trees through LightGBM: one booster per horizon, stopped early on the purged tail."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ssmfin.errors import InputError
from ssmfin.models.baselines.scales import model_response, require_positive_training
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, Target, TrainingSet


class LightGBM(Forecaster):
    """Boosted trees on all features, squared error on the model's scale, one booster per horizon.

    Trained on the rows before the validation tail and stopped when the tail's error has not improved for
    `early_stopping_rounds`; then trained again with that many trees on all rows of the window. s2 of the bias
    correction is the variance of the tail's residuals of the first booster. Without tail rows it trains
    `early_stopping_rounds` trees. The response is standardised by the training rows, so that the trees do not depend
    on units. Repeatable to the bit: one thread, LightGBM's deterministic mode, a seed.

    The defaults are LightGBM's, with fewer leaves and a smaller step: a window holds a thousand or so rows per id, and
    their labels overlap. Rows of all ids are pooled, which gives each booster more of them.

    References:
        Ke et al. (2017), LightGBM: a highly efficient gradient boosting decision tree, NeurIPS 30.
    """

    kind: ClassVar[str] = "lightgbm"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "gradient boosted trees on all features"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    fits_per_task: ClassVar[int] = 8
    seconds_per_fit: ClassVar[float] = 0.1

    pooled: bool = Field(default=True, description="one model for all ids; false: one for each")
    num_leaves: int = Field(default=15, ge=2, le=131072, description="leaves of a tree")
    learning_rate: float = Field(default=0.05, gt=0, le=1, description="shrinkage of each tree")
    max_rounds: int = Field(default=500, ge=1, description="most trees of a booster")
    early_stopping_rounds: int = Field(default=50, ge=1, description="trees without improvement before stopping")
    min_child_samples: int = Field(default=20, ge=1, description="rows in a leaf, at least")
    lambda_l2: float = Field(default=0.0, ge=0, description="L2 penalty on leaf values, in rows")
    feature_fraction: float = Field(default=1.0, gt=0, le=1, description="part of the features that a tree may use")
    refit_on_all: bool = Field(
        default=True,  # the tail is the newest eighth of the window: to forget it costs more than early stopping gains
        description="train again on all rows of the window with the number of trees found",
    )

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        lightgbm = _lightgbm()
        design = training.design
        if not design.features.shape[1]:
            raise InputError("lightgbm has no features, 0 columns; give the study or the model at least one feature.")
        if design.target.transform == "log":
            require_positive_training(training, model=self.kind)
        response = model_response(design)
        groups = [None] if self.pooled else list(range(len(design.ids)))
        boosters: dict[tuple[int | None, int], _Booster] = {}
        for group in groups:
            inside = np.ones(design.rows, dtype=bool) if group is None else design.id_index == group
            for h in range(response.shape[1]):
                rows = {
                    part: np.flatnonzero(getattr(training, part)[:, h] & inside)
                    for part in ("fit", "validation", "train")
                }
                if len(rows["train"]):
                    boosters[group, h] = self._train(lightgbm, design.features, response[:, h], rows, seed)
        return FittedBoosters(boosters, design.target, pooled=self.pooled)

    def _train(
        self, lightgbm: ModuleType, x: FloatArray, response: FloatArray, rows: dict[str, np.ndarray], seed: int
    ) -> _Booster:
        early = rows["fit"] if len(rows["fit"]) else rows["train"]
        tail = rows["validation"] if len(rows["fit"]) else rows["validation"][:0]
        centre = float(response[early].mean())
        scale = float(response[early].std()) or 1.0
        y = (response - centre) / scale
        parameters = self._parameters(seed)
        data = lightgbm.Dataset(x[early], label=y[early], params=parameters, free_raw_data=True)
        if len(tail):
            booster = lightgbm.train(
                parameters,
                data,
                num_boost_round=self.max_rounds,
                valid_sets=[lightgbm.Dataset(x[tail], label=y[tail], reference=data, params=parameters)],
                callbacks=[lightgbm.early_stopping(self.early_stopping_rounds, verbose=False)],
            )
            trees = int(booster.best_iteration)
        else:
            trees = min(self.early_stopping_rounds, self.max_rounds)
            booster = lightgbm.train(parameters, data, num_boost_round=trees)
        judged = tail if len(tail) > 1 else early
        residual = y[judged] - booster.predict(x[judged], num_iteration=trees, num_threads=1)
        if self.refit_on_all and len(tail):
            everything = lightgbm.Dataset(x[rows["train"]], label=y[rows["train"]], params=parameters)
            booster = lightgbm.train(parameters, everything, num_boost_round=trees)
        text = booster.model_to_string(num_iteration=trees)
        return _Booster(text, centre, scale, scale**2 * float(residual.var()), trees)

    def _parameters(self, seed: int) -> dict[str, Any]:
        return {
            "objective": "regression",
            "metric": "l2",
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_child_samples,
            "lambda_l2": self.lambda_l2,
            "feature_fraction": self.feature_fraction,
            "deterministic": True,
            "force_row_wise": True,  # the automatic choice is made by timing, hence not repeatable
            "num_threads": 1,  # more would also meet torch's OpenMP runtime, and then the process can crash
            "seed": seed % 2**31,
            "verbosity": -1,
        }


class _Booster(NamedTuple):
    """A trained booster as LightGBM text, for the standardised response (y - centre) / scale."""

    text: str
    centre: float
    scale: float
    residual_variance: float
    trees: int


class FittedBoosters(Fitted):
    """Boosters per horizon number, and per id number where they are not pooled (else the id number is None)."""

    def __init__(self, boosters: dict[tuple[int | None, int], _Booster], target: Target, *, pooled: bool) -> None:
        self.boosters = boosters
        self.target = target
        self.pooled = pooled
        self.notes: dict[str, Any] = {
            "trees_mean": float(np.mean([booster.trees for booster in boosters.values()])) if boosters else 0.0,
            "boosters": len(boosters),
        }

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        lightgbm = _lightgbm()
        out = np.full((len(rows), len(self.target.horizons)), np.nan)
        groups = [None] if self.pooled else [int(k) for k in np.unique(design.id_index[rows])]
        for group in groups:
            mine = np.arange(len(rows)) if group is None else np.flatnonzero(design.id_index[rows] == group)
            for h in range(out.shape[1]):
                if len(mine):
                    out[mine, h] = self._forecast(lightgbm, design, rows[mine], group, h)
        return out

    def _forecast(
        self, lightgbm: ModuleType, design: Design, rows: np.ndarray, group: int | None, h: int
    ) -> FloatArray:
        if (group, h) not in self.boosters:
            name = "any id" if group is None else f"id {design.ids[group]!r}"
            raise InputError(
                f"lightgbm has no training row of {name} for horizon {self.target.horizons[h]}; "
                "lengthen the training window or set pooled: true."
            )
        fitted = self.boosters[group, h]
        booster = lightgbm.Booster(model_str=fitted.text)
        mu = fitted.centre + fitted.scale * booster.predict(design.features[rows], num_threads=1)
        return self.target.to_original_scale(mu, fitted.residual_variance)


def _lightgbm() -> ModuleType:
    try:
        import lightgbm
    except (ImportError, OSError) as error:  # OSError: the wheel is there, its OpenMP runtime (libgomp) is not
        raise InputError(
            f"lightgbm cannot be imported, {error}; install it with `pip install lightgbm` "
            "(on Debian also `apt-get install libgomp1`)."
        ) from None
    return lightgbm  # type: ignore[no-any-return]
