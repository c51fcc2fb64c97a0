"""Owns the specs of the features that learn nothing: functions of the rows known at the origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ssmfin.data.moments import Closes
from ssmfin.features.spec import FeatureSpec

if TYPE_CHECKING:
    from ssmfin.features.transformer import PanelTransformer


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


class JumpSpec(FeatureSpec):
    """`{kind: jump, robust: bv}`: the jump part of the variance over the last w rows."""

    summary: ClassVar[str] = "jump part of the variance over the last w rows (Andersen, Bollerslev, Diebold 2007)"

    kind: Literal["jump"] = "jump"
    column: str | None = Field(None, description="Realized variance; default: the target's column.")
    robust: str = Field("bv", description="Jump-robust variance (bipower or the like), same unit.")
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 22), min_length=1, description="Window lengths in rows of the id's own calendar."
    )

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.measures import JumpLags

        return JumpLags(self.column or column, robust=self.robust, windows=self.windows, scale="log" if log else "none")


class QuarticitySpec(FeatureSpec):
    """`{kind: quarticity, quarticity: rq}`: the measurement error of the variance over the last w rows."""

    summary: ClassVar[str] = "measurement error of the variance, as in HARQ (Bollerslev, Patton, Quaedvlieg 2016)"

    kind: Literal["quarticity"] = "quarticity"
    column: str | None = Field(None, description="Realized variance; default: the target's column.")
    quarticity: str = Field("rq", description="Its realized quarticity, squared units of the variance.")
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1,), min_length=1, description="Window lengths in rows of the id's own calendar."
    )

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.measures import QuarticityLags

        scale: Literal["log", "none"] = "log" if log else "none"
        return QuarticityLags(self.column or column, quarticity=self.quarticity, windows=self.windows, scale=scale)


class EwmaSpec(FeatureSpec):
    """`{kind: ewma, centres_of_mass: [1, 5, 25, 125]}`: exponential averages of a column, or of its squares."""

    summary: ClassVar[str] = "exponential averages of a column (Bollerslev, Hood, Huss, Pedersen 2018)"

    kind: Literal["ewma"] = "ewma"
    column: str | None = Field(None, description="Column to average; default: the target's.")
    centres_of_mass: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1, 5, 25, 125), min_length=1, description="Average ages in rows of what is averaged."
    )
    squared: bool = Field(
        False, description="Average squares of the column: of a return, a variance that holds the night too."
    )
    transform: Literal["auto", "log", "none"] = Field(
        "auto", description="log of the average, the average itself, or whichever the target has (auto)."
    )

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.exponential import ExponentialAverages

        scale = ("log" if log else "none") if self.transform == "auto" else self.transform
        return ExponentialAverages(
            self.column or column, centres_of_mass=self.centres_of_mass, squared=self.squared, scale=scale
        )


class MarketSpec(FeatureSpec):
    """`{kind: market, windows: [1, 5, 22]}`: what the other ids last showed, averaged."""

    summary: ClassVar[str] = "means over the other ids, or over groups of ids, of what each last showed"

    kind: Literal["market"] = "market"
    of: Literal["lags", "leverage", "shock"] = Field(
        "lags",
        description="What is averaged: means of a column; the negative part of mean returns, as of `leverage`; or the "
        "last return in units of its volatility.",
    )
    column: str | None = Field(
        None, description="Column to average; default: the target's, and log_return for leverage and shock."
    )
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 22), min_length=1, description="Window lengths in rows of each other id's own calendar (not of shock)."
    )
    transform: Literal["auto", "log", "none"] = Field(
        "auto", description="Of lags: average logs of the means, the means, or whichever the target has (auto)."
    )
    standardise: Literal["auto"] | bool = Field(
        "auto",
        description="Of leverage: divide by the volatility of the same rows, taken from the target's column; auto: "
        "where the target is modelled in logs.",
    )
    groups: dict[str, tuple[str, ...]] | None = Field(
        None,
        min_length=1,
        description="Name to ids: means over each group, the id itself among them, instead of over all others.",
    )
    closes: Closes | None = Field(
        None,
        description="When each id closes: the forecast is then made at the id's own close, and rows of other ids count "
        "if they closed no later (without known_at). Takes the place of same_date.",
    )
    same_date: bool = Field(
        False,
        description="Rows of other ids count on their own date, not from the next one on (without known_at): right "
        "where all ids close together, or where forecasts are made once the last has closed and before any opens.",
    )
    max_age: int = Field(30, ge=1, description="Days after which what an id last showed no longer counts.")

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.market import MarketLags

        standardise = log if self.standardise == "auto" else self.standardise
        return MarketLags(
            self.column or (column if self.of == "lags" else "log_return"),
            windows=self.windows,
            scale=("log" if log else "none") if self.transform == "auto" else self.transform,
            of=self.of,
            variance=column if self.of == "shock" or (self.of == "leverage" and standardise) else None,
            groups=self.groups,
            closes=self.closes,
            same_date=self.same_date,
            max_age=self.max_age,
        )


class CalendarSpec(FeatureSpec):
    """`{kind: calendar}`: the weekday of the row."""

    summary: ClassVar[str] = "weekday of the row, or its month, as indicators"

    kind: Literal["calendar"] = "calendar"
    month: bool = Field(False, description="Indicators of the month too.")

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.calendar import CalendarIndicators

        return CalendarIndicators(month=self.month)


class RankSpec(FeatureSpec):
    """`{kind: rank, column: log_return, windows: [231], skip: 21, same_date: true}`: momentum as a rank among ids."""

    summary: ClassVar[str] = "rank among all ids of a mean over the last w rows: momentum, reversal, risk"

    kind: Literal["rank"] = "rank"
    column: str | None = Field(None, description="Column to average and rank; default: the target's.")
    windows: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5, 22), min_length=1, description="Window lengths in rows of the id's own calendar."
    )
    skip: int = Field(0, ge=0, description="Newest rows left out: momentum is usually taken without the last month.")
    same_date: bool = Field(
        False,
        description="Rows of other ids count on their own date, not from the next one on (without known_at): right "
        "where all ids close together.",
    )
    least_ids: int = Field(2, ge=2, description="Ids that must be comparable on a date.")
    max_age: int = Field(30, ge=1, description="Days after which what an id last showed no longer counts.")

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        from ssmfin.features.rank import CrossSectionRanks

        return CrossSectionRanks(
            self.column or column,
            windows=self.windows,
            skip=self.skip,
            same_date=self.same_date,
            least_ids=self.least_ids,
            max_age=self.max_age,
        )
