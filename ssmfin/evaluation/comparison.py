"""Owns the tests that say whether one loss series is lower than another: DM, MCS, Mincer-Zarnowitz, Holm.

All are functions of arrays. Row t of a loss array is one date; rows are consecutive forecasts, in time order.

Bandwidth, shared by DM (HAC lags) and MCS (mean block length): 2 (h - 1) + ceil(n^(1/3)). Targets of h steps overlap,
so loss differences are an MA(h - 1) at least. The textbook's h - 1 Bartlett lags give the last of these covariances a
weight of 1/h and reject a true null in 11 % of samples at the nominal 5 % (n = 4000, h = 5 or 22, simulated); the
bandwidth used here rejects in 7 %. The second term is for what persists beyond the overlap, as losses of volatility
forecasts do. Short samples reject too often with any bandwidth (13 % at n = 250, h = 22): below MIN_PERIODS
non-overlapping horizons there is no test at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssmfin.errors import InputError

MIN_ROWS = 20
MIN_PERIODS = 10  # non-overlapping horizons in the sample; below, every HAC test rejects far too often
_EXACT = 1e-12  # differences below this share of the losses are rounding


@dataclass(frozen=True)
class DieboldMariano:
    """Result of a test of equal loss. Negative statistic: the model's loss is lower than the reference's.

    Attributes:
        statistic: Harvey-Leybourne-Newbold t statistic; NaN where there is no test.
        p_value: two-sided, Student t with n - 1 degrees of freedom.
        n: rows. `lags`: of the Bartlett kernel.
        reason: why there is no test, else "".
    """

    statistic: float
    p_value: float
    n: int
    lags: int
    reason: str = ""


@dataclass(frozen=True)
class ConfidenceSet:
    """The models which cannot be told apart from the best one.

    Attributes:
        in_set: (k,) bool. `p_value`: (k,) the smallest size at which the model drops out; NaN where there is no test.
        block: mean block length of the bootstrap, rows.
        reason: why there is no test, else "".
    """

    in_set: np.ndarray
    p_value: np.ndarray
    block: int
    reason: str = ""


@dataclass(frozen=True)
class MincerZarnowitz:
    """y = intercept + slope f + error. An unbiased and efficient forecast has 0 and 1; NaN where f is constant."""

    intercept: float
    slope: float
    r2: float


def bandwidth(n: int, horizon: int) -> int:
    """HAC lags and mean block length for n rows of h-step losses.

    max(h - 1, min(2 (h - 1) + ceil(n^(1/3)), n // 4)), at least 1

    >>> bandwidth(4000, 1), bandwidth(4000, 22)
    (16, 58)
    """
    wanted = 2 * (horizon - 1) + math.ceil(round(math.cbrt(n), 9))
    return max(1, horizon - 1, min(wanted, n // 4))


def too_few(n: int, horizon: int) -> str:
    """Why n rows are too few to test h-step losses, or "" if they are enough."""
    least = max(MIN_ROWS, MIN_PERIODS * horizon)
    return f"{n} dates are too few for a test at horizon {horizon} (at least {least})" if n < least else ""


def diebold_mariano(loss: np.ndarray, reference_loss: np.ndarray, *, horizon: int) -> DieboldMariano:
    """Diebold-Mariano test of equal expected loss with HAC variance and the Harvey-Leybourne-Newbold correction.

    d_t = L_t - L^ref_t,   DM = mean(d) / sqrt(V / n),   V = gamma_0 + 2 sum_{k <= m} (1 - k/(m + 1)) gamma_k,
    statistic = DM sqrt((n + 1 - 2h + h (h - 1) / n) / n)  against Student t with n - 1 degrees of freedom

    Args:
        loss: (n,) losses of the model, in time order.
        reference_loss: (n,) losses of the reference at the same dates.
        horizon: h, steps ahead; sets the lags m (`bandwidth`) and the correction.
    Returns:
        Negative statistic: the model is better than the reference. Identical losses: 0 and p = 1. A difference that
        is constant and not zero: -inf or inf and p = 0, the limit for a vanishing variance. Too few rows or an infinite
        loss: NaN with the reason.
    Raises:
        InputError: lengths differ, a loss is NaN or the horizon is below 1.
    References:
        Diebold, Mariano (1995), JBES 13, eq. 5; Harvey, Leybourne, Newbold (1997), IJF 13, eq. 9.
    """
    a, b = _losses(np.stack(_same_length(loss, reference_loss), axis=1)).T
    n, lags = len(a), bandwidth(len(a), _horizon(horizon))
    nothing = (math.nan, math.nan, n, lags)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return DieboldMariano(*nothing, reason="a loss is infinite")
    difference = a - b
    size = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
    if reason := too_few(n, horizon):
        return DieboldMariano(*nothing, reason=reason)
    if np.abs(difference).max() <= _EXACT * size:
        return DieboldMariano(0.0, 1.0, n, lags)
    if np.ptp(difference) <= _EXACT * size:
        return DieboldMariano(math.copysign(math.inf, difference[0]), 0.0, n, lags)

    from statsmodels.tsa.stattools import diebold_mariano_test

    scaled = difference / np.abs(difference).max()  # squares of daily variances are 1e-16: keep far from underflow
    result = diebold_mariano_test(
        np.zeros(n),
        scaled,
        np.zeros(n),
        criterion=lambda _, given: given,
        lags=lags,
        harvey_adj=True,
        horizon=horizon,
    )
    return DieboldMariano(float(result.statistic), float(result.pvalue), n, lags)


def model_confidence_set(
    losses: np.ndarray, *, horizon: int, size: float = 0.1, reps: int = 1000, seed: int = 0
) -> ConfidenceSet:
    """Model confidence set by the range statistic: the models left when the worst ones are removed one by one.

    t_ij = (mean L_i - mean L_j) / sd*(mean L_i - mean L_j),   T_R = max_ij t_ij

    While T_R exceeds the (1 - size) quantile of its bootstrap distribution, the model with the largest t_ij leaves.

    Args:
        losses: (n, k) one column per model, rows in time order. A model with an infinite loss is out, with p = 0.
        horizon: h, steps ahead; sets the mean block length (`bandwidth`) of the stationary bootstrap.
        size: of the test; 0.1 gives the 90 % confidence set.
        reps: bootstrap draws; the p-values are multiples of 1 / reps.
        seed: of the draws; same seed, same answer.
    Returns:
        Every model belongs to the set where there are too few rows to exclude any (p NaN, with the reason).
    Raises:
        InputError: losses hold NaN, or an argument is out of range.
    References:
        Hansen, Lunde, Nason (2011), Econometrica 79, section 3.1.2; Politis, Romano (1994) for the bootstrap.
    """
    return model_confidence_sets([losses], horizon=horizon, size=size, reps=reps, seed=seed)[0]


def model_confidence_sets(
    panels: list[np.ndarray], *, horizon: int, size: float = 0.1, reps: int = 1000, seed: int = 0
) -> list[ConfidenceSet]:
    """`model_confidence_set` of several loss arrays over the same dates, which share the bootstrap draws.

    The draws are arch's StationaryBootstrap and the answers those of `arch.bootstrap.MCS(method="R")` on them (a test
    holds the two equal). The elimination is done here because arch's fails on models with identical losses and on
    ties, and because the draws, which take most of the time, need not be repeated for every loss.
    """
    panels = [_losses(np.asarray(panel, dtype=float)) for panel in panels]
    if not 0 < size < 1:
        raise InputError(f"mcs_size is {size}; choose a number between 0 and 1, such as 0.1.")
    if reps < 1:
        raise InputError(f"reps of the model confidence set is {reps}; use at least 1 (usually 1000).")
    n = len(panels[0])
    if any(len(panel) != n for panel in panels):
        raise InputError(f"loss arrays differ in length, {[len(panel) for panel in panels]}; align them by date.")
    block = bandwidth(n, _horizon(horizon))
    reason = too_few(n, horizon)
    finite = [np.isfinite(panel).all(axis=0) for panel in panels]
    if reason or all(keep.sum() <= 1 for keep in finite):
        resampled = [np.empty((0, int(keep.sum()))) for keep in finite]
    else:
        stacked = np.concatenate([panel[:, keep] for panel, keep in zip(panels, finite, strict=True)], axis=1)
        means = _bootstrap_means(np.ascontiguousarray(stacked), block, reps, seed)
        resampled = np.split(means, np.cumsum([keep.sum() for keep in finite])[:-1], axis=1)

    sets = []
    for panel, keep, draws in zip(panels, finite, resampled, strict=True):
        p_value = np.zeros(panel.shape[1])
        if reason:
            sets.append(ConfidenceSet(keep | ~keep.any(), np.full(len(keep), np.nan), block, reason))
            continue
        if not keep.any():
            sets.append(ConfidenceSet(keep, np.full(len(keep), np.nan), block, "every model has an infinite loss"))
            continue
        p_value[keep] = _eliminate(panel[:, keep].mean(axis=0), draws)
        sets.append(ConfidenceSet(p_value > size, p_value, block))
    return sets


def _bootstrap_means(losses: np.ndarray, block: int, reps: int, seed: int) -> np.ndarray:
    """(reps, k) column means of stationary-bootstrap resamples of (n, k) losses."""
    from arch.bootstrap import StationaryBootstrap

    n = len(losses)
    bootstrap = StationaryBootstrap(block, np.arange(n), seed=np.random.default_rng(seed))
    means = np.empty((reps, losses.shape[1]))
    for r, (positional, _) in enumerate(bootstrap.bootstrap(reps)):
        # counts @ losses is the sum over the resample, without gathering n rows
        means[r] = np.bincount(positional[0], minlength=n) @ losses
    return means / n


def _eliminate(mean: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """MCS p-values (k,) from mean losses (k,) and their bootstrap draws (reps, k)."""
    k = len(mean)
    difference = mean[:, None] - mean[None, :]  # (k, k), positive: the row is worse than the column
    draws = resampled[:, :, None] - resampled[:, None, :] - difference  # (reps, k, k)
    deviation = np.sqrt(np.square(draws).mean(axis=0)) if len(draws) else np.zeros((k, k))
    size = np.maximum(np.abs(mean)[:, None], np.abs(mean)[None, :])
    constant = deviation <= _EXACT * size  # identical models, or ones a constant apart: certain, one way or the other
    gap = np.where(np.abs(difference) <= _EXACT * size, 0.0, np.copysign(np.inf, difference))
    scale = np.where(constant, 1.0, deviation)
    statistic = np.where(constant, gap, difference / scale)
    simulated = np.where(constant, 0.0, draws / scale)

    p_value = np.ones(k)
    left = np.ones(k, dtype=bool)
    running = 0.0  # p-values never fall along the way
    while left.sum() > 1:
        index = np.flatnonzero(left)
        pairs = statistic[np.ix_(index, index)]
        worst = pairs.max()
        if worst <= 0:  # all that is left is equal
            break
        distribution = simulated[:, index[:, None], index[None, :]].max(axis=(1, 2))
        running = max(running, float((worst < distribution).mean()))
        out = index[np.unravel_index(pairs.argmax(), pairs.shape)[0]]
        p_value[out] = running
        left[out] = False
    return p_value


def mincer_zarnowitz(y: np.ndarray, f: np.ndarray) -> MincerZarnowitz:
    """Regression of what was realised on the forecast.

    y = intercept + slope f + error,   R2 = corr(y, f)^2

    Args:
        y, f: (n,) realised and forecast, same unit.
    Returns:
        NaN throughout where f is constant or n < 3; NaN R2 where y is.
    Raises:
        InputError: lengths differ or a value is not finite.
    References:
        Mincer, Zarnowitz (1969), The Evaluation of Economic Forecasts, NBER.
    """
    y, f = _same_length(y, f)
    if not (np.isfinite(y).all() and np.isfinite(f).all()):
        raise InputError("a realised value or a forecast is not finite; drop such rows before the regression.")
    if len(y) < 3:
        return MincerZarnowitz(math.nan, math.nan, math.nan)
    unit_y, unit_f = np.abs(y).max() or 1.0, np.abs(f).max() or 1.0  # squares of tiny variances must not underflow
    v, u = y / unit_y, f / unit_f
    du, dv = u - u.mean(), v - v.mean()
    if np.abs(du).max() <= _EXACT:
        return MincerZarnowitz(math.nan, math.nan, math.nan)
    sxx, sxy, syy = float(du @ du), float(du @ dv), float(dv @ dv)
    slope = sxy / sxx
    intercept = float(v.mean() - slope * u.mean()) * unit_y
    r2 = sxy * sxy / (sxx * syy) if np.abs(dv).max() > _EXACT else math.nan
    return MincerZarnowitz(float(intercept), float(slope * unit_y / unit_f), r2)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values that allow for how many comparisons were made: the chance of any false rejection stays below the level.

    p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))

    Args:
        p_values: (m,); NaN (no test) stays NaN and is not counted.
    References:
        Holm (1979), Scandinavian Journal of Statistics 6.

    >>> holm(np.array([0.01, 0.04, np.nan])).tolist()
    [0.02, 0.04, nan]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def _horizon(horizon: int) -> int:
    if horizon < 1:
        raise InputError(f"horizon is {horizon}; it counts steps ahead, so use 1 or more.")
    return horizon


def _same_length(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"the two series differ in shape, {a.shape} and {b.shape}; align them by date first.")
    return a, b


def _losses(losses: np.ndarray) -> np.ndarray:
    if losses.ndim != 2 or losses.shape[1] == 0:
        raise InputError(f"losses have shape {losses.shape}; give (dates, models) with at least one model.")
    if np.isnan(losses).any():
        row, column = np.argwhere(np.isnan(losses))[0]
        raise InputError(f"the loss in row {row}, column {column} is NaN; every model must be scored at every date.")
    return losses
