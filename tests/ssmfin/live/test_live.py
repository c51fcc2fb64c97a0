"""A model in use: it forecasts what the same model forecasts in an evaluation, all at once or row by row."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression

import ssmfin as sf
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.live import Trained

SMALL = {"layers": 1, "width": 8, "segment": 64, "context": 32, "epochs": 2, "device": "cpu"}
FEATURES = {"har": {"kind": "har_lags"}, "leverage": {"kind": "leverage", "column": "log_return"}}
TRAIN, VALIDATION = 300, 60


@pytest.fixture(scope="module")
def panel() -> sf.Panel:
    """Three markets with holidays of their own, the last of which opens late."""
    return sf.load_panel(simulate_volatility_panel(ids=3, dates=520, late_starts=0.2, seed=3).frame)


@pytest.fixture(scope="module")
def cutoff(panel) -> int:
    return 450


@pytest.fixture(scope="module")
def past(panel, cutoff) -> sf.Panel:
    return sf.Panel(panel.frame.filter(pl.col("ds") <= pl.lit(panel.dates[cutoff])))


@pytest.fixture(scope="module")
def future(panel, cutoff) -> pl.DataFrame:
    return panel.frame.filter(pl.col("ds") > pl.lit(panel.dates[cutoff]))


def fitted(model, past, features=FEATURES, **more) -> Trained:
    return sf.fit(model, past, target="rv", features=features, train=TRAIN, validation=VALIDATION, **more)


def days(frame: pl.DataFrame) -> list[pl.DataFrame]:
    return [rows for _, rows in frame.sort("ds", "unique_id").group_by("ds", maintain_order=True)]


@pytest.mark.parametrize("model", [sf.LogHAR(), sf.Ridge(), LinearRegression()], ids=["log_har", "ridge", "sklearn"])
def test_it_forecasts_as_the_same_model_does_in_an_evaluation(model, panel, past, cutoff) -> None:
    start = str(panel.dates[cutoff])[:10]
    folds = sf.WalkForward(train=TRAIN, validation=VALIDATION, test=500, horizons=[1, 5, 22], start=start)
    result = sf.evaluate({"mine": model}, panel, target="rv", folds=folds, features=FEATURES)
    judged = result.predictions.filter(pl.col("model") == "mine")
    used = fitted(model, past).forecast(panel)
    both = judged.join(used, on=["unique_id", "ds", "horizon"], suffix="_used")
    assert len(both) == len(judged) > 100
    np.testing.assert_allclose(both["y_hat_used"], both["y_hat"], rtol=1e-10)


@pytest.fixture(scope="module", params=["log_har", "lightgbm", "sklearn", "s4d", "kalman feature"])
def trained(request, past) -> Trained:
    if request.param == "kalman feature":
        return fitted(sf.Ridge(), past, {**FEATURES, "level": {"kind": "kalman", "column": "rv", "emit": ["level"]}})
    if request.param == "s4d":
        found = fitted(sf.S4D(**SMALL, residual="none"), past)
        assert (found.fitted.corrections(found.design(past), np.array([400])) != 0).all()
        return found
    return fitted(
        {"log_har": sf.LogHAR(), "lightgbm": sf.LightGBM(), "sklearn": LinearRegression()}[request.param], past
    )


def test_row_by_row_equals_all_at_once(trained, panel, past, future) -> None:
    live = trained.live(past)
    streamed = pl.concat(live.update(rows) for rows in days(future))
    batch = trained.forecast(panel).filter(pl.col("ds") > pl.lit(past.dates[-1]))
    both = streamed.join(batch, on=["unique_id", "ds", "horizon"], suffix="_batch")
    assert len(both) == len(streamed) == len(batch) == 3 * len(future)
    np.testing.assert_allclose(both["y_hat"], both["y_hat_batch"], rtol=1e-5)


def test_many_rows_at_once_equal_one_day_after_the_other(trained, past, future) -> None:
    live = trained.live(past)
    one_by_one = pl.concat(live.update(rows) for rows in days(future)[:8])
    shuffled = pl.concat(days(future)[:8]).sample(fraction=1.0, shuffle=True, seed=0)
    at_once = trained.live(past).update(shuffled)
    assert at_once.select("unique_id", "ds", "horizon").equals(one_by_one.select("unique_id", "ds", "horizon"))
    np.testing.assert_allclose(at_once["y_hat"], one_by_one["y_hat"], rtol=1e-6)


@pytest.mark.parametrize("model", [sf.LogHAR(), sf.S4D(**SMALL, residual="none")], ids=["log_har", "s4d"])
def test_few_rows_are_enough_where_the_features_look_back_no_further(model, past, future) -> None:
    trained = fitted(model, past)
    kept, whole = trained.live(past, keep=30), trained.live(past)
    for rows in days(future)[:12]:
        np.testing.assert_allclose(kept.update(rows)["y_hat"], whole.update(rows)["y_hat"], rtol=1e-6)


def test_too_few_rows_are_refused_at_once(past) -> None:
    with pytest.raises(sf.InputError, match=r"keep is 12, too few rows: .* does not have its features"):
        fitted(sf.LogHAR(), past).live(past, keep=12)
    endless = fitted(sf.Ridge(), past, {**FEATURES, "level": {"kind": "kalman", "column": "rv", "emit": ["level"]}})
    with pytest.raises(sf.InputError, match="keep is 25, too few rows"):
        endless.live(past, keep=25)
    with pytest.raises(sf.InputError, match="keep is 0; use at least 1 row"):
        fitted(sf.LogHAR(), past).live(past, keep=0)


def test_frames_of_pandas_do_as_well(past, future) -> None:
    trained = fitted(sf.LogHAR(), past)
    rows = days(future)[0]
    assert trained.live(past).update(rows.to_pandas()).equals(trained.live(past).update(rows))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda rows: rows.with_columns(rv=pl.lit(np.nan)),
            "has rv = nan, which is not finite and positive; repair the row .* or leave it out",
        ),
        (lambda rows: rows.with_columns(unique_id=pl.lit("market_9")), "id 'market_9' is not in the history"),
        (lambda rows: rows.with_columns(pl.col("ds").dt.offset_by("-1y")), "is not after the last one seen"),
        (lambda rows: pl.concat([rows, rows[[0]]]), "or is given twice"),
        (lambda rows: rows.with_columns(rv=pl.lit(None, dtype=pl.Float64)), "has rv = None, which is not finite"),
        (lambda rows: rows.drop("log_return"), "lack column 'log_return', which feature 'leverage' reads"),
        (lambda rows: rows.drop("rv"), "lack column 'rv', which the target reads"),
        (lambda rows: rows.drop("ds"), "lack column 'ds'"),
        (lambda rows: rows.with_columns(rv=pl.lit("much")), "another type than the history"),
    ],
)
@pytest.mark.parametrize("model", [sf.LogHAR(), sf.S4D(**SMALL, residual="none")], ids=["log_har", "s4d"])
def test_bad_rows_are_refused_and_change_nothing(model, spoil, message, past, future) -> None:
    trained = fitted(model, past)
    first, second = days(future)[:2]
    live, untouched = trained.live(past), trained.live(past)
    assert live.update(first).equals(untouched.update(first))
    with pytest.raises(sf.InputError, match=message):
        live.update(spoil(second))
    assert live.update(second).equals(untouched.update(second))


def test_a_row_that_was_refused_for_good_may_be_left_out(past, future) -> None:
    trained = fitted(sf.LogHAR(), past)
    live, never_asked = trained.live(past), trained.live(past)
    broken, later = days(future)[:2]
    with pytest.raises(sf.InputError, match="leave it out for good"):
        live.update(broken.with_columns(rv=pl.lit(0.0)))
    assert live.update(later).equals(never_asked.update(later))


def test_a_panel_of_other_ids_is_refused(past) -> None:
    trained = fitted(sf.LogHAR(), past)
    with pytest.raises(sf.InputError, match="'market_2' is in one of them alone"):
        trained.forecast(past.frame.filter(pl.col("unique_id") != "market_2"))


def test_windows_that_do_not_fit_are_refused(past) -> None:
    with pytest.raises(sf.InputError, match="train is 80; use at least 84 dates"):
        sf.fit(sf.LogHAR(), past, target="rv", train=80, validation=60)
    with pytest.raises(sf.InputError, match="train is 9999"):
        sf.fit(sf.LogHAR(), past, target="rv", train=9999)
    missing = past.frame.with_columns(log_return=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(sf.InputError, match=r"complete features .*leverage__negative_1"):
        fitted(sf.Ridge(), sf.Panel(missing))


@pytest.mark.parametrize("model", [sf.LogHAR, "log_har"])
def test_a_class_or_a_name_is_no_model(model, past) -> None:
    with pytest.raises(sf.InputError, match="no forecaster; give an instance"):
        fitted(model, past)


def test_what_is_no_frame_is_refused_by_name(past) -> None:
    live = fitted(sf.LogHAR(), past).live(past)
    with pytest.raises(sf.InputError, match=r"are a dict, no frame; give a polars or pandas frame .* unique_id, ds, "):
        live.update({"unique_id": ["market_0"], "rv": [1e-4]})


def test_a_fitted_model_says_in_a_line_what_it_is(past) -> None:
    last = str(past.dates[-1])[:10]
    har = fitted(sf.LogHAR(), past)
    assert repr(har).startswith("Trained(log_har for rv at horizons 1, 5, 22; fitted on ")
    assert repr(har).endswith(f" rows of 3 ids until {last})")
    assert not har.stayed_at_base
    assert repr(fitted(LinearRegression(), past)).startswith("Trained(LinearRegression for rv")
    stayed = fitted(sf.S4D(**SMALL | {"epochs": 0}), past)
    assert repr(stayed).startswith("Trained(s4d, correcting log_har, for rv")
    assert repr(stayed).endswith("; training: learned nothing beyond log_har, for no epoch was trained)")
    assert stayed.notes == (
        "s4d learned nothing beyond log_har, for no epoch was trained: its forecasts are those of log_har.",
    )
    assert har.notes == ()
    assert repr(fitted(sf.S4D(**SMALL, early_stopping=False), past)).endswith("; training: best epoch 2 of 2)")
    useless = fitted(sf.S4D(**SMALL), past)
    for parameter in useless.fitted.network.head.parameters():  # what early stopping keeps when no epoch is better
        parameter.data.zero_()
    assert repr(useless).endswith(
        "; training: learned nothing beyond log_har, for no epoch of 2 lowered the validation loss)"
    )
    live = stayed.live(past, keep=30)
    assert repr(live).startswith(f"Live(keep=30; 90 rows of 3 ids kept, until {last}; of Trained(s4d")
    assert len(repr(live)) < 300
