"""Features from outside: a user's class in a study, what it may return, and how it is refused."""

from __future__ import annotations

import json
import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssmfin.data.loading import load_panel
from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.causality import check_causality
from ssmfin.evaluation.splits import WalkForward
from ssmfin.features.external import ExternalFeature, ExternalLearnedFeature, own_class
from ssmfin.features.spec import FeatureSpec
from ssmfin.features.transformer import PanelTransformer
from ssmfin.models.interface import Target

CLASSES = """
from __future__ import annotations

import numpy as np
import polars as pl
import ssmfin as sf


class Momentum:
    def __init__(self, column: str = "rv", window: int = 3):
        self.column, self.window = column, window

    def transform(self, X):
        return X.select(momentum=pl.col(self.column).rolling_sum(self.window).over("unique_id"))


class Keyed(Momentum):
    def transform(self, X):
        return X.with_columns(momentum=super().transform(X)["momentum"]).select("ds", "unique_id", "momentum").reverse()


class Pandas(Momentum):
    def transform(self, X):
        return X.to_pandas().groupby("unique_id")[self.column].rolling(self.window).sum().rename("momentum")


class Array(Momentum):
    def transform(self, X):
        return super().transform(X).to_numpy()

    def get_feature_names_out(self):
        return ["momentum"]


class Panelled(sf.PanelTransformer):
    def __init__(self, column, factor: float = 2.0):
        self.column, self.factor = column, factor

    def get_feature_names_out(self, input_features=None):
        return np.array(["scaled"], dtype=object)

    def _columns(self, panel, starts):
        return self.factor * panel.frame[self.column].to_numpy()[:, None]


class Spec(sf.FeatureSpec):
    factor: float = 2.0

    def transformer(self, *, column, log):
        return Panelled(column, self.factor)


class Scaled:
    def __init__(self, column=None):
        self.column = column

    def fit(self, X):
        self.mean = X[self.column].mean()

    def transform(self, X):
        return X[self.column].to_numpy() / self.mean


class Careless(Scaled):
    def fit(self, X):
        pass

    def transform(self, X):
        return X[self.column].to_numpy() / X[self.column].mean()


class Tomorrow(Momentum):
    def transform(self, X):
        return X.select(m=pl.col(self.column).shift(-1).over("unique_id"))


class Direction(Momentum):
    def transform(self, X):
        return X.select(m=(pl.col(self.column).shift(-1).over("unique_id") > 0))


class RowsLeft(Momentum):
    def transform(self, X):
        return X.select(m=pl.len().over("unique_id") - pl.int_range(pl.len()).over("unique_id"))


class Dice(Momentum):
    def transform(self, X):
        return np.random.default_rng().random(len(X))


class Short(Momentum):
    def transform(self, X):
        return super().transform(X).head(5)


class Words(Momentum):
    def transform(self, X):
        return X.select("rv", word=pl.lit("calm"))


class Moved(Momentum):
    def transform(self, X):
        return X.with_columns(pl.col("ds") + pl.duration(days=1))


class Broken(Momentum):
    def transform(self, X):
        return 1 / 0


class Unsaid(Scaled):
    def fit(self, X):
        self.mean = object()


class Nothing:
    pass


class Model:
    def fit(self, X, y): ...
    def predict(self, X): ...
"""
TARGET = Target("rv", (1,))


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_features.py").write_text(textwrap.dedent(CLASSES))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "outside_features", raising=False)


@pytest.fixture(scope="module")
def panel() -> Panel:
    random = np.random.default_rng(5)
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 4, 29), eager=True)
    frames = [
        pl.DataFrame({"unique_id": [name] * len(days), "ds": days})
        .with_columns(rv=pl.Series(random.lognormal(size=len(days))), ret=pl.Series(random.normal(size=len(days))))
        .slice(start)
        for name, start in (("a", 0), ("b", 20))
    ]
    return load_panel(pl.concat(frames))


def spec(name: str, **parameters: Any) -> FeatureSpec:
    kind = f"outside_features:{name}"
    made: FeatureSpec = own_class(kind).spec_class(kind=kind, **parameters)
    return made


def values(found: FeatureSpec, panel: Panel) -> tuple[np.ndarray, list[str]]:
    transformer = found.transformer(column="rv", log=True).fit(panel)
    return transformer.values(panel), list(transformer.get_feature_names_out())


@pytest.mark.parametrize("name", ["Momentum", "Keyed", "Pandas", "Array"])
def test_frames_series_and_arrays_are_taken_in_the_order_of_the_panel(panel: Panel, name: str) -> None:
    expected = panel.frame.select(pl.col("rv").rolling_sum(4).over("unique_id")).to_numpy()
    found, names = values(spec(name, window=4), panel)
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-9)
    assert names == ["momentum"]
    assert np.isnan(found[100:].sum())  # the first rows of b, too


@pytest.mark.parametrize("name", ["Panelled", "Spec"])
def test_a_transformer_and_a_spec_are_taken_as_they_are(panel: Panel, name: str) -> None:
    found, names = values(spec(name, factor=3), panel)
    np.testing.assert_array_equal(found[:, 0], 3.0 * panel.frame["rv"].to_numpy())
    assert names == ["scaled"]
    assert not spec(name).fitted


def test_a_class_with_fit_learns_from_the_window_and_is_restored_to_the_same_bits(panel: Panel) -> None:
    found = spec("Scaled")
    assert isinstance(found, ExternalLearnedFeature)
    window = Panel(panel.frame.head(50))
    learned = found.transformer(column="rv", log=True).fit(window)
    restored = found.transformer(column="rv", log=True).restore(json.loads(json.dumps(learned.state())))
    expected = panel.frame["rv"].to_numpy() / window.frame["rv"].mean()
    np.testing.assert_array_equal(restored.values(panel)[:, 0], expected)
    np.testing.assert_array_equal(learned.values(panel), restored.values(panel))
    assert list(restored.get_feature_names_out()) == list(learned.get_feature_names_out())


def test_the_target_is_the_column_that_is_not_given(panel: Panel) -> None:
    transformer = spec("Panelled").transformer(column="ret", log=False).fit(panel)
    np.testing.assert_array_equal(transformer.values(panel)[:, 0], 2.0 * panel.frame["ret"].to_numpy())
    assert transformer.get_params()["column"] == "ret"  # a study without a target is told so
    assert spec("Momentum").transformer(column="ret", log=False).get_params() == {}


def test_a_spec_travels_as_plain_data() -> None:
    found = spec("Momentum", window=5)
    assert isinstance(found, ExternalFeature)
    assert found.model_dump(mode="json") == {"kind": "outside_features:Momentum", "window": 5}
    assert pickle.loads(pickle.dumps(found)) == found


FOLDS = WalkForward(train=40, test=20, horizons=[1])


@pytest.mark.parametrize("name", ["Momentum", "Keyed", "Pandas", "Array", "Panelled", "Spec", "Scaled"])
def test_the_canary_lets_honest_features_pass(panel: Panel, name: str) -> None:
    check_causality(panel, TARGET, {"mine": spec(name)}, FOLDS.folds(panel.dates))


@pytest.mark.parametrize(
    "name, parameters",
    [("Tomorrow", {}), ("Careless", {}), ("RowsLeft", {}), ("Direction", {"column": "ret"})],
)
def test_the_canary_refuses_what_sees_the_future(panel: Panel, name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"feature 'mine' sees the future, .*; let each row use rows up to itself"):
        check_causality(panel, TARGET, {"mine": spec(name, **parameters)}, FOLDS.folds(panel.dates))


def test_a_feature_that_is_random_is_not_called_a_leak(panel: Panel) -> None:
    with pytest.raises(InputError, match="feature 'mine' gives other values each time, from the same rows; fix its"):
        check_causality(panel, TARGET, {"mine": spec("Dice")}, FOLDS.folds(panel.dates))


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("Short", {}, r"transform gave 5 rows for 220; return one for each row of X"),
        ("Words", {}, r"gave column 'word' of type String; return numbers"),
        ("Moved", {}, r"transform changed unique_id or ds; return those of X, or neither"),
        ("Broken", {}, r"failed in transform \(outside_features.py, line \d+\), ZeroDivisionError: division by zero"),
        ("Momentum", {"column": "vr"}, r"failed in transform \(outside_features.py, line \d+\), ColumnNotFoundError"),
        (
            "Momentum",
            {"window": "five"},
            r"Momentum.window is 'five'; input should be a valid integer",
        ),
        ("Momentum", {"windw": 5}, r"outside_features:Momentum has no parameter 'windw'; did you mean 'window'"),
        ("Spec", {"factr": 5}, r"has no parameter 'factr'; did you mean 'factor'"),
    ],
)
def test_what_a_class_does_wrong_is_explained(
    panel: Panel, name: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        values(spec(name, **parameters), panel)


def test_what_json_cannot_hold_is_not_learned_silently(panel: Panel) -> None:
    broken = spec("Unsaid").transformer(column="rv", log=True)
    with pytest.raises(InputError, match=r"failed in transform \(outside_features.py, line \d+\), TypeError"):
        broken.fit(panel)
    inner = broken.inner  # type: ignore[attr-defined]
    inner.names_ = ["x"]
    with pytest.raises(InputError, match=r"Unsaid\.mean is a object, which JSON cannot hold"):
        inner.state()


@pytest.mark.parametrize(
    "path, message",
    [
        ("outside_features:Nothing", "is no feature, it has no transform; give it transform"),
        ("outside_features:Model", "is no feature, it has no transform; name it under models"),
        ("outside_features:Momentun", "did you mean 'Momentum'"),
        ("outside_features.py:Momentum", "write outside_features:Momentum"),
        ("outside_features.Momentum", "write outside_features:Momentum"),
        ("outside_fetures:Momentum", "put outside_fetures.py into the study's folder or the current one"),
    ],
)
def test_what_is_no_feature_is_explained(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_class(path)


def test_a_missing_import_of_the_users_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "outside_importing.py").write_text("import no_such_library_here\n")
    with pytest.raises(InputError, match="install 'no_such_library_here', which it imports"):
        own_class("outside_importing:Momentum")


def test_all_interfaces_are_recognised() -> None:
    found = {name: own_class(f"outside_features:{name}") for name in ("Momentum", "Panelled", "Spec", "Scaled")}
    assert {name: (own.interface, own.learns) for name, own in found.items()} == {
        "Momentum": ("transform", False),
        "Panelled": ("PanelTransformer", False),
        "Spec": ("FeatureSpec", False),
        "Scaled": ("transform", True),
    }
    assert issubclass(found["Panelled"].cls, PanelTransformer)
