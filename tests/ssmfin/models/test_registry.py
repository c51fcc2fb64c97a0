"""Names of models, and models from outside."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.external import SklearnForecaster, load_external
from ssmfin.models.interface import Design, Forecaster, Target, TrainingSet, Window
from ssmfin.models.registry import BENCHMARKS, KINDS, forecaster_class

# What a kind cannot guess; all others work as they are.
REQUIRED = {"har_x": {"columns": ["vix"]}, "combination": {"members": ["har", "ridge"]}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_a_forecaster_of_that_kind_with_working_defaults(kind):
    found = forecaster_class(kind)
    assert issubclass(found, Forecaster)
    assert found.kind == kind
    assert found.summary
    made = found(**REQUIRED.get(kind, {}))
    assert made.model_dump(mode="json") == found(**made.model_dump()).model_dump(mode="json")
    assert all(field.description for field in found.model_fields.values())


def test_the_benchmarks_are_kinds():
    assert set(BENCHMARKS) <= set(KINDS)
    assert all(forecaster_class(kind).family == "baseline" for kind in BENCHMARKS)


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'log_hra'; did you mean 'log_har'"):
        forecaster_class("log_hra")


def test_reading_the_kinds_and_the_baselines_imports_nothing_heavy():
    code = """
    import sys
    from ssmfin.models.registry import KINDS, forecaster_class
    for kind in ("random_walk", "ewma", "garch", "har", "log_har", "ridge", "lightgbm"):
        forecaster_class(kind)()
    heavy = {"torch", "lightgbm", "sklearn", "statsmodels", "arch", "scipy", "pandas", "matplotlib"} & set(sys.modules)
    sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def a_training_set(transform="log", bias_correction="lognormal", seed=0):
    rng = np.random.default_rng(seed)
    n = 300
    x = rng.standard_normal((n, 3))
    y = np.exp(x @ np.array([[1.0, 0.5], [0.0, 0.2], [0.1, 0.0]]) + 0.3 * rng.standard_normal((n, 2)))
    design = Design(
        target=Target("rv", (1, 2), transform, "mean", bias_correction),
        ids=("a", "b"),
        dates=np.arange(150).astype("datetime64[D]"),
        id_index=np.repeat([0, 1], 150),
        date_index=np.tile(np.arange(150), 2),
        starts=np.array([0, 150, 300]),
        observed=y[:, 0],
        lag_means=np.ones((n, 3)),
        features=x,
        feature_names=("a", "b", "c"),
        labels=y,
        label_known=np.tile(np.arange(150), 2)[:, None] + np.array([1, 2]),
        columns={},
    )
    return TrainingSet.of(design, Window(0, 149, 140, 110, 110, np.empty(0, dtype=np.int64)))


@pytest.mark.parametrize("transform, bias_correction", [("log", "lognormal"), ("log", "none"), ("none", "lognormal")])
def test_a_regressor_is_fitted_on_the_model_scale_and_corrected_by_its_validation_residuals(transform, bias_correction):
    from sklearn.linear_model import LinearRegression

    training = a_training_set(transform, bias_correction)
    found = load_external("sklearn.linear_model:LinearRegression", {"fit_intercept": True}).fit(training, seed=0)
    design, rows = training.design, np.array([149, 299])
    y = np.log(design.labels) if transform == "log" else design.labels
    for h in range(2):
        learnt, early, tail = (getattr(training, part)[:, h] for part in ("train", "fit", "validation"))
        mu = LinearRegression().fit(design.features[learnt], y[learnt, h]).predict(design.features[rows])
        judge = LinearRegression().fit(design.features[early], y[early, h])
        variance = np.var(y[tail, h] - judge.predict(design.features[tail]))
        expected = mu if transform == "none" else np.exp(mu + (0.5 * variance if bias_correction != "none" else 0))
        np.testing.assert_allclose(found.predict(design, rows)[:, h], expected, rtol=1e-12)


def test_a_random_regressor_is_seeded_and_its_identity_is_plain_data():
    model = load_external("sklearn.ensemble:RandomForestRegressor", {"n_estimators": 5})
    training, rows = a_training_set(), np.arange(140, 150)
    first, second, other = (model.fit(training, seed=s).predict(training.design, rows) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    dumped = model.model_dump(mode="json")["estimator"]
    assert dumped["class"].endswith(":RandomForestRegressor")
    assert dumped["parameters"]["n_estimators"] == 5
    assert pickle.loads(pickle.dumps(model)).model_dump(mode="json") == model.model_dump(mode="json")


def test_the_identity_of_a_pipeline_holds_its_steps_and_no_addresses():
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    dumped = str(SklearnForecaster(estimator=make_pipeline(FunctionTransformer(np.tanh), Ridge(2.5))).model_dump())
    assert "0x" not in dumped
    assert "2.5" in dumped
    assert "tanh" in dumped


def test_the_users_estimator_is_not_fitted_itself():
    from sklearn.linear_model import LinearRegression

    estimator = LinearRegression()
    SklearnForecaster(estimator=estimator).fit(a_training_set(), seed=0)
    assert not hasattr(estimator, "coef_")


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside_models.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            import torch
            from sklearn.base import BaseEstimator, RegressorMixin
            from ssmfin.models.baselines.random_walk import RandomWalk

            class Mine(RandomWalk):
                pass

            class Shapeless(RegressorMixin, BaseEstimator):
                def __init__(self, value=0.0, columns=0):
                    self.value, self.columns = value, columns
                def fit(self, x, y):
                    return self
                def predict(self, x):
                    return np.full((len(x), self.columns) if self.columns else len(x), self.value)

            class Picky(Shapeless):
                def fit(self, x, y):
                    raise ValueError("I want ten features")

            class Nothing:
                pass

            class Changes:
                def transform(self, X):
                    return X

            class Module(torch.nn.Module):
                pass

            class Plain:
                built = []
                def __init__(self, k=3, random_state=None):
                    self.k, self.seed = k, random_state
                    Plain.built.append(random_state)
                def fit(self, X, y):
                    assert not hasattr(self, "mean")
                    self.mean = float(np.mean(y)) + 1e-3 * self.k
                def predict(self, X):
                    return np.full(len(X), self.mean)
            """
        )
    )
    (tmp_path / "outside_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_forecaster_of_the_user_is_taken_as_it_is(outside):
    assert type(load_external("outside_models:Mine", {})).__name__ == "Mine"


def test_a_plain_class_is_built_anew_from_its_parameters_for_every_fit(outside):
    model = load_external("outside_models:Plain", {"k": 4})
    training, rows = a_training_set(), np.arange(140, 150)
    found = model.fit(training, seed=7).predict(training.design, rows)
    assert found.shape[0] == 10
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(model.fit(training, seed=7).predict(training.design, rows), found)
    built = sys.modules["outside_models"].Plain.built
    assert None not in built[1:]  # the first checks the parameters, all others are seeded
    assert min(built[1:]) == 7
    other = load_external("outside_models:Plain", {"k": 400}).fit(training, seed=7).predict(training.design, rows)
    assert (other > found).all()
    dumped = model.model_dump(mode="json")["estimator"]
    assert dumped == {"class": "outside_models:Plain", "parameters": {"k": 4}}
    assert pickle.loads(pickle.dumps(model)).model_dump(mode="json") == model.model_dump(mode="json")
    with pytest.raises(InputError, match="has no parameter 'kk'; did you mean 'k'"):
        load_external("outside_models:Plain", {"kk": 4})


def test_an_instance_of_a_plain_class_is_copied_and_not_fitted_itself(outside):
    load_external("outside_models:Plain", {})
    given = sys.modules["outside_models"].Plain(k=400)
    training, rows = a_training_set(), np.arange(140, 150)
    found = SklearnForecaster(estimator=given).fit(training, seed=0).predict(training.design, rows)
    same = load_external("outside_models:Plain", {"k": 400}).fit(training, seed=0).predict(training.design, rows)
    np.testing.assert_array_equal(found, same)
    assert not hasattr(given, "mean")


@pytest.mark.parametrize(
    "path, parameters, message",
    [
        ("outside_models.Mine", {}, "write outside_models:Mine"),
        ("outside_models:", {}, "write package.module:Class"),
        ("../evil:Class", {}, "write package.module:Class"),
        ("outside_absent:Mine", {}, "'outside_absent' cannot be imported, ModuleNotFoundError"),
        ("outside_broken:Mine", {}, "RuntimeError: no licence"),
        ("outside_models:Mien", {}, "did you mean 'Mine'"),
        ("outside_models:np", {}, "has no class 'np'"),
        ("outside_models:Nothing", {}, r"neither a Forecaster nor a regressor; give it fit\(X, y\) and predict\(X\)"),
        ("outside_models:Changes", {}, "it has transform: name it under features"),
        ("outside_models:Module", {}, "a torch module is no model by itself: let a subclass of sf.DeepForecaster"),
        ("outside_models:Shapeless", {"vaule": 1}, "has no parameter 'vaule'; did you mean 'value'"),
        ("outside_models:Mine", {"speed": 1}, "Mine has no parameter 'speed'"),
    ],
)
def test_what_cannot_be_loaded_is_explained(outside, path, parameters, message):
    with pytest.raises(InputError, match=message):
        load_external(path, parameters)


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("Shapeless", {"columns": 2}, r"predict gave shape \(\d+, 2\)"),
        ("Shapeless", {"value": float("nan")}, "values that are not finite"),
        ("Picky", {}, "I want ten features; check its parameters"),
    ],
)
def test_a_regressor_that_misbehaves_is_explained(outside, name, parameters, message):
    with pytest.raises(InputError, match=message):
        load_external(f"outside_models:{name}", parameters).fit(a_training_set(), seed=0)


@pytest.mark.parametrize("estimator", [3, "ridge", SklearnForecaster])
def test_the_adapter_wants_an_instance_of_a_regressor(estimator):
    with pytest.raises(InputError, match="pass an instance of a regressor"):
        SklearnForecaster(estimator=estimator)
