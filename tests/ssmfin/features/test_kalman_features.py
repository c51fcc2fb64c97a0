"""Kalman features: filtered values alone, one series' own parameters, the same by update as by transform."""

import datetime as dt
import itertools
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from ssmfin.classical.kalman.filtering import filter_series
from ssmfin.classical.kalman.fitting import KalmanFit
from ssmfin.classical.kalman.kinds import KINDS, specification
from ssmfin.errors import InputError
from ssmfin.features.emits import KALMAN_MODELS, kalman_emits
from ssmfin.features.kalman import KalmanFeatures

EVERY = ("level", "level_se", "variance", "predicted_mean", "predicted_variance", "innovation", "gain", "half_life")
MODELS = {
    "local_level": {"emit": [*EVERY, "standardised_innovation", "log_score"]},
    "local_linear_trend": {"damped": True},
    "seasonal": {"period": 5},
    "ar1_plus_noise": {"emit": ["level", "spread_zscore"]},
    "sum_of_ar1": {"terms": 2},
    "stochastic_volatility": {"column": "r", "emit": ["log_variance", "volatility"]},
    "dynamic_regression": {"regressors": ["x"], "emit": ["alpha", "beta", "beta_se", "innovation", "spread_zscore"]},
    "dynamic_nelson_siegel": {"columns": ["y", "x", "r"], "maturities": [3, 12, 60], "decay": 0.06},
    "dynamic_factor": {"emit": ["factor", "factor_se", "log_score"]},
}


def features(model, **changes):
    options = {**MODELS[model], **changes}
    return KalmanFeatures(model, **({} if "columns" in options else {"column": "y"}) | options)


def values(frame):
    return frame.drop("unique_id", "ds").to_numpy()


@pytest.fixture(scope="module")
def fitted(train):
    return {model: features(model).fit(train) for model in MODELS}


def test_every_model_of_the_library_is_offered_with_the_outputs_that_it_has():
    options = {"dynamic_nelson_siegel": {"maturities": (3, 12, 60)}, "dynamic_factor": {"n_components": 2}}
    assert set(KALMAN_MODELS) == set(KINDS) == set(MODELS)
    for model, found in KALMAN_MODELS.items():
        spec = specification(model, **options.get(model, {}))
        count = 1 if model == "dynamic_regression" else 2
        own = {name.replace("#", str(k + 1)) for name in found.outputs for k in range(count)}
        assert own == set(spec.output_names)
        assert kalman_emits(model, None, count=count)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_update_equals_a_run_over_everything(fitted, walks, history, later, model):
    whole = fitted[model].transform(walks).filter(pl.col("ds") > later["ds"].min() - dt.timedelta(days=1))
    fitted[model].transform(history)
    middle = dt.date(2020, 8, 20)
    first = fitted[model].update(later.filter(pl.col("ds") <= middle))
    second = fitted[model].update(later.filter(pl.col("ds") > middle))
    pieces = pl.concat([first, second]).sort("unique_id", "ds")
    assert pieces.select("unique_id", "ds").equals(whole.select("unique_id", "ds"))
    np.testing.assert_allclose(values(pieces), values(whole), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(2, 79), min_size=1, max_size=4, unique=True))
def test_any_split_of_the_stream_gives_the_same_states(cuts):
    rng = np.random.default_rng(len(cuts))
    days = [dt.date(2021, 1, 1) + dt.timedelta(days=i) for i in range(80)]
    frame = pl.DataFrame(  # b ends early: some pieces have no row of it; the slope is unknown until the second row
        {"unique_id": ["a"] * 80 + ["b"] * 40, "ds": days + days[:40], "y": rng.standard_normal(120).cumsum()}
    ).with_columns(y=pl.when(pl.int_range(pl.len()) % 17 == 5).then(None).otherwise("y"))
    found = KalmanFeatures("local_linear_trend", column="y").fit(frame)
    whole, parts = found.transform(frame), []
    for begin, end in itertools.pairwise([0, *sorted(cuts), 80]):
        piece = frame.filter(pl.col("ds").is_in(days[begin:end]))
        parts.append(found.update(piece) if begin else found.transform(piece))
    np.testing.assert_allclose(values(pl.concat(parts).sort("unique_id", "ds")), values(whole), rtol=1e-12, atol=1e-12)


def test_columns_are_what_the_filter_says_of_the_series_alone(fitted, walks):
    out = fitted["local_level"].transform(walks).filter(unique_id="id1")
    y = walks.filter(unique_id="id1")["y"].to_numpy()
    parameters = fitted["local_level"].parameters_[1]
    past = filter_series(
        KalmanFit.at(specification("local_level"), parameters[None], y_scale=fitted["local_level"].units_[1:2, :1]),
        y[None],
    )
    for name, expected in {
        "level": past.output("level")[0],
        "variance": past.output("level")[1],
        "level_se": np.sqrt(past.output("level")[1]),
        "predicted_mean": past.predicted_mean[..., 0],
        "innovation": past.innovation[..., 0],
        "gain": past.gain[:, :, 0, 0],
        "log_score": past.log_score,
    }.items():
        np.testing.assert_array_equal(out[name].to_numpy(), expected[0], err_msg=name)  # the same bits in any batch
    gain = out["gain"].to_numpy()[-1]
    assert np.isclose((1 - gain) ** out["half_life"].to_numpy()[-1], 0.5)
    np.testing.assert_allclose(
        out["level"].to_numpy()[1:],
        (out["predicted_mean"] + out["gain"] * out["innovation"]).to_numpy()[1:],
        rtol=1e-12,
    )


@pytest.mark.parametrize("model", sorted(MODELS))
def test_nothing_after_t_moves_what_is_said_at_t(fitted, walks, model):
    day = dt.date(2020, 6, 1)
    later = pl.col("ds") > day
    changed = walks.with_columns(pl.when(later).then(pl.col(c) * 1.7 + 0.1).otherwise(c).alias(c) for c in "yxr")
    before, after = (fitted[model].transform(f).filter(pl.col("ds") <= day) for f in (walks, changed))
    np.testing.assert_array_equal(values(before), values(after))


def test_a_hedge_ratio_is_found_with_its_error_and_its_spread(fitted, walks):
    out = fitted["dynamic_regression"].transform(walks).filter(unique_id="id0").tail(60)
    assert out.columns[2:] == ["alpha", "beta_1", "beta_1_se", "innovation", "spread_zscore"]
    assert (abs(out["beta_1"] - 1.5) < 4 * out["beta_1_se"]).all()
    assert 0.5 < out["spread_zscore"].std() < 1.6


def test_a_spread_is_scored_against_its_own_mean_and_spread(fitted, walks):
    out = fitted["ar1_plus_noise"].transform(walks).filter(unique_id="id0")
    mean, _, phi, variance = fitted["ar1_plus_noise"].parameters_[0]
    expected = (out["level"].to_numpy() - mean) / np.sqrt(variance / (1 - phi**2))
    np.testing.assert_allclose(out["spread_zscore"].to_numpy(), expected, rtol=1e-12)


def test_volatility_is_of_returns_about_the_mean_of_the_training_window(fitted, walks):
    out = fitted["stochastic_volatility"].transform(walks).filter(unique_id="id0")
    returns = walks.filter(unique_id="id0")["r"].to_numpy()
    assert 0.4 < out["volatility"].to_numpy().mean() / returns.std() < 1.6
    np.testing.assert_allclose(out["volatility"].to_numpy() ** 2, np.exp(out["log_variance"].to_numpy()), rtol=1e-12)
    shifted = walks.with_columns(r=pl.col("r") + 1.0)
    own = features("stochastic_volatility").fit(shifted.filter(pl.col("ds") <= dt.date(2020, 7, 1))).transform(shifted)
    np.testing.assert_allclose(own.filter(unique_id="id0")["volatility"], out["volatility"], rtol=1e-4)


def test_a_factor_is_one_for_all_ids_of_a_date(fitted, walks):
    out = fitted["dynamic_factor"].transform(walks)
    assert (out.group_by("ds").agg(pl.col("factor").n_unique())["factor"] == 1).all()
    assert fitted["dynamic_factor"].components_ == ["id0", "id1", "id2"]
    assert fitted["dynamic_factor"].remarks()["left out of the factor"] == "id3"
    late = walks.with_columns(known_at=pl.col("ds") + dt.timedelta(days=2))
    with pytest.raises(InputError, match=r"is known at 2020-.*, after its date"):
        features("dynamic_factor").fit(late)


def test_a_series_that_cannot_be_fitted_leaves_the_others_as_they_were_and_is_named(fitted, train, walks):
    for model in ("local_level", "sum_of_ar1"):
        found = fitted[model]
        assert found.status(["id0", "id3", "new"])[1:] == ["failed", "unseen"]
        assert "1 of 4 ids (id3); is constant" in found.remarks()["failed"]
        alone = features(model).fit(train.filter(unique_id="id1"))
        # not to the bit: sums over time are split by the length of the longest series
        np.testing.assert_allclose(alone.parameters_[0], found.parameters_[1], rtol=1e-6)
        assert np.isfinite(found.transform(walks).filter(unique_id="id3")["level"].to_numpy()[1:]).all()
    assert found.parameters_[3, 0] == pytest.approx(2.0, abs=10)  # a location: about the series' own mean
    with pytest.raises(InputError, match="no id could be fitted; the first, 'id3', is constant"):
        features("local_level").fit(train.filter(unique_id="id3"))


def test_an_id_that_begins_after_the_training_window_is_filtered_with_typical_parameters(fitted, walks):
    new = walks.filter(unique_id="id0").with_columns(unique_id=pl.lit("new"))
    out = fitted["local_level"].transform(pl.concat([walks, new])).filter(unique_id="new")
    assert np.isfinite(out["level"].to_numpy()).all()
    found = fitted["local_level"]
    ratios = found.typical_ / found.parameters_[:3]  # one of the three, up to a unit: variances by a common factor
    assert np.isclose(ratios[:, 0], ratios[:, 1], rtol=1e-12).any()


def test_what_was_learned_survives_json_to_the_last_bit(fitted, walks):
    for model, found in fitted.items():
        text = json.dumps(found.state())
        again = features(model).restore(json.loads(text))
        np.testing.assert_array_equal(values(again.transform(walks)), values(found.transform(walks)))
        assert again.remarks() == found.remarks()


def test_a_warm_start_reaches_the_same_likelihood(fitted, train):
    warm = features("local_level").start_from(fitted["local_level"].state()).fit(train)
    np.testing.assert_allclose(warm.parameters_[:3], fitted["local_level"].parameters_[:3], rtol=1e-3)


def test_a_missing_row_is_predicted_through_and_a_log_of_zero_is_missing(walks, train):
    hole = walks.with_columns(y=pl.when(pl.col("ds") == dt.date(2020, 5, 1)).then(None).otherwise("y"))
    out = KalmanFeatures("local_level", column="y").fit(train).transform(hole)
    row = out.filter(unique_id="id0", ds=dt.date(2020, 5, 1))
    assert np.isfinite(row["level"][0])
    assert np.isnan(row["innovation"][0])
    positive = walks.with_columns(y=pl.col("r") ** 2)
    logs = KalmanFeatures("local_level", column="y", scale="log").fit(positive)
    zero = positive.with_columns(y=pl.when(pl.int_range(pl.len()) == 40).then(0.0).otherwise("y"))
    assert np.isnan(logs.transform(zero)["innovation"].to_numpy()[40])


def test_the_protocol_of_scikit_learn(walks, train):
    made = KalmanFeatures("local_linear_trend", column="y", emit=["level", "slope"], smooth=True)
    same = clone(made)
    assert same.get_params() == made.get_params()
    assert list(same.get_feature_names_out()) == ["level", "slope"]
    with pytest.raises(ValueError, match="not fitted"):
        same.transform(walks)
    assert isinstance(made.fit(train.to_pandas()).transform(walks.to_pandas()), pd.DataFrame)
    assert isinstance(made.set_output(transform="pandas").transform(walks), pd.DataFrame)
    assert isinstance(made.set_output(transform="polars").transform(walks.to_pandas()), pl.DataFrame)


def test_one_new_date_is_enough_for_an_update(fitted, history, later, walks):
    found = fitted["local_level"]
    expected = found.transform(walks)
    found.transform(history)
    for day in sorted(later["ds"].unique())[:3]:
        rows = later.filter(ds=day)
        out = found.update(rows if day.day % 2 else rows.to_pandas())
        assert len(out) == len(rows)
    last = out if isinstance(out, pl.DataFrame) else pl.from_pandas(out)
    np.testing.assert_allclose(values(last), values(expected.filter(ds=day)), rtol=1e-12)


def test_rows_that_do_not_come_next_are_refused_and_change_nothing(fitted, history, later):
    found = fitted["local_level"]
    with pytest.raises(InputError, match="nothing to go on from"):
        features("local_level").fit(history).update(later)
    found.transform(history)
    expected = found.update(later)
    found.transform(history)
    wrong = {
        "restated": (history.tail(1), "is not after the last one seen"),
        "overlapping": (pl.concat([history.filter(unique_id="id0").tail(1), later]), "is not after the last one seen"),
        "unknown": (
            later.with_columns(unique_id=pl.lit("stranger")).filter(pl.col("ds").is_first_distinct()),
            "stranger",
        ),
        "disordered": (later.filter(unique_id="id0").select(pl.all().gather([1, 3, 2])), "order|rise|jump|sorted"),
        "repeated": (pl.concat([later.filter(unique_id="id0")] * 2), "twice|duplicate|repeat"),
        "without column": (later.drop("y"), "column 'y' is not in the panel"),
    }
    for what, (rows, said) in wrong.items():
        with pytest.raises(InputError, match=said):
            found.update(rows)
        assert found._carried is not None, what
    np.testing.assert_array_equal(values(found.update(later)), values(expected))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "local_levl"}, "did you mean 'local_level'"),
        ({"emit": ["levl"]}, "emit has 'levl', which local_level does not give; did you mean 'level'"),
        ({"emit": ["level", "level"]}, "emit has 'level' twice"),
        ({"emit": []}, "emit is empty"),
        ({"damped": True}, "damped is True, which local_level does not have"),
        ({"regressors": ["x"]}, "but local_level has none; use dynamic_regression"),
        ({"model": "dynamic_regression"}, "dynamic_regression needs one or more"),
        ({"model": "dynamic_regression", "regressors": ["z"]}, "column 'z' is not in the panel"),
        ({"model": "dynamic_nelson_siegel", "columns": ["y"], "maturities": [1, 2]}, "one column of yields for each"),
        ({"columns": ["y", "x"]}, "but local_level observes one column"),
        ({"column": None}, "column is not given and the panel has 3"),
    ],
)
def test_wrong_options_are_answered_with_what_to_do(train, options, said):
    with pytest.raises(InputError, match=said):
        KalmanFeatures(**{"column": "y", **options}).fit(train)
