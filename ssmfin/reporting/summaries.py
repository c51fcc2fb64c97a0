"""Owns what the plots show: loss differences through time, by year and by regime, and which forecasts to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.losses import loss_named
from ssmfin.evaluation.scores import REGIMES, Scored, align, date_losses, loss_by_regime
from ssmfin.reporting.data import ReportData

SHOWN_ORIGINS = 504  # two years of trading days
SHOWN_IDS = 4


def best_model(data: ReportData, horizon: int, families: set[str], *, exclude: str | None = None) -> str | None:
    """The model of these families with the lowest pooled first loss; None where there is none."""
    frame = data.leaderboard.filter((pl.col("loss") == data.losses[0]) & (pl.col("horizon") == horizon))
    candidates = [
        (row["value"], row["model"])
        for row in frame.iter_rows(named=True)
        if data.families.get(row["model"], "custom") in families
        and row["model"] != exclude
        and row["value"] is not None
        and not math.isnan(row["value"])
    ]
    return min(candidates)[1] if candidates else None


def challengers(data: ReportData, horizon: int) -> list[str]:
    """The models worth drawing against what was realised: best baseline, then best SSM (else the best other model)."""
    baseline = best_model(data, horizon, {"baseline"})
    challenger = best_model(data, horizon, {"ssm"})
    if challenger is None:
        challenger = best_model(data, horizon, {"ssm", "sequence", "custom", "baseline"}, exclude=baseline)
    return [model for model in (baseline, challenger) if model is not None]


def focus(data: ReportData, horizon: int, loss: str) -> set[str]:
    """The models that a plot must show well: the best of each family and the two best besides the reference."""
    frame = data.leaderboard.filter((pl.col("loss") == loss) & (pl.col("horizon") == horizon))
    frame = frame.filter((pl.col("model") != data.reference) & pl.col("value").is_finite()).sort("value", "model")
    ranked = frame["model"].to_list()
    firsts = {data.families.get(model, "custom"): model for model in reversed(ranked)}
    return {*ranked[:2], *firsts.values()}


@dataclass(frozen=True)
class ShownId:
    """An id chosen for a plot and why: its ratio and how it stands among the ids."""

    unique_id: str
    place: str
    ratio: float | None


def shown_ids(data: ReportData, horizon: int) -> list[ShownId]:
    """At most four ids, from the one where the best challenger did best to the one where it did worst.

    Taking only good ones would flatter; the ids at 0, 1/3, 2/3 and all of the ranking are taken.
    """
    drawn = challengers(data, horizon)
    present = set(data.predictions.filter(pl.col("horizon") == horizon)["unique_id"])
    if not drawn:
        return [ShownId(name, "", None) for name in sorted(present)[:SHOWN_IDS]]
    model = drawn[-1]
    frame = data.leaderboard_by_id.filter(
        (pl.col("loss") == data.losses[0]) & (pl.col("horizon") == horizon) & (pl.col("model") == model)
    )
    ratios = {row["unique_id"]: row["ratio_to_reference"] for row in frame.iter_rows(named=True)}
    ranked = sorted(present, key=lambda name: (math.inf if _unusable(ratios.get(name)) else ratios[name], name))
    if len(ranked) <= SHOWN_IDS:
        return [ShownId(name, "", ratios.get(name)) for name in ranked]
    places = np.linspace(0, len(ranked) - 1, SHOWN_IDS).round().astype(int).tolist()
    return [
        ShownId(
            ranked[place],
            "best" if place == 0 else "worst" if place == len(ranked) - 1 else f"{place + 1} of {len(ranked)}",
            ratios.get(ranked[place]),
        )
        for place in places
    ]


def _unusable(value: float | None) -> bool:
    return value is None or math.isnan(value)


def recent_forecasts(data: ReportData, horizon: int, ids: Sequence[str], models: Sequence[str]) -> pl.DataFrame:
    """unique_id, ds, y, then a column per model (mean over seeds): the last SHOWN_ORIGINS origins of each id."""
    frame = data.predictions.filter(
        (pl.col("horizon") == horizon) & pl.col("unique_id").is_in(list(ids)) & pl.col("model").is_in(list(models))
    )
    mean = frame.group_by("unique_id", "ds", "model").agg(pl.col("y").first(), pl.col("y_hat").mean())
    wide = mean.group_by("unique_id", "ds").agg(
        pl.col("y").drop_nulls().first(),
        *(pl.col("y_hat").filter(pl.col("model") == model).first().alias(f"model:{model}") for model in models),
    )
    return wide.sort("unique_id", "ds").group_by("unique_id", maintain_order=True).tail(SHOWN_ORIGINS)


@dataclass(frozen=True)
class LossSeries:
    """Losses by date of all complete models at one horizon: dates (T,), values (T, M)."""

    horizon: int
    loss: str
    dates: np.ndarray
    models: tuple[str, ...]
    values: np.ndarray

    def of(self, model: str) -> np.ndarray:
        found: np.ndarray = self.values[:, self.models.index(model)]
        return found

    def cumulative_difference(self, model: str, reference: str) -> np.ndarray:
        """(T,) running sum of model minus reference; below zero: the model has lost less so far."""
        with np.errstate(invalid="ignore"):  # inf - inf: both failed that day
            total: np.ndarray = np.cumsum(self.of(model) - self.of(reference))
        return total


def scored_rows(data: ReportData) -> Scored | None:
    """The rows that all complete models share; None where nothing can be scored (a report is written all the same)."""
    try:
        return align(data.predictions, models=tuple(data.families))
    except InputError:
        return None


def loss_series(scored: Scored, loss: str) -> list[LossSeries]:
    """One `LossSeries` per horizon."""
    series = []
    for (horizon,), part in date_losses(scored, loss_named(loss)).group_by("horizon", maintain_order=True):
        dates = part["ds"].unique(maintain_order=True).to_numpy()
        values = part["value"].to_numpy().reshape(len(dates), len(scored.models))
        series.append(LossSeries(int(str(horizon)), loss, dates, scored.models, values))
    return series


def yearly(series: LossSeries) -> list[tuple[int, int, dict[str, float]]]:
    """(year, dates, model -> mean loss) in time order."""
    years = series.dates.astype("datetime64[Y]").astype(np.int64) + 1970
    return [
        (
            int(year),
            int((years == year).sum()),
            dict(zip(series.models, series.values[years == year].mean(axis=0).tolist(), strict=True)),
        )
        for year in np.unique(years)
    ]


def has_regimes(data: ReportData) -> bool:
    """Whether terciles of the outcome are times of calm and turbulence: not where it is negative, as returns are."""
    least = data.predictions["y"].min()
    return not (isinstance(least, int | float) and least < 0)


def by_regime(data: ReportData) -> list[tuple[int, list[tuple[str, int, dict[str, float]]]]]:
    """Per horizon (regime, rows, model -> mean loss), calm first; low to high outcomes where those are no regimes."""
    frame = loss_by_regime(data.predictions, data.losses[0])
    names = dict(zip(REGIMES, REGIMES if has_regimes(data) else ("low", "middle", "high"), strict=True))
    result = []
    for horizon in sorted(set(frame["horizon"])):
        rows = []
        for regime in REGIMES:
            part = frame.filter((pl.col("horizon") == horizon) & (pl.col("regime") == regime))
            if part.height:
                rows.append((names[regime], int(part["n"][0]), dict(part.select("model", "value").iter_rows())))
        result.append((int(horizon), rows))
    return result
