"""Owns the simulated studies that the report is tested with: log-AR volatility and forecasts with noise."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from ssmfin.reporting.data import ReportData

INDICES = tuple(f".IDX{number:02d}" for number in range(31))
PERSISTENCE, SHOCK, NOISE = 0.975, 0.16, 0.35  # of daily log volatility and of its measurement
# model -> (family, spread of its log forecast error beyond what nobody can know)
MODELS = {
    "random_walk": ("baseline", 0.40),
    "har": ("baseline", 0.21),
    "log_har": ("baseline", 0.15),
    "ridge": ("baseline", 0.135),
    "lightgbm": ("baseline", 0.19),
    "s4d": ("ssm", 0.10),
}


def simulate(
    ids: tuple[str, ...],
    dates: int,
    horizons: tuple[int, ...],
    models: dict[str, tuple[str, float]],
    *,
    seeds: int = 1,
    transform: str = "log",
    folds: int = 64,
    seed: int = 5,
) -> pl.DataFrame:
    """Predictions of a study on simulated volatility; the last labels are null, as at the end of a real sample."""
    rng = np.random.default_rng(seed)
    first = dt.date(2004, 1, 2)
    days = np.array([first + dt.timedelta(days=k * 7 // 5) for k in range(dates)], dtype="datetime64[D]")
    fold = np.minimum(np.arange(dates) * folds // dates, folds - 1)
    cutoff = days[np.searchsorted(fold, fold)]
    frames = []
    for name in ids:
        shocks = rng.standard_normal(dates + 50 + max(horizons)) * SHOCK
        level = np.empty_like(shocks)
        state = 0.0
        for t, shock in enumerate(shocks):
            state = PERSISTENCE * state + shock
            level[t] = state
        latent = -9.4 + level[50:]
        observed = latent + NOISE * rng.standard_normal(len(latent))
        for horizon in horizons:
            ahead = np.arange(1, horizon + 1)
            decay, spread = PERSISTENCE**ahead, SHOCK**2 * (1 - PERSISTENCE ** (2 * ahead)) / (1 - PERSISTENCE**2)
            means = np.outer(level[50 : 50 + dates], decay)  # (dates, h): what the best forecast knows of the log
            if transform == "log":
                value = np.exp(observed)
                truth = np.exp(-9.4 + means + (spread + NOISE**2) / 2).mean(axis=1)
            else:
                value, truth = observed + 9.4, means.mean(axis=1)
            y = np.mean([value[k : k + dates] for k in ahead], axis=0)
            y[dates - horizon :] = np.nan
            for model, (family, error) in models.items():
                for draw in range(seeds if family == "ssm" else 1):
                    noise = error * (rng.standard_normal(dates) + rng.standard_normal()) / np.sqrt(2)
                    y_hat = truth * np.exp(noise - error**2 / 2) if transform == "log" else truth + noise
                    frames.append(
                        pl.DataFrame(
                            {
                                "unique_id": [name] * dates,
                                "ds": days,
                                "horizon": np.full(dates, horizon, dtype=np.int32),
                                "fold": fold.astype(np.int32),
                                "cutoff": cutoff,
                                "model": [model] * dates,
                                "seed": np.full(dates, draw, dtype=np.int64),
                                "y": y,
                                "y_hat": y_hat,
                            }
                        )
                    )
    return (
        pl.concat(frames).with_columns(pl.col("y").fill_nan(None)).sort("model", "seed", "unique_id", "ds", "horizon")
    )


def fake_leaderboard(
    predictions: pl.DataFrame, keys: list[str], reference: str, losses: tuple[str, ...], costs: pl.DataFrame
) -> pl.DataFrame:
    """The columns of a leaderboard; p-values come from a plain t-test: fast, and here only to be shown."""
    from ssmfin.evaluation.losses import loss_named

    complete = predictions.filter(pl.col("y").is_not_null())
    schema = {**dict.fromkeys(keys, pl.String), "model": pl.String, "horizon": pl.Int32, "loss": pl.String}
    rows = []
    groups = [*keys, "horizon"]
    for loss in losses:
        function = loss_named(loss).function
        scored = complete.with_columns(
            value=pl.Series(function(complete["y"].to_numpy(), complete["y_hat"].to_numpy()))
        )
        for group, frame in scored.group_by(groups, maintain_order=True):
            by_model = {
                model: part.group_by("ds", maintain_order=True).agg(pl.col("value").mean())["value"].to_numpy()
                for (model,), part in frame.group_by("model", maintain_order=True)
            }
            base = by_model.get(reference)
            best = min(values.mean() for values in by_model.values())
            for model, values in by_model.items():
                t = p = None
                if base is not None and model != reference and len(values) > 2:
                    gap = values - base
                    t = float(gap.mean() / (gap.std() / np.sqrt(len(gap))))
                    p = float(2 * np.exp(-0.5 * min(t * t, 100.0)) / (2.5 + abs(t)))
                close = float(np.exp(-40 * (values.mean() / best - 1)))
                seconds = costs.filter(pl.col("model") == model)
                rows.append(
                    dict(zip(groups, group, strict=True))
                    | {
                        "model": model,
                        "loss": loss,
                        "value": float(values.mean()),
                        "ratio_to_reference": None if base is None else float(values.mean() / base.mean()),
                        "dm_statistic": t,
                        "dm_p_value": p,
                        "in_mcs": close > 0.1,
                        "mcs_p_value": close,
                        "n": len(values),
                        "fit_seconds": seconds["fit_seconds"].sum(),
                        "predict_seconds": seconds["predict_seconds"].sum(),
                        "mz_intercept": 1.2e-5,
                        "mz_slope": 0.97,
                        "mz_r2": 0.61,
                    }
                )
    columns = [*schema, *(name for name in LEADERBOARD if name not in schema)]
    if not rows:
        return pl.DataFrame(schema={**LEADERBOARD, **schema}).select(columns)
    return pl.DataFrame(rows, schema_overrides=LEADERBOARD | schema).select(columns)


LEADERBOARD: dict[str, Any] = {
    "model": pl.String,
    "horizon": pl.Int32,
    "loss": pl.String,
    "value": pl.Float64,
    "ratio_to_reference": pl.Float64,
    "dm_statistic": pl.Float64,
    "dm_p_value": pl.Float64,
    "in_mcs": pl.Boolean,
    "mcs_p_value": pl.Float64,
    "n": pl.Int64,
    "fit_seconds": pl.Float64,
    "predict_seconds": pl.Float64,
    "mz_intercept": pl.Float64,
    "mz_slope": pl.Float64,
    "mz_r2": pl.Float64,
}


def fold_table(
    predictions: pl.DataFrame, *, train: int = 1000, validation: int | None = 125, refit: int = 1
) -> pl.DataFrame:
    """The folds that would have given these predictions."""
    per_fold = predictions.group_by("fold").agg(
        pl.col("ds").min().alias("test_start"), pl.col("ds").max().alias("test_end"), pl.len().alias("n_test_rows")
    )
    day = pl.duration(days=1)
    return per_fold.sort("fold").select(
        "fold",
        (pl.col("fold") // refit * refit).alias("fit"),
        (pl.col("test_start") - train * 7 // 5 * day).alias("train_start"),
        pl.col("test_start").alias("train_end"),
        pl.col("test_start").alias("cutoff"),
        (
            pl.lit(None, dtype=predictions.schema["ds"])
            if validation is None
            else pl.col("test_start") - validation * 7 // 5 * day
        ).alias("validation_start"),
        "test_start",
        "test_end",
        pl.lit(train, dtype=pl.Int64).alias("n_train_rows"),
        pl.col("n_test_rows").cast(pl.Int64),
    )


TRACEBACK = """Traceback (most recent call last):
  File "ssmfin/evaluation/walk_forward.py", line 214, in run_task
    fitted = forecaster.fit(training, seed=task.seed)
  File "ssmfin/models/ssm/mamba.py", line 96, in fit
    raise FloatingPointError("loss is nan at epoch 3 & lr > 1e-2")
FloatingPointError: loss is nan at epoch 3 & lr > 1e-2"""

STUDY = """name: oxford-panel
seed: 7
data:
  source: {kind: parquet, path: "rv/*.parquet"}
  columns: {unique_id: symbol, ds: date}
target: {column: rv5, transform: log, horizons: [1, 5, 22], aggregate: mean}
walk_forward:
  train: {kind: rolling, size: 1000}
  validation: {size: 125}
  test: {size: 63}
  purge: auto
  refit: 1
models:
  s4d: {kind: s4d, features: [har], context: 128, seeds: [0, 1, 2], refit: 4, device: auto}
evaluate: {losses: [qlike, mse, mae], reference: log_har, mcs_size: 0.1}
"""


def report_data(
    ids: int | tuple[str, ...] = 1,
    *,
    dates: int = 400,
    horizons: tuple[int, ...] = (1,),
    models: dict[str, tuple[str, float]] | None = None,
    losses: tuple[str, ...] = ("qlike", "mse"),
    reference: str = "log_har",
    seeds: int = 1,
    transform: str = "log",
    folds: int = 8,
    refit: int = 1,
    **replacements: Any,
) -> ReportData:
    """A plausible study of any size; `replacements` overrides single fields."""
    names = INDICES[:ids] if isinstance(ids, int) else ids
    models = MODELS if models is None else models
    predictions = replacements.get("predictions")
    if predictions is None:
        predictions = simulate(tuple(names), dates, horizons, models, seeds=seeds, transform=transform, folds=folds)
    costs = pl.DataFrame(
        {
            "model": list(models),
            "family": [family for family, _ in models.values()],
            "tasks": [2 if family == "baseline" else 16 * seeds for family, _ in models.values()],
            "fits": [folds if family == "baseline" else folds // 4 * seeds for family, _ in models.values()],
            "fit_seconds": [0.41 if family == "baseline" else 212.7 * seeds for family, _ in models.values()],
            "predict_seconds": [0.07 if family == "baseline" else 9.3 for family, _ in models.values()],
        },
        schema={
            "model": pl.String,
            "family": pl.String,
            "tasks": pl.Int64,
            "fits": pl.Int64,
            "fit_seconds": pl.Float64,
            "predict_seconds": pl.Float64,
        },
    )
    fields: dict[str, Any] = {
        "name": "oxford-panel",
        "headline": "s4d beats every baseline at all horizons: its loss is 2.1 % below ridge, the best of them.",
        "paragraphs": (
            "On 21 indices from 2004 to 2021, s4d has the lowest QLIKE at horizons 1, 5 and 22. The Diebold-Mariano "
            "test rejects equal accuracy with ridge at the 5 % level at horizons 1 and 5 (p = 0.003 and 0.021), not at "
            "22 (p = 0.31), where both are in the 10 % model confidence set.",
            "The price: s4d took 3 min 33 s to fit, 519 times as long as log_har.",
        ),
        "leaderboard": fake_leaderboard(predictions, [], reference, losses, costs),
        "leaderboard_by_id": fake_leaderboard(predictions, ["unique_id"], reference, losses[:1], costs),
        "predictions": predictions,
        "folds": fold_table(predictions, refit=refit),
        "reference": reference,
        "families": {model: family for model, (family, _) in models.items()},
        "target": {"column": "rv5", "transform": transform, "horizons": list(horizons), "aggregate": "mean"},
        "losses": losses,
        "failures": [],
        "costs": costs,
        "notes": {
            "har": {"insanity_filter": 31, "forecasts": predictions.height // max(len(models), 1)},
            "s4d": {"epochs": [12, 9, 14], "parameters": 18241, "best_penalty": 0.0123, "warm_start": False},
        },
        "data_notes": {
            "source": "parquet rv/*.parquet",
            "rows": 99253,
            "ids": len(names),
            "first": dt.date(2000, 1, 3),
            "last": dt.date(2021, 6, 30),
            "dropped_rows": 0,
            "never_forecast": {".STI": "a hole of 2,812 days leaves fewer than 1,000 training rows in every window"},
        },
        "study_yaml": STUDY,
        "reproduce": "git checkout 3f2c1ab\nmake install\nssmfin run configs/oxford_panel.yaml --fresh",
        "environment": {"python": "3.11.7", "ssmfin": "0.1.0", "torch": "2.13.0", "polars": "2.1.0", "numpy": "2.4.6"},
    }
    return ReportData(**(fields | replacements))


@pytest.fixture
def make_data() -> Callable[..., ReportData]:
    """The factory, as a fixture: test folders are not packages, so that it cannot be imported."""
    return report_data
