"""The benchmarks of returns: historical mean, zero, and the average of cross-sectional regressions."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.evaluation.experiment import Experiment, ModelEntry
from ssmfin.evaluation.splits import WalkForward
from ssmfin.evaluation.walk_forward import run_task
from ssmfin.features.row_specs import ColumnsSpec
from ssmfin.models.baselines.fama_macbeth import FamaMacBeth
from ssmfin.models.baselines.historical_mean import HistoricalMean
from ssmfin.models.interface import Target

WALK = WalkForward(train=100, validation=20, test=30)


def panel(ids: int = 30, days: int = 200, seed: int = 0) -> Panel:
    """r_{t+1} = market + .3 x_t + noise; the market moves more than all else."""
    rng = np.random.default_rng(seed)
    x, market = rng.standard_normal((days, ids)), 3 * rng.standard_normal(days)
    r = np.empty((days, ids))
    r[0] = 0.0
    r[1:] = market[1:, None] + 0.3 * x[:-1] + 0.5 * rng.standard_normal((days - 1, ids)) + np.linspace(-1, 1, ids)
    start = dt.date(2020, 1, 1)
    return Panel(
        pl.DataFrame(
            {
                "unique_id": np.repeat([f"id{k:02d}" for k in range(ids)], days),
                "ds": [start + dt.timedelta(days=t) for t in range(days)] * ids,
                "r": r.T.ravel(),
                "x": x.T.ravel(),
                "same": np.tile(market, ids),
            }
        )
    )


def forecasts(model, data: Panel, columns=("x",), aggregate="sum", horizons=(1, 3)) -> pl.DataFrame:
    target = Target("r", horizons, transform="none", aggregate=aggregate)
    features = {"x": ColumnsSpec(columns=columns)}
    exp = Experiment(panel=data, target=target, walk_forward=WALK, features=features, models={"m": ModelEntry(model)})
    return pl.concat([run_task(exp, task).predictions for task in exp.tasks()])


def test_the_historical_mean_is_that_of_the_labels_known_at_the_cutoff() -> None:
    data = panel()
    found = forecasts(HistoricalMean(), data).filter((pl.col("fold") == 1) & (pl.col("unique_id") == "id07"))
    r = data.frame.filter(pl.col("unique_id") == "id07")["r"].to_numpy()
    cutoff = 99 + 30
    complete = 21  # design rows start where the longest lag mean exists
    sums = np.array([r[t + 1 : t + 4].sum() for t in range(max(cutoff - 99, complete), cutoff - 3 + 1)])
    np.testing.assert_allclose(found.filter(pl.col("horizon") == 3)["y_hat"].unique().to_numpy(), sums.mean())


def test_without_weight_it_is_zero() -> None:
    assert (forecasts(HistoricalMean(weight=0.0), panel())["y_hat"] == 0).all()


def test_slopes_are_the_average_of_regressions_date_by_date() -> None:
    data = panel()
    found = forecasts(FamaMacBeth(), data, horizons=(1,)).filter(pl.col("fold") == 0)
    frame = data.frame.with_columns(y=pl.col("r").shift(-1).over("unique_id"))
    dates = frame["ds"].unique().sort()
    coefficients = []
    for t in range(21, 99):
        rows = frame.filter(pl.col("ds") == dates[t])
        design = np.column_stack([np.ones(rows.height), rows["x"].to_numpy()])
        coefficients.append(np.linalg.lstsq(design, rows["y"].to_numpy(), rcond=None)[0])
    a, b = np.mean(coefficients, axis=0)
    joined = found.join(data.frame, on=["unique_id", "ds"])
    np.testing.assert_allclose(joined["y_hat"].to_numpy(), a + b * joined["x"].to_numpy(), rtol=1e-9)
    assert abs(b - 0.3) < 0.05


def test_a_feature_that_is_the_same_for_all_ids_gets_no_slope() -> None:
    data = panel()
    plain, more = (forecasts(FamaMacBeth(), data, columns) for columns in (("x",), ("x", "same")))
    np.testing.assert_allclose(more["y_hat"].to_numpy(), plain["y_hat"].to_numpy(), rtol=1e-7, atol=1e-9)


def test_too_few_ids_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"no date with 3 ids .* use more ids, fewer features, or lower least_ids"):
        forecasts(FamaMacBeth(), panel(ids=2))
