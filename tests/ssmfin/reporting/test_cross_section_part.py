"""The report's part on the order of ids, from an evaluation in Python."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.errors import InputError

IDS, DAYS = 24, 200


def returns_panel() -> pl.DataFrame:
    """Tomorrow's return hangs on today's x, beside a market that moves all."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((DAYS, IDS))
    r = np.zeros((DAYS, IDS))
    r[1:] = 0.02 * (rng.standard_normal((DAYS - 1, 1)) + 0.3 * x[:-1] + rng.standard_normal((DAYS - 1, IDS)))
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=t) for t in range(DAYS)]
    names = np.repeat([f"id{k:02d}" for k in range(IDS)], DAYS)
    return pl.DataFrame({"unique_id": names, "ds": days * IDS, "r": r.T.ravel(), "x": x.T.ravel()})


@pytest.fixture(scope="module")
def result() -> sf.Result:
    return sf.evaluate(
        {"fama_macbeth": sf.FamaMacBeth(), "zero": sf.HistoricalMean(weight=0.0)},
        returns_panel(),
        target=sf.Target("r", (1,), transform="none", aggregate="sum"),
        folds=sf.WalkForward(train=100, validation=20, test=50),
        features={"x": {"kind": "columns", "columns": ["x"]}},
        benchmarks={"lightgbm": sf.LightGBM(max_rounds=5)},
        losses=["mse"],
        reference="zero",
        cross_section={"groups": 4, "least_ids": 20},
    )


def test_who_knows_the_order_is_found(result: sf.Result) -> None:
    assert result.ranking is not None
    best = result.ranking.row(0, named=True)
    assert best["model"] == "fama_macbeth"
    assert best["rank_ic"] > 0.2
    assert best["p_adjusted"] < 0.01
    assert result.verdict.paragraphs[0].startswith("Ranking 24 ids on 100 dates, 1 day ahead: the highest mean rank IC")
    assert "beyond chance: fama_macbeth" in result.verdict.paragraphs[0]


def test_the_report_shows_the_ranking_where_it_was_asked_for(result: sf.Result, tmp_path: Path) -> None:
    page = result.report(tmp_path / "r.html").read_text()
    assert "<h2>Ranking of ids</h2>" in page
    assert '<a href="#ranking">' in page
    assert "the top quarter of the ids less that of the bottom quarter" in page
    row = result.ranking.row(0, named=True)  # type: ignore[union-attr]
    assert f"{row['rank_ic']:.4f}" in page


def test_without_it_there_is_no_ranking_and_no_link(tmp_path: Path) -> None:
    plain = sf.evaluate(
        {},
        returns_panel().filter(pl.col("unique_id") < "id03"),
        target=sf.Target("r", (1,), transform="none"),
        folds=sf.WalkForward(train=100, validation=20, test=50),
        benchmarks={"lightgbm": sf.LightGBM(max_rounds=5)},
        losses=["mse"],
        reference="har",
    )
    assert plain.ranking is None
    assert "#ranking" not in plain.report(tmp_path / "r.html").read_text()


def test_too_few_ids_are_refused_with_what_to_change() -> None:
    with pytest.raises(InputError, match=r"the most that were forecast on one date is 3; lower cross_section"):
        sf.evaluate(
            {},
            returns_panel().filter(pl.col("unique_id") < "id03"),
            target=sf.Target("r", (1,), transform="none"),
            folds=sf.WalkForward(train=100, validation=20, test=50),
            benchmarks={"lightgbm": sf.LightGBM(max_rounds=5)},
            losses=["mse"],
            reference="har",
            cross_section={},
        )
