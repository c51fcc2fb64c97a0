"""Owns models from outside: a class named `package.module:Class`, and the adapter that makes a regressor a Forecaster.

Importing a user's module runs its code. The caller decides whether that is allowed (`--allow-imports`); nothing in the
library calls `load_external` on its own.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_serializer, field_validator

from ssmfin.errors import InputError, nearest
from ssmfin.models.baselines.scales import model_response, require_positive_training
from ssmfin.models.interface import Design, Fitted, FloatArray, Forecaster, Target, TrainingSet
from ssmfin.outside import class_named


@dataclass(frozen=True)
class PlainRegressor:
    """A class with fit and predict alone, which sklearn cannot clone: each fit builds it anew from its parameters."""

    cls: type
    parameters: Mapping[str, Any]

    def build(self, seed: int) -> Any:
        """An unfitted instance; a `random_state` that is None is set from the seed."""
        parameters = copy.deepcopy(dict(self.parameters))
        accepted = inspect.signature(self.cls).parameters.get("random_state")
        if accepted is not None and parameters.get("random_state", accepted.default) is None:
            parameters["random_state"] = seed % 2**32
        return self.cls(**parameters)


class SklearnForecaster(Forecaster):
    """Any regressor on all features: one of its own per horizon, ids pooled, labels on the model's scale.

    A regressor of sklearn's is cloned, a class with fit and predict alone is built anew (`PlainRegressor`) or, given as
    an instance, copied. None of them is fitted itself.

    Fitted on all rows of the training window. Under a log with bias correction, s2 is the variance of the residuals of
    another one on the validation tail, fitted on the rows before it: in-sample residuals of a flexible regressor are
    too small. Without tail rows the in-sample residuals serve. A `random_state` that is None is set from the seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: ClassVar[str] = "sklearn"
    family: ClassVar[Literal["custom"]] = "custom"
    summary: ClassVar[str] = "a regressor in sklearn's manner"
    column_fields: ClassVar[tuple[str, ...] | None] = ()
    seconds_per_fit: ClassVar[float] = 1.0

    estimator: Any = Field(description="an unfitted regressor with fit and predict")

    @field_validator("estimator")
    @classmethod
    def _regressor(cls, estimator: Any) -> Any:
        if isinstance(estimator, PlainRegressor):
            return estimator
        missing = [name for name in ("fit", "predict") if not callable(getattr(estimator, name, None))]
        if missing or isinstance(estimator, type):
            lacks = f"lacks {', '.join(missing)}" if missing else "is a class"
            raise ValueError(f"the estimator {lacks}; pass an instance of a regressor")
        return estimator

    @field_serializer("estimator")
    def _serialized(self, estimator: Any) -> dict[str, Any]:
        if isinstance(estimator, PlainRegressor):
            return {"class": _path(estimator.cls), "parameters": _plain(estimator.parameters)}
        given = estimator.get_params(deep=True) if _clonable(estimator) else getattr(estimator, "__dict__", {})
        return {"class": _path(type(estimator)), "parameters": _plain(given)}

    def fit(self, training: TrainingSet, *, seed: int = 0) -> Fitted:
        design = training.design
        if design.target.transform == "log":
            require_positive_training(training, model=_named(self.estimator))
        response = model_response(design)
        corrected = design.target.transform == "log" and design.target.bias_correction == "lognormal"
        fitted, variances = [], []
        for h in range(response.shape[1]):
            rows = {part: np.flatnonzero(getattr(training, part)[:, h]) for part in ("train", "fit", "validation")}
            if not len(rows["train"]):
                raise InputError(
                    f"no training row has a known label of horizon {design.target.horizons[h]}; "
                    "lengthen the training window."
                )
            regressor = self._fit(design.features[rows["train"]], response[rows["train"], h], seed + h)
            variance = 0.0
            if corrected:
                judge, judged = regressor, rows["train"]
                if len(rows["fit"]) and len(rows["validation"]) > 1:
                    judge = self._fit(design.features[rows["fit"]], response[rows["fit"], h], seed + h)
                    judged = rows["validation"]
                variance = float(np.var(response[judged, h] - _predict(judge, design.features[judged])))
            fitted.append(regressor)
            variances.append(variance)
        return FittedRegressors(fitted, np.array(variances), design.target)

    def _fit(self, x: FloatArray, y: FloatArray, seed: int) -> Any:
        regressor = _unfitted(self.estimator, seed)
        try:
            fitted = regressor.fit(x, y)
            return regressor if fitted is None else fitted
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{_path(type(regressor))} could not be fitted on {x.shape[0]} rows and {x.shape[1]} features, "
                f"{error}; check its parameters."
            ) from error


class FittedRegressors(Fitted):
    """One fitted regressor and one residual variance (H,) per horizon."""

    def __init__(self, regressors: list[Any], residual_variance: FloatArray, target: Target) -> None:
        self.regressors = regressors
        self.residual_variance = residual_variance
        self.target = target
        self.notes: dict[str, Any] = {}

    def predict(self, design: Design, rows: np.ndarray) -> FloatArray:
        mu = [_predict(regressor, design.features[rows]) for regressor in self.regressors]
        return self.target.to_original_scale(np.column_stack(mu), self.residual_variance)


def load_external(path: str, parameters: Mapping[str, Any]) -> Forecaster:
    """Import `package.module:Class` and build a forecaster: a Forecaster as it is, a regressor through the adapter.

    Raises:
        InputError: the path is malformed, cannot be imported, names no such class, or the parameters do not fit.
    """
    found = class_named(path)
    check_model(path, found)
    if issubclass(found, Forecaster):
        return found(**parameters)
    accepted = inspect.signature(found).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
        for key in parameters:
            if key not in accepted:
                raise InputError(f"{path} has no parameter {key!r}; {nearest(key, accepted)}")
    try:
        estimator: Any = found(**parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be built from {dict(parameters)!r}, {error}; check its parameters.") from error
    return SklearnForecaster(estimator=estimator if _clonable(estimator) else PlainRegressor(found, dict(parameters)))


def check_model(path: str, found: type) -> None:
    """Refuse a class that can be no model.

    Raises:
        InputError: it is no Forecaster and has no fit and predict; says what it lacks.
    """
    fits = callable(getattr(found, "fit", None)) and callable(getattr(found, "predict", None))
    if not (issubclass(found, Forecaster) or fits):
        raise InputError(f"{path} is neither a Forecaster nor a regressor; {what_it_lacks(found)}.")


def what_it_lacks(found: type) -> str:
    """The remedy for a class that is no model, by what it seems to be."""
    if callable(getattr(found, "transform", None)):
        return "it has transform: name it under features"
    if any(f"{base.__module__}.{base.__name__}" == "torch.nn.modules.module.Module" for base in found.__mro__):
        return (
            "a torch module is no model by itself: let a subclass of sf.DeepForecaster return it from blocks(width), "
            "or wrap it in a class with fit(X, y) and predict(X)"
        )
    return "give it fit(X, y) and predict(X)"


def _clonable(estimator: Any) -> bool:
    """Whether it tells its parameters in sklearn's manner."""
    return callable(getattr(estimator, "get_params", None))


def _unfitted(estimator: Any, seed: int) -> Any:
    """Another regressor like the one given."""
    if isinstance(estimator, PlainRegressor):
        return estimator.build(seed)
    if not _clonable(estimator):
        return copy.deepcopy(estimator)
    from sklearn.base import clone

    regressor = clone(estimator)
    unseeded = [
        name
        for name, value in regressor.get_params(deep=True).items()
        if value is None and name.split("__")[-1] == "random_state"
    ]
    if unseeded:
        regressor.set_params(**dict.fromkeys(unseeded, seed % 2**32))
    return regressor


def _named(estimator: Any) -> str:
    return _path(estimator.cls if isinstance(estimator, PlainRegressor) else type(estimator))


def _predict(regressor: Any, x: FloatArray) -> FloatArray:
    values = np.asarray(regressor.predict(x), dtype=np.float64)
    name = _path(type(regressor))
    if values.shape != (len(x),):
        raise InputError(f"{name}.predict gave shape {values.shape} for {len(x)} rows; return one number for each row.")
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}.predict gave {int((~np.isfinite(values)).sum())} values that are not finite; return numbers."
        )
    return values


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _plain(value: Any) -> Any:
    """Parameters as JSON-able data that is the same in every process (no addresses)."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if callable(getattr(value, "get_params", None)) and not isinstance(value, type):
        return {"class": _path(type(value)), "parameters": _plain(value.get_params(deep=False))}
    if callable(value) and hasattr(value, "__name__"):
        return f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', value.__name__)}"
    return f"{_path(type(value))}"
