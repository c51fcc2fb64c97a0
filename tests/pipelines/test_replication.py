"""The studies of configs/replication regenerate the literature's table: ratios of losses to the HAR, at 1, 5, 22 days.

On two panels, shortened so that each takes seconds: an index library's measures, and measures of our own from minute
bars. What is asserted is what the literature agrees on: models in logs beat the same models in levels, and quarticity
helps at one day.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin_pipelines.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs/replication"
OXFORD = ROOT.parent / "shared/data/oxford_spx_measures.parquet"
BARS = ROOT.parent / "shared/data/spy_bars_1min.parquet"
WINDOWS = ("rolling", "expanding")
IN_LOGS = {"log_har": "har", "log_har_j": "har_j", "log_char": "char", "log_shar": "shar"}
LEVELS = ("har", "har_j", "char", "shar", "har_averaged")
# refits less often than every day, for every model
QUICK = ["benchmarks.lightgbm.refit=100", "benchmarks.garch.refit=100"]

needs_oxford = pytest.mark.skipif(not OXFORD.exists(), reason=f"{OXFORD.name} is not beside the project")
needs_bars = pytest.mark.skipif(not BARS.exists(), reason=f"{BARS.name} is not beside the project")


def table(window: str, folder: Path, *overrides: str) -> dict[tuple[str, str, int], float]:
    """(loss, model, horizon) -> ratio to the HAR, by `ssmfin run`."""
    fixed = [
        f"data.source.path={folder / 'rv.parquet'}",
        f"output.directory={folder / 'runs'}",
        "output.report=none",
        "execution.backend=inline",
    ]
    sets = [part for item in (*fixed, *QUICK, *overrides) for part in ("--set", item)]
    assert main(["run", str(CONFIGS / f"har_family_{window}.yaml"), *sets]) == 0
    (board,) = (folder / "runs").glob(f"har-family-{window}-*/leaderboard.parquet")
    columns = ("loss", "model", "horizon", "ratio_to_reference")
    return {(loss, model, h): ratio for loss, model, h, ratio in pl.read_parquet(board).select(columns).iter_rows()}


@pytest.fixture(scope="module", params=WINDOWS)
def oxford(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """S&P 500, 2010 to 2019: four years to train on, six scored; a refit a month."""
    folder = tmp_path_factory.mktemp("oxford")
    measures = pl.read_parquet(OXFORD).sort("date")
    measures.select(
        unique_id="symbol",
        ds=pl.col("date").dt.date(),
        rv="rv5",
        bv="bv",
        rs_neg="rsv",
        rs_pos=pl.col("rv5") - pl.col("rsv"),
        log_return=pl.col("close_price").log().diff(),
    ).filter(pl.col("rs_pos") > 0, pl.col("log_return").is_not_null()).write_parquet(folder / "rv.parquet")
    return table(
        request.param,
        folder,
        "data.start=2010-01-01",
        "walk_forward.test.size=21",
        "models.harq=null",
        "models.harq_f=null",  # the library has no quarticity
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measures of SPY, 2019 to 2021, by `ssmfin measures`."""
    folder = tmp_path_factory.mktemp("measured")
    chosen = "rv,bv,rq,tpq,rs_pos,rs_neg,jump,continuous"
    arguments = ["measures", str(BARS), "-o", str(folder / "rv.parquet"), "--calendar", "XNYS", "--no-cache"]
    assert main([*arguments, "--column", "close=price", "--estimators", chosen]) == 0
    return folder


@pytest.fixture(scope="module", params=WINDOWS)
def spy(request: pytest.FixtureRequest, measured: Path) -> dict:
    """About 400 usable days: 150 to train on, a refit a week; the crash of March 2020 is scored."""
    return table(
        request.param,
        measured,
        "data.on_breach=drop",
        "walk_forward.train.size=150",
        "walk_forward.validation.size=25",
        "walk_forward.test.size=5",
        "models.har_averaged.train_windows=[75, all]",
        "models.har_cj.kind=har_cj",
    )


def expect_members(ratios: dict, members: set[str]) -> None:
    """Every member has finite ratios by both losses at all horizons; the HAR's are exactly one."""
    for loss in ("qlike", "mse"):
        for horizon in (1, 5, 22):
            found = {model: ratio for (own, model, h), ratio in ratios.items() if (own, h) == (loss, horizon)}
            assert members <= set(found)
            assert found["har"] == 1.0
            assert all(np.isfinite(found[name]) and found[name] > 0 for name in members)


@needs_oxford
def test_every_member_stands_in_the_table_of_an_index(oxford: dict) -> None:
    expect_members(oxford, {*LEVELS, *IN_LOGS, "random_walk", "garch"})


@needs_oxford
@pytest.mark.parametrize("horizon", [1, 5, 22])
def test_logs_beat_levels_on_an_index(oxford: dict, horizon: int) -> None:
    """Published for the S&P 500 of 1997 to 2013, one day: QLIKE .893, MSE .790 of the HAR's."""
    for logs, levels in IN_LOGS.items():
        assert oxford["qlike", logs, horizon] < oxford["qlike", levels, horizon]
    assert oxford["qlike", "log_har", horizon] < 0.95
    assert oxford["mse", "log_har", horizon] < 1.0


@needs_oxford
def test_the_last_value_is_no_forecast_of_a_month(oxford: dict) -> None:
    assert oxford["qlike", "random_walk", 22] > 1.5
    assert oxford["mse", "random_walk", 22] > 1.5


@needs_bars
def test_every_member_stands_in_the_table_of_measures_from_bars(spy: dict) -> None:
    expect_members(spy, {*LEVELS, *IN_LOGS, "harq", "harq_f", "har_cj", "random_walk", "garch"})


@needs_bars
@pytest.mark.parametrize("horizon", [1, 5])
def test_logs_beat_levels_on_measures_from_bars(spy: dict, horizon: int) -> None:
    """Not at 22 days, where 150 days around the crash of 2020 tell a line in logs too little."""
    for logs, levels in IN_LOGS.items():
        assert spy["qlike", logs, horizon] < spy["qlike", levels, horizon]
        assert spy["mse", logs, horizon] < spy["mse", levels, horizon]


@needs_bars
def test_quarticity_helps_at_one_day(spy: dict) -> None:
    """Published, rolling: MSE .827 of the HAR's."""
    assert spy["mse", "harq", 1] < 1.0
    assert spy["qlike", "harq", 1] < 1.0
