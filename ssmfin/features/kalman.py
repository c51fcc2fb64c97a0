"""Owns KalmanFeatures: filtered states of linear Gaussian models as columns, learned in the training window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError, nearest
from ssmfin.features.emits import KALMAN_MODELS, KALMAN_OPTIONS, check_kalman_options, kalman_emits
from ssmfin.features.filters import Estimates, FilterFeatures
from ssmfin.features.grid import Grid, by_date, by_id, matrix, only_column

if TYPE_CHECKING:
    from ssmfin.classical.kalman.filtering import Carry, Filtered
    from ssmfin.classical.kalman.fitting import KalmanFit
    from ssmfin.classical.kalman.model import Specification
    from ssmfin.classical.smoothed import Smoothed

LEAST_GAIN = 1e-12  # a half-life of 7e11 rows: for ever


class KalmanFeatures(FilterFeatures):
    """What a Kalman filter says at t from rows up to t, for every id of a panel at once.

        fit         maximum likelihood per id in the given rows (a batch over ids), parameters then frozen
        transform   the filter forward from each id's first row
        update      the same for further rows, from the carried state
        smoothed    the two-sided states, of a type that the harness refuses

    Each id has its own parameters and its own calendar: a step is a row. `dynamic_factor` takes all ids (or `columns`)
    as components of one system on the common dates; `dynamic_nelson_siegel` takes `columns`, one for each maturity,
    of each id.

    Args:
        model: local_level, local_linear_trend, seasonal, ar1_plus_noise, sum_of_ar1, stochastic_volatility,
            dynamic_regression, dynamic_nelson_siegel or dynamic_factor.
        column: what is observed; None: the panel's only value column. Returns for stochastic_volatility (the mean of
            the training window is taken off).
        columns: instead of `column`, the components of each id's own system.
        scale: "log" or "none", of what is observed; NaN (a missing observation) where a value is not positive.
        emit: columns wanted, see `ssmfin.features.emits`; None: the model's usual ones.
        regressors: columns of x, for dynamic_regression; as they are, at the same row.
        smooth, damped: of local_linear_trend. period: of seasonal. terms: 2 or 3, of sum_of_ar1. intercept: of
            dynamic_regression. maturities, decay: of dynamic_nelson_siegel. None: the model's default.
    Raises (from fit):
        InputError: an option does not belong to the model, a column is missing, or no id can be fitted.
    References:
        Durbin & Koopman (2012), Time Series Analysis by State Space Methods, sections 4.3 and 7.3.

    >>> import polars as pl, datetime as dt
    >>> days = [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(60)]
    >>> steps = np.cumsum(np.sin(np.arange(60.0) ** 2)) + np.cos(np.arange(60.0) ** 3)
    >>> frame = pl.DataFrame({"unique_id": ["a"] * 60, "ds": days, "y": steps})
    >>> KalmanFeatures("local_level", emit=["level", "gain"]).fit_transform(frame).columns
    ['unique_id', 'ds', 'level', 'gain']
    """

    def __init__(
        self,
        model: str = "local_level",
        *,
        column: str | None = None,
        columns: Sequence[str] | None = None,
        scale: Literal["log", "none"] = "none",
        emit: Sequence[str] | None = None,
        regressors: Sequence[str] = (),
        smooth: bool | None = None,
        damped: bool | None = None,
        period: int | None = None,
        terms: int | None = None,
        intercept: bool | None = None,
        maturities: Sequence[float] | None = None,
        decay: float | None = None,
    ) -> None:
        self.model = model
        self.column = column
        self.columns = columns
        self.scale = scale
        self.emit = emit
        self.regressors = regressors
        self.smooth = smooth
        self.damped = damped
        self.period = period
        self.terms = terms
        self.intercept = intercept
        self.maturities = maturities
        self.decay = decay

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array(self._emits(), dtype=object)

    def columns_read(self) -> tuple[str, ...] | None:
        if not self.columns and self.column is None:
            return None  # the panel's only one
        return (*(self.columns or (str(self.column),)), *self.regressors)

    def _emits(self) -> tuple[str, ...]:
        self._check()
        count = len(self.regressors) if self.model == "dynamic_regression" else (self.terms or 2)
        return kalman_emits(self.model, self.emit, count=count, intercept=self.intercept is not False)

    def _check(self) -> None:
        """Refuse what does not belong to the model."""
        if self.model not in KALMAN_MODELS:
            raise InputError(f"KalmanFeatures.model is {self.model!r}; {nearest(self.model, KALMAN_MODELS)}")
        check_kalman_options(
            self.model,
            {name: getattr(self, name) for name in KALMAN_OPTIONS},
            regressors=self.regressors,
            columns=self.columns,
        )

    def _specification(self, components: int) -> Specification:
        from ssmfin.classical.kalman.kinds import specification

        given = {name: getattr(self, name) for name in KALMAN_OPTIONS if getattr(self, name) is not None}
        if self.model == "dynamic_regression":
            given["n_regressors"] = len(self.regressors)
        if self.model == "dynamic_factor":
            given["n_components"] = components
        if "maturities" in given:
            given["maturities"] = tuple(float(m) for m in given["maturities"])
        return specification(self.model, **given)

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        self._emits()  # its checks come first
        self.components_: list[str] = []
        self.left_out_: list[str] = []
        if self._across_ids:
            y = matrix(panel, (self.column or only_column(panel, "KalmanFeatures"),), log=self.scale == "log")[:, 0]
            for name, own in zip(panel.ids, np.split(y, starts[1:-1]), strict=True):
                enough = len(np.unique(own[np.isfinite(own)])) > 2
                (self.components_ if enough else self.left_out_).append(name)
            if len(self.components_) < 2:
                raise InputError(
                    f"dynamic_factor has {len(self.components_)} ids that vary ({', '.join(panel.ids)}); give two or "
                    "more, or a longer window."
                )
        super()._learn(panel, starts)

    def remarks(self) -> dict[str, Any]:
        left_out = {"left out of the factor": ", ".join(self.left_out_)} if self.left_out_ else {}
        return {**left_out, **super().remarks()}

    @property
    def _across_ids(self) -> bool:
        return self.model == "dynamic_factor" and not self.columns

    def _grid(self, panel: Panel, starts: np.ndarray) -> Grid:
        names = tuple(self.columns) if self.columns else (self.column or only_column(panel, "KalmanFeatures"),)
        y = matrix(panel, names, log=self.scale == "log")
        if self._across_ids:
            return by_date(panel, y[:, 0], self.components_)
        x = matrix(panel, tuple(self.regressors), log=False) if self.regressors else None
        return by_id(panel, starts, y, x)

    def _estimate(self, grid: Grid, warm: np.ndarray | None) -> Estimates:
        import torch

        from ssmfin.classical.kalman.fitting import fit
        from ssmfin.classical.kalman.model import location_shift, parameter_scale

        spec = self._specification(grid.y.shape[2])
        centre = _mean(grid.y) if self.model == "stochastic_volatility" else np.zeros_like(grid.y[:, 0])
        found = fit(spec, grid.y - centre[:, None], grid.x, starts=warm)
        observed = spec.observe(torch.from_numpy(grid.y - centre[:, None])).numpy()
        shift = np.zeros_like(centre) if spec.shifting == "none" else _mean(observed)
        if spec.shifting == "common":
            shift = np.broadcast_to(shift.mean(axis=1, keepdims=True), shift.shape).copy()
        scale = parameter_scale(spec, torch.from_numpy(found.y_scale), torch.from_numpy(found.x_scale))
        return Estimates(
            parameters=found.parameters,
            status=[str(status) for status in found.status],
            reason=list(found.reason),
            scale=scale.numpy(),
            offset=location_shift(spec, torch.from_numpy(shift)).numpy(),
            units=np.concatenate([found.y_scale, found.x_scale, centre], axis=1),
        )

    def _at(self, grid: Grid, parameters: np.ndarray, units: np.ndarray) -> tuple[KalmanFit, np.ndarray]:
        """The frozen fit, and y as it takes it."""
        from ssmfin.classical.kalman.fitting import KalmanFit

        P = grid.y.shape[2]
        spec = self._specification(P)
        fitted = KalmanFit.at(spec, parameters, y_scale=units[:, :P], x_scale=units[:, P:-P])
        return fitted, grid.y - units[:, None, -P:]

    def _run(
        self, grid: Grid, parameters: np.ndarray, units: np.ndarray, carry: Carry | None, *, keep: bool
    ) -> tuple[np.ndarray, Carry | None]:
        from ssmfin.classical.kalman.filtering import filter_series

        fitted, y = self._at(grid, parameters, units)
        past = filter_series(fitted, y, grid.x, carry=carry)
        out = np.column_stack([grid.rows(_column(past, name, self.model)) for name in self._emits()])
        return out, _carry_at_ends(past, fitted, y, grid, carry) if keep else None

    def _smooth(self, grid: Grid, parameters: np.ndarray, units: np.ndarray) -> Smoothed:
        from ssmfin.classical.kalman.filtering import smooth

        fitted, y = self._at(grid, parameters, units)
        return smooth(fitted, y, grid.x)


def _column(past: Filtered, name: str, model: str) -> np.ndarray:
    """(B, T) one emitted column."""
    outputs = past.outputs
    first = "beta_1" if model == "dynamic_regression" else outputs[0]
    if name in outputs:
        return past.output(name)[0]
    if name.removesuffix("_se") in outputs:
        return np.asarray(np.sqrt(past.output(name.removesuffix("_se"))[1]))
    if name == "variance":
        return past.output(first)[1]
    if name == "volatility":
        return np.asarray(np.exp(0.5 * past.output("log_variance")[0]))
    if name == "log_score":
        return past.log_score
    if name in ("gain", "half_life"):
        gain = _gain(past, first)
        if name == "gain":
            return gain
        return np.asarray(np.log(0.5) / np.log1p(-np.clip(gain, LEAST_GAIN, 1 - LEAST_GAIN)))
    if name == "spread_zscore" and model == "ar1_plus_noise":
        named = dict(zip(past.fit.parameter_names, past.fit.parameters.T, strict=True))
        spread = np.sqrt(named["variance_state"] / (1 - named["persistence"] ** 2))
        return np.asarray((past.output("level")[0] - named["mean"][:, None]) / spread[:, None])
    observed = "standardised_innovation" if name == "spread_zscore" else name
    values: np.ndarray = getattr(past, observed)[:, :, 0]
    return values


def _gain(past: Filtered, output: str) -> np.ndarray:
    """(B, T) what one unit of innovation moves a quantity of the model by."""
    import torch

    weights = past.fit.specification.outputs(torch.from_numpy(past.fit.parameters))[output].weights.numpy()
    total = np.zeros(past.gain.shape[:2])
    for state, weight in enumerate(np.atleast_2d(weights).T):
        if (weight != 0).any():
            total += weight[:, None] * past.gain[:, :, state, 0]
    return total


def _carry_at_ends(past: Filtered, fitted: KalmanFit, y: np.ndarray, grid: Grid, carry: Carry | None) -> Carry:
    """The state predicted for the step after each series' own last one: that of its first step of padding."""
    from ssmfin.classical.kalman.filtering import Carry, filter_series

    each, ends = np.arange(len(grid.lengths)), grid.lengths
    mean, covariance = past.predicted_state[each, ends], past.predicted_covariance[each, ends]
    diffuse = np.zeros_like(covariance)
    for b in np.flatnonzero(past.diffuse[each, ends]):  # too short to have been told where it starts
        only = slice(b, b + 1)
        own_x = None if grid.x is None else grid.x[only, : ends[b]]
        own = filter_series(
            fitted.select(only), y[only, : ends[b]], own_x, carry=None if carry is None else carry.select([int(b)])
        )
        mean[b], covariance[b], diffuse[b] = own.carry.mean[0], own.carry.covariance[0], own.carry.diffuse[0]
    return Carry(mean, covariance, diffuse)


def _mean(values: np.ndarray) -> np.ndarray:
    """(B, T, P) -> (B, P) over observed steps; 0 where there is none."""
    seen = ~np.isnan(values)
    total = np.where(seen, values, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(seen.sum(axis=1), 1))
