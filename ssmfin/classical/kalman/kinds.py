"""Owns the list of specifications by name, as studies and JSON know them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ssmfin.classical.kalman.autoregressions import AR1PlusNoise, StochasticVolatility, SumOfAR1
from ssmfin.classical.kalman.model import Specification
from ssmfin.classical.kalman.panels import DynamicFactor, DynamicNelsonSiegel
from ssmfin.classical.kalman.regression import DynamicRegression
from ssmfin.classical.kalman.trends import LocalLevel, LocalLinearTrend, Seasonal
from ssmfin.errors import InputError, nearest

KINDS: dict[str, type[Specification]] = {
    cls.kind: cls
    for cls in (
        LocalLevel,
        LocalLinearTrend,
        Seasonal,
        AR1PlusNoise,
        SumOfAR1,
        StochasticVolatility,
        DynamicRegression,
        DynamicNelsonSiegel,
        DynamicFactor,
    )
}


def specification(kind: str, **options: Any) -> Specification:
    """A specification by name: `specification("local_linear_trend", damped=True)`.

    Args:
        kind: one of KINDS.
        options: fields of its dataclass; lists are taken for tuples, as JSON has no tuples.
    Raises:
        InputError: an unknown kind or option, or an option out of range.

    >>> specification("sum_of_ar1", terms=3).parameter_names[:3]
    ('mean', 'variance_irregular', 'persistence_1')
    """
    if kind not in KINDS:
        raise InputError(f"the Kalman model {kind!r} is unknown; {nearest(kind, KINDS)}")
    cls = KINDS[kind]
    known = {field.name: field.type for field in fields(cls)}
    for name, value in options.items():
        if name not in known:
            raise InputError(f"the Kalman model {kind} has no option {name!r}; {nearest(name, known)}")
        if known[name] == "bool" and not isinstance(value, bool):
            raise InputError(f"{kind}.{name} is {value!r}; give true or false.")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()})
