"""Every study of configs/ says what it asks and how long it takes, is valid as it is, and runs on a cut of its data.

The data that a study expects are used where they lie beside the project, and otherwise made up in the same columns. The
cut has a few hundred dates and few ids, networks see it once, trees are few: tested is that the whole study runs.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssmfin.models.registry import KINDS, forecaster_class
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.study import Study, read_study

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
CONFIGS = sorted((ROOT / "configs").glob("**/*.yaml"))
DAYS = 330
INDICES = (".DJI", ".FTSE", ".GDAXI", ".KSE", ".SPX", ".SSEC")  # two of each region
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)


def weekdays(count: int, start: dt.date = dt.date(2018, 1, 1)) -> list[dt.date]:
    days = [start + dt.timedelta(days=t) for t in range(2 * count)]
    return [day for day in days if day.weekday() < 5][:count]


def variances(days: int, ids: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(days, ids) persistent variances and returns that have them."""
    rng = np.random.default_rng(seed)
    level = np.zeros((days, ids))
    for t in range(1, days):
        level[t] = 0.95 * level[t - 1] + 0.3 * rng.standard_normal(ids)
    variance = np.exp(level - 9.2)
    return variance, np.sqrt(variance) * rng.standard_normal((days, ids))


def last_days(frame: pl.DataFrame, date: str, count: int = DAYS) -> pl.DataFrame:
    return frame.filter(pl.col(date) >= frame[date].unique().sort()[-count])


def oxford(folder: Path) -> list[str]:
    """Six of 21 indices."""
    path = SHARED / "oxford_rv5_panel21.parquet"
    if path.exists():
        frame = pl.read_parquet(path)
        frame = last_days(frame.filter(pl.col("symbol").is_in(INDICES)), "date")
    else:
        variance, returns = variances(DAYS, len(INDICES))
        frame = pl.DataFrame(
            {
                "date": weekdays(DAYS) * len(INDICES),
                "symbol": np.repeat(INDICES, DAYS),
                "rv5": variance.T.ravel(),
                "ret_cc": returns.T.ravel(),
            }
        )
    frame.write_parquet(folder / "panel.parquet")
    return [f"data.source.path={folder / 'panel.parquet'}"]


def measures(folder: Path) -> list[str]:
    """A panel as `ssmfin measures` writes it."""
    rng = np.random.default_rng(1)
    variance, returns = variances(DAYS, 1)
    rv, share = variance[:, 0], rng.beta(8, 2, size=(3, DAYS))
    pl.DataFrame(
        {
            "unique_id": ["spy"] * DAYS,
            "ds": weekdays(DAYS),
            "rv": rv,
            "bv": rv * share[0],
            "rq": rv**2 * (1 + share[1]),
            "rs_pos": rv * share[2],
            "rs_neg": rv * (1 - share[2]),
            "log_return": returns[:, 0],
        }
    ).write_parquet(folder / "rv.parquet")
    return [f"data.source.path={folder / 'rv.parquet'}"]


def bars(folder: Path) -> list[str]:
    """One-minute bars in New York; five-minute ones where they are made up."""
    path = SHARED / "spy_bars_1min.parquet"
    (folder / "bars").mkdir()
    if path.exists():
        frame = last_days(pl.read_parquet(path).with_columns(day=pl.col("timestamp").dt.date()), "day", 660)
        frame = frame.select("timestamp", symbol=pl.lit("SPY"), close="price")
    else:
        rng = np.random.default_rng(2)
        opens = [dt.datetime.combine(day, dt.time(9, 30)) for day in weekdays(DAYS)]
        stamps = [moment + dt.timedelta(minutes=5 * i) for moment in opens for i in range(78)]
        close = 100 * np.exp(np.cumsum(0.001 * rng.standard_normal(len(stamps))))
        frame = pl.DataFrame({"symbol": "SPY", "timestamp": stamps, "close": close})
    frame.write_parquet(folder / "bars/spy.parquet")
    return [f"data.source.path={folder / 'bars/*.parquet'}", "data.measures.cache=false"]


def equities(folder: Path) -> list[str]:
    """Daily prices of 24 stocks, some days inconsistent, as in the file."""
    path = SHARED / "us_equities100_ohlcv_day.parquet"
    if path.exists():
        frame = pl.read_parquet(path).with_columns(pl.col("symbol").cast(pl.String))
        some = frame["symbol"].unique().sort()[:24].to_list()
        frame = last_days(frame.filter(pl.col("symbol").is_in(some)), "date", 600)
    else:
        variance, returns = variances(600, 24)
        close = 50 * np.exp(np.cumsum(returns, axis=0)).T.ravel()
        swing = np.exp(np.sqrt(variance)).T.ravel()
        frame = pl.DataFrame(
            {
                "symbol": np.repeat([f"S{k:02d}" for k in range(24)], 600),
                "date": weekdays(600) * 24,
                "open": close,
                "high": close * swing,
                "low": np.where(np.arange(len(close)) % 997 == 5, close * swing * 2, close / swing),
                "close": close,
                "volume": 1e6,
            }
        )
    frame.write_parquet(folder / "equities.parquet")
    return [f"data.source.path={folder / 'equities.parquet'}", "evaluate.cross_section.least_ids=20"]


def embedded(folder: Path) -> list[str]:
    return ["data.start=2016-01-01", "data.end=2017-06-30"]


# by what stands in data.source.path ("": the embedded data); a study on other data has to join here
DATA: dict[str, Callable[[Path], list[str]]] = {
    "": embedded,
    "oxford_rv5_panel21.parquet": oxford,
    "rv.parquet": measures,
    "bars/*.parquet": bars,
    "us_equities100_ohlcv_day.parquet": equities,
}


def source_of(study: Study) -> str:
    path = getattr(study.data.source, "path", ("",))
    return str(path[0] if isinstance(path, tuple) else path)


def quick(study: Study) -> list[str]:
    """Windows for a few hundred dates, one epoch, few trees; what the study asks stays as it is."""
    sets = [
        "walk_forward.train.size=150",
        "walk_forward.validation.size=30",
        "walk_forward.test.size=90",
        "benchmarks.lightgbm.max_rounds=5",
    ]
    if study.walk_forward.train.min_rows is not None:
        sets.append("walk_forward.train.min_rows=75")
    for part in ("models", "benchmarks"):
        for name, entry in getattr(study, part).items():
            fields: dict[str, Any] = forecaster_class(entry.kind).model_fields if entry.kind in KINDS else {}
            if "epochs" in fields:
                sets += [f"{part}.{name}.epochs=1", f"{part}.{name}.seeds=[0]"]
            if entry.parameters.get("train_windows"):
                sets.append(f"{part}.{name}.train_windows=[75, all]")
            if entry.kind == "lightgbm" and name != "lightgbm":
                sets.append(f"{part}.{name}.max_rounds=5")
    return sets


@every_config
def test_it_is_valid_as_it_stands(config: Path) -> None:
    assert main(["validate", str(config)]) == 0


@every_config
def test_it_begins_with_its_question_its_runtime_and_its_command(config: Path) -> None:
    lines = config.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])
    assert "?" in comment.partition(".")[0] + comment[:200]
    assert re.search(r"\b(second|minute|hour)s?\b", comment)
    assert f"ssmfin run {config.relative_to(ROOT)}" in comment


@every_config
def test_it_runs_on_a_cut_of_its_data(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(config)
    assert source_of(study) in DATA, f"add data for {source_of(study)!r} to DATA"
    fixed = [f"output.directory={tmp_path / 'runs'}", "execution.backend=inline"]
    overrides = [*fixed, *quick(study), *DATA[source_of(study)](tmp_path)]
    assert main(["run", str(config), *(part for item in overrides for part in ("--set", item))]) == 0
    capsys.readouterr()
    (run,) = (tmp_path / "runs").iterdir()
    board = pl.read_parquet(run / "leaderboard.parquet")
    positive = study.target.transform == "log" or study.target.column != "log_return"
    expected = {name for name in study.entries if positive or name != "log_har"}
    assert set(board["model"]) == expected
    assert sorted(set(board["horizon"])) == list(study.target.horizons)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert ("<h2>Ranking of ids</h2>" in page) == (study.evaluate.cross_section is not None)
    if study.evaluate.cross_section is not None:
        ranking = pl.read_parquet(run / "ranking.parquet")
        assert ranking.filter(pl.col("model") == "fama_macbeth")["rank_ic"].is_not_null().all()
        (run / "ranking.parquet").unlink()
        assert main(["run", str(config), *(part for item in overrides for part in ("--set", item))]) == 0
        assert pl.read_parquet(run / "ranking.parquet").equals(ranking)
