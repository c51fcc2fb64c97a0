"""What other ids tell: the mean over the others by hand, what counts as known, ids that start, stop and hold holes."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.features.market import MarketLags


def panel(days=60, ids=4, known_at=False, seed=0):
    """Ids trade on different days; the second stops early, the last starts late."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(ids):
        keep = np.sort(rng.choice(days, size=int(days * 0.8), replace=False))
        keep = keep[keep < 30] if k == 1 else keep[keep >= 10] if k == ids - 1 else keep
        dates = [dt.date(2024, 1, 1) + dt.timedelta(days=int(i)) for i in keep]
        frames.append(
            pl.DataFrame(
                {"unique_id": [f"id{k}"] * len(keep), "ds": dates, "rv": np.exp(rng.standard_normal(len(keep)))}
            )
        )
    out = pl.concat(frames)
    return out.with_columns(known_at=pl.col("ds") + dt.timedelta(days=2)) if known_at else out


@pytest.mark.parametrize("same_date", [False, True])
@pytest.mark.parametrize("known_at", [False, True])
def test_the_mean_over_the_others_is_that_of_a_loop(same_date, known_at):
    data = panel(known_at=known_at)
    feature = MarketLags("rv", windows=[1, 3], scale="log", same_date=same_date, max_age=12)
    found = feature.fit_transform(data)
    checked = 0
    for row in found.iter_rows(named=True):
        for w in (1, 3):
            shown = []
            for other in data["unique_id"].unique():
                if other == row["unique_id"]:
                    continue
                mine = data.filter(pl.col("unique_id") == other)
                if known_at:
                    mine = mine.filter(pl.col("known_at") <= row["ds"])
                else:
                    mine = mine.filter((pl.col("ds") <= row["ds"]) if same_date else (pl.col("ds") < row["ds"]))
                if mine.height >= w and (row["ds"] - mine["ds"][-1]).days <= 12:
                    shown.append(np.log(mine["rv"][-w:].mean()))
            value = row[f"market_{w}"]
            if shown:
                assert value == pytest.approx(np.mean(shown), rel=1e-10, abs=1e-12)
                checked += 1
            else:
                assert np.isnan(value)
    assert checked > 200


def test_rows_of_the_same_date_do_not_count_unless_it_is_said():
    data = panel()
    day = data["ds"].unique().sort()[40]
    changed = data.with_columns(rv=pl.when(pl.col("ds") == day).then(99.0).otherwise("rv"))
    here = pl.col("ds") == day
    for same_date, moves in ((False, False), (True, True)):
        before, after = (MarketLags("rv", same_date=same_date).fit_transform(d).filter(here) for d in (data, changed))
        assert (before["market_1"].to_numpy() != after["market_1"].to_numpy()).any() == moves


def test_a_panel_of_one_id_has_no_others():
    with pytest.raises(InputError, match="averages over other ids, and the panel has 1"):
        MarketLags("rv").fit_transform(panel(ids=1))
