"""Owns the losses: how far one forecast f is from what was realised y. Lower is better for all of them.

QLIKE and MSE order forecasts of a variance correctly even when y is only an unbiased proxy of it (Patton 2011); MAE
does not: it is minimised by the median, below the mean for a skewed y. It is here because people ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ssmfin.errors import InputError, nearest


def qlike(y: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Loss of the Gaussian quasi-likelihood for a variance, scale-free, zero at f = y.

    QLIKE = y / f - log(y / f) - 1

    Args:
        y: realised, any shape, > 0.
        f: forecast, broadcastable to `y`, in the unit of `y`. A forecast <= 0 has infinite loss (the limit for f -> 0):
            it is the model's fault, not the user's, so it costs the model its rank and does not stop the study.
    Returns:
        Loss >= 0, dimensionless, shape of `y`; inf where f <= 0, NaN where either is NaN.
    Raises:
        InputError: some y is zero or negative.
    References:
        Patton (2011), Journal of Econometrics 160, the robust family at b = -2, less its minimum over f.

    >>> float(qlike(np.array(2.0), np.array(2.0)))
    0.0
    """
    y, f = np.asarray(y, dtype=float), np.asarray(f, dtype=float)
    if (y <= 0).any():
        raise InputError(
            f"y is not a positive variance, {y[y <= 0].flat[0]:g} (and {int((y <= 0).sum()) - 1} more); "
            "qlike needs y > 0: use mse or mae, or a target that is positive."
        )
    # y subnormal or f tiny: the quotient may overflow to inf or vanish to 0, and both rightly cost infinity
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        ratio = y / f
        # x - log x - 1 loses digits as x -> 1; with e = x - 1 it is e - log1p(e)
        excess = (y - f) / f
        loss = np.where(ratio > 0.5, excess - np.log1p(excess), ratio - np.log(ratio) - 1.0)
        loss = np.where((f <= 0) | np.isinf(ratio), np.inf, np.maximum(loss, 0.0))
    result: np.ndarray = np.where(np.isnan(y) | np.isnan(f), np.nan, loss)
    return result


def mse(y: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Squared error, in the squared unit of y.

    MSE = (y - f)^2

    >>> float(mse(np.array(3.0), np.array(1.0)))
    4.0
    """
    with np.errstate(over="ignore"):  # an absurd forecast costs inf
        result: np.ndarray = np.square(np.asarray(y, dtype=float) - np.asarray(f, dtype=float))
    return result


def mae(y: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Absolute error, in the unit of y.

    MAE = |y - f|

    >>> float(mae(np.array(3.0), np.array(1.0)))
    2.0
    """
    result: np.ndarray = np.abs(np.asarray(y, dtype=float) - np.asarray(f, dtype=float))
    return result


@dataclass(frozen=True)
class Loss:
    """A loss and what the report says about it.

    Attributes:
        name: key in a study's `evaluate.losses`.
        label: how a sentence calls it.
        formula: with y realised and f forecast.
        definition: one sentence for a reader who does not know it.
        function: (y, f) -> loss, elementwise.
        positive: True where every y must be > 0.
    """

    name: str
    label: str
    formula: str
    definition: str
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    positive: bool = False


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            "qlike",
            "QLIKE",
            "y/f - log(y/f) - 1",
            "Relative error of a variance forecast, zero when it is exact; forecasts that are too low cost more than "
            "ones that are too high, and calm and turbulent days count alike.",
            qlike,
            positive=True,
        ),
        Loss(
            "mse",
            "MSE",
            "(y - f)^2",
            "Squared error in the squared unit of the target; the few most turbulent days dominate it.",
            mse,
        ),
        Loss(
            "mae",
            "MAE",
            "|y - f|",
            "Absolute error in the unit of the target; it rewards forecasts of the median, which lie below the mean "
            "when the target is skewed.",
            mae,
        ),
    )
}


def loss_named(name: str) -> Loss:
    """The registered loss.

    Raises:
        InputError: there is none of that name.

    >>> loss_named("mse").formula
    '(y - f)^2'
    """
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is unknown; {nearest(name, LOSSES)}")
    return LOSSES[name]


def losses_named(names: Iterable[str]) -> tuple[Loss, ...]:
    """The registered losses in the order given; the first is the primary one, on which the verdict rests.

    Raises:
        InputError: none is given, one is unknown or given twice.
    """
    if isinstance(names, str):
        names = (names,)
    names = tuple(names)
    if not names:
        raise InputError(f"evaluate.losses is empty; name at least one of {', '.join(LOSSES)}.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"evaluate.losses names {name!r} {names.count(name)} times; name it once.")
    return tuple(loss_named(name) for name in names)
