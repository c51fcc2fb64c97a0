"""What models note about themselves is said in words, in proportion, with its meaning."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

import ssmfin as sf
from ssmfin.reporting.notes import facts, note_tables
from ssmfin.reporting.style import model_styles


def said(notes: dict[str, object], step: str = "row") -> dict[str, str]:
    return {fact.label: fact.text.replace("\N{NO-BREAK SPACE}", " ") for fact in facts(notes, step)}


def test_facts_that_belong_together_are_said_together() -> None:
    notes = {
        "fits": 48,
        "fits_that_stayed_at_the_baseline": 14,
        "best_epoch": 21.25,
        "epochs": 36.25,
        "validation_loss_at_start": 0.25,
        "validation_loss": 0.24,
        "time_scale_shortest": 1.0,
        "time_scale_median": 10.0,
        "time_scale_longest": 100.0,
        "period_shortest": 2.026,
    }
    assert said(notes, "day") == {
        "Fits": "48",
        "Fits that stayed at the base": "14 of 48 (29 %)",
        "Best epoch": "21.2 of 36.2",
        "Validation loss": "0.25 to 0.24 (−4.0 %)",
        "Memory": "0.693, 6.93 and 69.3 days",
        "Period shortest": "2.03 days",
    }
    penalties = {"penalty_median": 1e-6, "penalty_at_smallest": 109, "penalty_at_largest": 55, "penalties": 192}
    assert said(penalties) == {
        "Penalty median": "1e-06",
        "Penalty at smallest": "109 of 192 (57 %)",
        "Penalty at largest": "55 of 192 (29 %)",
    }


def test_notes_of_any_shape_are_shown_as_they_are() -> None:
    odd = {"best_epoch": "third", "epochs": [3, 4], "penalties": 0, "warm": False, "by_id": {"A": 1.5}, "fits": None}
    assert said(odd) == {
        "Fits": "–",
        "Best epoch": "third",
        "Epochs": "3, 4",
        "Penalties": "0",
        "Warm": "no",
        "By id: A": "1.5",
    }


def test_models_of_a_kind_share_a_table_and_a_meaning_is_said_once() -> None:
    network = {"fits": 3, "best_epoch": 2.0, "epochs": 4.0}
    notes = {
        "s4d": network | {"spectral_radius": 0.99},
        "gru": network,
        "mine": {"k": 3},
        "har": {"insanity_filter": 2},
    }
    families = dict.fromkeys(notes, "ssm")
    tables = note_tables(notes, model_styles(families, families, "har"), "day")
    assert [table.caption for table in tables] == ["Networks", "HAR", "Other facts"]
    networks = tables[0]
    assert [cell.model.name for cell in networks.head[0] if cell.model] == ["gru", "s4d"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in networks.body}
    assert rows == {"Fits": ["3", "3"], "Best epoch": ["2 of 4", "2 of 4"], "Spectral radius": ["–", "0.99"]}
    assert all("Healthy" in row[0].note for row in networks.body if row[0].text != "Fits")


def test_every_fact_that_a_model_of_the_house_notes_is_explained() -> None:
    generator = np.random.default_rng(0)
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=k) for k in range(420)]
    returns = 0.01 * generator.standard_normal(420)
    rv = np.exp(0.5 * generator.standard_normal(420) - 9)
    panel = pl.DataFrame({"unique_id": "a", "ds": days, "rv": rv, "log_return": returns})
    small = {"epochs": 1, "width": 4}
    result = sf.evaluate(
        {
            "s4d": sf.S4D(**small, ensemble=2, evaluate_length="all"),
            "gru": sf.GRU(**small),
            "garch": sf.GARCH(),
            "kalman": sf.Kalman(),
            "rolling_ridge": sf.RollingRidge(),
        },
        panel,
        target="rv",
        folds=sf.WalkForward(train=250, validation=50, test=100, horizons=[1]),
    )
    notes = result.report_data().notes
    assert {"s4d", "gru", "garch", "kalman", "rolling_ridge", "har", "ridge", "lightgbm"} <= notes.keys()
    unexplained = {(model, fact.label) for model, own in notes.items() for fact in facts(own) if not fact.meaning}
    assert unexplained == set()
