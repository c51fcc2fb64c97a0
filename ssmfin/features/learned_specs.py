"""Owns the specs of the features that learn in every training window: Kalman and regime filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssmfin.errors import nearest
from ssmfin.features.emits import (
    KALMAN_MODELS,
    KALMAN_OPTIONS,
    REGIME_MODELS,
    check_kalman_options,
    check_regime_options,
    kalman_emits,
    regime_emits,
)
from ssmfin.features.spec import LearnedSpec

if TYPE_CHECKING:
    from ssmfin.features.transformer import PanelTransformer


class KalmanSpec(LearnedSpec):
    """`{kind: kalman, model: local_level, emit: [level, innovation, variance]}`: filtered states, parameters by maximum
    likelihood in each training window."""

    summary: ClassVar[str] = "filtered states of a Kalman model, learned in each training window"

    kind: Literal["kalman"] = "kalman"
    model: str = Field(
        "local_level", description=f"One of {', '.join(KALMAN_MODELS)}.", json_schema_extra={"enum": [*KALMAN_MODELS]}
    )
    column: str | None = Field(
        None, description="Column observed; default: the target's (stochastic_volatility: log_return)."
    )
    columns: tuple[str, ...] | None = Field(
        None, description="Components of each id's own system instead of `column` (yield curve, factor)."
    )
    transform: Literal["auto", "log", "none"] = Field(
        "auto", description="log of the column, the column, or as the target where it is the target's column (auto)."
    )
    emit: tuple[str, ...] | None = Field(
        None,
        description="Columns: level, slope, beta, beta_se, innovation, standardised_innovation, variance, gain, ...",
    )
    regressors: tuple[str, ...] = Field((), description="Columns of x in dynamic_regression, at the same row.")
    smooth: bool | None = Field(None, description="local_linear_trend: no shocks to the level.")
    damped: bool | None = Field(None, description="local_linear_trend: a slope that dies out.")
    period: int | None = Field(None, ge=2, le=100, description="seasonal: rows of a season.")
    terms: int | None = Field(None, ge=2, le=3, description="sum_of_ar1: 2 or 3 components.")
    intercept: bool | None = Field(None, description="dynamic_regression: an alpha beside the betas (default).")
    maturities: tuple[float, ...] | None = Field(None, description="dynamic_nelson_siegel: one for each of `columns`.")
    decay: float | None = Field(None, gt=0, description="dynamic_nelson_siegel: known decay; default: estimated.")

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        if self.model not in KALMAN_MODELS:
            raise ValueError(f"model is {self.model!r}; {nearest(self.model, KALMAN_MODELS)}")
        options = {name: getattr(self, name) for name in KALMAN_OPTIONS}
        check_kalman_options(self.model, options, regressors=self.regressors, columns=self.columns)
        count = len(self.regressors) if self.model == "dynamic_regression" else (self.terms or 2)
        kalman_emits(self.model, self.emit, count=count, intercept=self.intercept is not False)
        return self

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.kalman import KalmanFeatures

        own = "log_return" if self.model == "stochastic_volatility" else column
        observed = None if self.columns else (self.column or own)
        scale = ("log" if log and observed == column else "none") if self.transform == "auto" else self.transform
        options = {name: getattr(self, name) for name in KALMAN_OPTIONS}
        return KalmanFeatures(
            self.model,
            column=observed,
            columns=self.columns,
            scale=scale,
            emit=self.emit,
            regressors=self.regressors,
            **options,
        )


class RegimeSpec(LearnedSpec):
    """`{kind: regime, model: switching_variance, regimes: 2, column: log_return}`: filtered regime probabilities,
    parameters by maximum likelihood in each training window."""

    summary: ClassVar[str] = "filtered probabilities of regimes, learned in each training window"
    seconds_per_fit: ClassVar[float] = 0.05
    follows: ClassVar[bool] = True

    kind: Literal["regime"] = "regime"
    model: str = Field(
        "switching_variance",
        description=f"One of {', '.join(REGIME_MODELS)}.",
        json_schema_extra={"enum": [*REGIME_MODELS]},
    )
    regimes: int = Field(2, ge=2, le=4, description="Number of regimes; 0 is the calmest (or lowest).")
    column: str | None = Field(None, description="Column observed; default: log_return.")
    columns: tuple[str, ...] | None = Field(None, description="gaussian_hmm: the columns observed together.")
    transform: Literal["log", "none"] = Field("none", description="log of what is observed, or the value itself.")
    emit: tuple[str, ...] | None = Field(
        None, description="Columns: probability, predicted, next, entropy, expected_duration, regime, log_score."
    )
    lags: int | None = Field(
        None, ge=1, le=8, description="Autoregressive lags; default: none, or 1 in ..autoregression."
    )
    variance: Literal["common", "switching"] | None = Field(
        None, description="switching_autoregression; default: common."
    )

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        options = {"lags": self.lags, "variance": self.variance, "columns": self.columns}
        check_regime_options(self.model, options, regimes=self.regimes)
        regime_emits(self.model, self.emit, regimes=self.regimes)
        return self

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.regime import RegimeFeatures

        return RegimeFeatures(
            self.model,
            regimes=self.regimes,
            column=None if self.columns else (self.column or "log_return"),
            columns=self.columns,
            scale=self.transform,
            emit=self.emit,
            lags=self.lags,
            variance=self.variance,
        )
