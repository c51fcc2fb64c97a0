"""Owns the step from whole sessions to sampled ones: bad rows counted, sessions judged, prices on the grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssmfin.data.intraday import loops
from ssmfin.data.intraday.flow import flow
from ssmfin.data.intraday.rules import RULES
from ssmfin.data.intraday.sampling import grid
from ssmfin.data.intraday.sessions import Sessions
from ssmfin.data.intraday.ticks import check_rows
from ssmfin.data.realized.settings import Settings


@dataclass
class Sampled:
    """G sessions after the checks.

    Attributes:
        code, label, length, close: (G,) as in `Sessions`.
        counts: rule -> (G,) rows, or 1 for a rule of the whole day.
        rows: (G,) rows with a price. coverage: (G,) share of the sampling intervals with a row.
        longest_gap, longest_stale: (G,) microseconds.
        open, last: (G,) log price at the open and at the close, NaN without any.
        open_factor, last_factor: (G,) log of the adjustment there, 0 without one.
        flow: name -> (G,).
        grids: which sessions have which length, and their log prices.
    """

    code: np.ndarray
    label: np.ndarray
    length: np.ndarray
    close: np.ndarray
    counts: dict[str, np.ndarray]
    rows: np.ndarray
    coverage: np.ndarray
    longest_gap: np.ndarray
    longest_stale: np.ndarray
    open: np.ndarray
    last: np.ndarray
    open_factor: np.ndarray
    last_factor: np.ndarray
    flow: dict[str, np.ndarray]
    grids: list[Grid]

    def flag(self, rule: str, days: np.ndarray) -> None:
        """Count a rule of the whole day."""
        if days.any():
            self.counts[rule] = days.astype(np.int64)

    def spoiled(self, drop: bool) -> np.ndarray:
        """(G,) bool, the sessions that are unusable."""
        out = np.zeros(len(self.code), dtype=bool)
        for rule, count in self.counts.items():
            if RULES[rule].spoils and not (drop and RULES[rule].droppable):
                out |= count > 0
        return out


class Grid(NamedTuple):
    """D sessions of one length: their positions (D,) and log prices (D, m + 1) on the fine grid."""

    which: np.ndarray
    log_price: np.ndarray


def sample(sessions: Sessions, settings: Settings) -> Sampled:
    """Check whole sessions and sample their prices. What is computed for a session depends on its own rows alone."""
    ticks = check_rows(settings.kind, sessions)
    starts = sessions.starts
    heads = starts[:-1]
    counts = {rule: np.add.reduceat(mask.astype(np.int64), heads) for rule, mask in ticks.flags.items()}
    known = np.isfinite(ticks.log_price)
    if settings.drop:
        for rule, mask in ticks.flags.items():
            if RULES[rule].droppable:
                known = known & ~mask
    elapsed, log_price, price, values = sessions.elapsed, ticks.log_price, ticks.price, sessions.values
    if not known.all():
        elapsed, log_price, price = elapsed[known], log_price[known], price[known]
        values = {name: column[known] for name, column in values.items()}
        starts = np.concatenate([[0], np.cumsum(np.add.reduceat(known.astype(np.int64), heads))])
    some = np.flatnonzero(np.diff(starts) > 0)  # sessions with a price
    dense = np.concatenate([starts[some], starts[-1:]])
    total = len(sessions.code)
    length = sessions.length
    quality = loops.session_quality(elapsed, log_price, dense, length[some], settings.spacing) if len(some) else None
    out = Sampled(
        code=sessions.code,
        label=sessions.label,
        length=length,
        close=sessions.close,
        counts=counts,
        rows=np.diff(starts),
        coverage=np.zeros(total),
        longest_gap=_spread(quality[0] if quality else None, some, length),
        longest_stale=_spread(quality[1] if quality else None, some, np.zeros(total, dtype=np.int64)),
        open=np.full(total, np.nan),
        last=np.full(total, np.nan),
        open_factor=np.zeros(total),
        last_factor=np.zeros(total),
        flow={},
        grids=[],
    )
    out.flag("few_ticks", out.rows < 2)
    if quality is None:
        return out
    distinct = np.ones(total, dtype=bool)
    distinct[some] = quality[2]
    out.flag("one_price", ~distinct & (out.rows >= 2))
    out.flag("gap", (out.longest_gap > settings.max_gap) & (out.rows >= 2))
    out.flag("stale", (out.longest_stale > settings.max_stale) & distinct)
    first_price = log_price[dense[:-1]]
    if settings.kind == "bars" and "open" in values:
        opened = values["open"][dense[:-1]]
        usable = (opened > 0) & np.isfinite(opened)
        first_price = np.where(usable, np.log(np.where(usable, opened, 1.0)), first_price)
    _sample_lengths(out, settings, elapsed, log_price, dense, some, first_price)
    out.flag("low_coverage", (out.coverage < settings.min_coverage) & (out.rows >= 2))
    if "factor" in values:
        with np.errstate(invalid="ignore", divide="ignore"):
            out.open_factor[some] = np.log(values["factor"][dense[:-1]])
            out.last_factor[some] = np.log(values["factor"][dense[1:] - 1])
    for name, column in flow(settings.kind, values, price, dense).items():
        out.flow[name] = np.full(total, np.nan)
        out.flow[name][some] = column
    return out


def _spread(values: np.ndarray | None, where: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    out = otherwise.copy()
    if values is not None:
        out[where] = values
    return out


def _sample_lengths(
    out: Sampled,
    settings: Settings,
    elapsed: np.ndarray,
    log_price: np.ndarray,
    dense: np.ndarray,
    some: np.ndarray,
    first_price: np.ndarray,
) -> None:
    for length in np.unique(out.length[some]).tolist():
        groups = np.flatnonzero(out.length[some] == length)
        points = grid(length, settings.fine)
        prices, covered = loops.previous_tick(
            elapsed, log_price, dense, groups, first_price[groups], points, settings.step
        )  # (D, m + 1), (D,)
        which = some[groups]
        out.coverage[which] = covered / -(-(len(points) - 1) // settings.step)
        out.open[which] = prices[:, 0]
        out.last[which] = prices[:, -1]
        out.grids.append(Grid(which, prices))


def usable_grids(sampled: Sampled, usable: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions, log prices) of the usable sessions, by length."""
    for which, prices in sampled.grids:
        keep = usable[which]
        if keep.all():
            yield which, prices
        elif keep.any():
            yield which[keep], prices[keep]
