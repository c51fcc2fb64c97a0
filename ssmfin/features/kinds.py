"""Owns the names of features: `kind` in a study to its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmfin.errors import InputError, nearest
from ssmfin.features.learned_specs import KalmanSpec, RegimeSpec
from ssmfin.features.row_specs import (
    CalendarSpec,
    ColumnsSpec,
    EwmaSpec,
    HarLagsSpec,
    JumpSpec,
    LeverageSpec,
    MarketSpec,
    QuarticitySpec,
    RankSpec,
)
from ssmfin.features.spec import FeatureSpec

KINDS: dict[str, type[FeatureSpec]] = {
    "har_lags": HarLagsSpec,
    "leverage": LeverageSpec,
    "ewma": EwmaSpec,
    "market": MarketSpec,
    "rank": RankSpec,
    "jump": JumpSpec,
    "quarticity": QuarticitySpec,
    "columns": ColumnsSpec,
    "calendar": CalendarSpec,
    "kalman": KalmanSpec,
    "regime": RegimeSpec,
}


def spec_class(kind: str) -> type[FeatureSpec]:
    """The spec of a feature kind.

    Raises:
        InputError: there is no such kind.

    >>> spec_class("har_lags").__name__
    'HarLagsSpec'
    """
    if kind not in KINDS:
        raise InputError(f"feature kind {kind!r} is unknown; {nearest(kind, KINDS)}.")
    return KINDS[kind]


def feature_specs(given: Mapping[str, FeatureSpec | Mapping[str, Any]]) -> dict[str, FeatureSpec]:
    """Specs as they are, and mappings as in a study file (`{"kind": "har_lags"}`), by the names of the features.

    Raises:
        InputError: an entry is neither, or its kind or a parameter is unknown.
    """
    found = {}
    for name, entry in given.items():
        if isinstance(entry, FeatureSpec):
            found[name] = entry
        elif isinstance(entry, Mapping) and isinstance(entry.get("kind"), str):
            found[name] = spec_class(entry["kind"])(**{key: value for key, value in entry.items() if key != "kind"})
        else:
            raise InputError(f"feature {name!r} is {entry!r}, no spec; give one, such as {{'kind': 'har_lags'}}.")
    return found
