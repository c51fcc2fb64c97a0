"""Scores of quantiles and events against plain recomputation, on data whose law is known."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from ssmfin.evaluation.distribution_scores import SCHEMA
from ssmfin.evaluation.past_errors import MIN_ERRORS
from ssmfin.evaluation.probabilistic import score_probabilistic
from ssmfin.evaluation.probabilistic_words import probabilistic_sentences

LEVELS = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
SPREAD = 0.6
NAIVE = "log_har (past errors)"
IDS = ("A", "B", "C")
THRESHOLD = 1.8


def study(n=700, horizons=(1,), ids=IDS, widths=(("exact", 1.0), ("narrow", 0.6)), seeds=2, rng_seed=0):
    """y = f exp(SPREAD z): `exact` says so, `narrow` claims less spread; seeds of a model differ by noise."""
    rng = np.random.default_rng(rng_seed)
    days = [dt.date(2010, 1, 1) + dt.timedelta(days=i) for i in range(n)]
    frames, known = [], []
    for unique_id in ids:
        for h in horizons:
            f = np.exp(0.4 * rng.standard_normal(n))
            y = f * np.exp(SPREAD * rng.standard_normal(n))
            keys = {"unique_id": unique_id, "ds": days, "horizon": h}
            keys = pl.DataFrame(keys).with_columns(pl.col("horizon").cast(pl.Int32))
            known.append(keys.with_columns(origin=pl.Series(range(n)), known=pl.Series(range(n)) + h))
            label = pl.Series([*y[: n - h], *[None] * h], dtype=pl.Float64)
            base = keys.with_columns(y=label)
            frames.append(base.with_columns(model=pl.lit("log_har"), seed=pl.lit(0), y_hat=pl.Series(f)))
            for model, width in widths:
                for seed in range(seeds):
                    moved = f * np.exp(0.02 * rng.standard_normal(n))
                    q = {c: pl.Series(moved * np.exp(width * SPREAD * norm.ppf(p))) for c, p in LEVELS.items()}
                    part = base.with_columns(model=pl.lit(model), seed=pl.lit(seed), y_hat=pl.Series(moved), **q)
                    frames.append(part)
    return pl.concat(frames, how="diagonal").with_columns(pl.col("seed").cast(pl.Int64)), pl.concat(known)


def with_events(predictions):
    """`exact` also gives the true probability that y exceeds THRESHOLD."""
    p = 1 - (THRESHOLD / pl.col("y_hat")).log().map_batches(
        lambda x: pl.Series(norm.cdf(x.to_numpy() / SPREAD)), return_dtype=pl.Float64
    )
    mine = pl.col("model") == "exact"
    return predictions.with_columns(event=pl.when(mine).then(p), event_threshold=pl.when(mine).then(pl.lit(THRESHOLD)))


def score(predictions, known, **changes):
    return score_probabilistic(predictions, **{"reference": "log_har", "log": True, "known": known, **changes})


def cell(table, model, name, level=None, horizon=1):
    at = (pl.col("model") == model) & (pl.col("score") == name) & (pl.col("horizon") == horizon)
    found = table.filter(at & (pl.col("level").is_null() if level is None else (pl.col("level") - level).abs() < 1e-9))
    assert found.height == 1
    return found.row(0, named=True)


@pytest.fixture(scope="module")
def found():
    predictions, known = study(horizons=(1, 5))
    return score(with_events(predictions), known)


def test_losses_equal_a_plain_recomputation_on_the_common_rows():
    predictions, known = study()
    found = score(predictions, known).pooled
    first = dt.date(2010, 1, 1) + dt.timedelta(days=MIN_ERRORS)
    rows = predictions.filter((pl.col("model") == "narrow") & pl.col("y").is_not_null() & (pl.col("ds") >= first))
    mean = rows.group_by("unique_id", "ds").agg(pl.col("y").first(), *(pl.col(c).mean() for c in LEVELS))
    total = 0.0
    for column, level in LEVELS.items():
        error = pl.col("y") - pl.col(column)
        loss = pl.when(error >= 0).then(level * error).otherwise((level - 1) * error)
        by_date = mean.with_columns(loss=loss).group_by("ds").agg(pl.col("loss").mean())
        assert cell(found, "narrow", "pinball", level)["value"] == pytest.approx(by_date["loss"].mean(), rel=1e-12)
        assert cell(found, "narrow", "pinball", level)["n"] == by_date.height == 699 - MIN_ERRORS
        total += 2 * by_date["loss"].mean() / len(LEVELS)
        below = mean.filter(pl.col("y") <= pl.col(column)).height / mean.height
        assert cell(found, "narrow", "below", level)["value"] == pytest.approx(below, rel=1e-12)
    error = [(pl.col("y").log() - pl.col(c).log(), level) for c, level in LEVELS.items()]
    logs = [pl.when(e >= 0).then(level * e).otherwise((level - 1) * e) for e, level in error]
    by_date = mean.with_columns(loss=2 * pl.mean_horizontal(logs)).group_by("ds").agg(pl.col("loss").mean())
    assert cell(found, "narrow", "wis_log")["value"] == pytest.approx(by_date["loss"].mean(), rel=1e-12)
    row = cell(found, "narrow", "wis")
    assert row["value"] == pytest.approx(total, rel=1e-12)
    assert row["reference_value"] == cell(found, NAIVE, "wis")["value"]
    assert row["ratio_to_reference"] == pytest.approx(row["value"] / row["reference_value"], rel=1e-12)
    inside = mean.filter(pl.col("y").is_between(pl.col("q05"), pl.col("q95"))).height / mean.height
    assert cell(found, "narrow", "coverage", 0.9)["value"] == pytest.approx(inside, rel=1e-12)
    width = (mean["q95"] - mean["q05"]).mean()
    assert cell(found, "narrow", "width", 0.9)["value"] == pytest.approx(width, rel=1e-12)


def test_the_interval_score_is_the_weighted_interval_score_of_the_forecast_hubs(found):
    """(|y - median| / 2 + sum of alpha_k / 2 IS_k) / (K + 1/2), on one row."""
    y, q = 3.0, {"q05": 0.5, "q25": 0.8, "q50": 1.0, "q75": 1.5, "q95": 2.0}
    interval = [(q["q05"], q["q95"], 0.1), (q["q25"], q["q75"], 0.5)]
    scores = [a / 2 * ((high - low) + 2 / a * max(low - y, 0) + 2 / a * max(y - high, 0)) for low, high, a in interval]
    expected = (abs(y - q["q50"]) / 2 + sum(scores)) / 2.5
    keys = {"unique_id": "A", "ds": [dt.date(2020, 1, 1)], "horizon": pl.Series([1], dtype=pl.Int32), "y": y}
    frame = pl.DataFrame({**keys, "model": "m", "seed": 0, "y_hat": 1.0, **q})
    known = pl.DataFrame({**keys, "origin": 0, "known": 1}).drop("y")
    one = score(frame, known, reference="none").pooled
    assert cell(one, "m", "wis")["value"] == pytest.approx(expected, rel=1e-12)


def test_true_quantiles_are_covered_as_said_and_narrow_ones_are_found_out(found):
    for h in (1, 5):
        exact, narrow = (cell(found.pooled, model, "coverage", 0.9, h) for model in ("exact", "narrow"))
        assert exact["value"] == pytest.approx(0.9, abs=0.02)
        assert min(exact["coverage_p_value"], exact["kupiec_p_value"], exact["christoffersen_p_value"]) > 0.01
        assert narrow["value"] == pytest.approx(2 * norm.cdf(0.6 * norm.ppf(0.95)) - 1, abs=0.03)
        assert max(narrow["coverage_p_value"], narrow["kupiec_p_value"]) < 1e-4
        assert cell(found.pooled, "narrow", "wis", horizon=h)["ratio_to_reference"] > 1.02
        assert cell(found.pooled, "narrow", "wis", horizon=h)["dm_p_value"] < 1e-3
        assert cell(found.pooled, "exact", "wis", horizon=h)["ratio_to_reference"] == pytest.approx(1.0, abs=0.01)
        naive = cell(found.pooled, NAIVE, "coverage", 0.9, h)
        assert naive["value"] == pytest.approx(0.9, abs=0.02)
        assert cell(found.pooled, "narrow", "width", 0.9, h)["ratio_to_reference"] < 0.7
    assert found.reference == NAIVE
    assert found.pooled.schema == SCHEMA


def test_event_scores_equal_scikit_learn_on_the_same_rows():
    predictions, known = study(ids=("A",), seeds=1)
    found = score(with_events(predictions), known).pooled
    rows = with_events(predictions).filter((pl.col("model") == "exact") & pl.col("y").is_not_null()).sort("ds")
    rows = rows[MIN_ERRORS:]
    happened, p = (rows["y"] > THRESHOLD).to_numpy(), rows["event"].to_numpy()
    expected = {
        "event_share": happened.mean(),
        "brier": np.square(p - happened).mean(),
        "log_loss": -np.log(np.where(happened, p, 1 - p)).mean(),
        "roc_auc": roc_auc_score(happened, p),
        "pr_auc": average_precision_score(happened, p),
    }
    for name, value in expected.items():
        assert cell(found, "exact", name)["value"] == pytest.approx(value, rel=1e-12)
    for name, function in (("precision", precision_score), ("recall", recall_score)):
        assert cell(found, "exact", name, 0.5)["value"] == pytest.approx(function(happened, p > 0.5), rel=1e-12)
    brier = cell(found, "exact", "brier")
    assert brier["ratio_to_reference"] == pytest.approx(1.0, abs=0.05)  # past errors know the same law
    assert brier["dm_p_value"] is not None
    assert "narrow" not in set(found.filter(pl.col("score") == "brier")["model"])


def test_a_model_is_scored_where_it_gives_quantiles_in_all_rows_and_else_named():
    predictions, known = study(horizons=(1, 5), seeds=1)
    at_5 = (pl.col("model") == "exact") & (pl.col("horizon") == 5)
    some = (pl.col("model") == "narrow") & (pl.col("horizon") == 5) & (pl.col("ds") == dt.date(2011, 1, 1))
    columns = [pl.when(at_5 | some).then(None).otherwise(pl.col(c)).alias(c) for c in LEVELS]
    found = score(predictions.with_columns(columns), known)
    assert set(found.pooled.filter(horizon=1)["model"]) == {"exact", "narrow", NAIVE}
    assert found.pooled.filter(horizon=5).is_empty()
    assert any("quantiles or events of narrow at horizon 5 that are there in only some rows" in n for n in found.notes)


def test_models_with_other_levels_are_compared_on_those_they_share():
    predictions, known = study(seeds=1)
    only = pl.col("model") == "narrow"
    predictions = predictions.with_columns(
        pl.when(only).then(None).otherwise(pl.col("q50")).alias("q50"), q10=pl.when(only).then(pl.col("q05"))
    )
    found = score(predictions, known).pooled
    shared = [0.05, 0.25, 0.75, 0.95]
    for model in ("exact", "narrow", NAIVE):
        values = [cell(found, model, "pinball", level)["value"] for level in shared]
        assert cell(found, model, "wis")["value"] == pytest.approx(2 * np.mean(values), rel=1e-12)
    assert found.filter(
        (pl.col("model") == "narrow") & (pl.col("level") == 0.5) & (pl.col("score") == "below")
    ).is_empty()


def test_a_short_sample_is_scored_without_the_reference_and_says_so():
    predictions, known = study(n=MIN_ERRORS + 40, seeds=1)
    found = score(predictions, known)
    assert found.reference == ""
    assert found.pooled["reference_value"].null_count() == found.pooled.height
    assert cell(found.pooled, "exact", "wis")["n"] == MIN_ERRORS + 39
    assert "No naive reference" in found.notes[0]
    said = probabilistic_sentences(found, {"exact": "ssm", "narrow": "ssm"}, "day")
    assert not any(NAIVE in sentence for sentence in said[:-1])


def test_each_id_alone_equals_a_study_of_that_id():
    predictions, known = study(seeds=1)
    whole = score(predictions, known).by_id.filter(unique_id="B").drop("unique_id")
    alone = score(predictions.filter(unique_id="B"), known.filter(unique_id="B")).pooled
    assert whole.equals(alone)


def test_scores_in_logs_need_a_target_and_quantiles_that_have_one():
    predictions, known = study(seeds=1)
    assert "wis_log" not in set(score(predictions, known, log=False).pooled["score"])
    floored = pl.when(pl.col("model") == "narrow").then(0.0).otherwise(pl.col("q05"))
    found = score(predictions.with_columns(q05=floored), known).pooled
    assert set(found.filter(pl.col("score") == "wis_log")["model"]) == {"exact", NAIVE}


def test_without_quantiles_and_events_there_is_nothing_to_score():
    predictions, known = study(seeds=1)
    assert score(predictions.drop(*LEVELS), known) is None
    assert score(predictions.with_columns(pl.lit(None, dtype=pl.Float64).alias(c) for c in LEVELS), known) is None


def test_a_seed_that_failed_does_not_enter_the_mean():
    predictions, known = study()
    lacking = predictions.filter(
        ~((pl.col("model") == "exact") & (pl.col("seed") == 1) & (pl.col("ds") > dt.date(2011, 1, 1)))
    )
    without = predictions.filter(~((pl.col("model") == "exact") & (pl.col("seed") == 1)))
    assert score(lacking, known).pooled.equals(score(without, known).pooled)


def test_the_words_say_what_the_table_says(found):
    exact, narrow, note = probabilistic_sentences(found, {"exact": "ssm", "narrow": "ssm"}, "day")
    shares = [cell(found.pooled, "narrow", "coverage", 0.9, h)["value"] for h in (1, 5)]
    for share in shares:
        assert f"{100 * share:.1f} % (p < 0.001)" in narrow
    ratio = cell(found.pooled, "narrow", "wis")["ratio_to_reference"]
    assert f"its weighted interval score is {100 * (ratio - 1):.1f} % higher" in narrow
    assert f"than that of {NAIVE} at 1 and 5 days" in narrow
    assert "ROC area" in exact
    assert "ROC area" not in narrow
    assert "scored on fewer dates (599 of 699 at horizon 1; " in note
    baseline = probabilistic_sentences(found, {"exact": "ssm", "narrow": "baseline"}, "day")
    assert not any("narrow" in sentence for sentence in baseline)
