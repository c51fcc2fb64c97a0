"""Regime features: filtered probabilities, numbered the same from fit to fit, the same by update as by transform."""

import datetime as dt
import json

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone

from ssmfin.errors import InputError
from ssmfin.features.emits import REGIME_MODELS
from ssmfin.features.regime import LONGEST, RegimeFeatures

EVERY = ["probability_0", "probability", "predicted", "next", "entropy", "expected_duration", "regime", "log_score"]
MODELS = {
    "switching_variance": {"emit": EVERY},
    "switching_mean": {},
    "switching_mean_variance": {"lags": 1},
    "switching_autoregression": {"variance": "switching"},
    "gaussian_hmm": {"columns": ["r", "x"]},
    "switching_local_level": {},
}


def features(model, **changes):
    options = {**MODELS[model], **changes}
    return RegimeFeatures(model, **({} if "columns" in options else {"column": "r"}) | options)


def values(frame):
    return frame.drop("unique_id", "ds").to_numpy()


@pytest.fixture(scope="module")
def fitted(train):
    return {model: features(model).fit(train) for model in MODELS}


def test_every_model_that_is_offered_is_tested():
    assert set(MODELS) == set(REGIME_MODELS)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_update_equals_a_run_over_everything(fitted, walks, history, later, model):
    whole = fitted[model].transform(walks).filter(pl.col("ds") >= later["ds"].min())
    fitted[model].transform(history)
    middle = dt.date(2020, 8, 20)
    first = fitted[model].update(later.filter(pl.col("ds") <= middle))
    second = fitted[model].update(later.filter(pl.col("ds") > middle))
    pieces = pl.concat([first, second]).sort("unique_id", "ds")
    assert pieces.select("unique_id", "ds").equals(whole.select("unique_id", "ds"))
    np.testing.assert_allclose(values(pieces), values(whole), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_nothing_after_t_moves_what_is_said_at_t(fitted, walks, model):
    day = dt.date(2020, 6, 1)
    changed = walks.with_columns(
        pl.when(pl.col("ds") > day).then(pl.col(c) * 1.7 + 0.1).otherwise(c).alias(c) for c in "yxr"
    )
    before, after = (fitted[model].transform(f).filter(pl.col("ds") <= day) for f in (walks, changed))
    np.testing.assert_array_equal(values(before), values(after))


def test_columns_are_the_probabilities_and_what_follows_from_them(fitted, walks):
    found = fitted["switching_variance"]
    out = found.transform(walks).filter(unique_id="id0")
    calm, wild, ahead = (out[name].to_numpy() for name in ("probability_0", "probability_1", "next_1"))
    np.testing.assert_allclose(calm + wild, 1.0, rtol=1e-12)
    _, to_wild, to_calm, stay_wild = found.parameters_[0, :4]
    np.testing.assert_allclose(ahead, calm * to_wild + wild * stay_wild, rtol=1e-12)
    np.testing.assert_allclose(out["predicted_1"].to_numpy()[1:], ahead[:-1], rtol=1e-9)
    inside = (wild > 0) & (wild < 1)
    entropy = -(calm * np.log(calm, where=inside, out=calm * 0) + wild * np.log(wild, where=inside, out=wild * 0))
    np.testing.assert_allclose(out["entropy"], entropy, atol=1e-9)
    lasting = calm * min(1 / to_wild, LONGEST) + wild * min(1 / to_calm, LONGEST)
    np.testing.assert_allclose(out["expected_duration"], lasting, rtol=1e-6)
    np.testing.assert_array_equal(out["regime"], (wild > calm).astype(float))
    truth = (np.arange(len(out)) // 60) % 2
    assert (out["regime"].to_numpy() == truth).mean() > 0.85


def test_regimes_keep_their_numbers_in_the_next_fit_and_the_remarks_say_where_not(fitted, walks):
    window = walks.filter(pl.col("ds") > dt.date(2020, 2, 1))
    again = features("switching_variance").fit(window)
    plain = again.parameters_.copy()
    again.follow(fitted["switching_variance"])
    assert again.matching_[:3] == ["matched"] * 3
    np.testing.assert_array_equal(again.parameters_, plain)  # ordered by variance already
    turned = features("switching_variance").restore(fitted["switching_variance"].state())
    spec = turned._specification()
    swap = np.tile([1, 0], (len(turned.ids_), 1))
    turned.parameters_ = spec.permute(turned.parameters_, swap)
    again.follow(turned)
    np.testing.assert_array_equal(again.parameters_[:3], spec.permute(plain, swap)[:3])
    other = features("switching_variance").fit(walks.with_columns(r=pl.col("r") * 1000))
    other.follow(fitted["switching_variance"])
    said = other.remarks()["regimes not matched to the fit before"]
    assert "regime" in said
    assert "the values are right, but" in said
    assert "a longer walk_forward.train keep them apart" in said
    with pytest.raises(InputError, match="earlier fit of the same features"):
        other.follow(fitted["switching_mean"])


def test_a_series_that_cannot_be_fitted_is_named_and_gets_typical_parameters(fitted, walks):
    for model, found in fitted.items():
        assert found.status(["id3", "new"]) == ["failed", "unseen"], model
        assert "id3" in found.remarks()["failed"]
        out = found.transform(walks).filter(unique_id="id3")
        assert np.isfinite(out[out.columns[2]].to_numpy()).all()
    assert "'r'" in fitted["gaussian_hmm"].remarks()["failed"]  # the user's name of the column


def test_what_was_learned_survives_json_and_a_warm_start_is_as_good(fitted, walks, train):
    for model, found in fitted.items():
        again = features(model).restore(json.loads(json.dumps(found.state())))
        np.testing.assert_array_equal(values(again.transform(walks)), values(found.transform(walks)))
    warm = features("switching_variance").start_from(fitted["switching_variance"].state()).fit(train)
    np.testing.assert_allclose(warm.parameters_[:3], fitted["switching_variance"].parameters_[:3], rtol=0.05, atol=0.01)


def test_the_protocol_of_scikit_learn(walks, train):
    made = RegimeFeatures("switching_variance", column="r", regimes=3)
    assert clone(made).get_params() == made.get_params()
    assert list(made.get_feature_names_out()) == ["probability_1", "probability_2", "entropy"]
    out = made.fit(train.to_pandas()).transform(walks.to_pandas())
    assert list(out.columns) == ["unique_id", "ds", "probability_1", "probability_2", "entropy"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "switching_variances"}, "did you mean 'switching_variance'"),
        ({"regimes": 5}, "regimes is 5; give 2, 3 or 4"),
        ({"emit": ["probabilty"]}, "did you mean 'probability'"),
        ({"emit": ["probability_2"]}, "which switching_variance does not give"),
        ({"variance": "common"}, "which switching_variance does not have"),
        ({"model": "gaussian_hmm"}, "name one or more columns"),
        ({"column": None}, "column is not given and the panel has 3"),
    ],
)
def test_wrong_options_are_answered_with_what_to_do(train, options, said):
    with pytest.raises(InputError, match=said):
        RegimeFeatures(**{"column": "r", **options}).fit(train)
