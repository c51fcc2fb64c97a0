"""Owns the cross-sectional score: whether forecasts put the ids of one date in the right order, and what that earns.

A return of next week can hardly be forecast in size, and its squared error says little. What matters to a portfolio is
the order of the ids on one date: the rank IC, Spearman's correlation between forecasts and outcomes across ids, date by
date. Dates are the observations, as in every other score here; labels of h rows overlap, and the t statistic allows for
it as the Diebold-Mariano test does (`comparison.bandwidth`). p-values are corrected for the number of models and
horizons that were tried: the best of many rankings looks good by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import diebold_mariano, holm
from ssmfin.evaluation.scores import Scored, align
from ssmfin.evaluation.wording import p_words

SCHEMA: dict[str, pl.DataType] = {
    "model": pl.String(),
    "horizon": pl.Int32(),
    "rank_ic": pl.Float64(),
    "rank_ic_std": pl.Float64(),
    "t_statistic": pl.Float64(),
    "p_value": pl.Float64(),
    "p_adjusted": pl.Float64(),
    "positive_share": pl.Float64(),
    "spread": pl.Float64(),
    "spread_t": pl.Float64(),
    "turnover": pl.Float64(),
    "break_even_cost": pl.Float64(),
    "dates": pl.Int64(),
    "ids": pl.Float64(),
}
SIGNIFICANT = 0.05
_GROUPS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth", 20: "twentieth"}


@dataclass(frozen=True)
class CrossSection:
    """How ids are ranked against each other: `evaluate.cross_section` of a study.

    Attributes:
        groups: the top and the bottom 1 / groups of the ids make the long-short spread; 10 for deciles.
        least_ids: dates on which fewer ids were forecast are left out.
    """

    groups: int = 10
    least_ids: int = 20

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise InputError(f"cross_section.groups is {self.groups}; use 2 or more, such as 10 for deciles.")
        if self.least_ids < 2 * self.groups:
            raise InputError(
                f"cross_section.least_ids is {self.least_ids}, too few for {self.groups} groups of two ids or more; "
                f"use at least {2 * self.groups}, or fewer groups."
            )


@dataclass(frozen=True)
class Ranking:
    """Rank scores of all complete models.

    Attributes:
        table: columns of `SCHEMA`, sorted by horizon, then rank IC, best first. `rank_ic` is its mean over dates, the t
            statistic and the two-sided p-value are of a mean of zero, `p_adjusted` is after Holm over all rows.
            `spread`: mean outcome of the top group less that of the bottom group, in the unit of the target.
            `turnover`: share of a group that is replaced after h dates, mean of both groups. `break_even_cost`: of one
            trade, as a share of its value, above which the spread is used up. `dates`: ranked ones; `ids`: on average.
            Null where a model's forecasts do not differ across ids.
        by_date: horizon, ds, model, rank_ic, spread; no row for a date without a ranking.
        setting: how it was computed.
    """

    table: pl.DataFrame
    by_date: pl.DataFrame
    setting: CrossSection


def rank_information(
    predictions: pl.DataFrame, setting: CrossSection | None = None, *, models: Sequence[str] = ()
) -> Ranking:
    """Rank IC, long-short spread and turnover of every model, on the rows that all models share.

    IC_t = corr(rank_i f_{t,i}, rank_i y_{t,i}),   ties have their mean rank

    Args:
        predictions: as for `make_leaderboard`; seeds of a model are averaged first.
        setting: groups and the least number of ids. models: names that should be there.
    Raises:
        InputError: the frame is not one of predictions, or no date has enough ids.
    References:
        Grinold, Kahn (2000), Active Portfolio Management, ch. 6; Holm (1979) for the correction.
    """
    setting = setting or CrossSection()
    scored = align(predictions, models=models)
    rows: list[dict[str, object]] = []
    parts: list[pl.DataFrame] = []
    for h in scored.horizons:
        sections = _sections(scored, h, setting.least_ids)
        for m, model in enumerate(scored.models):
            series = _rank_series(sections, scored.y_hat[m, sections.rows], h, setting.groups)
            rows.append({"model": model, "horizon": h, **_summary(series, h, sections)})
            at = np.flatnonzero(np.isfinite(series.rank_ic))
            parts.append(
                pl.DataFrame(
                    {
                        "horizon": pl.Series(np.full(len(at), h), dtype=pl.Int32),
                        "ds": scored.dates.gather(sections.dates[at]),
                        "model": pl.Series([model] * len(at), dtype=pl.String),
                        "rank_ic": series.rank_ic[at],
                        "spread": series.spread[at],
                    }
                )
            )
    table = pl.DataFrame(rows, schema={k: v for k, v in SCHEMA.items() if k != "p_adjusted"})
    adjusted = holm(table["p_value"].cast(pl.Float64).fill_null(math.nan).to_numpy())
    table = table.with_columns(pl.Series("p_adjusted", adjusted, dtype=pl.Float64).fill_nan(None)).select(list(SCHEMA))
    table = table.sort("horizon", "rank_ic", "model", descending=[False, True, False], nulls_last=True)
    return Ranking(table, pl.concat(parts), setting)


@dataclass(frozen=True)
class _Sections:
    """The rows of one horizon, date by date: `rows` (n,) of `Scored`, `group` (n,) 0 .. T - 1, `dates` (T,)."""

    rows: np.ndarray
    group: np.ndarray
    dates: np.ndarray
    ids: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    y_rank: np.ndarray  # (n,)
    id_count: int

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.group, minlength=len(self.dates))


@dataclass(frozen=True)
class _Series:
    """(T,) by date; NaN where the forecasts (or the outcomes) do not differ across ids, or nothing was held before."""

    rank_ic: np.ndarray
    spread: np.ndarray
    turnover: np.ndarray


def _sections(scored: Scored, horizon: int, least: int) -> _Sections:
    rows = np.flatnonzero(scored.horizon == horizon)
    rows = rows[np.argsort(scored.date_index[rows], kind="stable")]
    dates, group, sizes = np.unique(scored.date_index[rows], return_inverse=True, return_counts=True)
    enough = sizes >= least
    if not enough.any():
        raise InputError(
            f"evaluate.cross_section ranks {least} ids a date or more, and the most that were forecast on one date is "
            f"{int(sizes.max())}; lower cross_section.least_ids (and groups), or leave cross_section out."
        )
    kept = enough[group]
    position = np.cumsum(enough) - 1
    rows, group = rows[kept], position[group[kept]]
    y = scored.y[rows]
    return _Sections(rows, group, dates[enough], scored.id_index[rows], y, _order(y, group).rank, len(scored.ids))


@dataclass(frozen=True)
class _Order:
    """Places of values within their groups, ascending from 0: each row's run of ties is first .. last - 1 (n,)."""

    first: np.ndarray
    last: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        return np.asarray((self.first + self.last - 1) / 2.0)


def _order(values: np.ndarray, group: np.ndarray) -> _Order:
    order = np.lexsort((values, group))
    v, g = values[order], group[order]
    new_group = np.concatenate([[True], g[1:] != g[:-1]])
    new_run = new_group | np.concatenate([[True], v[1:] != v[:-1]])
    run = np.cumsum(new_run) - 1
    starts = np.flatnonzero(new_run)
    ends = np.append(starts[1:], len(v))
    offset = np.maximum.accumulate(np.where(new_group, np.arange(len(v)), 0))
    first, last = np.empty(len(v), dtype=np.int64), np.empty(len(v), dtype=np.int64)
    first[order], last[order] = starts[run] - offset, ends[run] - offset
    return _Order(first, last)


def _rank_series(sections: _Sections, forecast: np.ndarray, horizon: int, groups: int) -> _Series:
    group, sizes = sections.group, sections.sizes
    places = _order(forecast, group)
    rank_ic = _correlation(places.rank, sections.y_rank, group, len(sizes))
    count = np.maximum(sizes // groups, 1)[group]
    # of a run of equal forecasts across the border every id is held in part: no order of names decides
    share = 1.0 / ((places.last - places.first) * count)
    top = np.clip(places.last - np.maximum(places.first, sizes[group] - count), 0, None) * share
    bottom = np.clip(np.minimum(places.last, count) - places.first, 0, None) * share
    unranked = ~np.isfinite(rank_ic)
    spread = np.bincount(group, weights=(top - bottom) * sections.y, minlength=len(sizes))
    turnover = (_turnover(sections, top, horizon) + _turnover(sections, bottom, horizon)) / 2.0
    return _Series(rank_ic, np.where(unranked, np.nan, spread), np.where(unranked, np.nan, turnover))


def _turnover(sections: _Sections, weight: np.ndarray, horizon: int) -> np.ndarray:
    """(T,) share of a portfolio of weights (n,) that was not held h dates before; NaN on the first h dates."""
    held = np.zeros((len(sections.dates), sections.id_count))  # (T, K)
    held[sections.group, sections.ids] = weight
    out = np.full(len(held), np.nan)
    out[horizon:] = 1.0 - np.minimum(held[horizon:], held[:-horizon]).sum(axis=1)
    return out


def _correlation(a: np.ndarray, b: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups,) correlation of a and b (n,) within each group; NaN where one of them does not vary."""
    n = np.bincount(group, minlength=groups)
    da = a - (np.bincount(group, weights=a, minlength=groups) / n)[group]
    db = b - (np.bincount(group, weights=b, minlength=groups) / n)[group]
    aa, bb, ab = (np.bincount(group, weights=x, minlength=groups) for x in (da * da, db * db, da * db))
    varies = (aa > 0) & (bb > 0)  # means of ranks are multiples of 1/2: no rounding to fear
    return np.where(varies, ab / np.sqrt(np.where(varies, aa * bb, 1.0)), np.nan)


def _summary(series: _Series, horizon: int, sections: _Sections) -> dict[str, object]:
    ranked = np.isfinite(series.rank_ic)
    n = int(ranked.sum())
    empty: dict[str, object] = dict.fromkeys(name for name in SCHEMA if name not in ("model", "horizon", "p_adjusted"))
    if n == 0:
        return {**empty, "dates": 0, "ids": None}
    ic, spread = series.rank_ic[ranked], series.spread[ranked]
    of_ic, of_spread = (diebold_mariano(x, np.zeros(n), horizon=horizon) for x in (ic, spread))
    changes = series.turnover[ranked & np.isfinite(series.turnover)]
    turnover = float(changes.mean()) if len(changes) else None
    # what leaves a group is sold and what enters is bought, in both groups
    cost = float(spread.mean()) / (4.0 * turnover) if turnover else None
    return {
        "rank_ic": float(ic.mean()),
        "rank_ic_std": float(ic.std(ddof=1)) if n > 1 else None,
        "t_statistic": _number(of_ic.statistic),
        "p_value": _number(of_ic.p_value),
        "positive_share": float((ic > 0).mean()),
        "spread": float(spread.mean()),
        "spread_t": _number(of_spread.statistic),
        "turnover": turnover,
        "break_even_cost": cost,
        "dates": n,
        "ids": float(sections.sizes[ranked].mean()),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def ranking_sentences(ranking: Ranking, step: str) -> tuple[str, ...]:
    """What the rank scores allow one to say, a sentence or two for each horizon; `step` is singular: "day"."""
    return tuple(_sentence(ranking, h, step) for h in sorted(set(ranking.table["horizon"])))


def _sentence(ranking: Ranking, horizon: int, step: str) -> str:
    rows = ranking.table.filter(pl.col("horizon") == horizon)
    ahead = f"{horizon} {step}{'' if horizon == 1 else 's'} ahead"
    ranked = [row for row in rows.iter_rows(named=True) if row["rank_ic"] is not None]
    if not ranked:
        return f"Ranking {ahead}: no model's forecasts differ across ids."
    best, tried = ranked[0], ranking.table["p_value"].drop_nulls().len()
    text = (
        f"Ranking {best['ids']:.0f} ids on {best['dates']:,} dates, {ahead}: the highest mean rank IC is "
        f"{best['rank_ic']:.3f}, of {best['model']}, positive on {100 * best['positive_share']:.0f} % of dates"
    )
    if best["p_value"] is None:
        return f"{text}; untested, the dates are too few."
    text += f" (t = {best['t_statistic']:.1f}, {p_words(best['p_adjusted'])} counting all {tried} rankings)"
    sure = [row["model"] for row in ranked if row["rank_ic"] > 0 and _is_small(row["p_adjusted"])]
    text += f"; beyond chance: {', '.join(sure)}." if sure else "; no model orders the ids better than chance would."
    if best["break_even_cost"] is not None and best["spread"] > 0:
        text += (
            f" Its top less its bottom {group_name(ranking.setting.groups)} makes {best['spread']:.2g} in {horizon} "
            f"{step}{'' if horizon == 1 else 's'} before costs, and replaces {100 * best['turnover']:.0f} % of its "
            f"names in that time: trades above {1e4 * best['break_even_cost']:.1f} basis points use it up."
        )
    return text


def _is_small(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANT


def group_name(groups: int) -> str:
    """What one group of so many is called.

    >>> group_name(10), group_name(7)
    ('tenth', '1/7')
    """
    return _GROUPS.get(groups, f"1/{groups}")
