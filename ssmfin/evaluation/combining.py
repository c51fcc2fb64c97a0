"""Owns the step from the members' forecasts to those of a combination: rows matched, seeds averaged, time respected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.evaluation.columns import quantile_levels
from ssmfin.evaluation.experiment import Experiment, Task
from ssmfin.models.combination.combining import Combined, Record, combine, combine_quantiles
from ssmfin.models.combination.spec import Combination
from ssmfin.models.interface import Forecast


@dataclass(frozen=True)
class CombinedForecasts:
    """What a combination answers.

    Attributes:
        rows: (n,) of the design, sorted. forecast: the mean, and quantiles where all members give the same levels.
        weights: a frame, see `weight_table`. notes: plain facts.
    """

    rows: np.ndarray
    forecast: Forecast
    weights: pl.DataFrame
    notes: dict[str, str]


def combine_members(experiment: Experiment, task: Task, predictions: Iterable[pl.DataFrame]) -> CombinedForecasts:
    """Forecasts of a combination at all test rows of its experiment.

    The weights of origin t see the members' forecasts whose label was known at the date of t (less the embargo), and
    nothing else: forecasts of earlier origins, made when they were made.

    Args:
        predictions: of the members' tasks, in any order; what is not a member's is passed over.
    Raises:
        RuntimeError: a member has not all its forecasts, or one that the mean cannot take.
    """
    spec = combination_of(experiment, task.model)
    design, target = experiment.design, experiment.target
    rows = np.sort(np.concatenate(experiment.test_rows))
    frames = _member_frames(experiment, task.model, spec, rows, list(predictions))
    forecast = _seeds_averaged(experiment, frames, ["y_hat"])[..., 0]
    if spec.mean_of(target) == "geometric":
        _refuse_not_positive(experiment, task.model, spec, rows, forecast)
    groups = 1 if spec.pooled else len(design.ids)
    record = Record(
        forecast=forecast,
        label=design.labels[rows],
        known=design.label_known[rows] + experiment.walk_forward.embargo,
        date=design.date_index[rows],
        group=np.zeros(len(rows), dtype=np.int64) if spec.pooled else design.id_index[rows],
        dates=len(design.dates),
        groups=groups,
    )
    combined = combine(
        record,
        weights=spec.weights,
        mean=spec.mean_of(target),
        loss=spec.loss_of(target),
        window=spec.window,
        min_periods=spec.min_periods,
        shrink=spec.shrink,
    )
    table = weight_table(experiment, task.model, spec, record, combined)
    columns = _shared_quantiles(frames)
    quantiles = None
    if columns:
        members = _seeds_averaged(experiment, frames, list(columns))
        if spec.mean_of(target) == "geometric":
            _refuse_negative(experiment, task.model, spec, rows, members)
        quantiles = combine_quantiles(members, combined.weights[record.group, record.date], mean=spec.mean_of(target))
    found = Forecast(combined.forecast, tuple(columns.values()), quantiles)
    return CombinedForecasts(rows, found, table, _notes(table, spec))


def combination_of(experiment: Experiment, model: str) -> Combination:
    """The settings of a model that is a combination."""
    found = experiment.models[model].forecaster
    if not isinstance(found, Combination):
        raise TypeError(f"model {model!r} is a {type(found).__name__}, no combination.")
    return found


def _member_frames(
    experiment: Experiment, name: str, spec: Combination, rows: np.ndarray, predictions: Sequence[pl.DataFrame]
) -> list[list[pl.DataFrame]]:
    """Of each member and seed its forecasts of these rows, sorted by id, date, horizon."""
    horizons = sorted(experiment.target.horizons)
    keys = experiment.panel.frame.select("unique_id", "ds")[rows]
    wanted = pl.concat([keys.with_columns(horizon=pl.lit(h, dtype=pl.Int32)) for h in horizons])
    wanted = wanted.sort("unique_id", "ds", "horizon")
    if not wanted.select("unique_id", "ds").gather_every(len(horizons)).equals(keys):
        raise RuntimeError("rows of the panel are not in the order of their names and dates.")
    found = []
    for member in spec.members:
        seeds = []
        for seed in experiment.models[member].runs:
            ours = (pl.col("model") == member) & (pl.col("seed") == seed)
            own = [part for frame in predictions if len(part := frame.filter(ours))]
            frame = pl.concat(own, how="diagonal").sort("unique_id", "ds", "horizon") if own else None
            if frame is None or not frame.select("unique_id", "ds", "horizon").equals(wanted):
                raise RuntimeError(
                    f"combination {name!r} needs all forecasts of {member!r}, and seed {seed} has "
                    f"{0 if frame is None else frame.height} of {wanted.height}: a task of it failed."
                )
            seeds.append(frame)
        found.append(seeds)
    return found


def _seeds_averaged(
    experiment: Experiment, frames: Sequence[Sequence[pl.DataFrame]], columns: Sequence[str]
) -> np.ndarray:
    """(K, n, H, C) columns, the seeds of a member averaged on the original scale, as the scores average them."""
    H, order = len(experiment.target.horizons), np.argsort(np.argsort(experiment.target.horizons))  # sorted in frames

    def values(frame: pl.DataFrame) -> np.ndarray:
        table = frame.select(pl.col(columns).fill_null(float("nan"))).to_numpy()
        return np.asarray(table.reshape(-1, H, len(columns))[:, order])

    return np.stack([np.mean([values(frame) for frame in seeds], axis=0) for seeds in frames])


def _shared_quantiles(frames: Sequence[Sequence[pl.DataFrame]]) -> dict[str, float]:
    """The quantile columns of all members and seeds, with their levels; none if they have not all the same."""
    told = [
        {name: level for name, level in quantile_levels(frame.columns).items() if frame[name].null_count() < len(frame)}
        for seeds in frames
        for frame in seeds
    ]
    return told[0] if all(found == told[0] for found in told) else {}


def _refuse_not_positive(
    experiment: Experiment, name: str, spec: Combination, rows: np.ndarray, forecast: np.ndarray
) -> None:
    bad = np.argwhere(forecast <= 0)
    if len(bad):
        k, i, h = (int(x) for x in bad[0])
        row = experiment.panel.frame.row(int(rows[i]), named=True)
        raise RuntimeError(
            f"combination {name!r} takes a geometric mean, but {len(bad)} forecasts of its members are not positive, "
            f"the first {forecast[k, i, h]:g} of {spec.members[k]!r} for {row['unique_id']} at {row['ds']}, horizon "
            f"{experiment.target.horizons[h]}; use mean: arithmetic."
        )


def _refuse_negative(
    experiment: Experiment, name: str, spec: Combination, rows: np.ndarray, quantiles: np.ndarray
) -> None:
    bad = np.argwhere(quantiles < 0)
    if len(bad):
        k, i, h, _ = (int(x) for x in bad[0])
        row = experiment.panel.frame.row(int(rows[i]), named=True)
        raise RuntimeError(
            f"combination {name!r} takes a geometric mean, but {len(bad)} quantiles of its members are negative, the "
            f"first {quantiles[tuple(bad[0])]:g} of {spec.members[k]!r} for {row['unique_id']} at {row['ds']}, horizon "
            f"{experiment.target.horizons[h]}; use mean: arithmetic."
        )


def weight_table(
    experiment: Experiment, name: str, spec: Combination, record: Record, combined: Combined
) -> pl.DataFrame:
    """model, unique_id (null: all ids), ds (the origin), horizon, member, weight, learned; one row for each of them.

    `learned` is false where the weights are equal for want of history.
    """
    _, H, K = combined.weights.shape[1:]
    cells = np.unique(record.group * record.dates + record.date)
    group, date = np.divmod(cells, record.dates)
    n, frame = len(cells), experiment.panel.frame
    each = np.repeat(np.arange(n), H * K)
    ids = pl.Series([None] * n if spec.pooled else [experiment.design.ids[k] for k in group], dtype=pl.String)
    return pl.DataFrame(
        {
            "model": pl.Series([name], dtype=pl.String).new_from_index(0, n * H * K),
            "unique_id": ids.gather(each),
            "ds": pl.Series(experiment.design.dates[date]).cast(frame.schema["ds"]).gather(each),
            "horizon": pl.Series(np.tile(np.repeat(experiment.target.horizons, K), n), dtype=pl.Int32),
            "member": pl.Series(spec.members, dtype=pl.String).gather(np.tile(np.arange(K), n * H)),
            "weight": combined.weights[group, date].reshape(-1),
            "learned": np.repeat(combined.learned[group, date].reshape(-1), K),
        }
    )


def _notes(table: pl.DataFrame, spec: Combination) -> dict[str, str]:
    """Mean weight of each member by horizon, in a line each."""
    mean = table.group_by("horizon", "member", maintain_order=True).agg(pl.col("weight").mean())
    notes = {"members": ", ".join(spec.members)}
    for (horizon,), part in mean.group_by("horizon", maintain_order=True):
        weights = (f"{member} {weight:.2f}" for member, weight in part.select("member", "weight").iter_rows())
        notes[f"mean weights at horizon {horizon!s}"] = ", ".join(weights)
    if spec.weights != "equal":
        notes["weights learned at"] = f"{float(table['learned'].to_numpy().mean()):.0%} of origins"
    return notes
