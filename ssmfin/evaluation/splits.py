"""Owns the walk-forward folds: which dates train, which validate, which are forecast from.

Dates are the sorted distinct `ds` of the panel, d_0 .. d_{T-1}. A fold has a cutoff c, the last date observed when
models are fitted:

    training window    [c - size + 1, c] (rolling) or [0, c] (expanding)
    training origins s inside the window whose label is known by c - embargo        (the purge, by label dates)
    validation origins [c - validation.size, c] of those; the part before it keeps only labels known by
                       c - validation.size - embargo                                (the same purge, once more)
    test origins       c, c + 1, .., c + test.size - 1; the next cutoff is c + test.size

So the first forecast is made at the cutoff itself, no origin is tested twice and none is lost: the last fold is
shorter where the dates run out.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ssmfin.errors import InputError, validation_message

if TYPE_CHECKING:
    import polars as pl

    from ssmfin.data.panel import Panel

FAIR_WINDOWS = 10  # test windows that a suggested size leaves at least, half of the dates being enough in any case


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Train(_Config):
    """The training window."""

    kind: Literal["rolling", "expanding"] = Field(
        "rolling", description="rolling: the `size` dates ending at the cutoff; expanding: all dates up to it."
    )
    size: int = Field(1000, ge=2, description="Window length in dates (expanding: of the first window).")
    min_rows: int | None = Field(
        None,
        ge=2,
        description="An id is forecast in a fold only if it has at least this many complete training rows there; "
        "default: half of `size`.",
    )

    @property
    def required_rows(self) -> int:
        return self.min_rows if self.min_rows is not None else max(2, self.size // 2)


class Validation(_Config):
    """The tail of the training window that early stopping and penalties are chosen on."""

    size: int = Field(125, ge=1, description="Length of the tail in dates.")


class Test(_Config):
    """The origins forecast from between two cutoffs."""

    __test__ = False  # the name is the field's; pytest must not collect it

    size: int = Field(63, ge=1, description="Number of test origins (dates) in a fold.")


def _sized(value: Any) -> Any:
    """`train=1000` is short for `train={"size": 1000}`."""
    return {"size": value} if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Fold:
    """One cutoff. All are positions in the sorted distinct dates; `test_stop` is exclusive."""

    number: int
    train_start: int
    cutoff: int
    labels_until: int
    validation_start: int
    fit_labels_until: int
    test_stop: int

    @property
    def test_start(self) -> int:
        return self.cutoff


def _always(purge: Any) -> Any:
    if purge != "auto":
        raise ValueError("write auto or leave it out: labels that end after the cutoff never train a model")
    return purge


class WalkForward(_Config):
    """Walk-forward splits by dates, purged by label dates.

    Args (sizes in dates; `train`, `validation` and `test` also take a bare number):
        train: window kind, size and least rows an id must have. validation: tail for early stopping. test: origins a
            fold.
        horizons: rows ahead, only needed for `plan` and `evaluate` in Python (a study file has them under `target`).
        embargo: further dates that must lie between the last training label and the cutoff.
        refit: fit on every k-th fold, reuse the fitted model in between. start: first cutoff is on or after this date.

    >>> folds = WalkForward(train=4, validation=2, test=3).folds(np.arange("2024-01-01", "2024-01-11", dtype="M8[D]"))
    >>> [(fold.train_start, fold.cutoff, fold.test_stop) for fold in folds]
    [(0, 3, 6), (3, 6, 9), (6, 9, 10)]
    """

    train: Annotated[Train, BeforeValidator(_sized)] = Train()
    validation: Annotated[Validation, BeforeValidator(_sized)] = Validation()
    test: Annotated[Test, BeforeValidator(_sized)] = Test()
    purge: Annotated[Literal["auto"], BeforeValidator(_always)] = Field(
        "auto", description="Labels that end after the cutoff never train; no other choice."
    )
    embargo: int = Field(0, ge=0, description="Further dates between the last training label and the cutoff.")
    refit: int = Field(1, ge=1, description="Refit on every k-th fold.")
    start: dt.date | None = Field(None, description="The first cutoff is the first date on or after this one.")
    horizons: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="Rows ahead; leave out in a study file, where target.horizons has them."
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(validation_message("WalkForward", type(self), error)) from None

    def check(self, horizons: tuple[int, ...]) -> None:
        """Refuse windows that cannot hold a label of the longest horizon.

        Raises:
            InputError: the validation tail or the part before it would have no origin with a known label.
        """
        longest = max(horizons)
        if self.horizons is not None and tuple(self.horizons) != tuple(horizons):
            raise InputError(
                f"walk_forward.horizons is {list(self.horizons)}, but the target has {list(horizons)}; leave one "
                "of them out."
            )
        if self.validation.size < longest + self.embargo + 1:
            raise InputError(
                f"walk_forward.validation.size is {self.validation.size}, too short for horizon {longest}"
                f"{f' and embargo {self.embargo}' if self.embargo else ''}: after the purge it has no origin with "
                "a known "
                f"label; use at least {longest + self.embargo + 1}."
            )
        needed = self.validation.size + longest + self.embargo + 2
        if self.train.size < needed:
            raise InputError(
                f"walk_forward.train.size is {self.train.size}, too short for a validation tail of "
                f"{self.validation.size} "
                f"and horizon {longest}; use at least {needed}, or a shorter tail."
            )

    def folds(self, dates: np.ndarray) -> list[Fold]:
        """All folds over `dates` ((T,) datetime64, sorted and distinct).

        Raises:
            InputError: the dates do not hold one training window, or none is left at or after `start`.
        """
        count, size = len(dates), self.train.size
        if size > count:
            least = self.validation.size + self.embargo + max(self.horizons or (1,)) + 2  # that `check` accepts
            fair = max(count - FAIR_WINDOWS * self.test.size, count // 2)
            remedy = f"use {fair} or less, which leaves {count - fair} dates to forecast from"
            if fair < least:
                remedy = f"give more dates, or shorten validation.size ({self.validation.size}), too"
            raise InputError(f"walk_forward.train.size is {size}, longer than the panel ({count} dates); {remedy}.")
        first = size - 1
        if self.start is not None:
            position = int(np.searchsorted(dates, np.datetime64(self.start)))
            if position == count:
                raise InputError(
                    f"walk_forward.start is {self.start}, after the last date of the panel ({_day(dates[-1])}); "
                    "use an earlier one."
                )
            if position < first:
                raise InputError(
                    f"walk_forward.start is {self.start}, before the first training window of {size} dates is "
                    "complete; "
                    f"use {_day(dates[first])} or later, or a smaller walk_forward.train.size."
                )
            first = position
        return [
            Fold(
                number=number,
                train_start=cutoff - size + 1 if self.train.kind == "rolling" else 0,
                cutoff=cutoff,
                labels_until=cutoff - self.embargo,
                validation_start=cutoff - self.validation.size,
                fit_labels_until=cutoff - self.validation.size - self.embargo,
                test_stop=min(cutoff + self.test.size, count),
            )
            for number, cutoff in enumerate(range(first, count, self.test.size))
        ]

    def plan(self, panel: Panel) -> pl.DataFrame:
        """The folds over a panel as a table: one row a fold, dates and row counts.

        Rows are counted by dates alone; a study's own plan also leaves out rows with incomplete features.
        """
        from ssmfin.evaluation.plan import fold_table, label_dates

        return fold_table(self, panel.dates, *label_dates(panel, self.horizons or (1,)))


def _day(value: np.datetime64) -> str:
    return str(value)[:10]
