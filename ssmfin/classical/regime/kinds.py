"""Owns the table of regime models by name, as a study file calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssmfin.classical.regime.gaussian_hmm import GaussianHMM
from ssmfin.classical.regime.model import Specification
from ssmfin.classical.regime.regression import MarkovAutoregression, MarkovRegression
from ssmfin.classical.regime.switching_kalman import SwitchingKalman
from ssmfin.errors import InputError, nearest

KINDS: dict[str, type[Specification]] = {
    cls.kind: cls for cls in (MarkovRegression, MarkovAutoregression, GaussianHMM, SwitchingKalman)
}


def specification(kind: str, **options: Any) -> Specification:
    """A regime model by name, with its options; `specification(**spec.to_dict())` is the inverse of `to_dict`.

    Raises:
        InputError: an unknown kind or option, or a value out of its range.

    >>> specification("markov_regression", mean="common").parameter_names[4:]
    ('mean', 'variance_0', 'variance_1')
    """
    if kind not in KINDS:
        raise InputError(f"regime model {kind!r} is unknown; {nearest(kind, KINDS)}.")
    cls = KINDS[kind]
    for name in options:
        if name not in cls.options():
            raise InputError(f"{kind} has no option {name!r}; {nearest(name, cls.options())}.")
    build: Callable[..., Specification] = cls
    return build(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})
