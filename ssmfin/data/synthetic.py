"""Owns simulated data of known truth: prices of a diffusion, and a panel of log-HAR variances with odd calendars."""

from __future__ import annotations

import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from ssmfin.errors import InputError


class SimulatedPrices(NamedTuple):
    """Daily prices and what they were made from.

    Attributes:
        frame: unique_id, ds (business days), open, high, low, close.
        session_variance: (days,) true variance from open to close, decimal.
        overnight_variance: (days,) true variance from the last close to the open, decimal.
    """

    frame: pl.DataFrame
    session_variance: np.ndarray
    overnight_variance: np.ndarray


class SimulatedPanel(NamedTuple):
    """A panel of realized variances and what they were made from.

    Attributes:
        frame: unique_id, ds, rv (variance per day, decimal), log_return.
        truth: unique_id, ds, variance (latent, per day), expected_log (of the log variance, given all days before).
        coefficients: (4,) constant and weights of the means of log variance over the last 1, 5, 22 days.
    """

    frame: pl.DataFrame
    truth: pl.DataFrame
    coefficients: np.ndarray


def business_days(count: int, start: datetime.date) -> np.ndarray:
    """(count,) datetime64[D], Mondays to Fridays from `start` on."""
    return np.busday_offset(np.datetime64(start, "D"), np.arange(count), roll="forward")


def simulate_prices(
    days: int,
    *,
    volatility: float | np.ndarray = 0.01,
    drift: float = 0.0,
    overnight_share: float = 0.0,
    steps: int = 64,
    initial_price: float = 100.0,
    unique_id: str = "simulated",
    start: datetime.date = datetime.date(2000, 1, 3),
    seed: int = 0,
) -> SimulatedPrices:
    """Open, high, low, close of log prices that follow a Brownian motion with drift by day and jump at night.

    d log S = drift dt + volatility dW over a session of length 1; the night adds N(0, overnight variance).

    The extremes between two steps are drawn from the Brownian bridge, so that the range is that of the continuous
    path; what error remains (both extremes of a day within one step) vanishes as `steps` grows.

    Args:
        days: number of sessions.
        volatility: scalar or (days,), standard deviation of a session's log return, decimal.
        drift: mean log return of a session, decimal.
        overnight_share: variance of the night over variance of the whole day, in [0, 1).
        steps: points of the path in a session.
    Returns:
        Prices and true variances. The same arguments give the same bits.
    Raises:
        InputError: an argument is out of its range.
    """
    if days < 1 or steps < 1 or not 0.0 <= overnight_share < 1.0:
        raise InputError(
            f"days, steps, overnight_share are {days}, {steps}, {overnight_share}; "
            f"use at least 1, 1, and a share in [0, 1)."
        )
    generator = np.random.default_rng(seed)
    sigma = np.broadcast_to(np.asarray(volatility, dtype=float), (days,))
    scale = sigma[:, None] / np.sqrt(steps)
    increments = drift / steps + scale * generator.standard_normal((days, steps))
    path = np.concatenate([np.zeros((days, 1)), np.cumsum(increments, axis=1)], axis=1)  # (days, steps + 1)
    # maximum of a bridge from a to b over a step: (a + b + sqrt((b - a)^2 - 2 s^2 log U)) / 2
    spread_up = np.sqrt(increments**2 - 2.0 * scale**2 * np.log1p(-generator.random((days, steps))))
    spread_down = np.sqrt(increments**2 - 2.0 * scale**2 * np.log1p(-generator.random((days, steps))))
    middle = path[:, :-1] + path[:, 1:]
    highest = np.max((middle + spread_up) / 2.0, axis=1)
    lowest = np.min((middle - spread_down) / 2.0, axis=1)
    overnight_variance = sigma**2 * overnight_share / (1.0 - overnight_share)
    night = np.sqrt(overnight_variance) * generator.standard_normal(days)
    night[0] = 0.0
    log_open = np.log(initial_price) + np.cumsum(night) + np.concatenate([[0.0], np.cumsum(path[:-1, -1])])
    frame = pl.DataFrame(
        {
            "unique_id": pl.Series([unique_id]).new_from_index(0, days),
            "ds": business_days(days, start),
            "open": np.exp(log_open),
            "high": np.exp(log_open + np.maximum(highest, 0.0)),
            "low": np.exp(log_open + np.minimum(lowest, 0.0)),
            "close": np.exp(log_open + path[:, -1]),
        }
    )
    return SimulatedPrices(frame, sigma**2, overnight_variance)


def simulate_volatility_panel(
    ids: int = 31,
    dates: int = 1500,
    *,
    coefficients: tuple[float, float, float, float] = (-0.37, 0.38, 0.36, 0.22),
    shock: float = 0.5,
    common: float = 0.5,
    noise: float = 0.0,
    holiday_share: float = 0.035,
    late_starts: float = 0.3,
    start: datetime.date = datetime.date(2000, 1, 3),
    seed: int = 0,
) -> SimulatedPanel:
    """Realized variances of several markets whose log follows a HAR, each with its own holidays and first day.

    x_t = b0 + b1 x_{t-1} + b2 mean(x_{t-5..t-1}) + b3 mean(x_{t-22..t-1}) + shock e_t,   rv_t = exp(x_t + noise u_t)

    t counts the days on which the market is open, as traders do. The shocks of one date are correlated over markets.

    Args:
        ids: number of markets. dates: number of business days of the calendar that they share in part.
        coefficients: b0, b1, b2, b3; the weights must sum to less than 1.
        shock: standard deviation of e's effect on log variance. common: its correlation between markets, in [0, 1].
        noise: standard deviation of the measurement error of log rv.
        holiday_share: share of dates on which a market is closed.
        late_starts: share of `dates` over which first days are spread; the first market starts at once.
    Returns:
        The panel (sorted), its truth on the same rows, and the coefficients. The same arguments give the same bits.
    Raises:
        InputError: the process would not be stationary, or an argument is out of its range.
    """
    constant, *weights = coefficients
    if not sum(map(abs, weights)) < 1.0 or ids < 1 or dates < 1 or not 0.0 <= common <= 1.0:
        raise InputError(
            f"coefficients, ids, dates, common are {coefficients}, {ids}, {dates}, {common}; "
            f"use weights that sum to less than 1, at least one id and date, and a correlation in [0, 1]."
        )
    generator = np.random.default_rng(seed)
    first = np.round(np.linspace(0.0, late_starts * dates, ids)).astype(int)
    trading = (generator.random((dates, ids)) >= holiday_share) & (np.arange(dates)[:, None] >= first)
    shared = generator.standard_normal((dates, 1))
    errors = shock * (np.sqrt(common) * shared + np.sqrt(1.0 - common) * generator.standard_normal((dates, ids)))
    measured = noise * generator.standard_normal((dates, ids))
    returns = generator.standard_normal((dates, ids))
    past = np.full((22, ids), constant / (1.0 - sum(weights)))  # newest first; starts at the mean
    log_variance, expected = np.empty((dates, ids)), np.empty((dates, ids))
    for t in range(dates):
        mean = constant + weights[0] * past[0] + weights[1] * past[:5].mean(axis=0) + weights[2] * past.mean(axis=0)
        expected[t] = mean
        log_variance[t] = mean + errors[t]
        moved = np.concatenate([log_variance[t : t + 1], past[:-1]])
        past = np.where(trading[t], moved, past)
    market, date = np.nonzero(trading.T)  # rows by market, then by date
    variance = np.exp(log_variance[date, market])
    width = len(str(ids - 1))
    names = pl.Series([f"market_{k:0{width}d}" for k in range(ids)])
    keys = {
        "unique_id": names.gather(pl.Series(market)),
        "ds": business_days(dates, start)[date],
    }
    frame = pl.DataFrame(
        keys
        | {
            "rv": np.exp(log_variance[date, market] + measured[date, market]),
            "log_return": np.sqrt(variance) * returns[date, market],
        }
    )
    truth = pl.DataFrame(keys | {"variance": variance, "expected_log": expected[date, market]})
    return SimulatedPanel(frame, truth, np.array(coefficients))
