"""The page of a comparison shows every number of it, colours only what is beyond chance, and needs no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import polars as pl
import pytest

from ssmfin.evaluation.common_rows import RunForecasts
from ssmfin.evaluation.judging import Scoring
from ssmfin.evaluation.run_comparison import RunComparison, compare_forecasts
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.run_comparison import ComparedRun, render_comparison
from ssmfin.reporting.style import p_text, ratio_text

MODELS = {"log_har": ("baseline", 0.3), "ridge": ("baseline", 0.3), "s4d": ("ssm", 0.4)}
FAMILIES = {name: family for name, (family, _) in MODELS.items()}
HORIZONS = (1, 5)


@pytest.fixture
def compared(make_data: Callable[..., ReportData]) -> Callable[..., RunComparison]:
    def make(ids: tuple[str, ...], **noise: float) -> RunComparison:
        """The second run's forecasts of some models are multiplied by a wave of some height."""
        first = make_data(ids, dates=260, horizons=HORIZONS, models=MODELS).predictions
        second = first
        for name, height in noise.items():
            wave = 1 + height * (0.7 * pl.int_range(pl.len())).sin()
            own = pl.when(pl.col("model") == name).then(pl.col("y_hat") * wave).otherwise("y_hat")
            second = second.with_columns(own.alias("y_hat"))
        target = {"column": "rv", "aggregate": "mean", "horizons": HORIZONS}
        runs = [RunForecasts(*each, target, FAMILIES) for each in (("base", first), ("<new>", second))]
        return compare_forecasts(runs, Scoring(("qlike", "mse"), "log_har", 0.1))

    return make


def page_of(found: RunComparison) -> str:
    runs = [ComparedRun(label, f"runs/{label}", left) for label, left in zip(found.labels, found.left_out, strict=True)]
    return render_comparison(found, runs=runs, differences=[("seed", ("1", "<2>"))], other_data="more <rows>")


@pytest.mark.parametrize("ids", [("A",), ("A", "<B>")])
def test_every_ratio_and_p_value_is_shown_and_the_sure_ones_alone_are_coloured(
    compared: Callable[..., RunComparison], ids: tuple[str, ...]
) -> None:
    found = compared(ids, ridge=0.9, s4d=0.002)
    page = page_of(found)
    part = page[page.index('id="changes"') : page.index('id="cumulative"')]
    shown = [
        (model, tone, ratio, unescape(p))
        for model, cells in re.findall(r'<b title="(\w+)">(.*?)</tr>', part, flags=re.DOTALL)
        for tone, ratio, p in re.findall(r'class="num first ?(\w*)"[^>]*>([^<]*)</td><td[^>]*>([^<]*)<', cells)
    ]
    expected = [
        (
            row["model"],
            "better" if row["better"] else "worse" if row["worse"] else "",
            ratio_text(row["ratio"]),
            p_text(row["p_holm"]),
        )
        for row in found.changes.iter_rows(named=True)
    ]
    assert sorted(shown) == sorted(expected)
    assert {tone for _, tone, *_ in expected} == {"", "worse"}
    assert ("id by id" in part) == (len(ids) > 1)


def test_names_are_escaped_and_nothing_is_loaded(compared: Callable[..., RunComparison]) -> None:
    page = page_of(compared(("<B>",), ridge=0.5))
    assert not re.search(r"<(new|B|2|rows)>", page)
    for text in ("&lt;new&gt;", "&lt;2&gt;", "more &lt;rows&gt;", "runs/&lt;new&gt;"):
        assert text in page
    assert not re.search(r"<script|src=\"(?!data:)|@import|url\(", page)
    assert page.count('alt="Cumulative ') == len(HORIZONS) * 2  # losses


def test_the_same_forecasts_make_a_page_without_changes(compared: Callable[..., RunComparison]) -> None:
    page = page_of(compared(("A",)))
    assert "The models of base forecast the same in &lt;new&gt;." in page
    assert 'id="changes"' not in page
    assert "<img" not in page
    assert "QLIKE relative to log_har" in page
