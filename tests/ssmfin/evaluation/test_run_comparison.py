"""A comparison of runs says better or worse only where a test of the same rows does, and names what it left out."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.evaluation.claims import Combinations
from ssmfin.evaluation.common_rows import RunForecasts, combinations_under, common_rows, named_models
from ssmfin.evaluation.comparison import diebold_mariano, holm
from ssmfin.evaluation.judging import Scoring
from ssmfin.evaluation.leaderboard import loss_panel
from ssmfin.evaluation.run_comparison import RunComparison, compare_forecasts

FAMILIES = {"log_har": "baseline", "har": "baseline", "ridge": "baseline", "s4d": "ssm", "extra": "custom"}
SCORING = Scoring(("qlike", "mse"), "log_har", 0.1)
N = 200


def forecasts(
    errors: dict[str, float],
    *,
    n: int = N,
    ids: tuple[str, ...] = ("A",),
    horizons: tuple[int, ...] = (1, 5),
    draws: dict[str, int] | None = None,
    skip: int = 0,
) -> pl.DataFrame:
    """Log forecasts that err by a standard deviation; a model with the same error and draw forecasts the same."""
    days = [dt.date(2010, 1, 1) + dt.timedelta(days=i) for i in range(n)]
    frames = []
    for k, unique_id in enumerate(ids):
        for h in horizons:
            y = np.exp(np.random.default_rng([k, h]).standard_normal(n))
            for model, error in errors.items():
                rng = np.random.default_rng([k, h, list(FAMILIES).index(model) if draws is None else draws[model], 7])
                frames.append(
                    pl.DataFrame(
                        {
                            "unique_id": [unique_id] * n,
                            "ds": days,
                            "horizon": pl.Series([h] * n, dtype=pl.Int32),
                            "model": [model] * n,
                            "seed": [0] * n,
                            "y": y,
                            "y_hat": y * np.exp(error * rng.standard_normal(n)),
                        }
                    )[skip:]
                )
    return pl.concat(frames)


def run(label: str, errors: dict[str, float], *, target: dict[str, Any] | None = None, **about: Any) -> RunForecasts:
    predictions = forecasts(errors, **about)
    horizons = sorted(predictions["horizon"].unique().to_list())
    given = {"column": "rv", "aggregate": "mean", "horizons": horizons, **(target or {})}
    return RunForecasts(label, predictions, given, {model: FAMILIES[model] for model in errors})


BASE = {"log_har": 0.5, "har": 0.6, "ridge": 0.5, "s4d": 0.5}


def compared(*runs: RunForecasts, scoring: Scoring = SCORING) -> RunComparison:
    return compare_forecasts(runs, scoring)


def test_every_change_is_the_ratio_and_the_test_of_the_two_losses_corrected_together() -> None:
    first, second = run("a", BASE), run("b", {**BASE, "ridge": 0.3, "s4d": 0.8})
    found = compared(first, second)
    changes = found.changes
    assert set(changes["model"]) == {"ridge", "s4d"}  # the others forecast the same
    assert changes["against"].unique().to_list() == ["a"]
    panels = [loss_panel(each.predictions, "qlike") for each in (first, second)]
    p_values = []
    for row in changes.iter_rows(named=True):
        own = (pl.col("horizon") == row["horizon"]) & (pl.col("model") == row["model"])
        base, mine = (panel.filter(own)["value"].to_numpy() for panel in panels)
        test = diebold_mariano(mine, base, horizon=row["horizon"])
        assert row["ratio"] == pytest.approx(mine.mean() / base.mean(), rel=1e-12)
        assert row["dm_statistic"] == pytest.approx(test.statistic, rel=1e-9)
        assert row["dm_p_value"] == pytest.approx(test.p_value, rel=1e-9)
        p_values.append(row["dm_p_value"])
    np.testing.assert_allclose(changes["p_holm"], holm(np.array(p_values)), rtol=1e-12)
    assert found.tested == 4
    for row in changes.iter_rows(named=True):
        assert row["better"] == (row["ratio"] < 1 and row["p_holm"] < 0.05)
        assert row["worse"] == (row["ratio"] > 1 and row["p_holm"] < 0.05)
    ratios = {(row["model"], row["horizon"]): row["ratio"] for row in changes.iter_rows(named=True)}
    sizes = [f"{(1 - ratios['ridge', h]) * 100:.1f} %" for h in (1, 5)]
    assert found.headline.startswith(
        f"Better in b than in a: ridge at 1 and 5 days ({', '.join(sizes)}). Worse: s4d at "
    )
    assert "The same forecasts in a and b: log_har and har." in found.paragraphs
    assert any("Holm's correction for the 4 comparisons made" in text for text in found.paragraphs)
    assert "s4d depends on its seeds (1 in a, 1 in b): the test is of these forecasts, other seeds give others." in (
        found.paragraphs
    )


def test_chance_is_called_chance() -> None:
    draws = dict.fromkeys(BASE, 0) | {model: number for number, model in enumerate(BASE)}
    found = compared(run("a", BASE, draws=draws), run("b", BASE, draws={**draws, "ridge": 31, "s4d": 32}))
    assert found.changes["dm_p_value"].min() > 0.05  # type: ignore[operator]
    assert found.headline == "No model is better or worse in b than in a beyond chance."
    assert found.paragraphs[0] == "All 4 differences could be chance even without a correction for many comparisons."


def test_false_changes_are_rare_when_nothing_changed() -> None:
    said = 0
    for seed in range(40):
        draws = {model: 100 * seed + number for number, model in enumerate(BASE)}
        later = {model: draw + 50 for model, draw in draws.items()}
        found = compared(
            run("a", BASE, draws=draws, horizons=(1, 2)),
            run("b", BASE, draws=later, horizons=(1, 2)),
            scoring=Scoring(("mae",), "log_har", 0.1),
        )
        said += "beyond chance" not in found.headline
    assert said <= 5  # nominally at most 2 of 40 by Holm over eight comparisons


def test_too_few_periods_are_no_ground_for_a_change() -> None:
    found = compared(run("a", BASE, n=120, horizons=(5,)), run("b", {**BASE, "ridge": 0.05}, n=120, horizons=(5,)))
    (row,) = found.changes.iter_rows(named=True)
    assert row["p_holm"] < 0.05
    assert not row["better"]
    assert "beyond chance" in found.headline
    assert any("on too few dates to rely on" in text and "24 separate stretches" in text for text in found.paragraphs)


def test_no_test_is_said_with_its_reason() -> None:
    found = compared(run("a", BASE, n=15, horizons=(1,)), run("b", {**BASE, "ridge": 0.1}, n=15, horizons=(1,)))
    assert found.changes["dm_p_value"].null_count() == found.changes.height == 1
    assert found.headline.startswith("Whether b differs from a cannot be tested: 15 dates are too few")
    assert found.tested == 0


def test_the_same_forecasts_everywhere_are_no_change() -> None:
    found = compared(run("a", BASE), run("b", BASE))
    assert found.changes.is_empty()
    assert found.headline == "The models of a forecast the same in b."
    assert {standing.runs for standing in found.standings()} == {"both"}


def test_numbers_are_of_the_common_rows_alone_and_the_rest_is_told() -> None:
    first = run("a", BASE, ids=("A", "B"), horizons=(1, 5))
    second = run("b", {**BASE, "ridge": 0.3}, ids=("A",), horizons=(1,), skip=30)
    found = compared(first, second)
    assert found.rows == N - 30
    assert found.horizons == [1]
    assert len(found.dates) == N - 30
    left = {each.run: each for each in found.left_out}
    assert (left["a"].rows, left["a"].left_out) == (4 * N, 3 * N + 30)
    assert left["a"].why == "400 at horizon 5; 200 of ids B; 30 at 30 origins from 2010-01-01 to 2010-01-30"
    assert left["b"].left_out == 0
    own = [each.predictions.filter(horizon=1, unique_id="A")[30 if each is first else 0 :] for each in (first, second)]
    ridge = [frame.filter(pl.col("model") == "ridge", pl.col("ds") >= dt.date(2010, 1, 31)) for frame in own]
    base, mine = (loss_panel(frame, "qlike")["value"].mean() for frame in ridge)
    assert found.changes["ratio"][0] == pytest.approx(mine / base)  # type: ignore[operator]


def test_models_of_one_run_alone_are_named_and_ranked_but_not_tested() -> None:
    found = compared(run("a", BASE), run("b", {**BASE, "extra": 0.4}))
    assert "In b but not in a: extra." in " ".join(found.paragraphs) + found.headline
    assert found.changes.is_empty()
    assert found.models["extra"] == (("b", "extra"),)
    assert "extra" in set(found.leaderboard["model"])


def test_a_way_of_forecasting_that_runs_share_is_one_model_and_one_test() -> None:
    changed = {**BASE, "ridge": 0.3}
    found = compared(run("a", BASE), run("b", changed), run("c", changed))
    assert found.models["a:ridge"] == (("a", "ridge"),)
    assert found.models["b:ridge"] == (("b", "ridge"), ("c", "ridge"))
    assert found.models["har"] == (("a", "har"), ("b", "har"), ("c", "har"))
    assert found.changes["run"].to_list() == ["b", "c", "b", "c"]
    assert found.tested == 2
    np.testing.assert_allclose(
        sorted(found.changes["p_holm"].to_list()),
        sorted(np.repeat(holm(found.changes.filter(run="b")["dm_p_value"].to_numpy()), 2)),
    )
    rows = {standing.name: standing.runs for standing in found.standings()}
    assert rows["b:ridge"] == "all but a"
    assert rows["har"] == "all"


def test_standings_keep_the_runs_of_a_model_together_best_model_first() -> None:
    found = compared(run("a", BASE), run("b", {**BASE, "ridge": 0.2, "s4d": 0.9}))
    names = [standing.name for standing in found.standings()]
    assert names[:2] == ["a:ridge", "b:ridge"]
    assert names.index("b:s4d") == names.index("a:s4d") + 1
    assert found.reference == "log_har"
    other = compared(run("a", BASE), run("b", {**BASE, "log_har": 0.2}))
    assert other.reference == "log_har in a"
    assert other.scores.reference == "a:log_har"


def test_the_order_of_the_runs_turns_the_ratios_round() -> None:
    first, second = run("a", BASE), run("b", {**BASE, "ridge": 0.3})
    there, back = compared(first, second).changes, compared(second, first).changes
    np.testing.assert_allclose(there["ratio"] * back["ratio"], 1.0)
    np.testing.assert_allclose(there["p_holm"], back["p_holm"])
    assert there["better"].to_list() == back["worse"].to_list()


def test_series_are_counted_where_there_are_several() -> None:
    ids = tuple("ABC")
    found = compared(run("a", BASE, ids=ids), run("b", {**BASE, "ridge": 0.3}, ids=ids))
    assert re.search(r"at 1 day \d+\.\d % lower, lower in 3 of 3 series \(p < 0\.001\)", " ".join(found.paragraphs))


def test_an_infinite_loss_is_no_comparison() -> None:
    first, second = run("a", BASE), run("b", {**BASE, "ridge": 0.3})
    bad = (pl.col("model") == "ridge") & (pl.col("ds") == dt.date(2010, 2, 1))
    broken = second.predictions.with_columns(pl.when(bad).then(-1.0).otherwise("y_hat").alias("y_hat"))
    found = compared(first, RunForecasts("b", broken, second.target, second.families))
    assert found.changes["reason"].unique().to_list() == ["a loss is infinite"]
    assert not found.changes["better"].any()
    assert not found.changes["worse"].any()
    assert any("b:ridge has an infinite QLIKE" in note for note in found.scores.notes)


def test_a_model_that_lacks_forecasts_is_not_called_the_same() -> None:
    first, second = run("a", BASE), run("b", {**BASE, "ridge": 0.3})
    lost = second.predictions.remove((pl.col("model") == "ridge") & (pl.col("ds") > dt.date(2010, 5, 1)))
    found = compared(first, RunForecasts("b", lost, second.target, second.families))
    assert found.headline == "What changed from a to b cannot be compared: ridge lacks forecasts."
    assert any(note.startswith("Left out: b:ridge, which has ") for note in found.scores.notes)
    assert found.changes.is_empty()


def test_what_cannot_be_compared_is_refused() -> None:
    first = run("a", BASE)
    for other, said in (
        (run("b", BASE, target={"column": "vol"}), "target.column is 'rv' in a and 'vol' in b"),
        (run("b", BASE, target={"aggregate": "sum"}), "target.aggregate is 'mean' in a and 'sum' in b"),
        (run("b", BASE, horizons=(2,)), r"target.horizons are \[1, 5\] in a and \[2\] in b, with none in common"),
        (run("b", BASE, ids=("Z",)), r"no row .* in common, a: 1 ids, .*; b: 1 ids"),
        (run("a", BASE), "labelled alike, a, a"),
    ):
        with pytest.raises(InputError, match=said):
            compared(first, other)
    with pytest.raises(InputError, match="two runs or more, 1 given"):
        compared(first)
    with pytest.raises(InputError, match="the reference 'har' of b has no forecasts there"):
        compared(run("b", {"log_har": 0.5}), first, scoring=Scoring(("mse",), "har", 0.1))


def test_combinations_are_known_under_the_names_of_the_comparison() -> None:
    combined = Combinations({"mix": ("s4d", "ridge")}, {"mix": "ridge"})
    a = RunForecasts("a", pl.DataFrame(), {}, {}, combined=combined)
    b = RunForecasts("b", pl.DataFrame(), {}, {})
    origins = {"ridge": (("a", "ridge"), ("b", "ridge")), "a:s4d": (("a", "s4d"),), "a:mix": (("a", "mix"),)}
    found = combinations_under([a, b], origins)
    assert found.members == {"a:mix": ("a:s4d", "ridge")}
    assert found.without == {"a:mix": "ridge"}


def test_rounding_is_no_other_way_of_forecasting() -> None:
    first = run("a", BASE)
    for factor, alike in ((1 + 1e-12, True), (1 + 1e-6, False)):
        changed = first.predictions.with_columns(pl.col("y_hat") * factor)
        other = RunForecasts("b", changed, first.target, first.families)
        common, left = common_rows([first, other])
        assert math.isclose(sum(each.left_out for each in left), 0)
        assert ("har" in named_models([first, other], common)[1]) == alike
