"""The section on intervals and events: there where a model says more than the mean, and saying what the table says."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from ssmfin.evaluation.probabilistic import score_probabilistic
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.distributions import distributions_section
from ssmfin.reporting.inline_images import drawing
from ssmfin.reporting.page import render_report
from ssmfin.reporting.style import model_styles

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
HORIZONS = (1, 5)


@pytest.fixture
def study(make_data: Callable[..., ReportData]) -> Callable[..., ReportData]:
    def make(*, events: bool = True, quantiles: bool = True, dates: int = 300, **changes) -> ReportData:
        data = make_data(2, dates=dates, horizons=HORIZONS, **changes)
        frame = data.predictions
        mine = pl.col("model") == "s4d"
        if quantiles:
            frame = frame.with_columns(
                pl.when(mine).then(pl.col("y_hat") * float(np.exp(0.4 * norm.ppf(p)))).alias(f"q{100 * p:02.0f}")
                for p in LEVELS
            )
        if events:
            frame = frame.with_columns(
                event=pl.when(mine).then(0.1 + 0.8 * (pl.col("y_hat") > 1e-4).cast(pl.Float64)),
                event_threshold=pl.when(mine).then(pl.lit(1e-4)),
            )
        days = frame["ds"].unique().sort()
        known = frame.select("unique_id", "ds", "horizon").unique()
        known = known.with_columns(origin=days.search_sorted(known["ds"]).cast(pl.Int64))
        known = known.with_columns(known=pl.col("origin") + pl.col("horizon"))
        found = score_probabilistic(frame, reference="log_har", log=True, known=known)
        scores = None if found is None else found.pooled
        return make_data(2, dates=dates, horizons=HORIZONS, predictions=frame, probabilistic=scores, **changes)

    return make


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", html).split())


def part(html: str) -> str:
    found = re.search(r'<section id="distributions">.*?</section>', html, flags=re.DOTALL)
    assert found is not None
    return found.group(0)


def test_the_section_shows_scores_coverage_reliability_and_a_fan(study) -> None:
    data = study()
    html = render_report(data)
    shown = part(html)
    said = words(shown)
    assert '<a href="#distributions">' in html
    assert "log_har (past errors)" in said
    coverage = data.probabilistic.filter((pl.col("score") == "coverage") & (pl.col("model") == "s4d"))
    for value in coverage["value"]:
        assert f"{100 * value:.1f} %" in said
    for value in data.probabilistic.filter((pl.col("model") == "s4d") & (pl.col("score") == "roc_auc"))["value"]:
        assert f"{value:.3f}" in said
    assert shown.count("<img ") == 2 * len(HORIZONS)  # reliability and fan
    assert "Christoffersen p" in said
    assert render_report(study()) == html


def test_the_reliability_plot_draws_what_was_observed_less_what_was_promised(study) -> None:
    data = study()
    with drawing():
        section = distributions_section(data, model_styles(data.families, data.families, "log_har"), "day")
    below = data.probabilistic.filter(
        (pl.col("score") == "below") & (pl.col("model") == "s4d") & (pl.col("horizon") == 1)
    ).sort("level")
    gaps = ", ".join(f"{100 * (value - level):+.1f}" for value, level in below.select("value", "level").iter_rows())
    assert f"s4d {gaps}" in section.reliability[0].panels[0].image.alt
    assert [style.name for style in section.reliability[0].styles] == ["log_har (past errors)", "s4d"]
    assert section.fans[0].title in data.predictions["unique_id"]
    assert [panel.note for panel in section.fans[0].panels] == ["s4d, intervals of 90 %, 50 %"] * len(HORIZONS)


def test_a_study_of_means_alone_has_no_such_section(study, make_data) -> None:
    html = render_report(make_data(2, dates=120))
    assert 'id="distributions"' not in html
    assert "#distributions" not in html
    assert study(events=False, quantiles=False).probabilistic is None


@pytest.mark.parametrize(
    "options, there, absent",
    [
        ({"events": False}, "Reliability of quantiles", "ROC area"),
        ({"quantiles": False}, "ROC area", "Reliability of quantiles"),
        ({"dates": 90}, "Reliability of quantiles", "past errors"),
        ({"transform": "none", "losses": ("mse",), "events": False}, "Reliability of quantiles", "ROC area"),
    ],
)
def test_each_part_is_there_where_there_is_something_to_show(study, options, there, absent) -> None:
    said = words(part(render_report(study(**options))))
    assert there in said
    assert absent not in said


def test_names_from_the_user_are_escaped(study) -> None:
    data = study()
    evil = "<script>x</script>"
    rename = {"s4d": evil}
    changed = {
        "predictions": data.predictions.with_columns(
            pl.col("model").replace(rename), pl.col("unique_id").replace(".IDX00", evil)
        ),
        "probabilistic": data.probabilistic.with_columns(pl.col("model").replace(rename)),
        "families": {rename.get(name, name): family for name, family in data.families.items()},
        "leaderboard": data.leaderboard.with_columns(pl.col("model").replace(rename)),
        "leaderboard_by_id": data.leaderboard_by_id.with_columns(
            pl.col("model").replace(rename), pl.col("unique_id").replace(".IDX00", evil)
        ),
        "costs": data.costs.with_columns(pl.col("model").replace(rename)),
        "notes": {},
    }
    html = render_report(ReportData(**{**data.__dict__, **changed}))
    assert evil not in html
    assert "&lt;script&gt;" in part(html)
