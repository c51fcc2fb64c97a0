"""From members' forecasts to a combination's: rows matched, seeds averaged, the embargo kept, what is missing named."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.errors import InputError
from ssmfin.evaluation.combining import combine_members
from ssmfin.evaluation.experiment import Experiment, ModelEntry
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.features.row_specs import HarLagsSpec
from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.combination.spec import Combination
from ssmfin.models.interface import Fitted, Forecast, Forecaster, Target

WALK = WalkForward(train=120, validation=30, test=25)
KEYS = ["unique_id", "ds", "horizon"]


class Noisy(Forecaster):
    """The level of the day, wrong by a factor that depends on the seed."""

    kind: ClassVar[str] = "noisy"
    stochastic: ClassVar[bool] = True

    def fit(self, training, *, seed):
        return _Noisy(1.0 + seed % 7)


class _Noisy(Fitted):
    notes: ClassVar[dict] = {}

    def __init__(self, factor):
        self.factor = factor

    def predict(self, design, rows):
        return np.repeat(design.observed[rows, None] * self.factor, len(design.target.horizons), axis=1)


def experiment(panel, average, **changes):
    models = {
        "log_har": ModelEntry(LogHAR()),
        "ridge": ModelEntry(Ridge()),
        "noisy": ModelEntry(Noisy(), seeds=(0, 1, 2)),
        "average": ModelEntry(average),
    }
    target = Target(column="rv", horizons=(5, 1))  # not in their order
    settings = {"panel": panel, "target": target, "walk_forward": WALK, "features": {"har": HarLagsSpec()}, "seed": 3}
    return Experiment(**{**settings, "models": models, **changes})


def done(exp):
    frames = []
    for task in exp.tasks():
        frames.append(run_task(exp, task, frames).predictions)
    return frames


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_equal_weights_are_means_of_members_each_the_mean_of_its_seeds(panel, mean):
    exp = experiment(panel, Combination(members=("noisy", "ridge"), mean=mean))
    frame = pl.concat(done(exp))
    members = (
        frame.filter(pl.col("model").is_in(["noisy", "ridge"])).group_by(*KEYS, "model").agg(pl.col("y_hat").mean())
    )
    assert frame.filter(model="noisy")["y_hat"].n_unique() > frame.filter(model="noisy", seed=0).height  # seeds differ
    value = pl.col("y_hat").log().mean().exp() if mean == "geometric" else pl.col("y_hat").mean()
    expected = members.group_by(KEYS).agg(value.alias("expected"))
    both = frame.filter(model="average").join(expected, on=KEYS, maintain_order="left")
    assert both.height == frame.filter(model="ridge").height
    np.testing.assert_allclose(both["y_hat"], both["expected"], rtol=1e-12)
    assert both.select("fold", "cutoff", "y").equals(frame.filter(model="ridge").select("fold", "cutoff", "y"))


def test_an_embargo_delays_what_is_learned_by_as_many_dates(panel):
    average = Combination(members=("log_har", "ridge"), weights="rolling", window=60, min_periods=10)
    exp = experiment(panel, average)
    frames = done(exp)
    task = exp.tasks()[-1]

    def weights(days):
        later = WalkForward(train=120, validation=30, test=25, embargo=days)
        found = combine_members(replace(exp, walk_forward=later), task, frames).weights
        return found.with_columns(date=pl.Series(np.searchsorted(panel.dates, found["ds"].to_numpy())))

    at_once, delayed = weights(0), weights(4).with_columns(pl.col("date") - 4)
    both = at_once.join(delayed, on=["date", "horizon", "member"], suffix="_delayed")
    assert both.height > 100
    np.testing.assert_allclose(both["weight"], both["weight_delayed"], rtol=1e-9)
    assert not np.allclose(at_once["weight"][-50:], weights(4)["weight"][-50:])


def test_weights_of_each_id_are_told_by_its_name(panel):
    average = Combination(members=("log_har", "ridge"), weights="inverse_loss", pooled=False, window=40, min_periods=5)
    exp = experiment(panel, average)
    result = combine_members(exp, exp.tasks()[-1], done(exp))
    own = result.weights
    assert set(own["unique_id"]) == set(panel.ids)
    assert own.height == 2 * 2 * len(result.rows)
    last = own.filter(pl.col("ds") == own["ds"].max(), horizon=1, member="ridge")
    assert last["weight"].n_unique() > 1
    assert set(result.notes) == {
        "members",
        "mean weights at horizon 5",
        "mean weights at horizon 1",
        "weights learned at",
    }


def test_a_member_without_all_its_forecasts_is_named(panel):
    exp = experiment(panel, Combination(members=("noisy", "ridge")))
    frames, task = done(exp), exp.tasks()[-1]
    for lacking in (frames[:1], [frame for frame in frames if not (frame["seed"] == 2).any()]):
        with pytest.raises(RuntimeError, match=r"needs all forecasts of 'noisy', and seed \d has 0 of"):
            run_task(exp, task, lacking)
    with pytest.raises(RuntimeError, match="needs all forecasts of 'ridge'"):
        run_task(exp, task, [frame.filter(pl.col("model") != "ridge") for frame in frames] + [frames[1].head(10)])


def test_a_geometric_mean_of_what_is_not_positive_fails_by_row(panel):
    exp = experiment(panel, Combination(members=("log_har", "ridge")))
    frames = done(exp)
    first = frames[0]
    frames[0] = first.with_columns(y_hat=pl.when(pl.int_range(pl.len()) == 3).then(-1.0).otherwise("y_hat"))
    with pytest.raises(RuntimeError, match=r"1 forecasts of its members are not positive, the first -1 of 'log_har'"):
        run_task(exp, exp.tasks()[-1], frames)


def test_it_cannot_be_fitted_alone_nor_given_features(panel):
    average = Combination(members=("log_har", "ridge"))
    with pytest.raises(InputError, match="cannot be fitted alone"):
        average.fit(None, seed=0)
    with pytest.raises(InputError, match="give no features, no refit"):
        Experiment.of(
            panel,
            Target("rv", (1,)),
            WALK,
            {"har": HarLagsSpec()},
            {"log_har": ModelEntry(LogHAR()), "ridge": ModelEntry(Ridge()), "average": ModelEntry(average, refit=2)},
            reference="log_har",
        )


def test_evaluate_answers_with_it_and_its_weights(panel):
    folds = sf.WalkForward(train=120, validation=30, test=25, horizons=[1])
    average = sf.Combination(members=["har_too", "ridge"], weights="rolling", min_periods=20)
    result = sf.evaluate(
        {"average": average, "har_too": HAR()},
        panel,
        target="rv",
        folds=folds,
        benchmarks={"lightgbm": sf.LightGBM(max_rounds=5)},
    )
    assert result.failures == []
    assert "average" in set(result.leaderboard["model"])
    assert set(result.weights["member"]) == {"har_too", "ridge"}
    assert "state-space" in result.verdict.headline


class Fan(Noisy):
    """Quantiles around the same level, wider for one than for the other."""

    kind: ClassVar[str] = "fan"
    levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    width: float = 0.5
    low: float = 1.0

    def fit(self, training, *, seed):
        return _Fan(self.low * (8.0 + seed % 7), self.levels, self.width)


class _Fan(_Noisy):
    def __init__(self, factor, levels, width):
        super().__init__(factor)
        self.levels, self.width = levels, width

    def forecast(self, design, rows):
        mean = self.predict(design, rows)
        spread = np.exp(self.width * (np.array(self.levels) - 0.5))
        return Forecast(mean, self.levels, mean[..., None] * spread)


def fans(panel, other, **settings):
    average = Combination(members=("noisy", "fan"), **settings)
    models = {
        "noisy": ModelEntry(Fan(width=2.0, low=0.2), seeds=(0, 1)),
        "fan": ModelEntry(other),
        "average": ModelEntry(average),
    }
    return pl.concat(done(experiment(panel, average, models=models)), how="diagonal")


@pytest.mark.parametrize("settings", [{}, {"mean": "arithmetic"}, {"weights": "rolling", "min_periods": 10}])
def test_quantiles_of_all_members_are_averaged_with_the_weights_of_their_means(panel, settings):
    frame = fans(panel, Fan(), **settings)
    quantiles = ["q10", "q50", "q90"]
    members = (
        frame.filter(pl.col("model") != "average").group_by(*KEYS, "model").agg(pl.col("y_hat", *quantiles).mean())
    )
    own = frame.filter(model="average").sort(KEYS)
    one, two = (members.filter(model=name).sort(KEYS) for name in ("noisy", "fan"))
    logs = settings.get("mean") != "arithmetic"

    def scaled(part, name):
        return np.log(part[name].to_numpy()) if logs else part[name].to_numpy()

    # the weight is read off the mean, whose members differ
    share = (scaled(own, "y_hat") - scaled(two, "y_hat")) / (scaled(one, "y_hat") - scaled(two, "y_hat"))
    assert ("weights" in settings) == (np.ptp(share) > 0.01)
    for name in quantiles:
        expected = share * scaled(one, name) + (1 - share) * scaled(two, name)
        np.testing.assert_allclose(scaled(own, name), expected, rtol=1e-9)


@pytest.mark.parametrize("other", [Fan(levels=(0.05, 0.5, 0.9)), Noisy()], ids=["other levels", "the mean alone"])
def test_members_without_the_same_quantiles_give_none(panel, other):
    frame = fans(panel, other)
    own = frame.filter(model="average")
    assert own["y_hat"].null_count() == 0
    assert all(own[name].null_count() == len(own) for name in ("q10", "q50", "q90"))


def test_a_geometric_mean_of_negative_quantiles_fails_by_row(panel):
    exp = experiment(
        panel,
        Combination(members=("noisy", "fan")),
        models={
            "noisy": ModelEntry(Fan()),
            "fan": ModelEntry(Fan()),
            "average": ModelEntry(Combination(members=("noisy", "fan"))),
        },
    )
    *tasks, last = exp.tasks()
    frames = [run_task(exp, task).predictions for task in tasks]
    frames[0] = frames[0].with_columns(q10=-pl.col("q10"))
    with pytest.raises(RuntimeError, match=r"quantiles of its members are negative, the first -.* of 'noisy'"):
        run_task(exp, last, frames)
