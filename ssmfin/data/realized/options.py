"""Owns the options of realized measures, the same in a study, on the command line and in Python."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ssmfin.data.intraday.durations import Duration
from ssmfin.data.moments import Zone

Name = Literal[
    "rv",
    "rv_ss",
    "bv",
    "minrv",
    "medrv",
    "rq",
    "tpq",
    "rs_pos",
    "rs_neg",
    "sjv",
    "rk",
    "tsrv",
    "rskew",
    "rkurt",
    "bns_z",
    "jump",
    "continuous",
    "cov_market",
    "beta",
]
DEFAULT: tuple[Name, ...] = ("rv", "rv_ss", "bv", "medrv", "rq", "tpq", "rs_pos", "rs_neg", "rk", "jump")


def _as_tuple(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",")) if value.strip() else ()
    return tuple(value) if isinstance(value, list) else value


def _once(value: tuple[Name, ...]) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(value))


def _calendar(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('name the exchange, such as XNYS or 24/7, or hours, "09:30-16:00 America/New_York"')
    from ssmfin.data.intraday.calendars import calendar_named

    return calendar_named(value).name


Estimators = Annotated[
    tuple[Name, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=Name | list[Name]),
    AfterValidator(_once),
    Field(min_length=1),
]
Factors = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]


class RealizedMeasures(BaseModel):
    """`measures: {kind: realized, calendar: XNYS, sampling: 5min, estimators: [rv, bv]}`: days from prices within them.

    The source holds trades, quotes or bars; the panel gets one row a session with the estimators, `close`,
    `log_return` (close to close) and `overnight_variance`. Unusable sessions are left out, and counted in the notes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["realized"] = "realized"
    calendar: Annotated[str, BeforeValidator(_calendar, json_schema_input_type=str)] = Field(
        description='exchange, XNYS, XLON, 24/7, or hours of every date, "09:30-16:00 America/New_York"'
    )
    sampling: Duration = Field("5min", description="interval of the returns, by previous tick")
    estimators: Estimators = Field(DEFAULT, description="columns to compute")
    fine: Duration | None = Field(
        None, description="finest grid, for rv_ss, rk and tsrv; default the bars' own, 1min for ticks"
    )
    input: Literal["auto", "trades", "quotes", "bars", "prices"] = Field(
        "auto", description="what a row is; auto tells by the columns"
    )
    bar_label: Literal["start", "end"] = Field("start", description="which moment of a bar its stamp names")
    bar: Duration | None = Field(
        None, description="width of a bar; default the usual distance between rows. Makes bars of quotes and prices"
    )
    time_zone: Zone | None = Field(None, description="whose clock stamps without a zone show; default the exchange's")
    factors: Factors | None = Field(
        None, description="columns that adjust for splits and dividends; default split_factor, price_factor if there"
    )
    bad_ticks: Literal["unusable", "drop"] = Field(
        "unusable", description="a bad tick makes its day unusable, or is left out; counted either way"
    )
    max_gap: Duration = Field("30min", description="longest time without a row on a usable day (two bars at least)")
    max_stale: Duration = Field("30min", description="longest time with one price on a usable day (two bars at least)")
    min_coverage: float = Field(0.5, ge=0.0, le=1.0, description="share of intervals with a row on a usable day")
    market: str | None = Field(None, description="id of the market, for cov_market and beta")
    jump_level: float = Field(0.999, gt=0.5, lt=1.0, description="level of the jump test behind jump and continuous")
    compatibility: Literal["none", "prepend_zero_return"] = Field(
        "none", description="prepend_zero_return: a zero return before each day's, as the R package highfrequency has"
    )
    cache: bool = Field(True, description="keep results by data and options in the user's cache folder")
