"""Owns the weights of a combination over time, and the forecasts that they make.

Shapes: n rows (origins), H horizons, K members, T dates, G groups that share weights (one, or the ids).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssmfin.models.baselines.range_sums import range_sums, ranges_of
from ssmfin.models.combination.simplex import simplex_weights
from ssmfin.models.combination.spec import LossName, Mean, Weighting
from ssmfin.models.interface import FloatArray


class Record(NamedTuple):
    """What the members have forecast, and what became of it.

    forecast: (K, n, H) original scale; NaN where a member has none. label: (n, H), NaN where unknown for ever.
    known: (n, H) position of the date from which a label may be learned from; T or more: never.
    date: (n,) position of the origin's date. group: (n,) which rows share weights, 0 .. groups - 1.
    """

    forecast: FloatArray
    label: FloatArray
    known: np.ndarray
    date: np.ndarray
    group: np.ndarray
    dates: int
    groups: int


class Combined(NamedTuple):
    """forecast: (n, H); NaN where no member has one. weights: (G, T, H, K) as of each date.

    learned: (G, T, H) bool, the weights are not the equal ones of the beginning.
    """

    forecast: FloatArray
    weights: FloatArray
    learned: np.ndarray


def combine(
    record: Record,
    *,
    weights: Weighting,
    mean: Mean,
    loss: LossName,
    window: int | None,
    min_periods: int,
    shrink: float,
) -> Combined:
    """Weights at every date from what was known then, and the combined forecasts.

    A label with `known` = d is learned from at the dates d .. d + window - 1. Only rows which all members forecast are
    learned from. A row that some members do not forecast is combined from the others, their weights scaled up.

    Args:
        weights, mean, loss, window, min_periods, shrink: as in `Combination`, without defaults left open.
    """
    K, _, H = record.forecast.shape
    table = np.full((record.groups, record.dates, H, K), 1.0 / K)
    learned = np.zeros(table.shape[:3], dtype=bool)
    if weights != "equal":
        for h in range(H):
            sums, periods = _matured_sums(record, h, weights, mean, loss, window)
            ready = periods >= min_periods
            found = _inverse(sums[ready]) if weights == "inverse_loss" else _regressed(sums[ready], K, shrink)
            table[:, :, h][ready] = found
            learned[:, :, h] = ready
    used = table[record.group, record.date]  # (n, H, K)
    return Combined(_mean(np.moveaxis(record.forecast, 0, -1), used, mean), table, learned)


def combine_quantiles(quantiles: FloatArray, weights: FloatArray, *, mean: Mean) -> FloatArray:
    """Averages of the members' quantile functions, level by level, with the weights of their means.

        arithmetic: Q(p) = sum_k w_k Q_k(p)        geometric: Q(p) = exp(sum_k w_k log Q_k(p)), the same of log y

    The average of quantile functions is one: it does not fall. It keeps the members' shape and averages their spread,
    where the mixture of their distributions (the linear pool) would be wider than each of them.

    Args:
        quantiles: (K, n, H, Q) original scale, not falling along the levels; not negative if geometric.
        weights: (n, H, K).
    Returns:
        (n, H, Q); NaN throughout at a horizon of which a member tells none somewhere.
    References:
        Lichtendahl, Grushka-Cockayne, Winkler (2013), Management Science 59 (quantiles or probabilities?); Busetti
        (2017), Oxford Bulletin of Economics and Statistics 79.
    """
    members, shares = np.moveaxis(quantiles, 0, -1), weights[:, :, None, :]  # (n, H, Q, K), (n, H, 1, K)
    if mean == "geometric":
        with np.errstate(divide="ignore"):
            logs = np.where(shares > 0, np.log(members), 0.0)  # a quantile may be zero
        found = np.where(np.isnan(members).any(axis=-1), np.nan, np.exp(np.sum(shares * logs, axis=-1)))
    else:
        found = np.sum(shares * members, axis=-1)
    told = np.all(np.isfinite(found), axis=(0, 2))
    return np.where(told[:, None], found, np.nan)


def _mean(forecast: FloatArray, weights: FloatArray, mean: Mean) -> FloatArray:
    """Over the last axis, of the members that are there."""
    there = np.isfinite(forecast)
    if not there.all():
        left = np.where(there, weights, 0.0)
        total = left.sum(axis=-1, keepdims=True)
        # the members that are there may all have weight zero: then they share
        count = np.maximum(there.sum(axis=-1, keepdims=True), 1)
        share = np.where(total > 0, left, there) / np.where(total > 0, total, count)
        weights = np.where(there.all(axis=-1, keepdims=True), weights, share)
    if mean == "geometric":
        logs = np.log(np.where(there, forecast, 1.0))
        found = np.exp(np.sum(weights * logs, axis=-1))
    else:
        found = np.sum(weights * np.where(there, forecast, 0.0), axis=-1)
    return np.asarray(np.where(there.any(axis=-1), found, np.nan))


def _matured_sums(
    record: Record, h: int, weights: Weighting, mean: Mean, loss: LossName, window: int | None
) -> tuple[FloatArray, np.ndarray]:
    """(G, T, q) sums of what the weights are made of over the labels known at each date, and (G, T) their dates."""
    forecast, label, known = record.forecast[:, :, h].T, record.label[:, h], record.known[:, h]
    used = np.isfinite(forecast).all(axis=1) & np.isfinite(label) & (known < record.dates)
    forecast, label = forecast[used], label[used]
    if weights == "inverse_loss":
        columns = _losses(label, forecast, loss)
    else:
        columns = _products(*_step(label, forecast, mean, loss))
        used[used] = finite = np.isfinite(columns).all(axis=1)
        columns = columns[finite]
    cell = record.group[used] * record.dates + known[used]
    cells = record.groups * record.dates
    count = np.bincount(cell, minlength=cells).astype(np.float64)
    by_date = np.stack([np.bincount(cell, weights=column, minlength=cells) for column in columns.T], axis=1)
    values = np.column_stack([count > 0, by_date]).reshape(record.groups, record.dates, -1)
    if window is None:
        sums = np.cumsum(values, axis=1)
    else:
        last = np.arange(1, record.dates + 1)
        ranges = ranges_of(np.maximum(last - window, 0), last, record.dates)
        sums = np.stack([range_sums(part, ranges) for part in values])
    return sums[:, :, 1:], sums[:, :, 0]


def _losses(label: FloatArray, forecast: FloatArray, loss: LossName) -> FloatArray:
    """(m, K) loss of each member; infinite where QLIKE has no meaning."""
    if loss == "mse":
        return np.asarray((label[:, None] - forecast) ** 2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        excess = (label[:, None] - forecast) / forecast
        return np.where(forecast > 0, excess - np.log1p(excess), np.inf)


def _step(label: FloatArray, forecast: FloatArray, mean: Mean, loss: LossName) -> tuple[FloatArray, FloatArray]:
    """Response (m,) and regressors (m, K) of the Gauss-Newton step at equal weights."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if mean == "geometric":
            logs = np.log(forecast)
            level = logs.mean(axis=1)
            centre = np.exp(level)
            relative = logs - level[:, None]
        else:
            centre = forecast.mean(axis=1)
            relative = (forecast - centre[:, None]) / (centre[:, None] if loss == "qlike" else 1.0)
        if loss == "qlike":
            # a mean that is not positive has no relative error, and is not learned from
            return np.where(centre > 0, label / centre - 1.0, np.nan), relative
        return label - centre, relative * centre[:, None] if mean == "geometric" else relative


def _products(response: FloatArray, regressors: FloatArray) -> FloatArray:
    """(m, K (K + 1) / 2 + K): x_i x_j for i <= j, then x_i r."""
    upper = np.triu_indices(regressors.shape[1])
    return np.concatenate([regressors[:, upper[0]] * regressors[:, upper[1]], regressors * response[:, None]], axis=1)


def _inverse(sums: FloatArray) -> FloatArray:
    """(m, K) losses to weights: a member without any loss takes all, one of infinite loss nothing."""
    K = sums.shape[1]
    least = sums.min(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(sums == least, 1.0, np.where(np.isinf(sums), 0.0, least / sums))
    found: FloatArray = share / share.sum(axis=1, keepdims=True)
    return np.where(np.isinf(least), 1.0 / K, found)


def _regressed(sums: FloatArray, K: int, shrink: float) -> FloatArray:
    """(m, K) weights from sums of `_products`, (m, K (K + 1) / 2 + K), drawn to equal ones by `shrink`."""
    upper = np.triu_indices(K)
    gram = np.empty((len(sums), K, K))
    gram[:, upper[0], upper[1]] = gram[:, upper[1], upper[0]] = sums[:, : len(upper[0])]
    return (1.0 - shrink) * simplex_weights(gram, sums[:, len(upper[0]) :]) + shrink / K
