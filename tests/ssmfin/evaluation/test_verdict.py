"""The verdict never says more than its tests: properties over random studies, and the wording of each case."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import math
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import diebold_mariano, holm
from ssmfin.evaluation.leaderboard import Leaderboard, loss_panel, make_leaderboard
from ssmfin.evaluation.verdict import FEW_PERIODS, Claim, Combinations, Verdict, make_verdict

FAMILIES = {"log_har": "baseline", "har": "baseline", "s4d": "ssm", "mamba": "ssm", "gru": "sequence"}


def forecasts(
    errors: dict[str, float],
    *,
    n: int = 200,
    ids: int = 1,
    horizons: tuple[int, ...] = (1,),
    seed: int = 0,
    days: int = 1,
) -> pl.DataFrame:
    """Each model's log forecast errs by its own standard deviation; errors of two models are half common."""
    rng = np.random.default_rng(seed)
    dates = [dt.date(2010, 1, 1) + dt.timedelta(days=days * i) for i in range(n)]
    frames = []
    for k, h in itertools.product(range(ids), horizons):
        y, common = np.exp(rng.standard_normal((2, n)))
        for model, error in errors.items():
            noise = np.log(common) + rng.standard_normal(n)
            frames.append(
                pl.DataFrame(
                    {
                        "unique_id": [f"id{k}"] * n,
                        "ds": dates,
                        "horizon": pl.Series([h] * n, dtype=pl.Int32),
                        "model": [model] * n,
                        "seed": [0] * n,
                        "y": y,
                        "y_hat": y * np.exp(error * noise),
                    }
                )
            )
    return pl.concat(frames)


def board(predictions: pl.DataFrame, **keywords) -> Leaderboard:
    reference = "log_har" if "log_har" in predictions["model"].unique() else predictions["model"][0]
    return make_leaderboard(predictions, reference=reference, reps=100, by_id_reps=10, **keywords)


def judge(scores: Leaderboard, **keywords) -> Verdict:
    return make_verdict(scores, families={m: FAMILIES[m] for m in scores.pooled["model"].unique()}, **keywords)


def test_a_clear_win_is_said_with_its_size_its_test_its_company_and_its_cost():
    predictions = forecasts({"log_har": 0.5, "har": 0.6, "s4d": 0.3}, n=400, ids=3)
    scores = board(predictions, costs={"s4d": (190.2, 2.0), "log_har": (0.3, 0.0), "har": (0.1, 0.0)})
    verdict = judge(scores)
    (claim,) = verdict.claims
    assert claim.wins
    assert not claim.loses
    percent = round((1 - claim.ratio) * 100, 1)
    assert verdict.headline == (
        f"s4d beats the best baseline at 1 day ahead: s4d's QLIKE is {percent} % lower than log_har's (p < 0.001). "
        "In the 90 % model confidence set, not told apart from the best: s4d. "
        "Computing time: s4d 3 min 12 s, log_har 0.3 s."
    )
    assert "Series by series, QLIKE is lower: s4d's than log_har's in 3 of 3 series at 1 day." in verdict.paragraphs
    assert "Scored on 400 forecast dates, 2010-01-01 to 2011-02-04, 3 series" in str(verdict)


@given(
    st.sampled_from([25, 60, 250]),
    st.fixed_dictionaries({"log_har": st.sampled_from([0.3, 0.5]), "har": st.sampled_from([0.4, 0.5])}),
    st.dictionaries(st.sampled_from(["s4d", "mamba"]), st.sampled_from([0.25, 0.35, 0.45, 0.5, 0.6]), min_size=1),
    st.sampled_from([(1,), (1, 5), (2, 3, 22)]),
    st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_a_win_is_claimed_if_and_only_if_every_condition_holds(n, baselines, ssms, horizons, seed):
    predictions = forecasts({**baselines, **ssms}, n=n, horizons=horizons, seed=seed)
    scores = board(predictions)
    verdict = judge(scores)

    # once more from the forecasts
    pairs = list(itertools.product(horizons, sorted(ssms)))
    panel = loss_panel(predictions, "qlike")
    p_values, ratios, baseline = [], [], {}
    for h, ssm in pairs:
        losses = {m: panel.filter(horizon=h, model=m).sort("ds")["value"].to_numpy() for m in (*baselines, *ssms)}
        baseline[h] = min(baselines, key=lambda m: losses[m].mean())
        p_values.append(diebold_mariano(losses[ssm], losses[baseline[h]], horizon=h).p_value)
        ratios.append(losses[ssm].mean() / losses[baseline[h]].mean())
    adjusted = holm(np.array(p_values))
    in_mcs = {(r["horizon"], r["model"]): r["in_mcs"] for r in scores.pooled.filter(loss="qlike").iter_rows(named=True)}
    expected = {
        (h, ssm): ratio < 1 and p < 0.05 and in_mcs[h, ssm] and n // h >= FEW_PERIODS
        for (h, ssm), ratio, p in zip(pairs, ratios, adjusted, strict=True)
    }
    assert {(c.horizon, c.model): c.wins for c in verdict.claims} == expected
    assert all(c.baseline == baseline[c.horizon] for c in verdict.claims)

    # and in the words: the headline says "beats" of the horizons with a win, and of no other
    won = {h for (h, _), wins in expected.items() if wins}
    opening = verdict.headline.split(": ")[0]
    if not won:
        assert opening == "No state-space model beats the best baseline"
    else:
        said = re.fullmatch(
            r"(\w+|A state-space model) beats the best baseline at ([^a-z]*(?:and \d+ )?)days? ahead.*", opening
        )
        assert said, opening
        assert {int(h) for h in re.findall(r"\d+", said[2])} == won
        assert said[1] in ssms or len({ssm for (h, ssm), wins in expected.items() if wins}) > 1
        assert ("but not at" in opening) == (won != set(horizons))
    assert "beats" not in verdict.headline.removeprefix(opening)
    assert not any(re.search(r"\bbeats?\b|outperform", p) for p in verdict.paragraphs)
    significantly_worse = [c for c in verdict.claims if c.loses]
    assert str(verdict).count("significantly worse") >= len(significantly_worse) * (len(ssms) == 2)
    if not significantly_worse:
        assert "significantly worse" not in str(verdict)


def claim(**changes) -> Claim:
    sure = Claim(1, "s4d", "log_har", 0.9, -4.0, 0.001, 0.002, in_mcs=True, periods=100, alpha=0.05)
    return dataclasses.replace(sure, **changes)


def test_each_condition_alone_can_deny_a_win_or_a_loss():
    assert claim().wins
    for change in (
        {"ratio": 1.0},
        {"ratio": 1.1},
        {"ratio": math.nan},
        {"p_value": 0.06},
        {"p_adjusted": 0.05},
        {"p_adjusted": math.nan},
        {"p_value": math.nan},
        {"in_mcs": False},
        {"periods": FEW_PERIODS - 1},
    ):
        assert not claim(**change).wins, change
    assert claim(ratio=1.1, in_mcs=False).loses
    for change in ({"ratio": 0.9}, {"ratio": 1.0}, {"p_adjusted": 0.2}, {"p_value": math.nan}, {"periods": 3}):
        assert not claim(**{"ratio": 1.1, **change}).loses, change


def test_a_small_difference_is_called_chance():
    verdict = judge(board(forecasts({"log_har": 0.5, "s4d": 0.495}, seed=3)))
    (only,) = verdict.claims
    assert only.p_value > 0.05
    assert verdict.headline.startswith("No state-space model beats the best baseline: at 1 day, s4d's QLIKE is ")
    assert f"which could be chance (p = {only.p_value:.2f})." in verdict.headline


def test_a_significant_loss_is_said_as_plainly_as_a_win():
    verdict = judge(board(forecasts({"log_har": 0.3, "s4d": 0.6}, n=400)))
    assert verdict.claims[0].loses
    assert re.search(r"s4d's QLIKE is \d\.\d times log_har's, significantly worse \(p < 0\.001\)", verdict.headline)


def test_a_result_that_only_holds_alone_is_marked_as_possible_chance_of_many_tries():
    for seed in range(200):  # a study where one of six comparisons is below .05 on its own, but not after Holm
        predictions = forecasts({"log_har": 0.5, "s4d": 0.47, "mamba": 0.5}, n=150, horizons=(1, 2, 3), seed=seed)
        verdict = judge(board(predictions))
        if any(c.ratio < 1 and c.p_value < 0.05 < c.p_adjusted for c in verdict.claims):
            break
    else:
        pytest.fail("no such study in 200 seeds")
    assert "could be chance once all 6 comparisons are counted" in str(verdict)
    assert "allow for the 6 comparisons made (Holm's correction)" in str(verdict)


def test_a_lower_loss_outside_the_confidence_set_is_no_win():
    # gru is better still, so that s4d beats the baseline but drops out of the set
    predictions = forecasts({"log_har": 0.6, "s4d": 0.45, "gru": 0.2}, n=400)
    verdict = judge(board(predictions))
    assert verdict.headline.startswith("No state-space model beats the best baseline")
    assert "yet it is not in the model confidence set" in verdict.headline
    assert "The lowest QLIKE at 1 day is that of gru, which is neither a baseline nor a state-space model." in str(
        verdict
    )


def test_a_model_of_the_users_own_is_held_against_the_best_baseline_and_counted():
    predictions = forecasts({"log_har": 0.5, "mine": 0.3, "other": 0.8}, n=400, horizons=(1, 2))
    families = {"log_har": "baseline", "mine": "custom", "other": "custom"}
    verdict = make_verdict(board(predictions), families=families)
    opening = "There is no deep state-space model in this study. The lowest QLIKE is that of mine."
    assert verdict.headline.startswith(opening)
    assert re.search(
        r" mine against the best baseline: at 1 day, mine's QLIKE is \d+\.\d % lower than log_har's \(p < 0\.001\); "
        r"at 2 days, mine's QLIKE is \d+\.\d % lower than log_har's \(p < 0\.001\)\. "
        r"other against the best baseline: at 1 day, other's QLIKE is .* significantly worse",
        verdict.headline,
    )
    assert {(c.model, c.baseline, c.role) for c in verdict.claims} == {
        ("mine", "log_har", "custom"),
        ("other", "log_har", "custom"),
    }
    np.testing.assert_allclose(
        [c.p_adjusted for c in verdict.claims], holm(np.array([c.p_value for c in verdict.claims]))
    )
    assert "allow for the 4 comparisons made" in str(verdict)


def test_too_short_samples_are_not_relied_on():
    predictions = forecasts({"log_har": 0.8, "s4d": 0.1}, n=120, horizons=(1, 10, 22))
    verdict = judge(board(predictions))
    assert verdict.headline.startswith("s4d beats the best baseline at 1 day ahead, but not at 10 and 22 days: ")
    assert "only 12 separate stretches of 10 days" in verdict.headline
    assert "untested because 120 dates are too few for a test at horizon 22" in verdict.headline
    assert "not told apart from the best: s4d at 1 and 10 days" in verdict.headline


def test_an_identical_model_is_called_the_same():
    predictions = forecasts({"log_har": 0.5})
    copy = predictions.with_columns(model=pl.lit("s4d"))
    verdict = judge(board(pl.concat([predictions, copy])))
    assert "at 1 day, s4d and log_har have the same QLIKE" in verdict.headline
    assert "not told apart from the best: log_har and s4d" in verdict.headline


@pytest.mark.parametrize("ids", [1, 3])
def test_no_comparison_is_said_twice_and_none_is_left_out(ids):
    errors = {"log_har": 0.5, "har": 0.6, "s4d": 0.4, "mamba": 0.6, "mine": 0.45, "average": 0.35, "others": 0.55}
    families = {**FAMILIES, "mine": "custom", "average": "combination", "others": "combination"}
    members = {"average": ("s4d", "log_har", "har"), "others": ("log_har", "har")}
    scores = board(forecasts(errors, n=120, ids=ids, horizons=(1, 2)))
    families = {model: families[model] for model in errors}
    verdict = make_verdict(scores, families=families, combined=Combinations(members, {"average": "others"}))
    assert {claim.role for claim in verdict.claims} == {"ssm", "combination", "added", "custom"}
    for claim in verdict.claims:
        percent = f"{abs(claim.ratio - 1) * 100:.1f} %"
        said = rf"at {claim.horizon} days?, {claim.model}'s QLIKE is {percent} (lower|higher) than {claim.baseline}'s"
        ahead = said.replace("at ", "", 1).replace("days?,", "days? ahead:", 1)
        assert len(re.findall(rf"{said}|{ahead}", str(verdict))) == 1, claim
    unsaid = [claim for claim in verdict.claims if claim.role == "ssm" and claim.model == "mamba"]
    assert sum(" ahead: " in paragraph for paragraph in verdict.paragraphs) == len(unsaid) == 2
    assert ("in 3 of 3 series" in str(verdict)) == (ids == 3)
    assert verdict.headline.startswith(verdict.opening)
    assert "In the 90 % model confidence set" not in verdict.opening


def test_different_winners_share_the_headline():
    first = forecasts({"log_har": 0.6, "s4d": 0.2, "mamba": 0.5}, n=200, horizons=(1,))
    second = forecasts({"log_har": 0.6, "s4d": 0.5, "mamba": 0.2}, n=200, horizons=(2,))
    verdict = judge(board(pl.concat([first, second])))
    assert verdict.headline.startswith(
        "A state-space model beats the best baseline at 1 and 2 days ahead: at 1 day, s4d's"
    )
    assert "; at 2 days, mamba's" in verdict.headline
    assert (
        "In the 90 % model confidence set, not told apart from the best: s4d at 1 day; mamba at 2 days."
        in verdict.headline
    )


def test_a_sure_small_win_leads_over_an_unsure_larger_difference():
    rng = np.random.default_rng(0)
    predictions = forecasts({"log_har": 0.5, "s4d": 0.5, "mamba": 0.5}, n=400)
    y = predictions.filter(model="log_har")["y"].to_numpy()
    log_error = {
        "log_har": np.full(400, 0.5),
        "s4d": 0.47 + 0.01 * rng.standard_normal(400),  # a little better, every day
        "mamba": np.where(rng.uniform(size=400) < 0.07, -1.5, 0.05),  # better but for rare disasters
    }
    y_hat = np.concatenate([y * np.exp(log_error[m]) for m in predictions["model"].unique(maintain_order=True)])
    verdict = judge(board(predictions.with_columns(y_hat=pl.Series(y_hat))))
    claims = {c.model: c for c in verdict.claims}
    assert claims["mamba"].ratio < claims["s4d"].ratio < 1
    assert claims["s4d"].wins
    assert not claims["mamba"].wins
    assert verdict.headline.startswith("s4d beats the best baseline at 1 day ahead: s4d's QLIKE is ")
    assert "mamba's QLIKE" in str(verdict)


def test_without_a_state_space_model_the_leader_is_named_without_a_claim():
    verdict = make_verdict(
        board(forecasts({"log_har": 0.4, "har": 0.6})), families={"log_har": "baseline", "har": "baseline"}
    )
    assert verdict.claims == ()
    assert verdict.headline.startswith(
        "There is no deep state-space model in this study. The lowest QLIKE is that of log_har."
    )


def test_a_state_space_model_that_failed_is_not_judged():
    predictions = forecasts({"log_har": 0.4, "s4d": 0.3})
    lost = predictions.remove((pl.col("model") == "s4d") & (pl.col("ds") > dt.date(2010, 5, 1)))
    verdict = make_verdict(board(lost), families={"log_har": "baseline", "s4d": "ssm"})
    assert verdict.headline.startswith("No state-space model can be judged: s4d did not finish.")
    assert "Left out: s4d, which has 121 of 200 forecasts." in verdict.paragraphs
    other = make_verdict(board(forecasts({"log_har": 0.4, "s4d": 0.3})), families=FAMILIES)
    assert " mamba did not finish and is not judged." in other.headline


def test_without_any_baseline_nothing_is_judged():
    verdict = judge(board(forecasts({"s4d": 0.4, "gru": 0.3})))
    assert "no baseline has a finite loss" in verdict.headline


def test_an_infinite_loss_is_no_comparison():
    predictions = forecasts({"log_har": 0.4, "s4d": 0.3})
    broken = (pl.col("model") == "s4d") & (pl.col("ds") == dt.date(2010, 2, 1))
    predictions = predictions.with_columns(pl.when(broken).then(-1.0).otherwise("y_hat").alias("y_hat"))
    verdict = judge(board(predictions))
    assert "s4d cannot be compared with log_har, a loss is infinite" in verdict.headline
    assert any("s4d has an infinite QLIKE in 1 of 200 forecasts" in p for p in verdict.paragraphs)


def test_the_best_baseline_of_each_horizon_is_the_one_to_beat_whatever_the_reference():
    first = forecasts({"log_har": 0.3, "har": 0.7, "s4d": 0.5}, horizons=(1,))
    second = forecasts({"log_har": 0.7, "har": 0.3, "s4d": 0.5}, horizons=(2,))
    scores = make_leaderboard(pl.concat([first, second]), reference="har", reps=50, by_id_reps=10)
    verdict = judge(scores)
    assert [(c.horizon, c.baseline) for c in verdict.claims] == [(1, "log_har"), (2, "har")]
    assert not any(c.wins for c in verdict.claims)


def test_the_primary_loss_decides():
    scores = board(forecasts({"log_har": 0.5, "s4d": 0.3}, n=400), losses=("mae", "qlike"))
    assert "s4d's MAE is" in judge(scores).headline


@pytest.mark.parametrize("days, step", [(1, "day"), (7, "week"), (30, "month"), (90, "step")])
def test_a_step_is_called_what_it_is(days, step):
    predictions = forecasts({"log_har": 0.5, "s4d": 0.5}, days=days)
    assert f"at 1 {step}, " in judge(board(predictions)).headline
    hourly = predictions.with_columns(pl.col("ds").cast(pl.Datetime("us")))
    assert "at 1 step, " in judge(board(hourly)).headline
    assert "at 1 bar, " in judge(board(hourly), step="bar").headline


def test_wrong_arguments_are_refused():
    scores = board(forecasts({"log_har": 0.5, "s4d": 0.5}))
    with pytest.raises(InputError, match="alpha"):
        make_verdict(scores, families=FAMILIES, alpha=0)
    with pytest.raises(InputError, match="'s4d' has no family"):
        make_verdict(scores, families={"log_har": "baseline"})


def test_false_wins_are_rare_when_no_model_is_better():
    wins = 0
    for seed in range(60):
        predictions = forecasts(
            {"log_har": 0.5, "har": 0.5, "s4d": 0.5, "mamba": 0.5}, n=200, horizons=(1, 2), seed=seed
        )
        wins += any(c.wins for c in judge(board(predictions)).claims)
    assert wins <= 6  # nominally at most 3 of 60 by Holm, fewer as the best baseline is picked with hindsight


TEAM = {**FAMILIES, "ridge": "baseline", "average": "combination", "others": "combination"}


def judge_team(predictions: pl.DataFrame, combined: Combinations) -> Verdict:
    scores = board(predictions)
    return make_verdict(scores, families={m: TEAM[m] for m in scores.pooled["model"].unique()}, combined=combined)


def test_a_combination_that_wins_is_no_state_space_model_that_wins():
    predictions = forecasts({"ridge": 0.5, "s4d": 0.6, "average": 0.3}, n=400)
    combined = Combinations({"average": ("s4d", "ridge")}, {"average": "ridge"})
    verdict = judge_team(predictions, combined)
    assert verdict.headline.startswith("No state-space model beats the best baseline: at 1 day, s4d's QLIKE is ")
    assert (
        " average, the combination of s4d and ridge, beats the best baseline at 1 day ahead: average's QLIKE is "
        in (verdict.headline)
    )
    assert "At 1 day that baseline is average without s4d: the difference is what is added." in verdict.headline
    assert [(c.model, c.baseline, c.role) for c in verdict.claims] == [
        ("s4d", "ridge", "ssm"),
        ("average", "ridge", "combination"),
    ]
    assert "The lowest QLIKE at 1 day is that of average, which is a combination." in str(verdict)


def test_what_a_state_space_model_adds_is_told_from_what_combining_adds():
    errors = {"log_har": 0.5, "ridge": 0.5, "s4d": 0.5, "average": 0.3, "others": 0.3}
    predictions = forecasts(errors, n=400, horizons=(1, 2))
    members = {"average": ("s4d", "ridge", "log_har"), "others": ("ridge", "log_har")}
    verdict = judge_team(predictions, Combinations(members, {"average": "others"}))
    assert "beats the best baseline at 1 and 2 days ahead" in verdict.headline
    assert "Held against others, which is average without s4d: at 1 day, average's QLIKE is " in verdict.headline
    added = [claim for claim in verdict.claims if claim.role == "added"]
    assert [(claim.horizon, claim.model, claim.baseline) for claim in added] == [
        (1, "average", "others"),
        (2, "average", "others"),
    ]
    assert not any(claim.wins for claim in added)
    np.testing.assert_allclose(
        [claim.p_adjusted for claim in verdict.claims], holm(np.array([claim.p_value for claim in verdict.claims]))
    )
    unsaid = judge_team(predictions, Combinations(members, {}))
    assert "Without s4d average is not in the study: what is added is not told apart." in unsaid.headline


def test_a_combination_without_a_state_space_model_makes_no_claim():
    predictions = forecasts({"log_har": 0.5, "ridge": 0.5, "others": 0.3, "s4d": 0.5}, n=200)
    verdict = judge_team(predictions, Combinations({"others": ("log_har", "ridge")}))
    assert {claim.model for claim in verdict.claims} == {"s4d"}
    assert verdict.headline.startswith("No state-space model beats the best baseline")
    assert {claim.baseline for claim in verdict.claims} <= {"log_har", "ridge"}
