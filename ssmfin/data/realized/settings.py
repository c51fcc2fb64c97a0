"""Owns the options as numbers, once the source has shown how far apart its rows are."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from ssmfin.data.intraday.durations import duration_text, microseconds
from ssmfin.data.intraday.scan import Kind
from ssmfin.data.realized.estimators import ESTIMATORS
from ssmfin.data.realized.options import RealizedMeasures
from ssmfin.errors import InputError

MINUTE = 60_000_000


class Settings(NamedTuple):
    """Lengths are microseconds.

    Attributes:
        kind: of the rows. spacing: usual distance between two rows, 0 where there is none.
        sampling: interval of the returns. fine: of the finest grid; sampling = step * fine.
    """

    kind: Kind
    spacing: int
    sampling: int
    fine: int
    estimators: tuple[str, ...]
    max_gap: int
    max_stale: int
    min_coverage: float
    drop: bool
    prepend_zero: bool
    jump_level: float

    @property
    def step(self) -> int:
        return self.sampling // self.fine


def resolve(options: RealizedMeasures, kind: Kind, spacing: int) -> Settings:
    """Options as numbers.

    Raises:
        InputError: the sampling interval is shorter than the bars, or an estimator lacks what it needs.
    """
    sampling = microseconds(options.sampling)
    if spacing > sampling:
        raise InputError(
            f"sampling is {options.sampling}, shorter than the bars, {duration_text(spacing)}; sample less often."
        )
    if options.fine is not None:
        fine = microseconds(options.fine)
        if sampling % fine:
            raise InputError(f"fine is {options.fine}, which does not divide sampling, {options.sampling}; choose one.")
    elif spacing:
        fine = gcd(sampling, spacing)
    else:
        fine = MINUTE if sampling % MINUTE == 0 else sampling
    finer = [name for name in options.estimators if ESTIMATORS[name].finer]
    if finer and fine == sampling:
        raise InputError(
            f"estimator {finer[0]} needs prices more often than sampling, {options.sampling}; "
            f"set fine, or leave it out of estimators."
        )
    needs_market = [name for name in options.estimators if ESTIMATORS[name].market]
    if needs_market and options.market is None:
        raise InputError(f"estimator {needs_market[0]} needs a market, none is given; set market: to an id.")
    return Settings(
        kind=kind,
        spacing=spacing,
        sampling=sampling,
        fine=fine,
        estimators=tuple(options.estimators),
        # hours of two equal closes are no feed that hangs
        max_gap=max(microseconds(options.max_gap), 2 * spacing),
        max_stale=max(microseconds(options.max_stale), 2 * spacing),
        min_coverage=options.min_coverage,
        drop=options.bad_ticks == "drop",
        prepend_zero=options.compatibility == "prepend_zero_return",
        jump_level=options.jump_level,
    )
