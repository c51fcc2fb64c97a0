"""Owns `kind: s4d`: a diagonal S4 over the last `context` feature rows that corrects a frozen log-HAR.

    forecast_h(t) = log_har_h(t) exp(g_h(x_{t-context+1}, ..., x_t)),        g = 0 before training

One network for all ids and horizons. Untrained it is log-HAR to the last bit, and it stays so unless training lowers
the loss on the validation tail: every gain over log-HAR is the network's own. A target without a log gets an additive
correction of HAR instead.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ssmfin.models.interface import Fitted, Forecaster, TrainingSet


class S4D(Forecaster):
    """Diagonal S4 forecaster, pooled over ids, all horizons at once, residual on log-HAR.

    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.
    """

    kind: ClassVar[str] = "s4d"
    family: ClassVar[Literal["baseline", "ssm", "sequence", "custom"]] = "ssm"
    summary: ClassVar[str] = "diagonal S4 (deep SSM) over the last rows, correcting log-HAR"
    stochastic: ClassVar[bool] = True
    fits_per_task: ClassVar[int] = 1
    seconds_per_fit: ClassVar[float] = 1.0

    context: int = Field(128, ge=1, le=65536, description="rows that a forecast may use, its origin included")
    layers: int = Field(2, ge=1, le=16, description="SSM blocks; together they see exactly `context` rows")
    width: int = Field(16, ge=1, le=1024, description="channels of a layer")
    state: int = Field(16, ge=2, le=1024, multiple_of=2, description="real states of a channel; even: conjugate pairs")
    spectrum: Literal["lin", "inv"] = Field("lin", description="initial frequencies: S4D-Lin or S4D-Inv")
    dt_min: float = Field(1e-3, gt=0, description="smallest initial step of a channel, in rows")
    dt_max: float = Field(1e-1, gt=0, validate_default=True, description="largest initial step of a channel, in rows")
    bound: float = Field(
        1.0, gt=0, le=10, description="largest correction: of the log forecast, or in standard deviations of the label"
    )
    half_trust: float = Field(
        100.0,
        ge=0,
        description="labels without overlap for which a correction is halved (shrinks long horizons); 0: none",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="share of activations dropped in training")
    epochs: int = Field(100, ge=0, description="most passes over the training window; 0 leaves log-HAR as it is")
    patience: int = Field(15, ge=1, description="epochs without a better validation loss before stopping")
    learning_rate: float = Field(5e-3, gt=0, le=1, description="of AdamW")
    ssm_learning_rate: float = Field(1e-3, gt=0, le=1, description="of AdamW for A, dt and C, without weight decay")
    weight_decay: float = Field(0.05, ge=0, description="of AdamW, on weight matrices")
    warmup: int = Field(5, ge=0, description="epochs of linearly increasing learning rate")
    gradient_clip: float = Field(1.0, gt=0, description="largest gradient norm of a step")
    segment: int = Field(256, ge=1, description="training origins in one sequence")
    batch: int = Field(8, ge=1, description="training sequences in one step")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")

    @field_validator("dt_max")
    @classmethod
    def _not_below_dt_min(cls, dt_max: float, info: ValidationInfo) -> float:
        dt_min = info.data.get("dt_min", 0.0)
        if dt_max < dt_min:
            raise PydanticCustomError("range", "use at least dt_min, {dt_min}", {"dt_min": dt_min})
        return dt_max

    def fit(self, training: TrainingSet, *, seed: int) -> Fitted:
        from ssmfin.models.ssm.network import s4d_network
        from ssmfin.models.ssm.residual import fit_residual
        from ssmfin.models.training import Recipe, choose_device

        recipe = Recipe(
            epochs=self.epochs,
            patience=self.patience,
            learning_rate=self.learning_rate,
            slow_learning_rate=self.ssm_learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            gradient_clip=self.gradient_clip,
        )
        network = partial(
            s4d_network,
            width=self.width,
            layers=self.layers,
            state=self.state,
            context=self.context,
            spectrum=self.spectrum,
            dt_range=(self.dt_min, self.dt_max),
            dropout=self.dropout,
            bound=self.bound,
        )
        return fit_residual(
            training,
            network,
            recipe,
            context=self.context,
            segment=self.segment,
            batch=self.batch,
            half_trust=self.half_trust,
            device=choose_device(self.device),
            seed=seed,
        )
