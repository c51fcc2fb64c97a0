"""Owns the settings of a combination, and which members it may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from ssmfin.errors import InputError, nearest
from ssmfin.models.interface import Fitted, Forecaster, Target, TrainingSet

Weighting = Literal["equal", "inverse_loss", "rolling"]
Mean = Literal["geometric", "arithmetic"]
LossName = Literal["qlike", "mse"]


class Combination(Forecaster):
    """A weighted mean of other models' forecasts, its weights learned from their past forecasts alone.

    geometric:  F_t = exp(sum_k w_k log f_{k,t})        arithmetic:  F_t = sum_k w_k f_{k,t}

    `equal`: w_k = 1 / K. `inverse_loss`: w_k proportional to 1 / mean loss of member k. `rolling`: the least squares
    weights that are not negative and sum to one, then drawn to 1 / K by `shrink`. What is learned from at origin t are
    the members' out-of-sample forecasts whose whole label was known at t and became known in the last `window` dates:
    for each horizon alone, over all ids together unless `pooled` is false.

    Each member is the mean over its seeds. The least squares are the Gauss-Newton step of the loss at equal weights,
    with f_0 the equally weighted mean: under QLIKE the relative error y / f_0 - 1 is regressed on log(f_k / f_0)
    (arithmetic: f_k / f_0 - 1), under MSE the error y - f_0 on f_0 log(f_k / f_0) (f_k - f_0).

    Where all members give quantiles of the same levels, so does the combination: their quantiles averaged in the same
    way, with the same weights (`combining.combine_quantiles`). Else it forecasts the mean alone.

    References:
        Bates, Granger (1969), Operational Research Quarterly 20; Timmermann (2006), Handbook of Economic Forecasting 1,
        sections 2.3 and 5.2 (constraints and shrinkage).
    """

    kind: ClassVar[str] = "combination"
    family: ClassVar[Literal["combination"]] = "combination"
    summary: ClassVar[str] = "weighted mean of other models' forecasts, weights from their past forecasts"
    uses_features: ClassVar[bool] = False
    seconds_per_fit: ClassVar[float] = 0.1

    members: tuple[str, ...] = Field(
        min_length=2, description="names of models of the study, benchmarks included; two or more, no combination"
    )
    weights: Weighting = Field(
        "equal", description="equal; inverse_loss: by past losses; rolling: constrained regression"
    )
    mean: Mean | None = Field(
        None, description="geometric or arithmetic; default: geometric where target.transform is log, else arithmetic"
    )
    loss: LossName | None = Field(
        None, description="what the weights are to make small; default: qlike where target.transform is log, else mse"
    )
    window: int | None = Field(
        500, ge=2, description="dates in which a label must have become known to be learned from; null: all of the past"
    )
    min_periods: int = Field(
        100, ge=1, description="dates with such labels before weights are learned; until then they are equal"
    )
    shrink: float = Field(0.5, ge=0, le=1, description="part of equal weights in the rolling ones: 0 none, 1 all")
    pooled: bool = Field(True, description="one set of weights for all ids; false: each id its own")

    @field_validator("members")
    @classmethod
    def _distinct(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((name for i, name in enumerate(members) if name in members[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice; name each member once")
        return members

    def fit(self, training: TrainingSet, *, seed: int) -> Fitted:
        raise InputError(
            f"a combination of {', '.join(self.members)} cannot be fitted alone, it has no training set; evaluate it "
            "in one study with its members."
        )

    def mean_of(self, target: Target) -> Mean:
        return self.mean or ("geometric" if target.transform == "log" else "arithmetic")

    def loss_of(self, target: Target) -> LossName:
        return self.loss or ("qlike" if target.transform == "log" else "mse")


def member_problems(name: str, combination: Combination, models: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """What is wrong with the members of a combination, as (position, sentence).

    Args:
        name: of the combination. models: name -> kind of all models of the study.
    """
    others = {other: kind for other, kind in models.items() if kind != Combination.kind}
    for i, member in enumerate(combination.members):
        if member == name:
            yield i, f"models.{name}.members names {member!r}, the combination itself; name other models."
        elif member not in models:
            yield i, f"models.{name}.members names {member!r}, not a model of this study; {nearest(member, others)}."
        elif member not in others:
            yield i, f"models.{name}.members names {member!r}, a combination itself; name the members of that one."


def check_combination(
    name: str,
    combination: Combination,
    models: Mapping[str, object],
    left_out: Mapping[str, str],
    target: Target,
    *,
    least: float,
) -> None:
    """Refuse a combination that cannot be formed.

    Args:
        models: name -> kind. left_out: model -> why it has no meaning for this target. least: target value.
    Raises:
        InputError: a member is unknown, a combination, or left out; the mean or the loss needs a positive target.
    """
    problem = next(member_problems(name, combination, models), None)
    if problem is not None:
        raise InputError(problem[1])
    absent = next((member for member in combination.members if member in left_out), None)
    if absent is not None:
        raise InputError(
            f"models.{name}.members names {absent!r}, which {left_out[absent]}; take it out of the members."
        )
    if least <= 0:
        if combination.mean_of(target) == "geometric":
            raise InputError(
                f"models.{name}.mean is geometric, but the least {target.column} is {least:g}; use mean: arithmetic."
            )
        if combination.weights != "equal" and combination.loss_of(target) == "qlike":
            raise InputError(f"models.{name}.loss is qlike, but the least {target.column} is {least:g}; use loss: mse.")
