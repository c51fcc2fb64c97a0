"""Owns the words on the model confidence set: why a model with a high loss may be in it, on an example of the study."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.comparison import diebold_mariano
from ssmfin.evaluation.scores import Scored
from ssmfin.reporting.data import ReportData
from ssmfin.reporting.style import p_text, ratio_text
from ssmfin.reporting.summaries import LossSeries, loss_series
from ssmfin.reporting.tables import horizon_label

REMARKABLE = 1.1  # ratios above that make a reader wonder what a member of the set does there
_SURE = 2.0  # standard errors: a member that far behind would be an odd example of noise


class Gap(NamedTuple):
    """Mean loss of a model less that of the best, and the standard error of the difference (HAC)."""

    model: str
    ratio: float
    mean: float
    error: float


def membership_text(row: dict[str, Any], reference: str) -> str:
    """What a cell of the leaderboard says when pointed at.

    >>> row = {"mcs_p_value": 0.432, "in_mcs": True, "dm_p_value": 0.171, "n": 4010, "model": "har"}
    >>> membership_text(row, "log_har")
    'confidence set: in (p 0.432); against log_har: DM p 0.171; 4,010 dates'
    """
    tested = row["mcs_p_value"] is not None and math.isfinite(row["mcs_p_value"])
    inside = f"{'in' if row['in_mcs'] else 'out'} (p {p_text(row['mcs_p_value'])})" if tested else "not tested"
    against = "" if row["model"] == reference else f"; against {reference}: DM p {p_text(row['dm_p_value'])}"
    return f"confidence set: {inside}{against}; {row['n']:,} dates"


def confidence_example(data: ReportData, scored: Scored | None, step: str) -> str:
    """A member of the set that a reader would not expect there, and the noise that keeps it in; "" where none is.

    First choice: a member with a higher loss than a model of the same horizon that is out. Else the member with the
    highest loss, where that is above `REMARKABLE` times the reference's.
    """
    if scored is None or data.reference not in scored.models:
        return ""
    swaps: list[tuple[float, int, Gap, Gap, str]] = []
    alone: list[tuple[float, int, Gap, str]] = []
    for series in loss_series(scored, data.losses[0]):
        rows = data.leaderboard.filter((pl.col("loss") == data.losses[0]) & (pl.col("horizon") == series.horizon))
        rows = rows.filter(
            pl.col("model").is_in(series.models)
            & pl.col("value").is_finite()
            & pl.col("ratio_to_reference").is_finite()
            & pl.col("mcs_p_value").is_finite()
        ).sort("value", "model")
        if rows.height < 2:
            continue
        best = rows["model"][0]
        gaps = [(row["in_mcs"], _gap(series, row, best)) for row in rows[1:].iter_rows(named=True)]
        inside = [gap for member, gap in gaps if member and gap is not None and gap.mean < _SURE * gap.error]
        outside = [gap for member, gap in gaps if not member and gap is not None]
        alone += [(gap.ratio, series.horizon, gap, best) for gap in inside if gap.ratio >= REMARKABLE]
        swaps += [
            (member.ratio / out.ratio, series.horizon, member, out, best)
            for member in inside
            for out in outside
            if member.ratio > out.ratio and member.mean / member.error < out.mean / out.error
        ]
    if swaps:
        _, horizon, member, out, best = max(swaps)
        return (
            f"{horizon_label(horizon, step)}, {member.model} ({ratio_text(member.ratio)}) is in the set and "
            f"{out.model} ({ratio_text(out.ratio)}) is not: the loss of {member.model} is {_amount(member)} above that "
            f"of {best}, the best; that of {out.model} is {_amount(out)} above it. The larger gap is the less certain "
            "one."
        )
    if alone:
        _, horizon, member, best = max(alone)
        return (
            f"{horizon_label(horizon, step)}, {member.model} ({ratio_text(member.ratio)}) is in the set: its loss is "
            f"{_amount(member)} above that of {best}, the best; chance could do that."
        )
    return ""


def _gap(series: LossSeries, row: dict[str, Any], best: str) -> Gap | None:
    """None where the difference cannot be tested."""
    try:
        test = diebold_mariano(series.of(row["model"]), series.of(best), horizon=series.horizon)
    except InputError:
        return None
    mean = float((series.of(row["model"]) - series.of(best)).mean())
    if not (math.isfinite(test.statistic) and test.statistic > 0 and mean > 0):
        return None
    return Gap(row["model"], row["ratio_to_reference"], mean, mean / test.statistic)


def _amount(gap: Gap) -> str:
    """To two digits of the error.

    >>> _amount(Gap("har", 2.0, 0.25251, 0.1834)), _amount(Gap("har", 2.0, 2.52e-8, 1.834e-8))
    ('0.25 ± 0.18', '2.52e-08 ± 1.8e-08')
    """
    digits = 1 - math.floor(math.log10(gap.error))
    if 0 <= digits <= 6:
        return f"{gap.mean:,.{digits}f} ± {gap.error:,.{digits}f}"
    return f"{gap.mean:.3g} ± {gap.error:.2g}"
