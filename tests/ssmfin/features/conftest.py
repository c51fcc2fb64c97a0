"""A panel of noisy random walks with different starts and lengths, for the filters; one id is constant."""

import datetime as dt

import numpy as np
import polars as pl
import pytest


@pytest.fixture(scope="session")
def walks():
    rng = np.random.default_rng(4)
    frames = []
    for k in range(4):
        n = 260 - 30 * k
        wild = (np.arange(n) // 60) % 2
        x = rng.standard_normal(n)
        level = np.cumsum(0.2 * rng.standard_normal(n)) + 3 * k
        frames.append(
            pl.DataFrame(
                {
                    "unique_id": [f"id{k}"] * n,
                    "ds": [dt.date(2020, 1, 1) + dt.timedelta(days=i + 20 * k) for i in range(n)],
                    "y": np.full(n, 2.0) if k == 3 else level + 1.5 * x + rng.standard_normal(n),
                    "x": x,
                    "r": np.full(n, 0.01) if k == 3 else rng.standard_normal(n) * np.where(wild, 0.03, 0.01),
                }
            )
        )
    return pl.concat(frames)


TRAIN_END, HISTORY_END = dt.date(2020, 7, 1), dt.date(2020, 8, 1)


@pytest.fixture(scope="session")
def train(walks):
    return walks.filter(pl.col("ds") <= TRAIN_END)


@pytest.fixture(scope="session")
def history(walks):
    return walks.filter(pl.col("ds") <= HISTORY_END)


@pytest.fixture(scope="session")
def later(walks):
    return walks.filter(pl.col("ds") > HISTORY_END)
