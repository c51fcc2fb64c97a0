"""The order of ids: rank IC against scipy, the corners of ties and of constant forecasts, turnover by hand."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import diebold_mariano
from ssmfin.evaluation.cross_section import CrossSection, rank_information, ranking_sentences


def predictions(y: np.ndarray, forecasts: dict[str, np.ndarray], horizon: int = 1) -> pl.DataFrame:
    """Args: y, and each forecast: (dates, ids); NaN in y: not forecast."""
    dates, ids = y.shape
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=t) for t in range(dates)]
    rows = [
        (f"id{k:03d}", days[t], horizon, model, 0, float(y[t, k]), float(f[t, k]))
        for model, f in forecasts.items()
        for t in range(dates)
        for k in range(ids)
        if np.isfinite(y[t, k])
    ]
    names = {"unique_id": pl.String, "ds": pl.Date, "horizon": pl.Int32, "model": pl.String, "seed": pl.Int64}
    return pl.DataFrame(rows, schema={**names, "y": pl.Float64, "y_hat": pl.Float64}, orient="row")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 7, 1000]))
def test_rank_ic_is_spearmans_correlation_of_each_date(seed: int, distinct: int) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    y, f = rng.standard_normal((6, 9)), rng.integers(0, distinct, (6, 9)).astype(float)
    f[:, -2:] = [0.0, 1.0]  # at least two distinct values
    y[2, :4] = np.nan
    found = rank_information(predictions(y, {"m": f}), CrossSection(groups=2, least_ids=4))
    expected = [spearmanr(f[t, ~np.isnan(y[t])], y[t, ~np.isnan(y[t])]).statistic for t in range(6)]
    expected = [value for value in expected if np.isfinite(value)]
    np.testing.assert_allclose(found.by_date["rank_ic"].to_numpy(), expected, atol=1e-12)


def test_a_perfect_order_has_one_and_the_reverse_minus_one() -> None:
    y = np.random.default_rng(0).standard_normal((60, 20))
    found = rank_information(predictions(y, {"right": 3 * y, "wrong": -y}), CrossSection(groups=10)).table
    assert found["model"].to_list() == ["right", "wrong"]
    np.testing.assert_allclose(found["rank_ic"], [1.0, -1.0], atol=1e-12)
    assert found["positive_share"].to_list() == [1.0, 0.0]
    ordered = np.sort(y, axis=1)
    spread = (ordered[:, -2:].mean(axis=1) - ordered[:, :2].mean(axis=1)).mean()
    np.testing.assert_allclose(found["spread"], [spread, -spread], rtol=1e-12)


def test_forecasts_that_do_not_differ_have_no_score() -> None:
    y = np.random.default_rng(0).standard_normal((30, 20))
    found = rank_information(predictions(y, {"zero": 0 * y, "same": y.mean(axis=1, keepdims=True) + 0 * y}))
    assert found.table["rank_ic"].null_count() == found.table["spread"].null_count() == 2
    assert found.table["dates"].to_list() == [0, 0]
    assert found.by_date.is_empty()
    assert ranking_sentences(found, "day") == ("Ranking 1 day ahead: no model's forecasts differ across ids.",)


def test_ties_at_the_border_are_held_in_part_whatever_the_names() -> None:
    """Three of four ids tie for the top place of two: each counts two thirds."""
    y = np.array([[1.0, 2.0, 4.0, 8.0]])
    f = np.array([[0.0, 1.0, 1.0, 1.0]])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        both = predictions(np.tile(y[:, order], (2, 1)), {"m": np.tile(f[:, order], (2, 1))})
        table = rank_information(both, CrossSection(groups=2, least_ids=4)).table
        top, bottom = (2.0 + 4.0 + 8.0) / 3, (1.0 + (2.0 + 4.0 + 8.0) / 3) / 2
        np.testing.assert_allclose(table["spread"][0], top - bottom, rtol=1e-12)


def test_turnover_compares_holdings_h_dates_apart() -> None:
    """The order turns round every two dates: one date on nothing is kept, two dates on nothing, four dates on all."""
    rng = np.random.default_rng(0)
    y, line = rng.standard_normal((60, 20)), np.arange(20.0)
    f = np.stack([line if (t // 2) % 2 else -line for t in range(60)])
    turnover = [
        rank_information(predictions(y, {"m": f}, horizon=h), CrossSection(groups=4)).table["turnover"][0]
        for h in (1, 2, 4)
    ]
    np.testing.assert_allclose(turnover, [29 / 59, 1.0, 0.0], atol=1e-12)


def test_the_break_even_cost_is_the_spread_over_all_that_is_traded() -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_normal((80, 40))
    row = rank_information(predictions(y, {"m": y + rng.standard_normal((80, 40))})).table.row(0, named=True)
    np.testing.assert_allclose(row["break_even_cost"], row["spread"] / (4 * row["turnover"]), rtol=1e-12)


def test_the_t_statistic_allows_for_overlap_as_all_tests_do() -> None:
    rng = np.random.default_rng(2)
    y = rng.standard_normal((300, 30))
    y = np.stack([y[max(0, t - 4) : t + 1].sum(axis=0) for t in range(300)])
    found = rank_information(predictions(y, {"m": y + 9 * rng.standard_normal((300, 30))}, horizon=5))
    test = diebold_mariano(found.by_date["rank_ic"].to_numpy(), np.zeros(300), horizon=5)
    assert found.table["t_statistic"][0] == test.statistic
    assert found.table["p_value"][0] == found.table["p_adjusted"][0] == test.p_value


def test_many_random_rankings_are_not_called_a_finding() -> None:
    rng = np.random.default_rng(3)
    y = rng.standard_normal((250, 25))
    found = rank_information(predictions(y, {f"m{i}": rng.standard_normal((250, 25)) for i in range(20)}))
    assert (found.table["p_value"] < 0.2).any()
    assert "no model orders the ids better than chance" in ranking_sentences(found, "day")[0]


def test_dates_with_few_ids_are_left_out() -> None:
    y = np.random.default_rng(4).standard_normal((30, 25))
    y[5, :10] = np.nan
    found = rank_information(predictions(y, {"m": y}), CrossSection(groups=5, least_ids=20))
    assert found.table["dates"][0] == 29
    with pytest.raises(InputError, match=r"ranks 30 ids a date or more, and the most .* is 25"):
        rank_information(predictions(y, {"m": y}), CrossSection(groups=5, least_ids=30))


@pytest.mark.parametrize("wrong", [{"groups": 1}, {"groups": 10, "least_ids": 19}])
def test_groups_of_less_than_two_ids_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="cross_section"):
        CrossSection(**wrong)
