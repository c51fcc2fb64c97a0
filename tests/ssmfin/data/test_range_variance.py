"""Range variances: unbiased on diffusions whose truth is known, and each one's own invariances."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.data.range_variance import RangeMeasures, garman_klass, parkinson, rogers_satchell, yang_zhang
from ssmfin.data.synthetic import simulate_prices
from ssmfin.errors import InputError

DAYS, SIGMA = 20_000, 0.012
SESSION = {
    "parkinson": lambda o, h, lo, c: parkinson(h, lo),
    "garman_klass": garman_klass,
    "rogers_satchell": rogers_satchell,
}


def prices(**options) -> tuple[np.ndarray, ...]:  # type: ignore[no-untyped-def]
    frame = simulate_prices(DAYS, volatility=SIGMA, **options).frame
    return tuple(frame[name].to_numpy() for name in ("open", "high", "low", "close"))


def standard_errors_off(estimate: np.ndarray, truth: float) -> float:
    """How many standard errors the mean is from the truth."""
    return float((estimate.mean() - truth) / (estimate.std() / np.sqrt(len(estimate))))


@pytest.mark.parametrize("name", SESSION)
def test_session_estimators_are_unbiased_without_drift(name: str) -> None:
    assert abs(standard_errors_off(SESSION[name](*prices(seed=1)), SIGMA**2)) < 3.5


def test_rogers_satchell_is_unbiased_under_drift_where_the_others_are_not() -> None:
    drifting = prices(seed=2, drift=SIGMA)
    assert abs(standard_errors_off(rogers_satchell(*drifting), SIGMA**2)) < 3.5
    assert standard_errors_off(parkinson(*drifting[1:3]), SIGMA**2) > 10
    assert standard_errors_off(garman_klass(*drifting), SIGMA**2) > 10


@pytest.mark.parametrize("drift", [0.0, SIGMA])
def test_yang_zhang_is_unbiased_for_the_whole_day_whatever_the_drift(drift: float) -> None:
    day = SIGMA**2 / (1 - 0.3)
    estimate = yang_zhang(*prices(seed=3, drift=drift, overnight_share=0.3), window=20)[
        20::20
    ]  # windows without overlap
    assert abs(standard_errors_off(estimate, day)) < 3.5


def test_garman_klass_has_an_eighth_of_the_variance_of_the_squared_return() -> None:
    open_, high, low, close = prices(seed=4)
    ratio = np.log(close / open_).__pow__(2).var() / garman_klass(open_, high, low, close).var()
    assert 6.5 < ratio < 8.5  # 7.4 in theory
    ratio = np.log(close / open_).__pow__(2).var() / parkinson(high, low).var()
    assert 4.4 < ratio < 5.4  # 4.9 in theory


def test_bridge_extremes_remove_the_bias_of_a_coarse_path() -> None:
    coarse = parkinson(*prices(seed=5, steps=16)[1:3])
    assert abs(coarse.mean() / SIGMA**2 - 1) < 0.03  # a range of 16 plain points would be 30 % short


@pytest.mark.parametrize("name", SESSION)
def test_overnight_jumps_do_not_reach_session_estimators(name: str) -> None:
    o, h, lo, c = (price[:200] for price in prices(seed=6))
    jump = np.exp(np.random.default_rng(0).normal(0, 0.05, 200)).cumprod()
    calm, jumpy = SESSION[name](o, h, lo, c), SESSION[name](o * jump, h * jump, lo * jump, c * jump)
    np.testing.assert_allclose(jumpy, calm, rtol=1e-9, atol=1e-15)


def test_yang_zhang_counts_the_night() -> None:
    o, h, lo, c = (price[:400] for price in prices(seed=7))
    jump = np.exp(np.random.default_rng(0).normal(0, 0.05, 400)).cumprod()
    added = yang_zhang(o * jump, h * jump, lo * jump, c * jump) - yang_zhang(o, h, lo, c)
    assert np.nanmean(added) == pytest.approx(0.05**2, rel=0.2)


@settings(max_examples=40, deadline=None)
@given(st.integers(-40, 40), st.integers(0, 2**32 - 1))
def test_scale_of_prices_does_not_matter(power: int, seed: int) -> None:
    frame = simulate_prices(60, seed=seed, overnight_share=0.2).frame
    o, h, lo, c = (frame[name].to_numpy() for name in ("open", "high", "low", "close"))
    k = 2.0**power  # exact in binary, so the results must agree in every bit
    for estimator in (*SESSION.values(), yang_zhang):
        np.testing.assert_array_equal(estimator(k * o, k * h, k * lo, k * c), estimator(o, h, lo, c))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_time_reversal_and_reflection_of_a_session_leave_it_unchanged(seed: int) -> None:
    frame = simulate_prices(20, seed=seed).frame
    o, h, lo, c = (frame[name].to_numpy() for name in ("open", "high", "low", "close"))
    for estimator in SESSION.values():
        np.testing.assert_allclose(estimator(c, h, lo, o), estimator(o, h, lo, c), rtol=1e-9, atol=1e-18)
        np.testing.assert_allclose(
            estimator(1 / o, 1 / lo, 1 / h, 1 / c), estimator(o, h, lo, c), rtol=1e-9, atol=1e-18
        )


def test_yang_zhang_equals_its_definition_window_by_window() -> None:
    o, h, lo, c = (price[:60] for price in prices(seed=8, overnight_share=0.2))
    n = 7
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    estimate = yang_zhang(o, h, lo, c, window=n)
    assert np.isnan(estimate[:n]).all()
    for t in range(n, 60):
        days = slice(t - n + 1, t + 1)
        night, session = np.log(o[days] / c[t - n : t]), np.log(c[days] / o[days])
        expected = night.var(ddof=1) + k * session.var(ddof=1) + (1 - k) * rogers_satchell(o, h, lo, c)[days].mean()
        assert estimate[t] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 79), st.integers(0, 2**32 - 1))
def test_days_after_t_do_not_change_a_bit_up_to_t(t: int, seed: int) -> None:
    two = pl.concat([simulate_prices(80, seed=seed + k, unique_id=name).frame for k, name in enumerate("ab")])
    future = simulate_prices(80, seed=seed + 9, volatility=0.3).frame
    later = pl.int_range(80).over("unique_id") > t
    changed = two.with_columns(
        pl.when(later).then(pl.concat([future[name]] * 2)).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    )
    spec = RangeMeasures(estimators=("parkinson", "garman_klass", "rogers_satchell", "yang_zhang"), window=5)
    before = [spec.add(frame).filter(~later) for frame in (two, changed)]
    assert before[0].equals(before[1])


def test_measures_of_an_id_do_not_depend_on_its_neighbours() -> None:
    frames = [simulate_prices(40, seed=k, unique_id=name, overnight_share=0.2).frame for k, name in enumerate("abc")]
    spec = RangeMeasures(estimators=("yang_zhang", "parkinson"), window=5)
    together = spec.add(pl.concat(frames))
    assert together.equals(pl.concat([spec.add(frame) for frame in frames]))
    assert together["log_return"].null_count() == 3
    assert together["yang_zhang"].null_count() == 3 * 5


def test_missing_price_gives_missing_variance_only_where_it_is_used() -> None:
    frame = simulate_prices(30, seed=0).frame.with_row_index("n")
    frame = frame.with_columns(pl.when(pl.col("n") == 10).then(None).otherwise(pl.col("open")).alias("open")).drop("n")
    added = RangeMeasures(estimators=("parkinson", "garman_klass", "yang_zhang"), window=3).add(frame)
    assert added["parkinson"].null_count() == 0
    assert added["garman_klass"].is_null().arg_true().to_list() == [10]
    assert added["yang_zhang"].is_null().arg_true().to_list() == [0, 1, 2, 10, 11, 12]


def test_parkinson_reads_high_and_low_alone() -> None:
    frame = simulate_prices(30, seed=0).frame.select("unique_id", "ds", "high", "low")
    panel = load_panel(frame, measures={"kind": "range"}, target="parkinson", positive=True)
    assert panel.value_columns == ("high", "low", "parkinson")


def test_own_log_return_is_kept_and_own_parkinson_is_not_overwritten() -> None:
    frame = simulate_prices(5, seed=0).frame.with_columns(log_return=0.5)
    assert load_panel(frame, measures={"kind": "range"}).frame["log_return"].to_list() == [0.5] * 5
    with pytest.raises(InputError, match=r"would overwrite the columns \['parkinson'\]"):
        load_panel(frame.with_columns(parkinson=1.0), measures={"kind": "range"})


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ({"kind": "range", "estimators": ["parkinsen"]}, ["estimators", "'parkinsen'"]),
        ({"kind": "range", "estimators": []}, ["estimators"]),
        ({"kind": "range", "window": 1}, ["window", "1"]),
        ({"kind": "range", "window": "22"}, ["window"]),
        ({"kind": "range", "windw": 22}, ["windw", "did you mean 'window'?"]),
        ({"kind": "ranges"}, ["kind", "'ranges'"]),
    ],
)
def test_wrong_specification_is_refused(measures: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_panel({"kind": "arch"}, measures=measures)
    for word in words:
        assert word in str(caught.value)


def test_window_of_one_day_is_refused() -> None:
    with pytest.raises(InputError, match="use at least 2"):
        yang_zhang(*(np.ones(5),) * 4, window=1)
