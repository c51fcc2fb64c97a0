"""Owns volume and order flow of a session, from whichever of those columns the source has."""

from __future__ import annotations

import numpy as np

from ssmfin.data.intraday import loops
from ssmfin.data.intraday.scan import Kind


def flow(kind: Kind, values: dict[str, np.ndarray], price: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    """Sums and means over each session, one array (G,) a column.

    volume = sum v,  turnover = sum p v,  vwap = turnover / volume
    order_imbalance = sum s v / sum v,  s = +1 for a buy and -1 for a sell: the column `side`, or buy_volume and
        sell_volume, else the tick rule (the sign of the last price change)
    quoted_spread = mean (ask - bid) / mid,  depth_imbalance = mean (bid_size - ask_size) / (bid_size + ask_size)

    Args:
        price: (R,) before adjustment, no NaN. Volumes are summed as stored.
        starts: (G + 1,) first row of each session.
    References:
        Lee, Ready (1991), Inferring trade direction from intraday data, J. Finance 46, the tick test; Chordia, Roll,
        Subrahmanyam (2002), Order imbalance, liquidity, and market returns, J. Financial Economics 65.
    """
    heads = starts[:-1]
    out: dict[str, np.ndarray] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind == "quotes":
            bid, ask = values["bid"], values["ask"]
            out["quoted_spread"] = _mean(2.0 * (ask - bid) / (ask + bid), starts)
            if {"bid_size", "ask_size"} <= values.keys():
                depth = values["bid_size"] + values["ask_size"]
                out["depth_imbalance"] = _mean((values["bid_size"] - values["ask_size"]) / depth, starts)
            return out
        if "volume" not in values:
            return out
        volume = values["volume"]
        if not np.isfinite(volume).all():
            volume = np.nan_to_num(volume, nan=0.0)
        out["volume"] = np.add.reduceat(volume, heads)
        out["turnover"] = np.add.reduceat(volume * price, heads)
        out["vwap"] = out["turnover"] / out["volume"]
        if {"buy_volume", "sell_volume"} <= values.keys():
            bought = np.add.reduceat(np.nan_to_num(values["buy_volume"]), heads)
            sold = np.add.reduceat(np.nan_to_num(values["sell_volume"]), heads)
            out["order_imbalance"] = (bought - sold) / (bought + sold)
        else:
            if "side" in values:
                signed = np.nan_to_num(values["side"]) * volume
            else:
                signed = loops.signed_volume(price, volume, starts)
            out["order_imbalance"] = np.add.reduceat(signed, heads) / out["volume"]
    return out


def _mean(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(G,) mean over each session, values that are not there left out."""
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), starts[:-1])
    count = np.add.reduceat(known.astype(np.int64), starts[:-1])
    mean: np.ndarray = total / count
    return mean
