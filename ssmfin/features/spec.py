"""Owns a feature's place in a study: one small spec a kind, light to import (scikit-learn alone takes a second).

A new feature is a transformer in a file of its own, a spec here, and a line in `KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssmfin.errors import InputError, nearest, validation_message

if TYPE_CHECKING:
    from ssmfin.features.transformer import PanelTransformer


class FeatureSpec(BaseModel, ABC):
    """Configuration of one feature of a study: frozen, typed, and able to build its transformer.

    `fitted` says whether the transformer learns anything: if so the harness fits it anew in every training window,
    if not it is computed once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fitted: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    kind: str

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(validation_message(type(self).__name__, type(self), error)) from None

    @abstractmethod
    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        """The transformer, given the target's column and whether the target is modelled in logs."""


class HarLagsSpec(FeatureSpec):
    """`{kind: har_lags, windows: [1, 5, 22]}`: means of a column over the last w rows."""

    summary: ClassVar[str] = "means of a column over the last w rows (Corsi 2009)"

    kind: Literal["har_lags"] = "har_lags"
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 22), min_length=1, description="Window lengths in rows of the id's own calendar."
    )
    column: str | None = Field(None, description="Column to average; default: the target's.")
    transform: Literal["auto", "log", "none"] = Field(
        "auto", description="log of the mean, the mean itself, or whichever the target has (auto)."
    )

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.har import HarLags

        scale = ("log" if log else "none") if self.transform == "auto" else self.transform
        return HarLags(self.column or column, windows=self.windows, scale=scale)


class ColumnsSpec(FeatureSpec):
    """`{kind: columns, columns: [vix__close], transform: log}`: columns of the panel as they are known at the
    origin."""

    summary: ClassVar[str] = "columns of the panel itself, exogenous ones included"

    kind: Literal["columns"] = "columns"
    columns: tuple[str, ...] = Field(min_length=1, description="Names of value columns of the panel.")
    transform: Literal["log", "none"] = Field("none", description="log of the value, or the value itself.")

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.columns import Columns

        return Columns(self.columns, scale=self.transform)


class LeverageSpec(FeatureSpec):
    """`{kind: leverage, column: log_return}`: the negative part of mean returns over the last w rows."""

    summary: ClassVar[str] = "negative part of mean returns over the last w rows (Corsi, Reno 2012)"

    kind: Literal["leverage"] = "leverage"
    column: str = Field("log_return", description="Return column, decimal (0.01 = 1 %).")
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 22), min_length=1, description="Window lengths in rows of the id's own calendar."
    )

    standardise: Literal["auto"] | bool = Field(
        "auto",
        description="Divide by the volatility of the same rows, taken from the target's column (a variance); "
        "auto: where the target is modelled in logs.",
    )

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.leverage import Leverage

        standardise = log if self.standardise == "auto" else self.standardise
        return Leverage(self.column, windows=self.windows, variance=column if standardise else None)


KINDS: dict[str, type[FeatureSpec]] = {"har_lags": HarLagsSpec, "leverage": LeverageSpec, "columns": ColumnsSpec}


def spec_class(kind: str) -> type[FeatureSpec]:
    """The spec of a feature kind.

    Raises:
        InputError: there is no such kind.

    >>> spec_class("har_lags").__name__
    'HarLagsSpec'
    """
    if kind not in KINDS:
        raise InputError(f"feature kind {kind!r} is unknown; {nearest(kind, KINDS)}.")
    return KINDS[kind]
