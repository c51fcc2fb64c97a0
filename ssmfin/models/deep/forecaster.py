"""Owns the fields that all deep forecasters share, and how they fit. A kind adds its block: one file each.

Module level imports no torch: `ssmfin models` reads every kind.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator

from ssmfin.models.interface import LEVELS, Forecaster, TrainingSet, check_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssmfin.models.deep.block import SequenceBlock
    from ssmfin.models.deep.prediction import FittedDeep
    from ssmfin.models.deep.streaming import Stream


TYPICAL_EPOCHS = 36


def _in_order(timescales: tuple[float, float]) -> tuple[float, float]:
    if not 0 < timescales[0] <= timescales[1] <= 1e6:
        raise ValueError("use (shortest, longest) with 0 < shortest <= longest <= 1e6 rows")
    return timescales


Timescales = Annotated[
    tuple[float, float],
    AfterValidator(_in_order),
    Field(
        description="shortest and longest time scale of a channel at the start, log-uniform between: rows until 1/e of "
        "what it holds is left; half is left after .69 of that, the half-life that `sf.memory` and reports show"
    ),
]


class DeepForecaster(Forecaster):
    """A causal network that corrects a base forecast at every row, for all horizons at once.

        forecast_h(t) = base_h(t) exp(g_h(x_1 .. x_t)),         g = 0 before training

    (an additive correction for a target without a log). It trains sequence-wise: one pass over a segment gives a loss
    at each of its origins. It forecasts from a state carried from the id's first row, as a stream does.
    """

    column_fields: ClassVar[tuple[str, ...] | None] = ()
    stochastic: ClassVar[bool] = True
    fits_per_task: ClassVar[int] = 1
    seconds_per_fit: ClassVar[float] = 2.0  # two layers of width 16, TYPICAL_EPOCHS over 1,000 rows

    layers: int = Field(2, ge=1, le=64, description="blocks, one after the other")
    width: int = Field(16, ge=1, le=4096, description="channels of a layer")
    match_parameters: int | None = Field(
        None,
        ge=100,
        le=10**9,
        description="choose the width so that the network has about this many parameters instead",
    )
    residual: Literal["log_har", "ridge", "panel_ridge", "rolling_ridge", "none"] = Field(
        "log_har",
        description="what is corrected: log_har (har where the target has no log), ridge on the same features, "
        "panel_ridge, its slopes mostly common to all ids, rolling_ridge, estimated anew at each row, or none: the "
        "id's mean, from which everything is learned",
    )
    residual_rows: int | None = Field(
        None,
        ge=30,
        description="of residual: rolling_ridge: rows that it learns from, which may lie before the training window; "
        "default: as many as the window has dates",
    )
    head: Literal["point", "lognormal", "gaussian", "quantiles", "event"] = Field(
        "point", description="what is forecast beside the mean: nothing, a distribution, quantiles, or a spike"
    )
    loss: Literal["qlike", "squared_log"] = Field(
        "qlike", description="of head: point, for a target in logs; without a log it is the squared error"
    )
    levels: tuple[float, ...] = Field(
        LEVELS, min_length=2, max_length=99, description="of head: quantiles, lognormal, gaussian: quantiles, in (0, 1)"
    )
    event_quantile: float = Field(
        0.9, gt=0.5, lt=1, description="of head: event: a spike exceeds this quantile of the id's training labels"
    )
    focal: float = Field(2.0, ge=0, le=10, description="of head: event: exponent of the focal loss; 0: cross entropy")
    pooled: bool = Field(True, description="one network for all ids, or one for each")
    calendar: bool = Field(False, description="weekday and month of the row as inputs")
    id_embedding: bool = Field(False, description="of a pooled network: a learned vector for each id as input")
    sessions: Literal["carry", "reset"] = Field(
        "carry", description="intraday rows: carry the state from day to day, or start anew each day"
    )
    bound: float | None = Field(
        None,
        gt=0,
        le=10,
        description="largest correction: of the log forecast, or in standard deviations of the label; "
        "default 1, and 8 with residual: none",
    )
    half_trust: float | None = Field(
        None,
        ge=0,
        description="labels without overlap for which a correction is halved (shrinks long horizons); 0: none; "
        "default 100, and 0 with residual: none",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of activations dropped in training")
    segment: int = Field(256, ge=1, le=10**6, description="training origins in one sequence")
    context: int = Field(
        128, ge=0, le=10**6, description="rows of warm-up, without loss, that lead each training sequence"
    )
    curriculum: float = Field(
        0.0, ge=0, le=1, description="share of the epochs over which segments grow from an eighth to their length"
    )
    batch: int = Field(8, ge=1, description="training sequences in one step")
    epochs: int = Field(100, ge=0, description="most passes over the training window; 0 leaves the base as it is")
    early_stopping: bool = Field(
        True,
        description="keep the weights of the epoch with the least loss on the validation tail; false: train for all "
        "epochs on the whole training window, its tail included",
    )
    patience: int = Field(15, ge=1, description="epochs without a better validation loss before stopping")
    learning_rate: float = Field(5e-3, gt=0, le=1, description="of AdamW; warm-up, then cosine down to a twentieth")
    ssm_learning_rate: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="of AdamW for the parameters of the recurrence (A, dt, B, C), without weight decay",
    )
    weight_decay: float = Field(0.05, ge=0, description="of AdamW, on weight matrices")
    warmup: int = Field(5, ge=0, description="epochs of linearly increasing learning rate")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm of a step")
    averaging: float = Field(
        5.0, ge=0, le=1000, description="half-life, in epochs, of an exponential average of the weights; 0: none"
    )
    ensemble: int = Field(1, ge=1, le=100, description="networks from different seeds whose forecasts are averaged")
    evaluate_length: Literal["all", 1, 2, 4] = Field(
        "all",
        description="history that a forecast rests on: all, or at most this many training lengths (segment + context)",
    )
    precision: Literal["float32", "float64", "bf16"] = Field(
        "float32", description="of the arithmetic; bf16: autocast, on a GPU only, with float32 states"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")

    @field_validator("levels")
    @classmethod
    def _increasing_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        return check_levels(levels)

    @abstractmethod
    def blocks(self, width: int) -> list[SequenceBlock]:
        """The blocks of a network, in order, their start drawn from torch's global generator."""

    @property
    def width_step(self) -> int:
        """What every width must be a multiple of."""
        return 1

    @property
    def typical_epochs(self) -> int:
        """Early stopping as a rule ends training after `TYPICAL_EPOCHS`."""
        return min(self.epochs, TYPICAL_EPOCHS) if self.early_stopping else self.epochs

    def guessed_seconds(self, rows: int, ids: int) -> float:
        size = max(rows, 250) / 1000 * self.layers / 2 * max(self.width / 16, 1.0)
        return self.seconds_per_fit * self.ensemble * size * self.typical_epochs / TYPICAL_EPOCHS + 0.2

    def fit(self, training: TrainingSet, *, seed: int) -> FittedDeep:
        from ssmfin.models.deep.fitting import fit_deep

        return fit_deep(self, training, seed=seed)

    def stream(self, fitted: FittedDeep, ids: Sequence[str] | None = None) -> Stream:
        """One row at a time from a fitted model of this kind; `ids` default to those of its training."""
        return fitted.stream(ids)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, as scikit-learn's estimators give them.

        Args:
            deep: without effect; no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in type(self).model_fields}

    def set_params(self, **parameters: Any) -> Self:
        """A new forecaster with these parameters changed: a configuration is frozen.

        Raises:
            InputError: a parameter does not exist or has a wrong value.
        """
        return type(self)(**(self.get_params() | parameters))

    def clone(self) -> Self:
        """An unfitted copy."""
        return self.set_params()

    def __sklearn_clone__(self) -> Self:
        return self.clone()

    @classmethod
    def load(cls, folder: str | Path) -> FittedDeep:
        """A fitted model of this kind (of `DeepForecaster`: of any kind) that `FittedDeep.save` wrote.

        Raises:
            InputError: a file is missing, is not one of ours, or is of another kind.
        """
        from ssmfin.models.deep.weights import load_fitted

        return load_fitted(Path(folder), None if cls is DeepForecaster else cls)
