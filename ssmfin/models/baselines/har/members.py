"""Owns the members of the HAR family, each by its regressors.

RV is the target's own column; lag_w(x) is the mean of x over the last w rows of the id, w in `windows` (1, 5, 22).
In logs (`log: true`) variances enter by their logs, jumps as log(1 + J / C) with C the continuous part, which has no
unit, and returns as they are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ssmfin.data.rows import log_or_nan, trailing_exponential
from ssmfin.models.baselines.har.family import HARFamily, Regressors, column_lags, variance_lags
from ssmfin.models.interface import Design, FloatArray

LOG = "regression in logs with lognormal bias correction"


class HAR(HARFamily):
    """y = b_0 + sum_w b_w lag_w(RV) + e.

    References:
        Corsi (2009), Journal of Financial Econometrics 7, eq. 8.

    >>> HAR(insanity_filter=False).insanity_filter
    False
    """

    kind: ClassVar[str] = "har"
    summary: ClassVar[str] = "regression on means over 1, 5, 22 days"
    column_fields: ClassVar[tuple[str, ...] | None] = ()

    def regressors(self, design: Design) -> Regressors:
        return Regressors(_named("rv", self.windows), variance_lags(design, self.windows))


class LogHAR(HARFamily):
    """HAR in logs: log of the label on logs of the means; the forecast is exp(mu + s2 / 2).

    s2 is the residual variance RSS / (n - 1 - p) of the training window; without the target's bias correction the
    forecast is exp(mu). The model is in logs whatever the target's transform is.

    References:
        Andersen, Bollerslev, Diebold (2007), Review of Economics and Statistics 89, eq. 13.
    """

    kind: ClassVar[str] = "log_har"
    summary: ClassVar[str] = "HAR in logs with lognormal bias correction"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    positive_target: ClassVar[bool] = True

    insanity_filter: bool = Field(
        default=False,
        description="replace a forecast outside the range of the training window's labels by their mean",
    )

    @property
    def in_logs(self) -> bool:
        return True

    def regressors(self, design: Design) -> Regressors:
        return Regressors(_named("log_rv", self.windows), log_or_nan(variance_lags(design, self.windows)))


class HARJ(HARFamily):
    """HAR and the jump component of the day: + b_J J_t, J_t = max(RV_t - BV_t, 0).

    References:
        Andersen, Bollerslev, Diebold (2007), Review of Economics and Statistics 89, eq. 11.
    """

    kind: ClassVar[str] = "har_j"
    summary: ClassVar[str] = "HAR and the jump max(RV - BV, 0)"
    column_fields: ClassVar[tuple[str, ...] | None] = ("bv",)

    log: bool = Field(False, description=LOG)
    bv: str = Field("bv", description="column of bipower variation, per day")

    def regressors(self, design: Design) -> Regressors:
        continuous = design.column(self.bv)
        jump = np.maximum(design.observed - continuous, 0.0)
        return _stack(
            self,
            variances={"rv": variance_lags(design, self.windows)},
            others={"jump": _relative(jump, continuous) if self.log else jump},
        )


class HARCJ(HARFamily):
    """Continuous and jump parts apart: sum_w b_w lag_w(C) + sum_w j_w lag_w(J), split by a jump test.

    The columns `continuous` and `jump` come with the realized measures (estimator bns), or from the user.

    References:
        Andersen, Bollerslev, Diebold (2007), Review of Economics and Statistics 89, eq. 28.
    """

    kind: ClassVar[str] = "har_cj"
    summary: ClassVar[str] = "HAR on continuous and jump parts"
    column_fields: ClassVar[tuple[str, ...] | None] = ("continuous", "jump")

    log: bool = Field(False, description=LOG)
    continuous: str = Field("continuous", description="column of the continuous part of the variance, per day")
    jump: str = Field("jump", description="column of the significant jump part, per day, zero on most days")

    def regressors(self, design: Design) -> Regressors:
        continuous = column_lags(design, design.column(self.continuous), self.windows)
        jump = column_lags(design, design.column(self.jump), self.windows)
        jump = _relative(jump, continuous) if self.log else jump
        return _stack(
            self,
            variances={"continuous": continuous},
            others={f"jump_{w}": jump[:, j] for j, w in enumerate(self.windows)},
        )


class CHAR(HARFamily):
    """HAR with the jump-robust variance on the right: sum_w b_w lag_w(BV).

    References:
        Bollerslev, Patton, Quaedvlieg (2016), Journal of Econometrics 192, eq. 18.
    """

    kind: ClassVar[str] = "char"
    summary: ClassVar[str] = "HAR on bipower variation"
    column_fields: ClassVar[tuple[str, ...] | None] = ("bv",)

    log: bool = Field(False, description=LOG)
    bv: str = Field("bv", description="column of bipower variation, per day")

    def regressors(self, design: Design) -> Regressors:
        return _stack(self, variances={"bv": column_lags(design, design.column(self.bv), self.windows)})


class SHAR(HARFamily):
    """HAR with the shortest lag split by sign: b_+ RS+_t + b_- RS-_t + sum_{w > 1} b_w lag_w(RV).

    References:
        Patton, Sheppard (2015), Review of Economics and Statistics 97, eq. 16.
    """

    kind: ClassVar[str] = "shar"
    summary: ClassVar[str] = "HAR with the last day split into semivariances"
    column_fields: ClassVar[tuple[str, ...] | None] = ("rs_pos", "rs_neg")

    log: bool = Field(False, description=LOG)
    rs_pos: str = Field("rs_pos", description="column of the positive semivariance, per day")
    rs_neg: str = Field("rs_neg", description="column of the negative semivariance, per day")

    def regressors(self, design: Design) -> Regressors:
        first, rest = self.windows[:1], self.windows[1:]
        signed = {name: column_lags(design, design.column(getattr(self, name)), first) for name in ("rs_pos", "rs_neg")}
        return _stack(self, variances=signed | ({"rv": variance_lags(design, self.windows)[:, 1:]} if rest else {}))


class HARQ(HARFamily):
    """HAR whose daily coefficient falls with the measurement error: (b_1 + b_Q sqrt(RQ_t)) RV_t + ...

    In logs the error of log RV is q = sqrt(RQ) / RV, and q and q log RV are added: a change of unit is then no change
    of model.

    References:
        Bollerslev, Patton, Quaedvlieg (2016), Journal of Econometrics 192, eq. 10.
    """

    kind: ClassVar[str] = "harq"
    summary: ClassVar[str] = "HAR with the last day weighed by its measurement error"
    column_fields: ClassVar[tuple[str, ...] | None] = ("rq",)

    log: bool = Field(False, description=LOG)
    rq: str = Field("rq", description="column of realized quarticity, per day, squared units of the variance")

    def regressors(self, design: Design) -> Regressors:
        return _with_errors(self, design, self.windows[:1])


class HARQF(HARFamily):
    """The full HARQ: every coefficient falls with the measurement error of its mean, sqrt(lag_w(RQ)) lag_w(RV).

    References:
        Bollerslev, Patton, Quaedvlieg (2016), Journal of Econometrics 192, eq. 14.
    """

    kind: ClassVar[str] = "harq_f"
    summary: ClassVar[str] = "HAR with every mean weighed by its measurement error"
    column_fields: ClassVar[tuple[str, ...] | None] = ("rq",)

    log: bool = Field(False, description=LOG)
    rq: str = Field("rq", description="column of realized quarticity, per day, squared units of the variance")

    def regressors(self, design: Design) -> Regressors:
        return _with_errors(self, design, self.windows)


class LHAR(HARFamily):
    """HAR and falls of the price over the same windows: + sum_w g_w min(lag_w(r), 0).

    `standardised` divides each by the volatility of its rows: in logs a plain fall of 9 % would multiply the forecast
    by what no calm training window has shown.

    References:
        Corsi, Reno (2012), Journal of Business and Economic Statistics 30, eq. 2.4.
    """

    kind: ClassVar[str] = "lhar"
    summary: ClassVar[str] = "HAR and negative returns over the same windows"
    column_fields: ClassVar[tuple[str, ...] | None] = ("returns",)

    log: bool = Field(False, description=LOG)
    returns: str = Field("log_return", description="column of daily returns, decimal")
    standardised: bool = Field(False, description="returns in units of the volatility of the same rows")

    def regressors(self, design: Design) -> Regressors:
        lags = variance_lags(design, self.windows)
        falls = np.minimum(column_lags(design, design.column(self.returns), self.windows), 0.0)
        if self.standardised:
            falls = falls * np.sqrt(self.windows) / np.sqrt(np.where(lags > 0, lags, np.nan))
        return _stack(
            self,
            variances={"rv": lags},
            others={f"fall_{w}": falls[:, j] for j, w in enumerate(self.windows)},
        )


class HARX(HARFamily):
    """HAR and further columns of the panel as they are known at the origin (implied volatility, volume).

    References:
        Busch, Christensen, Nielsen (2011), Journal of Econometrics 160, eq. 14.
    """

    kind: ClassVar[str] = "har_x"
    summary: ClassVar[str] = "HAR and further columns of the panel"
    column_fields: ClassVar[tuple[str, ...] | None] = ("columns",)

    log: bool = Field(False, description=LOG)
    columns: tuple[str, ...] = Field(min_length=1, description="names of value columns of the panel")
    column_windows: tuple[int, ...] = Field((1,), min_length=1, description="rows over which each column is averaged")
    transform: Literal["log", "none"] = Field("none", description="log of the columns' means, or the means themselves")

    def regressors(self, design: Design) -> Regressors:
        others: dict[str, FloatArray] = {}
        for name in self.columns:
            means = column_lags(design, design.column(name), self.column_windows)
            means = log_or_nan(means) if self.transform == "log" else means
            others |= {f"{name}_{w}": means[:, j] for j, w in enumerate(self.column_windows)}
        return _stack(self, variances={"rv": variance_lags(design, self.windows)}, others=others)


class HExp(HARFamily):
    """Exponential averages instead of plain ones: sum_c b_c ExpRV_c, slopes pooled over all ids.

        ExpRV_c(t) = sum_{i >= 0} a^i RV_{t-i} / sum_{i >= 0} a^i,    a = c / (1 + c)

    with centres of mass c in days. Slopes are common, intercepts each id's own (the paper centres every asset by its
    long-run mean instead).

    References:
        Bollerslev, Hood, Huss, Pedersen (2018), Review of Financial Studies 31, eq. 16.
    """

    kind: ClassVar[str] = "hexp"
    summary: ClassVar[str] = "regression on exponential averages, pooled over ids"
    column_fields: ClassVar[tuple[str, ...] | None] = ()

    log: bool = Field(False, description=LOG)
    pooled: bool = Field(True, description="one vector of slopes for all ids, an intercept each (ols only)")
    windows: tuple[int, ...] = Field((1, 5, 25, 125), min_length=1, description="centres of mass in rows")

    def regressors(self, design: Design) -> Regressors:
        means = [trailing_exponential(design.observed, design.starts, c) for c in self.windows]
        return _stack(self, variances={"exp_rv": np.column_stack(means)})


def _named(stem: str, windows: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{stem}_{w}" for w in windows)


def _stack(
    model: HARFamily, *, variances: dict[str, FloatArray], others: dict[str, FloatArray] | None = None
) -> Regressors:
    """Variances (R, w) each, in logs if the model is; further columns (R,) each as they are."""
    names: list[str] = []
    blocks: list[FloatArray] = []
    for name, block in variances.items():
        names += [f"{name}_{j + 1}" for j in range(block.shape[1])]
        blocks.append(log_or_nan(block) if model.in_logs else block)
    for name, column in (others or {}).items():
        names.append(name)
        blocks.append(column[:, None])
    return Regressors(tuple(names), np.column_stack(blocks))


def _relative(jump: FloatArray, continuous: FloatArray) -> FloatArray:
    positive = np.where(continuous > 0, continuous, np.nan)
    return np.asarray(np.log1p(jump / positive))


def _with_errors(model: HARQ | HARQF, design: Design, windows: tuple[int, ...]) -> Regressors:
    lags = variance_lags(design, model.windows)
    error = np.sqrt(np.maximum(column_lags(design, design.column(model.rq), windows), 0.0))  # NaN stays
    others: dict[str, FloatArray] = {}
    for j, w in enumerate(windows):
        rv = lags[:, j]
        if model.in_logs:
            relative = error[:, j] / np.where(rv > 0, rv, np.nan)
            others |= {f"error_{w}": relative, f"error_{w}_log_rv": relative * log_or_nan(rv)}
        else:
            with np.errstate(over="ignore"):  # not finite: the row is not used
                others[f"error_{w}_rv"] = error[:, j] * rv
    return _stack(model, variances={"rv": lags}, others=others)
