"""Owns where and when a model loses less than another: losses of finished forecasts through time, as tables.

Everything is of the rows that all complete models share, averaged over the ids of a date as in the leaderboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssmfin.errors import InputError, nearest
from ssmfin.evaluation.comparison import model_confidence_set, too_few
from ssmfin.evaluation.losses import loss_named
from ssmfin.evaluation.scores import REGIMES, Scored, align, date_losses, loss_by_regime

SHOWN = 6  # lines that an eye can follow


@dataclass(frozen=True)
class Losses:
    """Losses by date of some models.

    Attributes:
        models: M names, the lowest loss first. families: model -> baseline, ssm, sequence or custom, where known.
        loss, reference: names. predictions: what they come from.
        by_horizon: horizon -> dates (T,) datetime64 and losses (T, M).
    """

    models: tuple[str, ...]
    families: Mapping[str, str]
    loss: str
    reference: str
    predictions: pl.DataFrame
    by_horizon: Mapping[int, tuple[np.ndarray, np.ndarray]]

    def of(self, horizon: int, model: str) -> np.ndarray:
        """(T,) losses of one model."""
        found: np.ndarray = self.by_horizon[horizon][1][:, self.models.index(model)]
        return found

    @property
    def compared(self) -> tuple[str, ...]:
        """The models but the reference."""
        return tuple(name for name in self.models if name != self.reference)


def forecast_losses(
    forecasts: Any,
    *,
    loss: str = "qlike",
    reference: str = "log_har",
    models: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
) -> Losses:
    """Losses by date of the forecasts of a run.

    Args:
        forecasts: a run's folder, a `Result`, or a frame with the columns of predictions.parquet.
        models: which ones; None: the six whose loss relative to the reference is lowest. The reference is always there.
        horizons: which ones; None: all.
    Raises:
        InputError: the folder holds no predictions, or a model, the reference or a horizon is not in them.
    """
    predictions, families = _read(forecasts)
    if horizons is not None:
        known = predictions["horizon"].unique().to_list()
        for horizon in horizons:
            if horizon not in known:
                raise InputError(
                    f"horizon {horizon} is not in the forecasts; known: {', '.join(map(str, sorted(known)))}."
                )
        predictions = predictions.filter(pl.col("horizon").is_in(list(horizons)))
    scored = align(predictions)
    for name in (reference, *(models or ())):
        if name not in scored.models:
            raise InputError(f"model {name!r} is not among those with every forecast; {nearest(name, scored.models)}")
    arrays = _arrays(scored, loss)
    at = scored.models.index(reference)
    mean = np.mean([np.log(losses.mean(axis=0) / losses[:, at].mean()) for _, losses in arrays.values()], axis=0)
    ranked = [scored.models[i] for i in np.argsort(mean, kind="stable")]
    if models is None:
        kept = [name for name in ranked if name != reference][:SHOWN]
    else:
        kept = list(models)
    chosen = tuple(name for name in ranked if name in kept or name == reference)
    columns = [scored.models.index(name) for name in chosen]
    return Losses(
        models=chosen,
        families=families,
        loss=loss,
        reference=reference,
        predictions=predictions.filter(pl.col("model").is_in(chosen)),
        by_horizon={horizon: (dates, losses[:, columns]) for horizon, (dates, losses) in arrays.items()},
    )


def ratios_by_year(losses: Losses) -> pl.DataFrame:
    """horizon, year, n (dates), model, ratio: mean loss of the model over that of the reference, in each year."""
    rows = []
    for horizon, (dates, _) in losses.by_horizon.items():
        years = dates.astype("datetime64[Y]").astype(np.int64) + 1970
        for year in np.unique(years):
            inside = years == year
            base = losses.of(horizon, losses.reference)[inside].mean()
            rows += [
                (horizon, int(year), int(inside.sum()), name, float(losses.of(horizon, name)[inside].mean() / base))
                for name in losses.models
            ]
    return pl.DataFrame(rows, schema=["horizon", "year", "n", "model", "ratio"], orient="row")


def ratios_by_regime(losses: Losses) -> pl.DataFrame:
    """horizon, regime, n (rows), model, ratio: in calm, normal and turbulent times, told by the outcome itself.

    Nobody could have known the regimes in advance (`loss_by_regime`): they describe, they choose no model.
    """
    frame = loss_by_regime(losses.predictions, losses.loss)
    base = frame.filter(pl.col("model") == losses.reference).select("horizon", "regime", base=pl.col("value"))
    joined = frame.join(base, on=["horizon", "regime"]).with_columns(ratio=pl.col("value") / pl.col("base"))
    order = pl.Enum(list(REGIMES))
    return joined.select("horizon", pl.col("regime").cast(order), "n", "model", "ratio").sort(
        "horizon", "regime", "ratio"
    )


def ratios_by_id(losses: Losses) -> pl.DataFrame:
    """horizon, unique_id, n (rows), model, ratio: mean loss of the model over that of the reference, for each id."""
    scored = align(losses.predictions)
    rows_of_model = scored.losses(loss_named(losses.loss))
    frame = scored.keys.with_columns(pl.Series(name, rows_of_model[i]) for i, name in enumerate(scored.models))
    mean = frame.group_by("horizon", "unique_id").agg(pl.len().alias("n"), pl.col(losses.models).mean())
    ratios = mean.with_columns(pl.col(losses.models) / pl.col(losses.reference))
    long = ratios.unpivot(index=["horizon", "unique_id", "n"], variable_name="model", value_name="ratio")
    return long.sort("horizon", "unique_id", "model")


def confidence_sets(losses: Losses, *, window: int = 504, step: int = 63, size: float = 0.1) -> pl.DataFrame:
    """The model confidence set of the last `window` dates, every `step` dates.

    Args:
        window: dates of each test; 504 are two years of trading days. step: dates between two of them.
        size: of the test; 0.1 gives the 90 % set.
    Returns:
        horizon, ds (the last date of the window), model, p_value, in_set, sorted in that order.
    Raises:
        InputError: the window is longer than the sample, or too short for a test.
    """
    rows = []
    for horizon, (dates, values) in losses.by_horizon.items():
        if reason := too_few(window, horizon):
            raise InputError(f"window is {window}; {reason}.")
        if window > len(dates):
            raise InputError(f"window is {window}, longer than the {len(dates)} dates with forecasts; use fewer.")
        for end in range(len(dates), window - 1, -step):
            found = model_confidence_set(values[end - window : end], horizon=horizon, size=size)
            rows += [
                (horizon, dates[end - 1].item(), name, float(p), bool(inside))
                for name, p, inside in zip(losses.models, found.p_value, found.in_set, strict=True)
            ]
    table = pl.DataFrame(rows, schema=["horizon", "ds", "model", "p_value", "in_set"], orient="row")
    return table.sort("horizon", "ds", "model")


def _arrays(scored: Scored, loss: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for (horizon,), part in date_losses(scored, loss_named(loss)).group_by("horizon", maintain_order=True):
        dates = part["ds"].unique(maintain_order=True).to_numpy()
        found[int(str(horizon))] = (dates, part["value"].to_numpy().reshape(len(dates), len(scored.models)))
    return found


def _read(forecasts: Any) -> tuple[pl.DataFrame, Mapping[str, str]]:
    if isinstance(forecasts, pl.DataFrame):
        return forecasts, {}
    if isinstance(forecasts, str | Path):
        file = Path(forecasts) / "predictions.parquet"
        if not file.is_file():
            raise InputError(f"{forecasts} holds no predictions.parquet; give the folder of a finished run.")
        manifest = Path(forecasts) / "manifest.json"
        facts = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        return pl.read_parquet(file), {name: str(fact["family"]) for name, fact in facts.get("models", {}).items()}
    if isinstance(getattr(forecasts, "predictions", None), pl.DataFrame):
        models = getattr(getattr(forecasts, "experiment", None), "models", {})
        return forecasts.predictions, {name: entry.forecaster.family for name, entry in models.items()}
    kind = type(forecasts).__name__
    raise InputError(f"forecasts is of type {kind}; give a run's folder, a Result or its predictions.")
