"""Owns the entries under `models`, `benchmarks` and `features`: a kind, and parameters checked against its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ssmfin.errors import InputError, nearest
from ssmfin.features.kinds import KINDS as FEATURE_KINDS
from ssmfin.features.spec import FeatureSpec
from ssmfin.models.interface import Forecaster
from ssmfin.models.registry import forecaster_class, load_external
from ssmfin.outside import check_path
from ssmfin_pipelines.study.names import Name
from ssmfin_pipelines.study.nested import build, nested_error, record

if TYPE_CHECKING:
    from ssmfin.evaluation.experiment import ModelEntry


OWN = "a class of your own: package.module:Class"


class StudyModel(BaseModel):
    """One model of a study. All further keys are parameters of its kind, written out with their defaults."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str = Field(description="A kind that `ssmfin models` lists, or `package.module:Class` with --allow-imports.")
    features: tuple[str, ...] | None = Field(
        None, description="Names of the study's features that the model sees; default: all of them."
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0,), min_length=1, description="One run for each seed; only a stochastic model takes several."
    )
    refit: int | None = Field(None, ge=1, description="Fit on every k-th fold; default: walk_forward.refit.")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the kind, defaults filled in (of a class of the user's: as given)."""
        return dict(self.model_extra or {})

    @property
    def external(self) -> bool:
        return ":" in self.kind

    def forecaster(self) -> Forecaster:
        """The model itself. Imports the user's code if the kind is a class path (allowed when the study was read)."""
        if self.external:
            return load_external(self.kind, self.parameters)
        return build(forecaster_class(self.kind), self.parameters)

    def entry(self) -> ModelEntry:
        from ssmfin.evaluation.experiment import ModelEntry  # here: it takes a second, which `validate` does not have

        return ModelEntry(self.forecaster(), features=self.features, seeds=self.seeds, refit=self.refit)

    @model_validator(mode="wrap")
    @classmethod
    def _check_parameters(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)
        kind = values.get("kind")
        given = {key: value for key, value in values.items() if key not in cls.model_fields}
        records: list[Any] = []
        full: dict[str, Any] = given
        try:
            entry = handler(values)
        except ValidationError as error:
            records += error.errors(include_url=False)
        if isinstance(kind, str):
            try:
                full = _parameters(kind, given, allow_imports=bool((info.context or {}).get("allow_imports")))
                records += _seed_problems(kind, values)
            except PydanticCustomError as error:
                records.append({"type": error.type, "loc": (), "ctx": error.context, "msg": "", "input": None})
            except InputError as error:
                records.append(record(("kind",), str(error)))
        if records:
            raise nested_error(cls, records)
        if entry.model_extra is not None:
            entry.model_extra.update(full)
        return entry


def _parameters(kind: str, given: Mapping[str, Any], *, allow_imports: bool) -> dict[str, Any]:
    """All parameters of a kind: those given, checked, and the defaults of the others."""
    if ":" in kind:
        check_allowed(kind, allow_imports)
        load_external(kind, dict(given))
        return dict(given)
    cls = forecaster_class(kind)
    try:
        return build(cls, given).model_dump(mode="json")
    except ValidationError as error:
        raise nested_error(cls, _with_own_keys(cls, error.errors(include_url=False))) from None


def _with_own_keys(cls: type[Forecaster], records: list[Any]) -> list[Any]:
    """For an unknown parameter the nearest name may be one of the entry's own keys (`seed` for `seeds`)."""
    known = [*cls.model_fields, *StudyModel.model_fields]
    for item in records:
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            name = item["loc"][0]
            text = f"{cls.kind} has no parameter {name!r}; {nearest(name, known)}."
            item.update(record(item["loc"], text))
    return records


def _seed_problems(kind: str, values: Mapping[str, Any]) -> list[Any]:
    seeds = values.get("seeds")
    if not isinstance(seeds, list | tuple):
        return []
    if len(set(map(repr, seeds))) < len(seeds):
        return [record(("seeds",), f"the seeds {list(seeds)} hold one twice; remove the repeated one.")]
    if len(seeds) > 1 and ":" not in kind and not forecaster_class(kind).stochastic:
        return [
            record(("seeds",), f"the seeds {list(seeds)} are several, but {kind} has no randomness; give one or none.")
        ]
    return []


def check_allowed(kind: str, allow_imports: bool) -> None:
    """Refuse to import a class that the caller did not allow.

    Raises:
        InputError: says which flag allows it, or how to write the path.
    """
    check_path(kind)
    if not allow_imports:
        raise InputError(
            f"the kind {kind!r} would import and run code; add --allow-imports if you trust this study, or use one of "
            "the kinds that `ssmfin models` lists."
        )


def _feature(values: Any, info: ValidationInfo) -> Any:
    """A mapping with a `kind` to the spec of that kind."""
    if not isinstance(values, Mapping):
        return values
    kind = values.get("kind")
    if "kind" not in values:
        text = f"no kind is given; add `kind:` (known: {', '.join(sorted(FEATURE_KINDS))})."
        raise nested_error(FeatureSpec, [record((), text)])
    if isinstance(kind, str) and ":" in kind:
        return _own_feature(kind, values, allow_imports=bool((info.context or {}).get("allow_imports")))
    if not isinstance(kind, str) or kind not in FEATURE_KINDS:
        text = f"the feature kind {kind!r} is unknown; {nearest(str(kind), FEATURE_KINDS)} ({OWN})."
        if isinstance(kind, str) and "smooth" in kind:
            text = f"the feature kind {kind!r} is unknown: a smoothed state sees the future; use kalman, which filters."
        raise nested_error(FeatureSpec, [record(("kind",), text)])
    cls = FEATURE_KINDS[kind]
    try:
        return build(cls, values)
    except ValidationError as error:
        raise nested_error(cls, error.errors(include_url=False)) from None


def _own_feature(kind: str, values: Mapping[str, Any], *, allow_imports: bool) -> FeatureSpec:
    """The spec of a feature class of the user's, its parameters checked by the class's own annotations."""
    try:
        check_allowed(kind, allow_imports)
        from ssmfin.features.external import own_class  # here: it imports scikit-learn, which takes a second

        own = own_class(kind)
    except InputError as error:
        raise nested_error(FeatureSpec, [record(("kind",), str(error))]) from None
    entry = {name: value for name, value in values.items() if name in own.spec_class.model_fields}
    given = {name: value for name, value in values.items() if name not in entry}
    records: list[Any] = []
    try:
        checked = build(own.parameters, own.filled(given, column="target"))
        given = {name: getattr(checked, name) for name in given}
    except ValidationError as error:
        records += error.errors(include_url=False)
    try:
        spec = build(own.spec_class, {**entry, **given})
    except ValidationError as error:
        records += error.errors(include_url=False)
    if records:
        raise nested_error(own.parameters, records)
    return spec


Features = dict[Name, Annotated[SerializeAsAny[FeatureSpec], BeforeValidator(_feature)]]
Models = dict[Name, StudyModel]
