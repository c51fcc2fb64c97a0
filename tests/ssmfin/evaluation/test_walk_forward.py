"""The one path by which forecasts are made: same rows for all, nothing from the future, results fixed by the task
alone."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.causality import check_causality, perturb_future
from ssmfin.evaluation.columns import EVENT, THRESHOLD, merged, quantile_levels
from ssmfin.evaluation.experiment import Experiment, ModelEntry
from ssmfin.evaluation.plan import experiment_plan, skipped_ids, skipped_origins
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.walk_forward import derived_seed, run_task
from ssmfin.features.kinds import KINDS as FEATURE_KINDS
from ssmfin.features.row_specs import ColumnsSpec, HarLagsSpec
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.features.transformer import PanelTransformer, panel_column
from ssmfin.models.interface import Fitted, Forecast, Forecaster, Target
from ssmfin.models.registry import KINDS, forecaster_class

TARGET = Target(column="rv", horizons=(1, 5))
FEATURES = {"har": HarLagsSpec(), "returns": ColumnsSpec(columns=("log_return",))}
WALK = WalkForward(train=120, validation=30, test=25)
BESIDE = {"combination": ("log_har", "ridge")}  # what a kind needs beside it in the experiment
# Small enough for a test; a kind that is not named here joins with its defaults.
SMALL = {
    **{
        kind: {"context": 16, "segment": 48, "width": 8, "epochs": 3, **more}
        for kind, more in {
            "s4": {"state": 4},
            "s4d": {"state": 4},
            "s5": {"state": 4, "parts": 1},
            "mamba": {"state": 4},
            "mamba2": {"state": 4, "head_width": 8},
            "hybrid": {"state": 4, "window": 8},
            "gru": {},
            "lstm": {},
            "tcn": {"layers": 2},
            "transformer": {"window": 8},
            "linear_attention": {},
            "dlinear": {},
        }.items()
    },
    "lightgbm": {"max_rounds": 20},
    "har_x": {"columns": ("bv",)},
    "combination": {"members": BESIDE["combination"], "weights": "rolling", "window": 40, "min_periods": 10},
    "fama_macbeth": {"least_ids": 2},
}


def experiment(panel, kinds, **changes):
    kinds = [*(other for kind in kinds for other in BESIDE.get(kind, ())), *kinds]
    models = {}
    for name in kinds:
        kind, _, head = name.partition(":")
        models[name] = ModelEntry(forecaster_class(kind)(**SMALL.get(kind, {}), **({"head": head} if head else {})))
    return Experiment(
        **{
            "panel": panel,
            "target": TARGET,
            "walk_forward": WALK,
            "features": FEATURES,
            "models": models,
            "seed": 3,
            **changes,
        }
    )


def forecasts(exp):
    done = []
    for task in exp.tasks():  # members come first
        done.append(run_task(exp, task, done).predictions)
    return pl.concat(done)


HEADS = ("lognormal", "gaussian", "quantiles", "event")


@pytest.mark.parametrize("kind", [*sorted(KINDS), *(f"s4d:{head}" for head in HEADS)])
def test_future_rows_do_not_change_past_forecasts(panel, kind):
    """The leak canary: every forecast made up to a date is bit-identical when everything after that date changes.

    So are quantiles, probabilities and the threshold that an event is measured by.
    """
    before = experiment(panel, [kind])
    middle = before.folds[len(before.folds) // 2]
    day = panel.dates[middle.cutoff + 7]  # inside a fold: the model fitted at its cutoff also reads on
    after = experiment(perturb_future(panel, day), [kind])
    mine = pl.col("model") == kind
    until = pl.col("ds") <= day.astype(object)
    past, past_again = (forecasts(e).filter(mine, until) for e in (before, after))
    assert len(past) > 100
    said = [name for name in past.columns if name == "y_hat" or name in (EVENT, THRESHOLD, *quantile_levels([name]))]
    assert len(said) == {"kalman": 6, "s4d:event": 3}.get(kind, 6 if ":" in kind else 1)
    for name in said:
        np.testing.assert_array_equal(past[name].to_numpy(), past_again[name].to_numpy())
    later = forecasts(after).filter(mine, ~until)["y_hat"].to_numpy()
    assert not np.array_equal(later, forecasts(before).filter(mine, ~until)["y_hat"].to_numpy())


@pytest.mark.parametrize("kind", sorted(FEATURE_KINDS))
def test_future_rows_do_not_change_past_features(panel, kind):
    options = {"columns": {"columns": ("log_return",)}}  # a kind that is not named here joins with its defaults
    spec = FEATURE_KINDS[kind](**options.get(kind, {}))
    check_causality(panel, TARGET, {"f": spec}, WALK.folds(panel.dates))


class Smoothed(PanelTransformer):
    """A two-sided mean: exactly what must never become a feature."""

    def get_feature_names_out(self, input_features=None):
        return np.array(["level"], dtype=object)

    def _columns(self, panel, starts):
        values = panel_column(panel, "rv")
        return np.convolve(values, np.ones(5) / 5, mode="same")[:, None]


class SmoothedSpec(FeatureSpec):
    kind: str = "smoothed"

    def transformer(self, *, column, log):
        return Smoothed()


def test_a_smoothed_feature_is_refused_by_what_it_does(panel):
    with pytest.raises(InputError, match="feature 'leak' sees the future, column 'level'"):
        check_causality(panel, TARGET, {"leak": SmoothedSpec()}, WALK.folds(panel.dates))


class Scaled(PanelTransformer):
    """Learns a mean: fine on its training window, a leak if it ever saw more."""

    def get_feature_names_out(self, input_features=None):
        return np.array(["centred"], dtype=object)

    def _learn(self, panel, starts):
        self.mean_ = float(np.mean(panel_column(panel, "rv")))
        self.last_ = panel.dates[-1]

    def _columns(self, panel, starts):
        return (panel_column(panel, "rv") - self.mean_)[:, None]


class ScaledSpec(LearnedSpec):
    kind: str = "scaled"

    def transformer(self, *, column, log):
        return Scaled()


def test_a_feature_that_learns_does_so_in_each_training_window(panel):
    exp = experiment(panel, ["ridge"], features={"scaled": ScaledSpec()})
    check_causality(panel, TARGET, exp.features, exp.folds)
    frame, seen = panel.frame, []
    for fit in range(2):
        window = exp.window("ridge", fit)
        inside = frame.filter(
            pl.col("ds").is_between(
                panel.dates[window.train_start].astype(object), panel.dates[window.cutoff].astype(object)
            )
        )
        design = exp.design_for("ridge", window)
        seen.append(frame["rv"].to_numpy() - design.features[:, 0])
        np.testing.assert_allclose(seen[-1], inside["rv"].mean(), rtol=1e-12)
    assert not np.allclose(seen[0], seen[1], rtol=1e-6)
    assert np.isfinite(forecasts(exp)["y_hat"].to_numpy()).all()


def test_every_model_forecasts_the_same_rows_whatever_its_refits_and_features(panel):
    exp = experiment(panel, ["random_walk", "har", "log_har", "ridge"])
    models = dict(exp.models)
    models["rare"] = replace(models["ridge"], refit=3, features=("har",))
    exp = replace(exp, models=models)
    wide = forecasts(exp)
    keys = ["unique_id", "ds", "horizon"]
    first = wide.filter(model="har").select(*keys, "fold", "cutoff", "y")
    for name in models:
        assert wide.filter(model=name).select(*keys, "fold", "cutoff", "y").equals(first)
    assert not wide.select(*keys, "model").is_duplicated().any()
    design = exp.design
    for fold, rows in zip(exp.folds, exp.test_rows, strict=True):
        assert (design.date_index[rows] >= fold.cutoff).all()
        assert (design.date_index[rows] < fold.test_stop).all()
    assert first.filter(pl.col("ds") == first["cutoff"])["cutoff"].n_unique() == len(exp.folds)


def test_the_end_of_the_sample_is_forecast_with_an_open_label(panel):
    last = forecasts(experiment(panel, ["har"])).filter(pl.col("ds") == panel.dates[-1].astype(object))
    assert len(last) > 0
    assert last["y"].null_count() == len(last)
    assert last["y_hat"].is_finite().all()


def test_a_task_gives_the_same_bits_alone_and_among_others(panel):
    exp = experiment(panel, ["har", "lightgbm"])
    whole = forecasts(exp)
    again = experiment(panel, ["lightgbm", "har"])
    parts = pl.concat(
        [run_task(again, replace(t, fits=(f,), folds=())).predictions for t in again.tasks() for f in t.fits]
    )
    order = ["model", "unique_id", "ds", "horizon"]
    assert whole.sort(order).equals(parts.sort(order))


def test_an_id_with_too_little_history_is_named_and_not_forecast(panel):
    short = pl.concat(
        [panel.frame, panel.frame.filter(pl.col("unique_id") == "id0").head(30).with_columns(unique_id=pl.lit("new"))]
    )
    exp = experiment(Panel(frame=short, notes={}), ["har"])
    assert set(skipped_ids(exp)) == {"new"}
    assert "new" not in forecasts(exp)["unique_id"].unique().to_list()


def test_origins_without_a_forecast_are_counted_with_their_reason(panel):
    rare = "the id has fewer than 60 complete training rows in the window"
    assert skipped_origins(experiment(panel, ["har"])) == {rare: 23}  # id2 begins late: not in the first fold
    day = panel.frame.filter(unique_id="id1")["ds"][170]
    hole = panel.frame.with_columns(
        log_return=pl.when((pl.col("unique_id") == "id1") & (pl.col("ds") == day)).then(None).otherwise("log_return")
    )
    exp = experiment(Panel(frame=hole, notes={}), ["har"])
    assert skipped_origins(exp) == {"feature returns__log_return is missing": 1, rare: 23}
    assert len(forecasts(exp).filter(unique_id="id1", ds=day)) == 0
    short = pl.concat([panel.frame, panel.frame.filter(unique_id="id0").tail(30).with_columns(unique_id=pl.lit("new"))])
    assert skipped_origins(experiment(Panel(frame=short, notes={}), ["har"])) == {
        "feature har__lag_5 is missing": 4,
        "feature har__lag_22 is missing": 21,
        "the id has no 22 rows behind it": 21,
        rare: 23 + 9,
    }


def test_a_feature_that_leaves_no_complete_row_is_named(panel):
    late = panel.frame["ds"].unique().sort()[-20]
    begins = panel.frame.with_columns(log_return=pl.when(pl.col("ds") >= late).then("log_return"))
    with pytest.raises(InputError, match=r"feature returns__log_return is undefined in 9\d% of the rows"):
        _ = experiment(Panel(frame=begins, notes={}), ["har"]).test_rows


def test_the_plan_counts_what_is_really_used(panel):
    exp = experiment(panel, ["har"])
    plan = experiment_plan(exp)
    assert plan["n_test_rows"].sum() * len(TARGET.horizons) == len(forecasts(exp))
    assert (plan["train_end"] < plan["cutoff"]).all()
    assert (plan["test_start"] == plan["cutoff"]).all()
    assert WALK.model_copy(update={"horizons": (1, 5)}).plan(panel).shape[0] == len(plan)


def test_identity_changes_with_everything_that_can_change_the_result(panel):
    exp = experiment(panel, ["har", "s4d"])
    task = exp.tasks()[-1]
    variants = [
        replace(exp, seed=4),
        replace(exp, target=replace(TARGET, aggregate="last")),
        replace(exp, walk_forward=WALK.model_copy(update={"embargo": 1})),
        replace(exp, features={"har": HarLagsSpec(windows=(1, 5))}),
        replace(exp, models={**exp.models, "s4d": ModelEntry(forecaster_class("s4d")(context=32))}),
        replace(exp, models={**exp.models, "har": replace(exp.models["har"], refit=2)}),
    ]
    seen = [str(e.identity(task)) for e in [exp, *variants]]
    assert len(set(seen)) == len(seen)
    assert str(exp.identity(task)) == str(experiment(panel, ["har", "s4d"]).identity(task))
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3) != derived_seed(1, 3, 2)


class Broken(Forecaster):
    kind = "broken"

    def fit(self, training, *, seed):
        class Bad(Fitted):
            notes: ClassVar = {}

            def predict(self, design, rows):
                return np.full((len(rows), len(design.target.horizons)), np.nan)

        return Bad()


def test_a_forecast_that_is_not_finite_is_an_error_that_names_its_place(panel):
    exp = experiment(panel, ["har"], models={"bad": ModelEntry(Broken())})
    with pytest.raises(
        RuntimeError, match=r"model 'bad' gave \d+ forecasts that are not finite, the first nan for id0 at"
    ):
        run_task(exp, exp.tasks()[0])


class Spy(Forecaster):
    """Remembers what it was shown."""

    kind = "spy"

    def fit(self, training, *, seed):
        design, window = training.design, training.window
        assert design.date_index.max() <= window.cutoff
        assert len(design.dates) == window.cutoff + 1
        known = np.isfinite(design.labels)
        assert (design.label_known[known] <= window.cutoff).all()
        assert (training.train <= known).all()
        assert (design.date_index[training.train.any(axis=1)] >= window.train_start).all()
        for j in range(design.labels.shape[1]):
            fit_known = design.label_known[training.fit[:, j], j]
            assert fit_known.max() <= design.date_index[training.validation[:, j]].min()

        class Zero(Fitted):
            notes: ClassVar = {}

            def predict(self, seen, rows):
                assert np.isnan(seen.labels).all()
                assert seen.date_index.max() == seen.date_index[rows].max()
                return np.ones((len(rows), len(seen.target.horizons)))

        return Zero()


def test_a_model_is_shown_nothing_after_its_cutoff_and_no_label_when_it_predicts(panel):
    for embargo in (0, 3):
        walk = WALK.model_copy(update={"embargo": embargo, "refit": 2})
        exp = experiment(panel, [], models={"spy": ModelEntry(Spy())}, walk_forward=walk)
        assert (forecasts(exp)["y_hat"] == 1.0).all()


def test_a_feature_that_the_study_lacks_is_refused_with_the_nearest_name(panel):
    exp = experiment(panel, ["ridge"])
    exp = replace(exp, models={"ridge": replace(exp.models["ridge"], features=("hra",))})
    with pytest.raises(InputError, match="did you mean 'har'"):
        run_task(exp, exp.tasks()[0])


def test_a_model_without_meaning_for_the_target_is_left_out_with_its_reason(panel):
    target = Target(column="log_return", horizons=(1,), transform="none")
    models = {kind: ModelEntry(forecaster_class(kind)()) for kind in ("har", "log_har")}
    exp = Experiment.of(panel, target, WALK, {}, models, reference="har")
    assert list(exp.models) == ["har"]
    assert "needs a positive target" in exp.left_out["log_har"]
    assert np.isfinite(forecasts(exp)["y_hat"].to_numpy()).all()
    with pytest.raises(InputError, match=r"reference is 'log_har', which needs a positive target.*such as 'har'"):
        Experiment.of(panel, target, WALK, {}, models, reference="log_har")


class NeedsRows(Forecaster):
    """Cannot learn from nothing, as networks cannot."""

    kind: ClassVar[str] = "needs_rows"

    def fit(self, training, *, seed=0):
        if not training.train.any():
            raise RuntimeError("nothing to learn from")
        return forecaster_class("random_walk")().fit(training)


def test_a_window_from_which_nothing_is_forecast_is_not_fitted(panel):
    """A long lag leaves the first windows without a complete row: no model may fail for it."""
    exp = experiment(panel, [], features={"long": HarLagsSpec(windows=(125,))}, models={"m": ModelEntry(NeedsRows())})
    first, *_, last = (len(rows) for rows in exp.test_rows)
    assert first == 0 < last
    assert len(forecasts(exp)) > 0


class Says(Forecaster):
    """Ones, and beside them whatever it is told to say."""

    kind = "says"
    fault: str = ""

    def fit(self, training, *, seed):
        fault = self.fault

        class Said(Fitted):
            notes: ClassVar = {}

            def predict(self, design, rows):
                return self.forecast(design, rows).mean

            def forecast(self, design, rows):
                one = np.ones((len(rows), len(design.target.horizons)))
                q = np.stack([0.5 * one, one, 2.0 * one], axis=-1)
                q[:, 1] = np.nan  # it cannot tell the second horizon's
                if fault == "cross":
                    q[0, 0, 1] = 0.4
                if fault == "hole":
                    q[0, 0] = np.nan
                more = {"event": 0.5 * one, "threshold": 3.0 * one}
                if fault == "probability":
                    more["event"][0, 0] = 1.1
                if fault == "no threshold":
                    del more["threshold"]
                if fault == "shape":
                    q = q[:, :, :2]
                return Forecast(one, (0.05, 0.5, 0.975), q, **more)

        return Said()


def test_quantiles_and_events_stand_in_columns_behind_the_fixed_ones(panel):
    exp = experiment(panel, ["har"])
    exp = replace(exp, models={**exp.models, "says": ModelEntry(Says())})
    frame = merged([run_task(exp, task).predictions for task in exp.tasks()])
    fixed = ["unique_id", "ds", "horizon", "fold", "cutoff", "model", "seed", "y", "y_hat"]
    assert frame.columns == [*fixed, "q05", "q50", "q975", "event", "event_threshold"]
    said = frame.filter(model="says")
    assert said.filter(horizon=1).select("q05", "q50", "q975", "event", "event_threshold").unique().row(0) == (
        *(0.5, 1.0, 2.0),
        *(0.5, 3.0),
    )
    assert said.filter(horizon=5)["q50"].null_count() == len(said) // 2
    assert frame.filter(model="har").select("q05", "event").null_count().row(0) == (len(said), len(said))
    assert run_task(exp, exp.tasks()[0]).predictions.columns == fixed


@pytest.mark.parametrize(
    "fault, words",
    [
        ("cross", "quantiles that are not finite, or that cross"),
        ("hole", "quantiles that are not finite, or that cross"),
        ("probability", r"a probability outside \[0, 1\]"),
        ("no threshold", "an event without a threshold"),
        ("shape", r"not \(rows, horizons, levels\)"),
    ],
)
def test_a_distribution_that_is_none_is_an_error_of_the_model(panel, fault, words):
    exp = experiment(panel, [], models={"bad": ModelEntry(Says(fault=fault))})
    with pytest.raises(RuntimeError, match=f"model 'bad' gave .*{words}"):
        run_task(exp, exp.tasks()[0])


@pytest.mark.parametrize("head", HEADS)
def test_an_event_is_measured_by_its_training_window_and_the_mean_stands_in_y_hat(panel, head):
    kind = forecaster_class("s4d")(**SMALL["s4d"], head=head, event_quantile=0.8)
    exp = experiment(panel, [], models={"s4d": ModelEntry(kind)})
    task = exp.tasks()[1]
    frame = run_task(exp, task).predictions
    if head != "event":
        q = frame.select("q05", "q25", "q50", "q75", "q95").to_numpy()
        assert (np.diff(q, axis=1) > 0).all()
        assert ((frame["y_hat"] > frame["q05"]) & (frame["y_hat"] < frame["q95"])).mean() > 0.95
        return
    window, design = exp.window("s4d", task.fits[0]), exp.design
    for j, h in enumerate(TARGET.horizons):
        for k, unique_id in enumerate(design.ids):
            own = frame.filter(unique_id=unique_id, horizon=h)
            rows = np.arange(design.rows)[design.rows_of(k)]
            date = design.date_index[rows]
            inside = design.complete[rows] & (date >= window.train_start) & (date < window.validation_start)
            inside &= design.label_known[rows, j] <= window.fit_labels_until
            if len(own):
                expected = np.quantile(design.labels[rows[inside], j], 0.8)
                np.testing.assert_allclose(own["event_threshold"].unique().to_numpy(), [expected], rtol=1e-12)
