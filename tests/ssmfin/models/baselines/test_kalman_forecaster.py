"""The Kalman forecaster: the mean of a log-normal path ahead, one id by itself, frozen between refits."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from ssmfin.classical.kalman.filtering import filter_series
from ssmfin.classical.kalman.fitting import KalmanFit
from ssmfin.classical.kalman.kinds import specification
from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.experiment import Experiment, ModelEntry
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.models.baselines.kalman import FittedKalman, Kalman
from ssmfin.models.interface import Target

WALK = WalkForward(train=300, validation=40, test=50)


def panel(*, ids=2, rows=480, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(ids):
        level = -9 + 0.15 * np.cumsum(rng.standard_normal(rows))
        frames.append(
            pl.DataFrame(
                {
                    "unique_id": [f"id{k}"] * rows,
                    "ds": [dt.date(2020, 1, 1) + dt.timedelta(days=i) for i in range(rows)],
                    "rv": np.exp(level + 0.5 * rng.standard_normal(rows)),
                }
            )
        )
    return Panel(pl.concat(frames), {})


def experiment(data, target, **parameters):
    return Experiment(data, target, WALK, {}, {"kalman": ModelEntry(Kalman(**parameters))})


def design_of(data, target):
    return experiment(data, target).design


def fitted_at(target, parameters, *, model="local_level"):
    spec = specification(model)
    return FittedKalman(KalmanFit.at(spec, np.tile(parameters, (2, 1))), target, {})


def test_the_forecast_is_the_mean_of_a_log_normal_path():
    data = panel()
    noise, shock = 0.25, 0.02
    target = Target("rv", (1, 3), transform="log")
    design = design_of(data, target)
    rows = np.array([200, 300, 700])
    y_hat = fitted_at(target, [noise, shock]).predict(design, rows)
    past = filter_series(
        KalmanFit.at(specification("local_level"), [[noise, shock]] * 2), np.log(design.observed).reshape(2, -1)
    )
    level, variance = (part.ravel()[rows] for part in past.output("level"))
    steps = [np.exp(level + 0.5 * (variance + k * shock + noise)) for k in (1, 2, 3)]
    np.testing.assert_allclose(y_hat[:, 0], steps[0], rtol=1e-12)
    np.testing.assert_allclose(y_hat[:, 1], np.mean(steps, axis=0), rtol=1e-12)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "last"])
@pytest.mark.parametrize("transform", ["log", "none"])
def test_the_path_is_aggregated_as_the_target_is(aggregate, transform):
    data = panel()
    target = Target("rv", (1, 4), transform=transform, aggregate=aggregate, bias_correction="none")
    path = Target("rv", (1, 2, 3, 4), transform=transform, aggregate="last", bias_correction="none")
    parameters = [0.25, 0.02] if transform == "log" else [1e-9, 1e-10]
    rows = np.array([250, 600])
    ahead = fitted_at(path, parameters).predict(design_of(data, path), rows)
    found = fitted_at(target, parameters).predict(design_of(data, target), rows)
    whole = {"mean": ahead.mean(axis=1), "sum": ahead.sum(axis=1), "last": ahead[:, -1]}[aggregate]
    np.testing.assert_allclose(found, np.column_stack([ahead[:, 0], whole]), rtol=1e-12)


@pytest.mark.parametrize("aggregate", ["mean", "last"])
@pytest.mark.parametrize("transform", ["log", "none"])
def test_quantiles_are_those_of_the_predictive_law_where_the_target_is_one_row(aggregate, transform):
    data, target = panel(), Target("rv", (1, 3), transform=transform, aggregate=aggregate)
    levels = (0.05, 0.5, 0.9)
    design = design_of(data, target)
    rows = np.array([200, 300, 700])
    noise, shock = (0.25, 0.02) if transform == "log" else (1e-9, 1e-10)
    fit = KalmanFit.at(specification("local_level"), np.tile([noise, shock], (2, 1)))
    found = FittedKalman(fit, target, {}, levels).forecast(design, rows)
    scale = np.log if transform == "log" else np.asarray
    past = filter_series(fit, scale(design.observed).reshape(2, -1))
    level, variance = (part.ravel()[rows] for part in past.output("level"))
    for j, h in enumerate(target.horizons):
        if h > 1 and aggregate == "mean":
            assert np.isnan(found.quantiles[:, j]).all()
            continue
        law = norm(level, np.sqrt(variance + h * shock + noise))
        expected = np.column_stack([law.ppf(p) for p in levels])
        np.testing.assert_allclose(
            found.quantiles[:, j], np.exp(expected) if transform == "log" else expected, rtol=1e-10
        )
    np.testing.assert_array_equal(found.mean, FittedKalman(fit, target, {}).predict(design, rows))
    assert FittedKalman(fit, target, {}).forecast(design, rows).quantiles is None
    several = Target("rv", (2, 3), transform=transform)
    assert FittedKalman(fit, several, {}, levels).forecast(design_of(data, several), rows).quantiles is None


def test_on_its_own_process_its_quantiles_cover_what_they_say():
    exp = experiment(panel(rows=900), Target("rv", (1,)))
    out = pl.concat([run_task(exp, task).predictions for task in exp.tasks()]).drop_nulls("y")
    for name, level in (("q05", 0.05), ("q25", 0.25), ("q75", 0.75), ("q95", 0.95)):
        assert (out["y"] <= out[name]).mean() == pytest.approx(level, abs=0.03)
    with pytest.raises(InputError, match="levels must increase and lie between 0 and 1"):
        Kalman(levels=(0.5, 0.5))


@pytest.mark.parametrize("model", ["local_level", "sum_of_ar1"])
def test_on_its_own_process_it_beats_the_last_value_and_is_unbiased(model):
    data = panel()
    exp = experiment(data, Target("rv", (1, 5)), model=model)
    out = pl.concat([run_task(exp, task).predictions for task in exp.tasks()]).drop_nulls("y")
    ratio = out["y"] / out["y_hat"]
    assert ratio.mean() == pytest.approx(1.0, abs=0.15)
    last = out.join(data.frame.rename({"rv": "now"}), on=["unique_id", "ds"])
    qlike = (ratio - ratio.log() - 1).mean()
    naive = last["y"] / last["now"]
    assert qlike < 0.6 * (naive - naive.log() - 1).mean()


def test_an_id_that_cannot_be_fitted_takes_the_others_parameters_and_is_named():
    data = panel(ids=3)
    flat = Panel(data.frame.with_columns(rv=pl.when(unique_id="id1").then(1e-4).otherwise("rv")), {})
    exp = experiment(flat, Target("rv", (1,)))
    found = [run_task(exp, task) for task in exp.tasks()]
    assert all(np.isfinite(one.predictions["y_hat"].to_numpy()).all() for one in found)
    assert found[0].notes["failed_ids"] == "id1"
    assert found[0].notes["not_converged"] == len(exp.folds)
    flattest = Panel(data.frame.with_columns(rv=pl.lit(1e-4)), {})
    exp = experiment(flattest, Target("rv", (1,)))
    with pytest.raises(InputError, match="kalman cannot be fitted to any id; the first, 'id0', is constant"):
        run_task(exp, exp.tasks()[0])


def test_parameters_are_learned_in_the_window_and_do_not_depend_on_earlier_rows():
    data = panel()
    first = data.dates[60].astype(object)
    changed = Panel(
        data.frame.with_columns(rv=pl.when(pl.col("ds") < first).then(pl.col("rv") * 9).otherwise("rv")), {}
    )
    parameters = []
    for version in (data, changed):
        exp = experiment(version, Target("rv", (1,)))
        from ssmfin.evaluation.design import cut
        from ssmfin.models.interface import TrainingSet

        window = exp.window("kalman", 2)
        past, _ = cut(exp.design, window.cutoff, labels_until=window.cutoff)
        parameters.append(Kalman().fit(TrainingSet.of(past, window)).frozen.parameters)
    np.testing.assert_array_equal(*parameters)
