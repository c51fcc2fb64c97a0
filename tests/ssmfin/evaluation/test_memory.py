"""The memory of fits as a table: known answers, rows and days, seeds and tasks in one order."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.evaluation.memory import LEVELS, memory_of_fit, merged_memory, rows_per_day
from ssmfin.models.interface import Design, LayerMemory, Memory, Target, TrainingSet, Window


def training(dates: np.ndarray, *, ids: int = 1, start: int = 0) -> TrainingSet:
    """Rows of some ids at each of the dates, nothing else of which matters here."""
    n, T = ids * len(dates), len(dates)
    design = Design(
        target=Target("rv", (1,)),
        ids=tuple(f"id{k}" for k in range(ids)),
        dates=dates,
        id_index=np.repeat(np.arange(ids), T),
        date_index=np.tile(np.arange(T), ids),
        starts=np.arange(ids + 1) * T,
        observed=np.ones(n),
        lag_means=np.ones((n, 3)),
        features=np.ones((n, 1)),
        feature_names=("x",),
        labels=np.ones((n, 1)),
        label_known=np.full((n, 1), T),
        columns={},
    )
    window = Window(start, T - 1, T - 1, T - 1, T - 1, np.empty(0, dtype=np.int64))
    return TrainingSet.of(design, window)


DAYS = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]")


def test_known_answers() -> None:
    """A network that forgets nine tenths with each row, and a layer of a hundred modes with half-lives 1 .. 100."""
    scales = np.arange(1.0, 101.0).reshape(10, 10) / math.log(2.0)
    memory = Memory([LayerMemory(0, 0, True, scales)], 10.0 ** -np.arange(5.0))
    table = memory_of_fit(memory, training(DAYS), model="s4d", seed=3, fit=2)
    used, modes = table.filter(kind="used"), table.filter(kind="modes")
    assert used["level"].to_list() == modes["level"].to_list() == list(LEVELS)
    assert used["rows"].to_list() == [1, 1, 1, 1, 2]  # .9 of it is the newest row
    assert modes["rows"].to_list() == pytest.approx([5, 25, 50, 75, 95])
    assert used["layer"].null_count() == len(used)
    assert modes["layer"].unique().to_list() == [0]
    assert table.select(pl.col("model", "seed", "fit", "cutoff").unique()).row(0) == ("s4d", 3, 2, DAYS[-1].item())


def test_networks_that_learned_stand_apart_and_nothing_learned_is_nothing_used() -> None:
    layers = [LayerMemory(k, 0, k == 1, np.full((2, 2), 10.0 + k)) for k in range(3)]
    table = memory_of_fit(Memory(layers, np.zeros(8)), training(DAYS), model="s4d", seed=0, fit=0)
    assert table["kind"].unique().to_list() == ["modes"]
    halves = dict(table.filter(level=0.5).select("learned", "rows").iter_rows())
    assert halves == pytest.approx({True: 11 * math.log(2), False: 10 * math.log(2)})


def test_days_are_counted_where_a_day_has_many_rows() -> None:
    minutes = (DAYS[:20, None] + np.arange(0, 24 * 60, 180).astype("timedelta64[m]")).ravel()  # eight rows a day
    intraday = training(minutes.astype("datetime64[us]"), ids=2, start=40)
    assert rows_per_day(intraday) == 8
    assert rows_per_day(training(DAYS, ids=3)) == 1
    memory = Memory([], np.ones(64))
    table = memory_of_fit(memory, intraday, model="gru", seed=0, fit=0)
    half = table.filter(level=0.5).row(0, named=True)
    assert (half["rows"], half["days"]) == (32, 4)


def test_tasks_in_any_order_make_the_same_table() -> None:
    memory = Memory([LayerMemory(0, 0, True, np.ones((1, 2)))], np.ones(3))
    parts = [
        memory_of_fit(memory, training(DAYS), model="s4d", seed=seed, fit=fit) for seed in (0, 1) for fit in (0, 1)
    ]
    assert merged_memory(parts).equals(merged_memory(parts[::-1]))
    assert merged_memory([]) is None


@pytest.fixture(scope="module")
def result() -> sf.Result:
    from ssmfin.data.synthetic import simulate_volatility_panel

    panel = simulate_volatility_panel(ids=2, dates=420, seed=1).frame
    small = {"layers": 1, "width": 4, "segment": 64, "context": 16, "device": "cpu", "epochs": 2}
    return sf.evaluate(
        {
            "s4d": sf.ModelEntry(sf.S4D(**small, early_stopping=False), seeds=(0, 1), refit=2),
            "stayed": sf.S4D(**small | {"epochs": 0}),
            "tcn": sf.TCN(**small, early_stopping=False),
        },
        panel,
        target="rv",
        folds=sf.WalkForward(train=300, validation=60, test=30, horizons=[1]),
        benchmarks={"lightgbm": sf.LightGBM(max_rounds=3)},
    )


def test_an_evaluation_keeps_the_memory_of_every_fit(result) -> None:
    folds = len(result.experiment.folds)
    fits = result.memory.group_by("model", "seed").agg(pl.col("fit").n_unique())
    assert {row[:2]: row[2] for row in fits.iter_rows()} == {
        ("s4d", 0): -(-folds // 2),
        ("s4d", 1): -(-folds // 2),
        ("stayed", 0): folds,
        ("tcn", 0): folds,
    }
    kinds = {name: set(part["kind"]) for (name,), part in result.memory.group_by("model")}
    assert kinds == {"s4d": {"used", "modes"}, "stayed": {"modes"}, "tcn": {"used"}}
    cutoffs = [result.experiment.design.dates[fold.cutoff].item() for fold in result.experiment.folds]
    assert result.memory.filter(model="tcn")["cutoff"].unique().sort().to_list() == cutoffs
    assert replace(result, memory=None).memory is None


def test_the_report_shows_it(result, tmp_path) -> None:
    page = result.report(tmp_path / "r.html").read_text()
    assert '<section id="memory">' in page
    assert '<a href="#memory">' in page
    date = str(result.memory.filter(model="tcn")["cutoff"].max())[:10]
    for words in ("hold half, and 95 %, of the effect of the past", "last that learned", date):
        assert words in page
    for jargon in ("hangs on", "draws anew", "middle mode"):
        assert jargon not in page
    folds = len(result.experiment.folds)
    assert f"{folds} of {folds} fits learned nothing" in page
    without = replace(result, memory=None).report(tmp_path / "w.html").read_text()
    assert 'id="memory"' not in without


def test_the_table_is_of_the_last_fit_that_learned_and_the_plot_has_a_unit() -> None:
    """Three fits, the last of which learned nothing: its modes must not stand beside what the second one uses."""
    from matplotlib.figure import Figure

    from ssmfin.reporting.memory import _draw_with_unit, _table, over_fits
    from ssmfin.reporting.style import model_styles

    def fit(number: int, scale: float, learned: bool) -> pl.DataFrame:
        memory = Memory(
            [LayerMemory(0, 0, learned, np.full((2, 2), scale / math.log(2)))], learned * np.ones(number + 4)
        )
        return memory_of_fit(memory, training(DAYS[: 30 + number]), model="s4d", seed=0, fit=number)

    fits = over_fits(pl.concat([fit(0, 10.0, True), fit(1, 20.0, True), fit(2, 30.0, False)]))
    styles = model_styles(["s4d"], {"s4d": "ssm"}, "s4d")
    table = _table({"s4d": fits}, styles, "day")
    assert table.caption.endswith(f"by the last fit that learned, of {DAYS[30]}")
    assert [cell.text for cell in table.head[0]][1:] == [
        "fits that learned",
        "half within",
        "95 % within",
        "each layer forgets half within",
    ]
    assert [cell.text for cell in table.body[0]][1:] == ["2 of 3", "3", "5", "20"]
    nothing = _table({"s4d": over_fits(fit(2, 30.0, False))}, styles, "day")
    assert [cell.text for cell in nothing.body[0]][1:] == ["0 of 1", "–", "–", "–"]
    axes = Figure().add_subplot()
    _draw_with_unit(axes, fits, "days")
    assert axes.get_ylabel() == "days"
