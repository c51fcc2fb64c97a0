"""What other ids tell: means by hand, what counts as known, closing hours, ids that start, stop and hold holes."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.data.moments import Closes
from ssmfin.errors import InputError
from ssmfin.features.leverage import Leverage
from ssmfin.features.market import MarketLags
from ssmfin.features.row_specs import MarketSpec


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


ZONES = {"id0": ("15:00", "Asia/Shanghai"), "id2": ("17:30", "Europe/Paris"), "id3": ("16:00", "America/New_York")}

TOKYO = {"id1": {"time": "15:00", "zone": "Asia/Tokyo"}}


def closes():
    clocks = {name: {"time": time, "zone": zone} for name, (time, zone) in ZONES.items()}
    return Closes(time="17:30", zone="Europe/Berlin", by_id=clocks)


def test_with_closing_hours_rows_count_once_their_market_has_closed():
    data = panel()
    found = MarketLags("rv", windows=[1], closes=closes(), max_age=12).fit_transform(data)
    order = {"id0": 0, "id1": 1, "id2": 1, "id3": 2}  # Asia, Europe (two zones, one moment), America
    own_date = checked = 0
    for row in found.iter_rows(named=True):
        shown = []
        for other in order:
            if other == row["unique_id"]:
                continue
            closed = order[other] <= order[row["unique_id"]]
            mine = data.filter(pl.col("unique_id") == other)
            mine = mine.filter((pl.col("ds") <= row["ds"]) if closed else (pl.col("ds") < row["ds"]))
            if mine.height and (row["ds"] - mine["ds"][-1]).days <= 12:
                shown.append(mine["rv"][-1])
                own_date += mine["ds"][-1] == row["ds"]
        assert np.isnan(row["market_1"]) if not shown else row["market_1"] == pytest.approx(np.mean(shown), rel=1e-10)
        checked += bool(shown)
    assert checked > 100
    assert own_date > 50


def test_america_never_tells_asia_what_happened_on_the_same_date():
    data = panel()
    day = data.filter(pl.col("unique_id") == "id3")["ds"].to_list()[20]
    here = (pl.col("ds") == day) & (pl.col("unique_id") == "id3")
    changed = data.with_columns(rv=pl.when(here).then(99.0).otherwise("rv"))
    before, after = (MarketLags("rv", closes=closes()).fit_transform(d) for d in (data, changed))
    for name in ("id0", "id2"):
        until = (pl.col("unique_id") == name) & (pl.col("ds") <= day)
        np.testing.assert_array_equal(before.filter(until)["market_1"], after.filter(until)["market_1"])
        assert not before.filter(pl.col("unique_id") == name).equals(after.filter(pl.col("unique_id") == name))


def test_groups_are_means_over_their_members_the_id_itself_among_them():
    data = panel()
    groups = {"west": ["id0", "id3"], "east": ["id2"]}
    feature = MarketLags("rv", windows=[1, 3], groups=groups, same_date=True, max_age=60)
    found = feature.fit_transform(data)
    assert list(feature.get_feature_names_out()) == [
        "west_market_1",
        "west_market_3",
        "east_market_1",
        "east_market_3",
    ]
    for row in found.filter(pl.col("ds") > dt.date(2024, 1, 25)).iter_rows(named=True):
        last = {
            name: data.filter((pl.col("unique_id") == name) & (pl.col("ds") <= row["ds"]))["rv"].to_numpy()
            for name in ("id0", "id2", "id3")
        }
        west = np.mean([last["id0"][-3:].mean(), last["id3"][-3:].mean()])
        assert row["west_market_3"] == pytest.approx(west, rel=1e-10)
        assert row["east_market_1"] == last["id2"][-1]


def with_returns(data, seed=1):
    noise = np.random.default_rng(seed).standard_normal(data.height)
    return data.with_columns(r=pl.Series(noise) * pl.col("rv").sqrt())


def test_the_leverage_of_others_is_the_mean_of_their_leverage_features():
    data = with_returns(panel())
    found = MarketLags("r", of="leverage", windows=[1, 5], variance="rv", same_date=True, max_age=60).fit_transform(
        data
    )
    own = Leverage("r", windows=[1, 5], variance="rv").fit_transform(data)
    assert found.columns[2:] == ["market_negative_1", "market_negative_5"]
    for row in found.filter(pl.col("ds") > dt.date(2024, 1, 20), pl.col("unique_id") == "id0").iter_rows(named=True):
        others = [
            own.filter((pl.col("unique_id") == name) & (pl.col("ds") <= row["ds"]))["negative_5"].to_list()[-1]
            for name in ("id1", "id2", "id3")
        ]
        assert row["market_negative_5"] == pytest.approx(np.nanmean(others), rel=1e-10)


def test_a_shock_is_a_return_in_units_of_its_volatility():
    days = [dt.date(2024, 1, d) for d in (2, 3)]
    data = pl.DataFrame(
        {"unique_id": ["a", "a", "b", "b"], "ds": days * 2, "rv": [1.0, 1.0, 4.0, 4.0], "r": [0.5, -1.0, 2.0, 6.0]}
    )
    found = MarketLags("r", of="shock", variance="rv", same_date=True).fit_transform(data)["market_shock"]
    np.testing.assert_allclose(found.to_numpy(), [1.0, 3.0, 0.5, -1.0], rtol=1e-14)
    with pytest.raises(InputError, match="name the variance column"):
        MarketLags("r", of="shock").fit_transform(data)


@pytest.mark.parametrize(
    "options",
    [
        {"of": "leverage", "column": "log_return", "same_date": True},
        {"of": "shock", "column": "log_return", "groups": {"a": ("id0", "id1"), "b": ("id2",)}},
        {
            "closes": {
                "time": "17:30",
                "zone": "Europe/Paris",
                "by_id": {"id1": {"time": "16:00", "zone": "Asia/Tokyo"}},
            }
        },
    ],
)
def test_no_way_to_take_other_ids_sees_the_future(options):
    data = with_returns(panel(days=90)).rename({"r": "log_return"})
    day = data["ds"].unique().sort()[50]
    later = pl.col("ds") > day
    spoilt = data.with_columns(
        rv=pl.when(later).then(7.0).otherwise("rv"), log_return=pl.when(later).then(-1.0).otherwise("log_return")
    )
    before, after = (
        MarketSpec(**options).transformer(column="rv", log=True).fit_transform(d).filter(~later) for d in (data, spoilt)
    )
    assert before.equals(after)
    assert np.isfinite(before.drop("unique_id", "ds").to_numpy()).mean() > 0.3


def test_a_group_without_an_id_of_the_panel_is_refused():
    with pytest.raises(InputError, match="market group 'asia' has no id of the panel"):
        MarketLags("rv", groups={"asia": [".SSEC"]}).fit_transform(panel())
