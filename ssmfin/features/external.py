"""Owns features from outside: a class named `package.module:Class` in a study, and the adapter that makes it a feature.

    features: {mine: {kind: "my_features:Momentum", window: 5}}        # with --allow-imports

Any class with `transform(X)` will do. X is the study's panel, a polars frame of unique_id, ds and the value columns,
sorted by both; the answer is a frame (or an array) with one row for each row of X, NaN where there is no value yet. A
row may use its own id's rows up to itself, and rows of other ids of earlier dates:

    class Momentum:
        def __init__(self, column: str = "log_return", window: int = 21):
            self.column, self.window = column, window

        def transform(self, X):
            return X.select(momentum=pl.col(self.column).rolling_sum(self.window).over("unique_id"))

With `fit(X)` it learns: X is then the training window of a fold alone, and what `fit` leaves in attributes (numbers,
texts, lists, dicts, arrays) is stored and handed to the processes that transform. A `PanelTransformer` or a
`FeatureSpec` is taken as it is. A parameter `column` that is not given is the target's column. Annotated parameters are
checked before anything runs, and no study starts before the leak canary has changed the future and seen nothing move.

Importing a user's module runs its code: only a caller that may do so asks for a feature of this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ssmfin.errors import InputError, validation_message
from ssmfin.features.adapters import FrameTransformer, OwnTransformer, their_code
from ssmfin.features.spec import FeatureSpec, LearnedSpec
from ssmfin.features.transformer import PanelTransformer
from ssmfin.outside import class_named, parameters_of


@dataclass(frozen=True)
class OwnClass:
    """A user's class as a feature.

    Attributes:
        interface: what it was recognised by. learns: from the training window of each fold.
        parameters: what its constructor takes.
    """

    kind: str
    cls: type
    interface: Literal["FeatureSpec", "PanelTransformer", "transform"]
    learns: bool
    parameters: type[BaseModel]

    @property
    def spec_class(self) -> type[ExternalFeature | ExternalLearnedFeature]:
        return ExternalLearnedFeature if self.learns else ExternalFeature

    @property
    def takes_target(self) -> bool:
        """Whether a `column` that is not given is the target's."""
        column = self.parameters.model_fields.get("column")
        return (
            self.interface != "FeatureSpec" and column is not None and (column.is_required() or column.default is None)
        )

    def filled(self, given: Mapping[str, Any], *, column: str) -> dict[str, Any]:
        """The parameters given, and those that a study supplies."""
        if self.interface == "FeatureSpec":
            return {**given, **({"kind": self.kind} if self.parameters.model_fields["kind"].is_required() else {})}
        return {**({"column": column} if self.takes_target else {}), **given}


def own_class(kind: str) -> OwnClass:
    """Import the class that a study names.

    Raises:
        InputError: it cannot be imported, or is no feature.
    """
    cls = class_named(kind)
    if issubclass(cls, FeatureSpec):
        return OwnClass(kind, cls, "FeatureSpec", cls.fitted, parameters_of(cls))
    if issubclass(cls, PanelTransformer):
        learns = cls._learn is not PanelTransformer._learn or cls.fit is not PanelTransformer.fit
        return OwnClass(kind, cls, "PanelTransformer", learns, parameters_of(cls))
    if callable(getattr(cls, "transform", None)):
        return OwnClass(kind, cls, "transform", callable(getattr(cls, "fit", None)), parameters_of(cls))
    is_model = callable(getattr(cls, "fit", None)) and callable(getattr(cls, "predict", None))
    remedy = "name it under models" if is_model else "give it transform(X), which returns a column"
    raise InputError(f"{kind} is no feature, it has no transform; {remedy}.")


class ExternalFeature(FeatureSpec):
    """`{kind: "my_features:Momentum", window: 5}`: all further keys are parameters of the class."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        return _made(self.kind, dict(self.model_extra or {}), column=column, log=log)


class ExternalLearnedFeature(LearnedSpec):
    """The same of a class that learns."""

    model_config = ConfigDict(frozen=True, extra="allow")
    seconds_per_fit: ClassVar[float] = 0.1

    def transformer(self, *, column: str, log: bool) -> PanelTransformer:
        return _made(self.kind, dict(self.model_extra or {}), column=column, log=log)


def _made(kind: str, given: Mapping[str, Any], *, column: str, log: bool) -> PanelTransformer:
    own = own_class(kind)
    try:
        record = own.parameters(**own.filled(given, column=column))
    except ValidationError as error:
        raise InputError(validation_message(kind, own.parameters, error)) from None
    if isinstance(record, FeatureSpec):
        with their_code(kind, "transformer"):
            return OwnTransformer(kind, record.transformer(column=column, log=log))
    values = {name: getattr(record, name) for name in record.model_fields_set}
    with their_code(kind, "its constructor"):
        made = own.cls(**values)
    return OwnTransformer(kind, made if own.interface == "PanelTransformer" else FrameTransformer(kind, made, values))
