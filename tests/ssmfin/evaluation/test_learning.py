"""What features learn: once for each (feature, fit), whoever asks, the same bits, and never a different set of rows."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin.evaluation.experiment import Experiment, ModelEntry
from ssmfin.evaluation.learning import InMemory, Learning, learned_notes
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.features.learned_specs import KalmanSpec, RegimeSpec
from ssmfin.features.row_specs import HarLagsSpec
from ssmfin.features.spec import LearnedSpec
from ssmfin.features.transformer import PanelTransformer, panel_column
from ssmfin.models.interface import Target
from ssmfin.models.registry import forecaster_class

TARGET = Target(column="rv", horizons=(1, 5))
WALK = WalkForward(train=120, validation=30, test=25)
FITTED = Counter()


class Mean(PanelTransformer):
    """Learns a mean per id and counts how often; an id without rows has the mean of all."""

    def get_feature_names_out(self, input_features=None):
        return np.array(["centred"], dtype=object)

    def start_from(self, previous):
        self._warm = previous["mean_"]
        return self

    def _learn(self, panel, starts):
        FITTED[str(panel.dates[-1])] += 1
        self.mean_ = float(np.mean(panel_column(panel, "rv"))) + 0.5 * getattr(self, "_warm", 0.0)
        self.first_, self.last_ = panel.dates[0], panel.dates[-1]

    def _columns(self, panel, starts):
        return (panel_column(panel, "rv") - self.mean_)[:, None]


class MeanSpec(LearnedSpec):
    kind: str = "mean"

    def transformer(self, *, column, log):
        return Mean()


def experiment(panel, features, *, kinds=("har", "ridge"), **changes):
    models = {kind: ModelEntry(forecaster_class(kind)()) for kind in kinds}
    parts = {"panel": panel, "target": TARGET, "walk_forward": WALK, "features": features, "models": models}
    return Experiment(**{**parts, **changes})


def forecasts(exp):
    return pl.concat([run_task(exp, task).predictions for task in exp.tasks()])


def test_a_feature_is_learned_once_for_each_fold_whatever_the_number_of_models(panel):
    FITTED.clear()
    exp = experiment(panel, {"mean": MeanSpec(), "har": HarLagsSpec()}, kinds=("ridge",))
    more = {"again": replace(exp.models["ridge"], refit=2), "other": exp.models["ridge"]}
    exp = replace(exp, models={**exp.models, **more})
    forecasts(exp)
    assert len(FITTED) == len(exp.folds)
    assert set(FITTED.values()) == {1}


def test_a_feature_with_its_own_refits_is_kept_between_them_and_a_model_keeps_what_it_was_fitted_with(panel):
    exp = experiment(panel, {"mean": MeanSpec(refit=2)}, kinds=("ridge",))
    exp = replace(exp, models={**exp.models, "rare": replace(exp.models["ridge"], refit=3)})
    assert [(task.fit, task.folds) for task in exp.learner.tasks()] == [(0, (0, 1)), (1, (2, 3)), (2, (4, 5))]
    seen = [exp.design_for("ridge", exp.window("ridge", fit)).features[0, 0] for fit in range(6)]
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert exp.design_for("rare", exp.window("rare", 1)).features[0, 0] == seen[3]
    for fit in (0, 1):
        first = exp.learner.transformer("mean", fit)
        fold = exp.folds[2 * fit]
        assert (first.first_, first.last_) == (panel.dates[fold.train_start], panel.dates[fold.cutoff])
    tasks = {task.model: task for task in exp.tasks()}
    assert exp.needs(replace(tasks["rare"], fits=(1,))) == [("mean", 0), ("mean", 1)]
    assert exp.needs(replace(tasks["ridge"], fits=(0, 1))) == [("mean", 0)]


def test_a_warm_start_is_opted_into_and_chains_the_fits(panel):
    plain, warm = (experiment(panel, {"mean": MeanSpec(warm_start=w)}).learner for w in (False, True))
    assert not any(task.previous for task in plain.tasks())
    assert [task.previous for task in warm.tasks()] == [False] + [True] * 5
    means = [[learner.transformer("mean", fit).mean_ for fit in range(3)] for learner in (plain, warm)]
    assert means[1][0] == means[0][0]
    assert means[1][2] == means[0][2] + 0.5 * means[1][1]
    assert plain.identity(plain.task("mean", 2)) != warm.identity(warm.task("mean", 2))


def test_learnings_read_back_from_text_give_the_same_forecasts_in_any_order(panel):
    spec = {"kalman": KalmanSpec(emit=("level", "variance")), "har": HarLagsSpec()}
    whole = experiment(panel, spec)
    expected = forecasts(whole)
    kept = InMemory()
    for task in reversed(whole.learner.tasks()):
        text = json.dumps(json.loads(whole.learner.learning(task).text))
        kept.keep(task, Learning(text, 0.0))
    again = experiment(panel, spec, learnings=kept)
    parts = [run_task(again, replace(t, fits=(f,), folds=())).predictions for t in again.tasks() for f in t.fits]
    order = ["model", "unique_id", "ds", "horizon"]
    assert pl.concat(parts[::-1]).sort(order).equals(expected.sort(order))


def test_a_learned_feature_is_defined_on_the_same_rows_in_every_fold(panel):
    features = {
        "kalman": KalmanSpec(),
        "regime": RegimeSpec(),
        "mix": KalmanSpec(model="sum_of_ar1", refit=3),
        "volatility": KalmanSpec(model="stochastic_volatility", emit=("volatility",)),
    }
    exp = experiment(panel, features, kinds=("har", "ridge"))
    wide = forecasts(exp)
    keys = ["unique_id", "ds", "horizon", "y"]
    assert wide.filter(model="har").select(keys).equals(wide.filter(model="ridge").select(keys))
    rows = [np.isfinite(exp.design_for("ridge", exp.window("ridge", fit)).features).all(axis=1) for fit in range(6)]
    for found in rows[1:]:
        np.testing.assert_array_equal(found, rows[0])


def test_a_fold_in_which_a_series_cannot_be_fitted_breaks_nothing_and_is_told(panel):
    fold = experiment(panel, {}, kinds=("har",)).folds[2]
    flat = pl.col("ds").is_between(*(panel.dates[i].astype(object) for i in (fold.train_start, fold.cutoff))) & (
        pl.col("unique_id") == "id1"
    )
    constant = replace(panel, frame=panel.frame.with_columns(rv=pl.when(flat).then(1e-4).otherwise("rv")))
    exp = experiment(constant, {"kalman": KalmanSpec(), "har": HarLagsSpec()}, kinds=("ridge",))
    assert np.isfinite(forecasts(exp)["y_hat"].to_numpy()).all()
    remarks = exp.learner.remarks()
    assert "1 of 3 ids (id1); is constant" in remarks["kalman, fold 2"]["failed"]
    assert "parameters of a typical id are used" in remarks["kalman, fold 2"]["failed"]
    notes = learned_notes(exp.learner.facts())
    assert notes["features learned"]["kalman"].startswith(f"{len(exp.folds)} fits in ")
    assert set(notes["features to look at"]) == set(remarks)


def test_a_feature_that_nothing_can_be_learned_of_is_refused_with_its_fold(panel):
    flat = replace(panel, frame=panel.frame.with_columns(log_return=pl.lit(0.01)))
    exp = experiment(flat, {"regime": RegimeSpec()})
    with pytest.raises(InputError, match=r"feature 'regime' cannot be learned at fold 0: no id could be fitted; .*id0"):
        forecasts(exp)
    with pytest.raises(InputError, match="column 'log_retrun' is not in the panel"):
        forecasts(experiment(panel, {"regime": RegimeSpec(column="log_retrun")}))


def test_what_a_window_teaches_does_not_depend_on_rows_known_later(panel):
    day = panel.frame["ds"][130]
    late = panel.frame.with_columns(
        known_at=pl.when(pl.col("ds") == day).then(pl.col("ds").dt.offset_by("20d")).otherwise("ds")
    ).filter(~pl.col("ds").is_between(day, day.replace(day=1).replace(month=day.month + 1), closed="right"))
    exp = experiment(replace(panel, frame=late), {"mean": MeanSpec()}, kinds=("ridge",))
    learned = exp.learner.transformer("mean", 0)
    fold = exp.folds[0]
    window = late.filter(
        (pl.col("ds") >= exp.panel.dates[fold.train_start].astype(object))
        & (pl.col("known_at") <= exp.panel.dates[fold.cutoff].astype(object))
    )
    assert learned.mean_ == pytest.approx(window["rv"].mean(), rel=1e-12)
