"""Owns what is computed from one lot of whole sessions: measures by session, sums by asset."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ssmfin.data.intraday.sessions import Sessions
from ssmfin.data.realized.block import Block
from ssmfin.data.realized.periodicity import standardized_returns
from ssmfin.data.realized.sampled import Sampled, sample, usable_grids
from ssmfin.data.realized.settings import MINUTE, Settings
from ssmfin.data.realized.variance import realized_variance

SIGNATURE_MINUTES = (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 240)
# Prices of a block that are worked on at once: what an estimator makes of them stays in the processor's cache
_BLOCK_PRICES = 1 << 16


@dataclass
class Piece:
    """Results of G sessions.

    Attributes:
        sampled: facts and counts by session; its grids are gone.
        usable: (G,) bool.
        measures: name -> (G,), NaN on unusable sessions.
        signature: (asset, interval in microseconds) -> [sum of variances, sessions].
        periodicity: (asset, intervals of the session) -> [sums of standardized squares (n,), sessions].
    """

    sampled: Sampled
    usable: np.ndarray
    measures: dict[str, np.ndarray]
    signature: dict[tuple[int, int], tuple[float, int]] = field(default_factory=dict)
    periodicity: dict[tuple[int, int], tuple[np.ndarray, int]] = field(default_factory=dict)


# session's date -> (returns of the market on it, trading time in microseconds)
Market = dict[int, tuple[np.ndarray, int]]


def measure(sessions: Sessions, settings: Settings, market: Market | None) -> Piece:
    """Check, sample and measure whole sessions."""
    sampled = sample(sessions, settings)
    usable = ~sampled.spoiled(settings.drop)
    measures = {name: np.full(len(sampled.code), np.nan) for name in settings.estimators}
    piece = Piece(sampled, usable, measures)
    flat = np.zeros(len(usable), dtype=bool)
    for which, prices in usable_grids(sampled, usable):
        blocks = max(1, round(prices.size / _BLOCK_PRICES))  # of equal size: a block of one costs as much as a hundred
        edges = np.linspace(0, len(which), min(blocks, len(which)) + 1).astype(int).tolist()
        for part in (slice(first, end) for first, end in pairwise(edges)):
            own = which[part]
            block = make_block(prices[part], settings, _market_of(market, sampled, own, settings))
            flat[own] = block["rv"] == 0.0
            for name in settings.estimators:
                measures[name][own] = block[name]
            _add_signature(piece, sampled.code[own], block, settings)
            _add_periodicity(piece, sampled.code[own], block)
    sampled.flag("zero_variance", flat)
    piece.usable &= ~flat
    for column in (*measures.values(), *sampled.flow.values()):
        column[~piece.usable] = np.nan
    sampled.grids = []
    return piece


def make_block(log_price: np.ndarray, settings: Settings, market: np.ndarray | None = None) -> Block:
    return Block(
        log_price,
        settings.step,
        settings.fine / MINUTE,
        prepend_zero=settings.prepend_zero,
        jump_level=settings.jump_level,
        market=market,
    )


def _market_of(market: Market | None, sampled: Sampled, which: np.ndarray, settings: Settings) -> np.ndarray | None:
    """(D, n) the market's returns on the days of `which`, NaN where it has none of that length."""
    if market is None:
        return None
    length = int(sampled.length[which[0]])
    n = -(-length // settings.sampling) + settings.prepend_zero
    out = np.full((len(which), n), np.nan)
    for row, label in enumerate(sampled.label[which].tolist()):
        returns, own = market.get(label, (None, -1))
        if returns is not None and own == length:
            out[row] = returns
    return out


def _add_signature(piece: Piece, code: np.ndarray, block: Block, settings: Settings) -> None:
    m = block.log_price.shape[1] - 1
    moved = block["rv"] > 0
    for minutes in SIGNATURE_MINUTES:
        step, rest = divmod(minutes * MINUTE, settings.fine)
        if rest or not 1 <= step <= m // 2:
            continue
        points = block.log_price[:, ::step]
        # whole intervals only, scaled to the session
        variance = realized_variance(np.diff(points, axis=1)) * (m / ((points.shape[1] - 1) * step))
        variance = np.where(moved, variance, 0.0)
        for one, rows in _runs(code):
            key = (one, minutes * MINUTE)
            total, count = piece.signature.get(key, (0.0, 0))
            # session after session, so that the sum does not depend on where a batch ends
            for value in variance[rows].tolist():
                total += value
            piece.signature[key] = (total, count + int(moved[rows].sum()))


def _add_periodicity(piece: Piece, code: np.ndarray, block: Block) -> None:
    squares = standardized_returns(block.returns) ** 2
    fits = ~np.isnan(squares[:, 0])
    for one, rows in _runs(code):
        key = (one, squares.shape[1])
        total, count = piece.periodicity.get(key, (np.zeros(squares.shape[1]), 0))
        own = squares[rows][fits[rows]]
        piece.periodicity[key] = (total + own.sum(axis=0), count + len(own))


def _runs(code: np.ndarray) -> list[tuple[int, slice]]:
    """(asset, its rows) of each run of equal numbers."""
    cuts = np.flatnonzero(np.diff(code)) + 1
    edges = [0, *cuts.tolist(), len(code)]
    return [(int(code[a]), slice(a, b)) for a, b in pairwise(edges)]
