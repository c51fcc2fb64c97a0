"""Owns the validation of a part of a study by a class of the library, with every record kept for the message.

The library's configuration classes raise `InputError` from their own `__init__`, which is right in Python but loses
the places of the mistakes. Here the validator underneath is asked directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from ssmfin_pipelines.study.wording import NESTED

Config = TypeVar("Config", bound=BaseModel)


def build(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """`cls(**values)`.

    Raises:
        ValidationError: pydantic's own, with all records.
    """
    instance = cls.__new__(cls)
    cls.__pydantic_validator__.validate_python(dict(values), self_instance=instance)
    return instance


def nested_error(cls: type[BaseModel], records: list[Any]) -> PydanticCustomError:
    """Records about a part (their `loc` relative to it) as one error that a validator may raise."""
    text = "; ".join(str(record["msg"]) for record in records).replace("{", "(").replace("}", ")")
    return PydanticCustomError(NESTED, text, {"records": records, "cls": cls})  # type: ignore[arg-type]


def record(loc: tuple[str | int, ...], text: str) -> dict[str, Any]:
    """A record in pydantic's form whose text is a finished sentence."""
    return {"type": "value_error", "loc": loc, "msg": text, "input": None, "ctx": {"error": text}}


def section(cls: type[Config]) -> Callable[[Any], Any]:
    """A before-validator that turns a mapping into a `cls` and leaves anything else for pydantic to refuse."""

    def validate(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        try:
            return build(cls, value)
        except ValidationError as error:
            raise nested_error(cls, error.errors(include_url=False)) from None

    return validate
