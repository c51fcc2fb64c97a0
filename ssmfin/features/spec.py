"""Owns a feature's place in a study: one small spec a kind, light to import (scikit-learn alone takes a second).

A new feature is a transformer in a file of its own, a spec in `row_specs.py` or `learned_specs.py`, and a line in
`kinds.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssmfin.errors import InputError, validation_message

if TYPE_CHECKING:
    from ssmfin.features.transformer import PanelTransformer


class FeatureSpec(BaseModel, ABC):
    """Configuration of one feature of a study: frozen, typed, and able to build its transformer.

    `fitted` says whether the transformer learns anything: if so it is a `LearnedSpec`, and the harness learns it once
    in each training window, for all models together; if not it is computed once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fitted: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    kind: str

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(validation_message(type(self).__name__, type(self), error)) from None

    @abstractmethod
    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        """The transformer, given the target's column and whether the target is modelled in logs."""


class LearnedSpec(FeatureSpec):
    """Configuration of a feature whose transformer learns: from the training window of a fold, once for all models."""

    fitted: ClassVar[bool] = True
    seconds_per_fit: ClassVar[float] = 0.02  # an id, beside a tenth of a second; a first guess for `plan`
    follows: ClassVar[bool] = False  # True: each fit takes over the labels of the one before it

    refit: int | None = Field(
        None, ge=1, description="Learn anew at every k-th fold, keep what was learned between; default: walk_forward's."
    )
    warm_start: bool = Field(
        False, description="Start each fit at the one before it: faster, but a fit then depends on those before it."
    )

    def guessed_seconds(self, ids: int) -> float:
        """What one fit should take, roughly, before any was measured."""
        return 0.1 + self.seconds_per_fit * ids
