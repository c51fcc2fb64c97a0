"""Quantiles that learn from matured outcomes: a slow twin, what coverage they reach, nothing from the future."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import ssmfin as sf
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.errors import InputError
from ssmfin.evaluation.recalibration import Recalibration, recalibrated, track

LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
COLUMNS = ["q05", "q25", "q50", "q75", "q95"]


def series(seed: int, n: int = 300, horizon: int = 1):
    """A level that moves, quantiles around it that are too narrow, outcomes known after `horizon` rows."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(0.1 * rng.standard_normal(n))
    quantiles = level[:, None] + 0.6 * norm.ppf(LEVELS)
    y = level + rng.standard_normal(n)
    origin = np.sort(rng.choice(3 * n, size=n, replace=False))
    known = np.concatenate([origin[horizon:], np.full(horizon, 10**6)])
    return quantiles, y, origin, known


def twin(quantiles, y, origin, known, how):
    """The definition, origin by origin, everything looked up anew."""
    scores, out = norm.ppf(LEVELS), []
    for t in range(len(y)):
        theta = np.zeros(len(LEVELS))
        for s in range(t):
            if known[s] <= origin[t] and np.isfinite(y[s]):
                theta = np.clip(theta + how.rate * (LEVELS - (y[s] <= out[s])), -how.bound, how.bound)
        place = np.maximum.accumulate(scores + theta)
        inside = np.interp(place, scores, quantiles[t])
        low = quantiles[t, 0] + (place - scores[0]) * (quantiles[t, 1] - quantiles[t, 0]) / (scores[1] - scores[0])
        high = quantiles[t, -1] + (place - scores[-1]) * (quantiles[t, -1] - quantiles[t, -2]) / (
            scores[-1] - scores[-2]
        )
        out.append(np.where(place < scores[0], low, np.where(place > scores[-1], high, inside)))
    return np.array(out)


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("how", [Recalibration(), Recalibration(rate=0.5, bound=2.5)], ids=["usual", "fast"])
def test_it_is_what_its_definition_says(horizon, how) -> None:
    quantiles, y, origin, known = series(0, 120, horizon)
    y[[3, 50]] = np.nan
    found = track(quantiles, y, LEVELS, origin=origin, known=known, how=how)
    np.testing.assert_allclose(found, twin(quantiles, y, origin, known, how), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found[0], quantiles[0])
    assert np.ptp(found - quantiles) > 0.05


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_what_is_not_known_yet_changes_nothing_and_quantiles_do_not_cross(seed, horizon) -> None:
    quantiles, y, origin, known = series(seed, 80, horizon)
    found = track(quantiles, y, LEVELS, origin=origin, known=known, how=Recalibration(rate=0.3, bound=2.0))
    assert (np.diff(found, axis=1) >= -1e-12).all()
    now = origin[40]
    other, changed = y.copy(), quantiles.copy()
    other[known > now] = 1e3
    changed[origin > now] += 5.0
    again = track(changed, other, LEVELS, origin=origin, known=known, how=Recalibration(rate=0.3, bound=2.0))
    np.testing.assert_array_equal(again[:41], found[:41])


def test_the_share_below_each_quantile_becomes_what_it_says() -> None:
    """Intervals of six tenths of the right width hold too little; within the bound, the misses end that."""
    quantiles, y, origin, known = series(1, 6000)
    found = track(quantiles, y, LEVELS, origin=origin, known=known, how=Recalibration(rate=0.05, bound=2.0))
    before, after = ((y[:, None] <= q).mean(axis=0) for q in (quantiles, found))
    assert np.abs(before - LEVELS).max() > 0.09
    assert np.abs(after - LEVELS).max() < 0.01


def predictions(log: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two models, one without quantiles and one with two seeds; two ids, two horizons."""
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=t) for t in range(150)]
    frames, known = [], []
    for k, name in enumerate(("a", "b")):
        for horizon in (1, 3):
            quantiles, y, _, _ = series(10 * k + horizon, 150, horizon)
            quantiles, y = (np.exp(quantiles), np.exp(y)) if log else (quantiles, y)
            keys = {"unique_id": [name] * 150, "ds": days, "horizon": pl.Series([horizon] * 150, dtype=pl.Int32)}
            at = pl.int_range(150, eager=True)
            known.append(pl.DataFrame(keys).with_columns(origin=at, known=at + horizon))
            for model, seed in (("mean", 0), ("fan", 0), ("fan", 1)):
                told = {} if model == "mean" else dict(zip(COLUMNS, (quantiles * (1 + 0.1 * seed)).T, strict=True))
                frames.append(
                    pl.DataFrame({**keys, "y": y, "y_hat": y, **told}).with_columns(model=pl.lit(model), seed=seed)
                )
    frame = pl.concat(frames, how="diagonal").with_columns(y=pl.when(pl.col("ds") > days[-3]).then(None).otherwise("y"))
    return frame.sample(fraction=1.0, shuffle=True, seed=0), pl.concat(known)


@pytest.mark.parametrize("log", [True, False])
def test_every_model_seed_id_and_horizon_learns_by_itself(log) -> None:
    frame, known = predictions(log)
    found = recalibrated(frame, known, Recalibration(), log=log)
    assert found.drop(COLUMNS).equals(frame.drop(COLUMNS))
    assert found.filter(model="mean").equals(frame.filter(model="mean"))
    for seed, name, horizon in [(0, "a", 1), (1, "b", 3)]:
        own = {"model": "fan", "seed": seed, "unique_id": name, "horizon": horizon}
        before, after = (part.filter(**own).sort("ds") for part in (frame, found))
        scale = np.log if log else np.asarray
        at = np.arange(150)
        y = scale(before["y"].fill_null(float("nan")).to_numpy())
        expected = twin(scale(before.select(COLUMNS).to_numpy()), y, at, at + horizon, Recalibration())
        np.testing.assert_allclose(scale(after.select(COLUMNS).to_numpy()), expected, rtol=1e-9, atol=1e-12)


def test_quantiles_of_zero_have_no_log_and_are_shifted_as_they_are() -> None:
    frame, known = predictions()
    frame = frame.with_columns(q05=0.0 * pl.col("q05"))
    found = recalibrated(frame, known, Recalibration(), log=True).filter(model="fan")
    assert all(found[name].is_finite().all() for name in COLUMNS)
    assert not found["q95"].equals(frame.filter(model="fan")["q95"])


def test_a_frame_without_quantiles_stays_as_it_is() -> None:
    frame, known = predictions()
    assert recalibrated(frame.drop(COLUMNS), known, Recalibration(), log=True).equals(frame.drop(COLUMNS))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rate": 0.0}, r"recalibrate\.rate is 0\.0"),
        ({"bound": 9.0}, r"recalibrate\.bound is 9\.0"),
        ({"rat": 0.1}, r"recalibrate has no setting 'rat'; did you mean 'rate'\?"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        Recalibration.of(settings)


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    return simulate_volatility_panel(ids=2, dates=460, seed=1).frame


def evaluated(panel: pl.DataFrame, **settings) -> sf.Result:
    small = {"layers": 1, "width": 4, "segment": 64, "context": 16, "epochs": 1, "device": "cpu", "head": "quantiles"}
    return sf.evaluate(
        {"s4d": sf.S4D(**small)},
        panel,
        target="rv",
        folds=sf.WalkForward(train=300, validation=60, test=40, horizons=[1, 5]),
        benchmarks={"lightgbm": sf.LightGBM(max_rounds=3)},
        **settings,
    )


def test_an_evaluation_writes_and_scores_what_was_learned_and_says_so(panel) -> None:
    plain, learned = evaluated(panel), evaluated(panel, recalibrate={"rate": 0.1})
    assert learned.predictions.drop(COLUMNS).equals(plain.predictions.drop(COLUMNS))
    first, last = (
        learned.predictions.filter(pl.col("ds") == getattr(pl.col("ds"), edge)(), model="s4d")
        for edge in ("min", "max")
    )
    assert first.equals(plain.predictions.join(first.select("ds"), on="ds", how="semi").filter(model="s4d"))
    same = plain.predictions.join(last.select("ds"), on="ds", how="semi").filter(model="s4d")
    assert (last["q95"] != same["q95"]).all()
    assert "learned from the outcomes known at each origin" in str(learned)
    assert "rate 0.1, bound 1" in str(learned)
    assert "learned from the outcomes" not in str(plain)
    assert not learned.probabilistic.pooled.equals(plain.probabilistic.pooled)


def test_rows_after_a_date_change_no_quantile_before_it(panel) -> None:
    now = panel["ds"].unique().sort()[420]
    changed = panel.with_columns(rv=pl.when(pl.col("ds") > now).then(pl.col("rv") * 9.0).otherwise("rv"))
    before, after = (evaluated(one, recalibrate={"rate": 0.3}).predictions for one in (panel, changed))
    past = [part.filter(pl.col("ds") <= now).drop("y") for part in (before, after)]
    assert past[0].equals(past[1])
    assert not before.drop("y").equals(after.drop("y"))
