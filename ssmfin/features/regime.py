"""Owns RegimeFeatures: filtered probabilities of regimes as columns, learned in the training window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.features.emits import check_regime_options, regime_emits
from ssmfin.features.filters import Estimates, FilterFeatures, named, with_rows
from ssmfin.features.grid import Grid, by_id, matrix, only_column
from ssmfin.features.transformer import PanelTransformer

if TYPE_CHECKING:
    from ssmfin.classical.regime.filtering import RegimeCarry
    from ssmfin.classical.regime.model import Specification
    from ssmfin.classical.regime.result import RegimeFit
    from ssmfin.classical.smoothed import Smoothed

LONGEST = 1e6  # rows; a regime that is never left lasts for ever
MATCHED = ("matched", "ordered")
UNMATCHED = (
    "the values are right, but regimes are numbered in order again (0 the calmest or lowest) and a number may mean "
    "another regime than in the fold before; fewer regimes or a longer walk_forward.train keep them apart"
)


class RegimeFeatures(FilterFeatures):
    """What a Markov-switching model says at t of the regime, from rows up to t, for every id of a panel at once.

    As `KalmanFeatures`: `fit` learns by maximum likelihood per id, `transform` filters forward from each id's first
    row, `update` goes on from there. Regimes are numbered from 0 by variance (by mean where only that switches);
    `follow` keeps the numbers of an earlier fit where the regimes can be told, and `remarks` says where they cannot.

    Args:
        model: switching_variance, switching_mean, switching_mean_variance, switching_autoregression (in deviations
            from a mean that switches), gaussian_hmm (over `columns`) or switching_local_level (Kim's filter).
        regimes: 2 to 4.
        column: what is observed, as a rule a return; None: the panel's only value column.
        columns: of gaussian_hmm, instead of `column`.
        scale: "log" or "none", of what is observed; NaN (a missing observation) where a value is not positive.
        emit: columns wanted, see `ssmfin.features.emits`; None: probabilities of all regimes but the first, entropy.
        lags: autoregressive lags; None: none (switching_autoregression: 1).
        variance: of switching_autoregression, "common" (default) or "switching".
    Raises (from fit):
        InputError: an option does not belong to the model, a column is missing, or no id can be fitted.
    References:
        Hamilton (1994), Time Series Analysis, chapter 22.
        Kim & Nelson (1999), State-Space Models with Regime Switching, chapters 4 and 5.
    """

    matching_: list[str]

    def __init__(
        self,
        model: str = "switching_variance",
        *,
        regimes: int = 2,
        column: str | None = None,
        columns: Sequence[str] | None = None,
        scale: Literal["log", "none"] = "none",
        emit: Sequence[str] | None = None,
        lags: int | None = None,
        variance: Literal["common", "switching"] | None = None,
    ) -> None:
        self.model = model
        self.regimes = regimes
        self.column = column
        self.columns = columns
        self.scale = scale
        self.emit = emit
        self.lags = lags
        self.variance = variance

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        return np.array(self._emits(), dtype=object)

    def columns_read(self) -> tuple[str, ...] | None:
        if not self.columns and self.column is None:
            return None  # the panel's only one
        return tuple(self.columns) if self.columns else (str(self.column),)

    def follow(self, previous: PanelTransformer) -> Self:
        """Number the regimes as an earlier fit does, id by id, where they can be told."""
        from ssmfin.classical.regime.identity import match

        if not isinstance(previous, RegimeFeatures) or previous.get_params() != self.get_params():
            raise InputError("follow needs an earlier fit of the same features; give one with the same parameters.")
        spec = self._specification()
        names = (*self.ids_, "")  # the last: what stands in for ids without a fit
        ours, theirs = self._used(names)[0], previous._used(names)[0]
        order, words = match(spec.signature(theirs), spec.signature(ours))
        moved = spec.permute(ours, order)
        self.parameters_, self.typical_ = moved[:-1], moved[-1]
        self.matching_ = list(words[:-1])
        return self

    def remarks(self) -> dict[str, Any]:
        found = super().remarks()
        lost = [i for i, word in enumerate(getattr(self, "matching_", [])) if word not in MATCHED]
        if lost:
            names = named([self.ids_[i] for i in lost])
            why = self.matching_[lost[0]].removeprefix("not matched: ")
            what = f"{len(lost)} of {len(self.ids_)} ids ({names}); {why}; {UNMATCHED}"
            found["regimes not matched to the fit before"] = what
        return found

    def _emits(self) -> tuple[str, ...]:
        check_regime_options(
            self.model,
            {"lags": self.lags, "variance": self.variance, "columns": self.columns},
            regimes=self.regimes,
        )
        return regime_emits(self.model, self.emit, regimes=self.regimes)

    def _specification(self) -> Specification:
        from ssmfin.classical.regime.kinds import specification

        if self.model == "gaussian_hmm":
            places = tuple(f"c{i}" for i in range(len(self.columns or ())))  # names that `_units` can read
            return specification("gaussian_hmm", regimes=self.regimes, columns=places)
        if self.model == "switching_local_level":
            return specification("switching_kalman", regimes=self.regimes)
        if self.model == "switching_autoregression":
            variance = self.variance or "common"
            return specification("markov_autoregression", regimes=self.regimes, variance=variance, lags=self.lags or 1)
        mean = "common" if self.model == "switching_variance" else "switching"
        variance = "common" if self.model == "switching_mean" else "switching"
        return specification(
            "markov_regression", regimes=self.regimes, mean=mean, variance=variance, lags=self.lags or 0
        )

    def _learn(self, panel: Panel, starts: np.ndarray) -> None:
        self._emits()  # its checks come first
        self.matching_ = []
        super()._learn(panel, starts)

    def _grid(self, panel: Panel, starts: np.ndarray) -> Grid:
        columns = tuple(self.columns) if self.columns else (self.column or only_column(panel, "RegimeFeatures"),)
        return by_id(panel, starts, matrix(panel, columns, log=self.scale == "log"), None)

    def _estimate(self, grid: Grid, warm: np.ndarray | None) -> Estimates:
        from ssmfin.classical.regime.fitting import fit

        spec = self._specification()
        starts: Any = {} if warm is None else {"starts": warm}
        found = fit(spec, self._observed(grid.y), **starts)
        scale, offset = _units(spec.parameter_names, grid.y)
        return Estimates(
            parameters=found.parameters,
            status=[str(status) for status in found.status],
            reason=[self._with_names(reason) for reason in found.reason],
            scale=scale,
            offset=offset,
            units=np.ones((len(grid.series), 1)),
        )

    def _with_names(self, reason: str) -> str:
        """A reason with the user's columns in place of c0, c1, .."""
        for place, name in enumerate(self.columns or ()):
            reason = reason.replace(f"'c{place}'", repr(name))
        return reason

    def _observed(self, y: np.ndarray) -> np.ndarray:
        return y if self.columns else y[:, :, 0]

    def _run(
        self, grid: Grid, parameters: np.ndarray, units: np.ndarray, carry: RegimeCarry | None, *, keep: bool
    ) -> tuple[np.ndarray, RegimeCarry | None]:
        from ssmfin.classical.regime.filtering import filter_series
        from ssmfin.classical.regime.result import RegimeFit

        fitted = RegimeFit.at(self._specification(), parameters)
        y = self._observed(grid.y)
        past = filter_series(fitted, y, carry=carry)
        out = np.column_stack([grid.rows(_column(past, fitted, name)) for name in self._emits()])
        return out, _carry_at_ends(fitted, y, grid, carry, past.carry) if keep else None

    def _smooth(self, grid: Grid, parameters: np.ndarray, units: np.ndarray) -> Smoothed:
        from ssmfin.classical.regime.filtering import smooth
        from ssmfin.classical.regime.result import RegimeFit

        return smooth(RegimeFit.at(self._specification(), parameters), self._observed(grid.y))


def _column(past: Any, fitted: RegimeFit, name: str) -> np.ndarray:
    """(B, T) one emitted column."""
    from ssmfin.classical.regime.summaries import entropy, expected_duration, most_probable

    if name == "entropy":
        return entropy(past.filtered)
    if name == "regime":
        return most_probable(past.filtered).astype(np.float64)
    if name == "expected_duration":
        lasting = np.minimum(expected_duration(fitted.transition), LONGEST)
        return np.asarray((past.filtered * lasting[:, None]).sum(axis=2))
    if name == "log_score":
        scores: np.ndarray = past.log_score
        return scores
    family, k = name.rsplit("_", 1)
    if family == "next":
        # summed in order, so that a series has the same bits whatever the batch
        following = np.zeros(past.filtered.shape[:2])
        for i in range(past.filtered.shape[2]):
            following += past.filtered[:, :, i] * fitted.transition[:, None, i, int(k)]
        return following
    values: np.ndarray = past.filtered if family == "probability" else past.predicted
    return values[:, :, int(k)]


def _carry_at_ends(
    fitted: RegimeFit, y: np.ndarray, grid: Grid, carry: RegimeCarry | None, whole: RegimeCarry
) -> RegimeCarry:
    """The state after each series' own last step; those of one length are run together."""
    from ssmfin.classical.regime.filtering import filter_series

    for length in np.unique(grid.lengths):
        at = np.flatnonzero(grid.lengths == length)
        before = None if carry is None else carry.select(at)
        whole = with_rows(whole, at, filter_series(fitted.select(at), y[at, :length], carry=before).carry)
    return whole


def _units(names: Sequence[str], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset (B, N) of each parameter, for y (B, T, P): variances in y^2, means in y about their mean.

    Of a vector model c0, c1, .. at the end of a name say which columns it is of.
    """
    seen = ~np.isnan(y)
    many = np.maximum(seen.sum(axis=1), 1)
    mean = np.where(seen, y, 0.0).sum(axis=1) / many  # (B, P)
    deviation = np.sqrt(np.where(seen, (y - mean[:, None]) ** 2, 0.0).sum(axis=1) / many)
    unit = np.where(deviation > 0, deviation, 1.0)
    scale, offset = np.ones((len(y), len(names))), np.zeros((len(y), len(names)))
    for n, name in enumerate(names):
        columns = [int(part[1:]) for part in name.split("_") if part[0] == "c" and part[1:].isdigit()]
        if name.startswith("mean"):
            column = columns[0] if columns else 0
            scale[:, n], offset[:, n] = unit[:, column], mean[:, column]
        elif "variance" in name:
            first, second = (columns * 2)[:2] if columns else (0, 0)
            scale[:, n] = unit[:, first] * unit[:, second]
    return scale, offset
