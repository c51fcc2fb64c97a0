"""Owns ridge regression on all features, its penalty chosen anew in every training window."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ssmfin.models.baselines import least_squares
from ssmfin.models.baselines.linear_walk import Estimates, FittedLinear, LinearModel, fit_linear, walk_linear
from ssmfin.models.baselines.scales import model_response, require_positive_training, require_positive_windows
from ssmfin.models.interface import Design, FloatArray, TrainingSet, WalkForecaster, Window

HALF_DECADES = tuple(float(f"{penalty:.6g}") for penalty in np.logspace(-6, -1, 11))


class Ridge(WalkForecaster):
    """Ridge regression of the label, on the model's scale, on all features, per id and horizon.

    min_{a, b} sum (y - a - x'b)^2 + n penalty sum_j (sd_j b_j)^2

    with n rows and standard deviations sd_j of the training window. The penalty is the one of the grid with the least
    squared error on the purged validation tail after fitting on the rows before it; then all rows of the window are
    used. An id without rows in the tail (or with fewer than two before it) takes the penalty of least generalised
    cross-validation error over the window instead. s2 of the bias correction is RSS / (n - 1 - effective parameters).

    The grid ends at 0.1: a calm tail would choose more, which pulls the forecast to the window's mean and fails when
    volatility leaves it.

    References:
        Hoerl, Kennard (1970), Technometrics 12, eq. 2.1; Golub, Heath, Wahba (1979), Technometrics 21, eq. 1.4.
    """

    kind: ClassVar[str] = "ridge"
    family: ClassVar[Literal["baseline"]] = "baseline"
    summary: ClassVar[str] = "ridge on all features, penalty by time-ordered validation"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    seconds_per_fit: ClassVar[float] = 0.0002

    penalties: tuple[float, ...] = Field(
        default=HALF_DECADES,
        min_length=1,
        description="grid of penalties per row and per unit of a standardised regressor: 1 halves a lone coefficient",
    )

    @field_validator("penalties")
    @classmethod
    def _increasing(cls, penalties: tuple[float, ...]) -> tuple[float, ...]:
        if not all(1e-9 <= penalty <= 1e9 for penalty in penalties):
            raise ValueError("every penalty must lie between 1e-9 and 1e9")
        return tuple(sorted(set(penalties)))

    def fit(self, training: TrainingSet, *, seed: int = 0) -> FittedLinear:
        if training.design.target.transform == "log":
            require_positive_training(training, model=self.kind)
        fitted = fit_linear(training, self._model)
        fitted.notes |= self._notes(fitted.penalties())
        return fitted

    def walk(self, design: Design, windows: list[Window]) -> tuple[list[FloatArray], dict[str, Any]]:
        if design.target.transform == "log":
            require_positive_windows(design, windows, model=self.kind)
        forecasts, tally = walk_linear(design, windows, self._model(design))
        return forecasts, self._notes(np.concatenate([np.empty(0), *tally.penalties]))

    def from_estimates(self, ids: tuple[str, ...], estimates: Estimates) -> FittedLinear:
        """What `fit` answered, from its `estimates`."""
        return FittedLinear(self._model, ids, estimates)

    def _model(self, design: Design) -> LinearModel:
        grid = np.array(self.penalties)
        return LinearModel(
            regressors=design.features,
            response=model_response(design),
            parts=("train", "fit", "validation"),
            estimate=lambda samples: least_squares.ridge(samples[0], samples[1], samples[2], grid),
            to_forecast=design.target.to_original_scale,
            insanity_filter=False,
        )

    def _notes(self, chosen: FloatArray) -> dict[str, Any]:
        if not len(chosen):
            return {}
        return {
            "penalty_median": float(np.median(chosen)),
            "penalty_at_smallest": int((chosen == self.penalties[0]).sum()),
            "penalty_at_largest": int((chosen == self.penalties[-1]).sum()),
            "penalties": len(chosen),
        }
