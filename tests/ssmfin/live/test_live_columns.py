"""New rows need the columns that the model in use reads, and no others: every kind of model and feature says which."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.data.panel import Panel
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.evaluation.design import build_design
from ssmfin.features.kinds import KINDS as FEATURES
from ssmfin.features.kinds import feature_specs
from ssmfin.models.interface import Design, Fitted, Forecaster, Target, TrainingSet, Window
from ssmfin.models.registry import KINDS as MODELS
from ssmfin.models.registry import forecaster_class

TARGET = Target("rv", (1, 5))
# what a kind cannot do without, beside its name
MODEL_PARAMETERS = {
    "har_x": {"columns": ("log_return", "bv")},
    "hybrid": {"layers": 2},
    "fama_macbeth": {"least_ids": 3},
}
FEATURE_PARAMETERS = {
    "columns": {"columns": ["bv", "log_return"]},
    "rank": {"same_date": True},
    "kalman": {"model": "local_level", "emit": ["level"]},
}
DEEP = {"layers": 1, "width": 8, "segment": 64, "context": 32, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Everything that a kind reads by default, and a column that nobody asked for."""
    frame = simulate_volatility_panel(ids=3, dates=420, seed=5).frame
    rng = np.random.default_rng(0)
    share = {name: 0.2 + 0.1 * rng.random(len(frame)) for name in ("bv", "rs_pos", "rs_neg", "continuous", "jump")}
    frame = frame.with_columns(pl.Series(name, part) * pl.col("rv") for name, part in share.items())
    return Panel(frame.with_columns(rq=pl.col("rv") ** 2, unasked=pl.lit(1.0)))


def narrowed(panel: Panel, columns) -> Panel:
    return Panel(panel.frame.select("unique_id", "ds", *dict.fromkeys(["rv", *columns])))


@pytest.mark.parametrize("kind", FEATURES)
def test_a_feature_is_the_same_from_the_columns_that_it_names(kind, panel) -> None:
    spec = feature_specs({"one": {"kind": kind, **FEATURE_PARAMETERS.get(kind, {})}})["one"]
    transformer = spec.transformer(column="rv", log=True).fit(panel)
    named = transformer.columns_read()
    assert named is not None
    assert "unasked" not in named
    np.testing.assert_array_equal(transformer.values(narrowed(panel, named)), transformer.values(panel))


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "combination"])
def test_a_model_forecasts_the_same_from_the_columns_that_it_names(kind, panel) -> None:
    cls = forecaster_class(kind)
    deep = issubclass(cls, sf.DeepForecaster)
    model = cls(**((DEEP if deep else {}) | MODEL_PARAMETERS.get(kind, {})))
    named = model.columns_read()
    assert named is not None
    assert "unasked" not in named
    specs = feature_specs({"har": {"kind": "har_lags"}})
    window = Window(100, len(panel.dates) - 1, len(panel.dates) - 1, 350, 350, np.empty(0, dtype=np.int64))

    def forecasts(given: Panel) -> np.ndarray:
        design = build_design(given, TARGET, specs)
        return model.fit(TrainingSet.of(design, window), seed=0).predict(design, design.starts[1:] - 1)

    np.testing.assert_array_equal(forecasts(narrowed(panel, named)), forecasts(panel))


def test_rows_need_no_column_that_nothing_reads(panel) -> None:
    past = Panel(panel.frame.filter(pl.col("ds") <= pl.lit(panel.dates[399])))
    new = panel.frame.filter(pl.col("ds") == pl.lit(panel.dates[400]))
    for model, features, needed in [
        (sf.LogHAR(), {}, ["rv"]),
        (sf.GARCH(), {}, ["rv", "log_return"]),
        (sf.Ridge(), {"leverage": {"kind": "leverage"}, "rq": {"kind": "quarticity"}}, ["rv", "log_return", "rq"]),
    ]:
        trained = sf.fit(model, past, target=TARGET, features={"har": {"kind": "har_lags"}, **features}, train=300)
        assert list(trained.columns_read) == needed
        rows = new.select("unique_id", "ds", *needed)
        assert trained.live(past).update(rows).equals(trained.live(past).update(new))
        assert trained.forecast(narrowed(past, needed)).equals(trained.forecast(past))
        for lost in needed:
            with pytest.raises(sf.InputError, match=f"the new rows lack column '{lost}', which "):
                trained.live(past).update(rows.drop(lost))
            with pytest.raises(sf.InputError, match=f"the panel lacks column '{lost}', which "):
                trained.forecast(past.frame.drop(lost))


class Undeclared(Forecaster):
    """A user's model that does not say what it reads."""

    def fit(self, training: TrainingSet, *, seed: int) -> Fitted:
        return _Fitted()


class _Fitted(Fitted):
    notes: ClassVar[dict] = {}

    def predict(self, design: Design, rows: np.ndarray) -> np.ndarray:
        return np.repeat(design.column("bv")[rows, None], len(design.target.horizons), axis=1)


Undeclared.kind = "undeclared"


def test_a_model_that_does_not_say_gets_all_columns(panel) -> None:
    trained = sf.fit(Undeclared(), panel, target=TARGET, features={}, train=300)
    assert set(trained.columns_read) == set(panel.value_columns)
    with pytest.raises(sf.InputError, match="lacks column 'unasked', which undeclared reads"):
        trained.forecast(panel.frame.drop("unasked"))


def test_the_moment_of_knowledge_is_asked_for_only_where_it_matters(panel) -> None:
    frame = panel.frame.with_columns(known_at=pl.col("ds"))
    past, new = (
        frame.filter(pl.col("ds") <= pl.lit(panel.dates[399])),
        frame.filter(pl.col("ds") == pl.lit(panel.dates[400])),
    )
    trained = sf.fit(sf.LogHAR(), past, target=TARGET, train=300)
    assert trained.live(past).update(new.drop("known_at")).equals(trained.live(past).update(new))
    late = past.with_columns(known_at=pl.col("ds").dt.offset_by("1d"))
    with pytest.raises(sf.InputError, match="the new rows lack column 'known_at'"):
        replace(trained, ids=panel.ids).live(late).update(new.drop("known_at"))
