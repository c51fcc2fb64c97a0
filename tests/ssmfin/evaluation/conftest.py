"""A small panel with differing calendars, starts and a hole, for the tests of the harness."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.data.panel import Panel


def log_ar_frame(ids=3, days=260, seed=0):
    """Positive persistent series; id k starts 20 k days late and skips every (7 + k)-th day."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(ids):
        shocks = rng.standard_normal(days) * 0.4
        level = np.zeros(days)
        for t in range(1, days):
            level[t] = 0.9 * level[t - 1] + shocks[t]
        keep = np.flatnonzero((np.arange(days) >= 20 * k) & (np.arange(days) % (7 + k) != 3))
        start = dt.date(2020, 1, 1)
        frames.append(
            pl.DataFrame(
                {
                    "unique_id": [f"id{k}"] * len(keep),
                    "ds": [start + dt.timedelta(days=int(i)) for i in keep],
                    "rv": np.exp(level[keep] - 9),
                    "log_return": rng.standard_normal(len(keep)) * np.exp(0.5 * level[keep] - 4.5),
                }
            )
        )
    return pl.concat(frames)


@pytest.fixture
def panel():
    return Panel(frame=log_ar_frame(), notes={})
