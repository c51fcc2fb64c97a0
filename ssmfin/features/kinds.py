"""Owns the names of features: `kind` in a study to its spec."""

from __future__ import annotations

from ssmfin.errors import InputError, nearest
from ssmfin.features.learned_specs import KalmanSpec, RegimeSpec
from ssmfin.features.row_specs import (
    ColumnsSpec,
    EwmaSpec,
    HarLagsSpec,
    JumpSpec,
    LeverageSpec,
    MarketSpec,
    QuarticitySpec,
)
from ssmfin.features.spec import FeatureSpec

KINDS: dict[str, type[FeatureSpec]] = {
    "har_lags": HarLagsSpec,
    "leverage": LeverageSpec,
    "ewma": EwmaSpec,
    "market": MarketSpec,
    "jump": JumpSpec,
    "quarticity": QuarticitySpec,
    "columns": ColumnsSpec,
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
