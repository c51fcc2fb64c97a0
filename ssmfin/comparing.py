"""Owns `compare`: what changed from one evaluation in Python to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ssmfin.errors import InputError
from ssmfin.evaluation.common_rows import RunForecasts
from ssmfin.evaluation.judging import combinations_of, families
from ssmfin.evaluation.run_comparison import RunComparison, compare_forecasts

if TYPE_CHECKING:
    from ssmfin.result import Result


def compare(results: Mapping[str, Result]) -> RunComparison:
    """What changed from the first evaluation to the others, on the rows that all of them forecast.

    The same as `ssmfin compare` for runs: every model that is in both and forecasts otherwise is tested against itself
    (Diebold-Mariano, corrected by Holm for all models, horizons and evaluations).

    Args:
        results: what each is called -> result, two or more; the first is the base and gives losses and reference.
    Returns:
        Printed, what became better or worse beyond chance; `.changes`, `.leaderboard` and `.left_out` hold the numbers.
    Raises:
        InputError: there are fewer than two, their targets differ (says how), or no row is common.
    """
    if len(results) < 2:
        raise InputError(f"a comparison needs two results or more, {len(results)} given; name more.")
    first = next(iter(results.values()))
    runs = [
        RunForecasts(
            label=label,
            predictions=result.predictions,
            target={name: getattr(result.experiment.target, name) for name in ("column", "aggregate", "horizons")},
            families=families(result.experiment),
            seconds={
                row[0]: row[1:] for row in result.costs.select("model", "fit_seconds", "predict_seconds").iter_rows()
            },
            combined=combinations_of(result.experiment),
        )
        for label, result in results.items()
    ]
    return compare_forecasts(runs, first.scoring, seed=first.experiment.seed)
