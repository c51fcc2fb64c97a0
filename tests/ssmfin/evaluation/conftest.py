"""A small panel with differing calendars, starts and a hole, for the tests of the harness."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.data.panel import Panel


def log_ar_frame(ids=3, days=260, seed=0):
    """Positive persistent series; id k starts 20 k days late and skips every (7 + k)-th day."""
    rng, measures = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    frames = []
    for k in range(ids):
        shocks = rng.standard_normal(days) * 0.4
        level = np.zeros(days)
        for t in range(1, days):
            level[t] = 0.9 * level[t - 1] + shocks[t]
        keep = np.flatnonzero((np.arange(days) >= 20 * k) & (np.arange(days) % (7 + k) != 3))
        start = dt.date(2020, 1, 1)
        rv = np.exp(level[keep] - 9)
        share = measures.beta(8, 2, size=(3, len(keep)))  # of the continuous part, of the positive half, of the error
        frames.append(
            pl.DataFrame(
                {
                    "unique_id": [f"id{k}"] * len(keep),
                    "ds": [start + dt.timedelta(days=int(i)) for i in keep],
                    "rv": rv,
                    "log_return": rng.standard_normal(len(keep)) * np.exp(0.5 * level[keep] - 4.5),
                    "bv": rv * (share[0] + 0.1),
                    "continuous": rv * np.where(share[0] > 0.8, 1.0, share[0]),
                    "jump": rv * np.where(share[0] > 0.8, 0.0, 1.0 - share[0]),
                    "rs_pos": rv * share[1],
                    "rs_neg": rv * (1.0 - share[1]),
                    "rq": rv**2 * (1.0 + share[2]),
                }
            )
        )
    return pl.concat(frames)


@pytest.fixture
def panel():
    return Panel(frame=log_ar_frame(), notes={})
