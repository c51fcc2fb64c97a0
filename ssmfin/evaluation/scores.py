"""Owns how forecasts become losses: aligned rows, seeds averaged, losses by date, year, regime and seed.

Rules, the same for every number of a report:

- Only rows whose outcome is known count (y not null).
- The forecasts of the seeds of one model are averaged first, on the original scale; that ensemble is the model.
- A seed that lacks rows which others have (a task failed) is left out, and with its last seed so is the model: the
  others keep all their rows. What was left out is listed, never silent.
- Pooled over ids means: the losses of one date are averaged across its ids first, so that the dates, not the rows,
  are the observations. Ids that day after day move together do not pass for independent evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.losses import Loss, loss_named

COLUMNS = ("unique_id", "ds", "horizon", "model", "seed", "y", "y_hat")
REGIMES = ("calm", "normal", "turbulent")


@dataclass(frozen=True)
class Scored:
    """Forecasts of every complete model on the same rows, sorted by (unique_id, ds, horizon).

    Shapes: R rows, T distinct dates, M models, B complete (model, seed) pairs.

    Attributes:
        keys: frame of R rows: unique_id, ds, horizon. `y`: (R,) realised.
        id_index, date_index: (R,) positions in `ids` and `dates`. `horizon`: (R,).
        models: (M,) names, sorted. `y_hat`: (M, R) ensembles.
        members: (model, seed) of each row of `member_y_hat` (B, R).
        incomplete: frame of what was left out: model, seed (null: all of it), rows, expected.
    """

    keys: pl.DataFrame
    ids: tuple[str, ...]
    dates: pl.Series
    horizons: tuple[int, ...]
    y: np.ndarray
    id_index: np.ndarray
    date_index: np.ndarray
    horizon: np.ndarray
    models: tuple[str, ...]
    y_hat: np.ndarray
    members: tuple[tuple[str, int], ...]
    member_y_hat: np.ndarray
    incomplete: pl.DataFrame

    def losses(self, loss: Loss, *, members: bool = False) -> np.ndarray:
        """(M, R) losses of the ensembles, or (B, R) of the single seeds."""
        if loss.positive and (self.y <= 0).any():
            row = int(np.flatnonzero(self.y <= 0)[0])
            raise InputError(
                f"y is not positive, {self.y[row]:g} ({self._place(row)}), in {int((self.y <= 0).sum())} of "
                f"{len(self.y)} rows; {loss.name} needs y > 0: take it out of evaluate.losses, or choose a positive "
                "target."
            )
        return loss.function(self.y[None, :], self.member_y_hat if members else self.y_hat)

    def by_date(self, row_losses: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """(t,) date positions and (t, M) losses averaged over the ids of each date, in time order."""
        rows = self.horizon == horizon
        present, code = np.unique(self.date_index[rows], return_inverse=True)
        count = np.bincount(code)
        means = [np.bincount(code, weights=line[rows]) / count for line in row_losses]
        return present, np.stack(means, axis=1)

    def _place(self, row: int) -> str:
        return "unique_id {}, origin {}, horizon {}".format(*self.keys.row(row))


def align(predictions: pl.DataFrame, *, models: Iterable[str] = ()) -> Scored:
    """Put all models on the same rows and average the seeds.

    Args:
        predictions: frame with at least unique_id, ds, horizon, model, seed, y (null: not known yet), y_hat.
        models: names that should be there; one without any row is listed as incomplete.
    Raises:
        InputError: a column is missing, a row is there twice, a forecast is not finite, models disagree on y, no
            outcome is known yet, or no model has every row.
    """
    missing = [column for column in COLUMNS if column not in predictions.columns]
    if missing:
        raise InputError(
            f"predictions lack the column(s) {', '.join(missing)}; give {', '.join(COLUMNS)}, one row per forecast."
        )
    expected_models = sorted(set(models) | set(predictions["model"].unique().to_list()))
    frame = predictions.select(COLUMNS).with_columns(pl.col("y", "y_hat").cast(pl.Float64).fill_nan(None))
    frame = frame.filter(pl.col("y").is_not_null())
    if frame.is_empty():
        raise InputError(
            f"no forecast can be scored, {predictions.height} rows without a known outcome; "
            "let the sample end at least one horizon after the first test date."
        )
    _refuse_values(frame)
    frame = frame.sort("model", "seed", "unique_id", "ds", "horizon")

    ids = tuple(frame["unique_id"].unique().sort().to_list())
    dates = frame["ds"].unique().sort()
    horizons = np.unique(frame["horizon"].to_numpy()).astype(np.int64)
    id_index = _code(frame["unique_id"], pl.Series(ids, dtype=pl.String))
    date_index = _code(frame["ds"], dates)
    horizon_index = np.searchsorted(horizons, frame["horizon"].to_numpy())
    key = (id_index * len(dates) + date_index) * len(horizons) + horizon_index  # sorts like (unique_id, ds, horizon)

    blocks = frame.group_by("model", "seed", maintain_order=True).len()
    bounds = np.concatenate([[0], np.cumsum(blocks["len"].to_numpy())]).astype(np.int64)
    _refuse_duplicates(frame, key, bounds)
    union = np.unique(key)
    y = _common_outcomes(frame, key, union)

    complete = [b for b in range(blocks.height) if bounds[b + 1] - bounds[b] == len(union)]
    names = tuple(dict.fromkeys(blocks["model"][b] for b in complete))
    incomplete = _incomplete(blocks, set(complete), expected_models, len(union))
    if not names:
        listed = ", ".join(f"{m} ({rows} of {of} rows)" for m, _, rows, of in incomplete.iter_rows())
        raise InputError(f"no model has a forecast for every row, {listed}; rerun the tasks that failed.")

    y_hat = frame["y_hat"].to_numpy()
    member_y_hat = np.stack([y_hat[bounds[b] : bounds[b + 1]] for b in complete])
    members = tuple((blocks["model"][b], int(blocks["seed"][b])) for b in complete)
    owner = np.array([names.index(model) for model, _ in members])
    ensembles = np.stack([member_y_hat[owner == m].mean(axis=0) for m in range(len(names))])

    horizon = horizons[union % len(horizons)]
    id_of, date_of = np.divmod(union // len(horizons), len(dates))
    keys = pl.DataFrame(
        {
            "unique_id": pl.Series(ids, dtype=pl.String).gather(id_of),
            "ds": dates.gather(date_of),
            "horizon": pl.Series(horizon, dtype=pl.Int32),
        }
    )
    return Scored(
        keys=keys,
        ids=ids,
        dates=dates,
        horizons=tuple(int(h) for h in horizons),
        y=y,
        id_index=id_of,
        date_index=date_of,
        horizon=horizon,
        models=names,
        y_hat=ensembles,
        members=members,
        member_y_hat=member_y_hat,
        incomplete=incomplete,
    )


def loss_panel(predictions: pl.DataFrame, loss: str) -> pl.DataFrame:
    """Losses by date, averaged over the ids of each date.

    Returns:
        horizon, ds, model, value, sorted in that order. Sums of differences of `value` between two models are the
        cumulative loss difference.
    """
    scored = align(predictions)
    return date_losses(scored, loss_named(loss))


def date_losses(scored: Scored, loss: Loss) -> pl.DataFrame:
    """`loss_panel` of rows that are already aligned."""
    row_losses = scored.losses(loss)
    parts = []
    for h in scored.horizons:
        date, values = scored.by_date(row_losses, h)
        t, m = values.shape
        parts.append(
            pl.DataFrame(
                {
                    "horizon": pl.Series(np.full(t * m, h), dtype=pl.Int32),
                    "ds": scored.dates.gather(np.repeat(date, m)),
                    "model": pl.Series(list(scored.models), dtype=pl.String).gather(np.tile(np.arange(m), t)),
                    "value": values.reshape(-1),  # (t, m) -> (t * m,), models side by side
                }
            )
        )
    return pl.concat(parts)


def loss_by_year(predictions: pl.DataFrame, loss: str) -> pl.DataFrame:
    """Mean of the losses by date in each calendar year of the origin.

    Returns:
        model, horizon, year, value, n (dates), sorted by horizon, year, model.
    """
    panel = loss_panel(predictions, loss).with_columns(pl.col("ds").dt.year().cast(pl.Int32).alias("year"))
    grouped = panel.group_by("model", "horizon", "year", maintain_order=True)
    return grouped.agg(pl.col("value").mean(), pl.len().cast(pl.Int64).alias("n")).sort("horizon", "year", "model")


def loss_by_regime(predictions: pl.DataFrame, loss: str) -> pl.DataFrame:
    """Mean loss in calm, normal and turbulent times: terciles of the realised y of each id and horizon.

    The terciles look at the outcome itself, over the whole test period. They describe where a model gains or loses;
    nobody could have known them in advance, and no model is to be chosen by them.

    Returns:
        model, horizon, regime, value (mean over rows), n (rows), sorted by horizon, regime (calm first), model.
    """
    scored = align(predictions)
    row_losses = scored.losses(loss_named(loss))
    order = np.lexsort((scored.date_index, scored.y, scored.horizon, scored.id_index))
    group = scored.id_index[order] * (max(scored.horizons) + 1) + scored.horizon[order]
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, size)
    regime = np.empty(len(order), dtype=np.int64)
    regime[order] = (3 * rank) // np.repeat(size, size)

    rows = []
    for h in scored.horizons:
        for r, label in enumerate(REGIMES):
            chosen = (scored.horizon == h) & (regime == r)
            n = int(chosen.sum())
            if n:
                rows += [(m, h, label, float(row_losses[i, chosen].mean()), n) for i, m in enumerate(scored.models)]
    schema = {
        "model": pl.String(),
        "horizon": pl.Int32(),
        "regime": pl.String(),
        "value": pl.Float64(),
        "n": pl.Int64(),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def seed_spread(predictions: pl.DataFrame, loss: str) -> pl.DataFrame:
    """How much the loss of one model varies with its seed, beside the loss of the ensemble that is ranked.

    Returns:
        model, horizon, seeds (count), ensemble, mean, std (between seeds, n - 1), min, max: losses pooled as in the
        leaderboard; no row for models with one seed.
    """
    scored = align(predictions)
    definition = loss_named(loss)
    single, together = scored.losses(definition, members=True), scored.losses(definition)
    rows = []
    for h in scored.horizons:
        by_seed = scored.by_date(single, h)[1].mean(axis=0)
        ensemble = scored.by_date(together, h)[1].mean(axis=0)
        for i, model in enumerate(scored.models):
            values = by_seed[[name == model for name, _ in scored.members]]
            if len(values) > 1:
                std = float(values.std(ddof=1)) if np.isfinite(values).all() else None
                summary = (float(values.mean()), std, float(values.min()), float(values.max()))
                rows.append((model, h, len(values), float(ensemble[i]), *summary))
    schema = {"model": pl.String(), "horizon": pl.Int32(), "seeds": pl.Int64()}
    schema |= {name: pl.Float64() for name in ("ensemble", "mean", "std", "min", "max")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _code(values: pl.Series, known: pl.Series) -> np.ndarray:
    """Positions of `values` in the sorted `known`."""
    result: np.ndarray = known.search_sorted(values).to_numpy().astype(np.int64)
    return result


def _refuse_values(frame: pl.DataFrame) -> None:
    finite = pl.col("y_hat").is_not_null() & pl.col("y_hat").is_finite() & pl.col("y").is_finite()
    bad = frame.filter(~finite)
    if bad.height:
        unique_id, ds, horizon, model, seed, y, y_hat = bad.row(0)
        raise InputError(
            f"{bad.height} forecast(s) or outcomes are not finite, first y_hat {y_hat}, y {y} (model {model}, "
            f"seed {seed}, unique_id {unique_id}, origin {ds}, horizon {horizon}); a model must answer every row."
        )


def _refuse_duplicates(frame: pl.DataFrame, key: np.ndarray, bounds: np.ndarray) -> None:
    twice = np.flatnonzero(np.diff(key) == 0) + 1
    twice = twice[~np.isin(twice, bounds)]  # equal neighbours across a border belong to two models
    if len(twice):
        unique_id, ds, horizon, model, seed, *_ = frame.row(int(twice[0]))
        raise InputError(
            f"{len(twice)} forecast(s) are there twice, first model {model}, seed {seed}, unique_id {unique_id}, "
            f"origin {ds}, horizon {horizon}; keep one row per (unique_id, ds, horizon, model, seed)."
        )


def _common_outcomes(frame: pl.DataFrame, key: np.ndarray, union: np.ndarray) -> np.ndarray:
    """(len(union),) realised values, which all models must share."""
    y = frame["y"].to_numpy()
    row = np.searchsorted(union, key)
    first = np.full(len(union), len(key))
    np.minimum.at(first, row, np.arange(len(key)))
    common: np.ndarray = y[first]
    differs = np.abs(y - common[row]) > 1e-9 * np.abs(y)
    if differs.any():
        at = int(np.flatnonzero(differs)[0])
        unique_id, ds, horizon, model, *_ = frame.row(at)
        other = frame["model"][int(first[row[at]])]
        raise InputError(
            f"the models were scored on different outcomes, y = {y[at]!r} for {model} and {common[row[at]]!r} for "
            f"{other} (unique_id {unique_id}, origin {ds}, horizon {horizon}); compare models of one target and panel."
        )
    return common


def _incomplete(blocks: pl.DataFrame, complete: set[int], models: list[str], expected: int) -> pl.DataFrame:
    rows: list[tuple[str, int | None, int, int]] = [
        (model, seed, rows, expected) for b, (model, seed, rows) in enumerate(blocks.iter_rows()) if b not in complete
    ]
    present = set(blocks["model"].to_list())
    rows += [(model, None, 0, expected) for model in models if model not in present]
    schema = {"model": pl.String(), "seed": pl.Int64(), "rows": pl.Int64(), "expected": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("model", "seed")
