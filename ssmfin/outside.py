"""Owns classes from outside: `package.module:Class` to the class, and what its constructor takes.

Importing a user's module runs its code. The caller decides whether that is allowed (`--allow-imports`); nothing in the
library imports one on its own.
"""

from __future__ import annotations

import inspect
import re
import warnings
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.errors import PydanticUserError

from ssmfin.errors import InputError, nearest

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def check_path(path: str) -> None:
    """Refuse what is not of the form package.module:Class.

    Raises:
        InputError: says what was probably meant.
    """
    if not PATH.fullmatch(path):
        raise InputError(f"the kind {path!r} is not the path of a class; write {_meant(path)}.")


def class_named(path: str) -> type:
    """Import `package.module:Class`.

    Raises:
        InputError: the path is malformed, its module cannot be imported or has no such class; says what to write.
    """
    check_path(path)
    module_name, _, name = path.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # the user's module may fail in any way
        raise InputError(
            f"module {module_name!r} cannot be imported, {type(error).__name__}: {error}; "
            f"{_import_remedy(path, error)}."
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        own = [
            key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
        ]
        raise InputError(f"module {module_name!r} has no class {name!r}; {nearest(name, own)}.")
    return found


def parameters_of(cls: type) -> type[BaseModel]:
    """What a constructor takes, as a pydantic class: names, annotated types and defaults; any further name is refused.

    A class of pydantic's stands for itself. Annotations that pydantic cannot check count as none.
    """
    if issubclass(cls, BaseModel):
        return cls
    try:
        signature = inspect.signature(cls, eval_str=True)
    except (NameError, TypeError, AttributeError, SyntaxError):  # an annotation that means nothing at run time
        signature = inspect.signature(cls)
    except ValueError:  # written in C
        return _record(cls.__name__, {}, extra="allow")
    items = list(signature.parameters.values())
    taken = [item for item in items if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    extra = "allow" if any(item.kind is item.VAR_KEYWORD for item in items) else "forbid"
    default = {item.name: ... if item.default is item.empty else item.default for item in taken}
    typed = {
        item.name: Any if item.annotation is item.empty or isinstance(item.annotation, str) else item.annotation
        for item in taken
    }
    try:
        return _record(cls.__name__, {name: (typed[name], default[name]) for name in typed}, extra=extra)
    except (PydanticUserError, TypeError):
        return _record(cls.__name__, {name: (Any, default[name]) for name in typed}, extra=extra)


def summary_of(cls: type) -> str:
    """The first paragraph of a class's own docstring in one line, without its full stop; "" if it has none."""
    paragraph = (inspect.cleandoc(vars(cls).get("__doc__") or "")).partition("\n\n")[0]
    return " ".join(paragraph.split()).removesuffix(".")


def _record(name: str, fields: dict[str, Any], *, extra: Any) -> type[BaseModel]:
    settings = ConfigDict(extra=extra, arbitrary_types_allowed=True, protected_namespaces=())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a parameter may be called as a method of pydantic's
        made: type[BaseModel] = create_model(name, __config__=settings, **fields)
    return made


def _meant(path: str) -> str:
    """The path that was probably meant.

    >>> _meant("my_model.py:Analogue"), _meant("my_model.Analogue"), _meant("./lib/my_model:Analogue"), _meant("x:")
    ('my_model:Analogue', 'my_model:Analogue', 'lib.my_model:Analogue', 'package.module:Class')
    """
    if path.endswith(".py"):
        path += ":MyClass"
    bare = path.replace("\\", "/").removeprefix("./").replace(".py:", ":").replace("/", ".")
    module, colon, name = bare.rpartition(":" if ":" in bare else ".")
    guess = f"{module}:{name}"
    return guess if colon and PATH.fullmatch(guess) else "package.module:Class"


def _import_remedy(path: str, error: Exception) -> str:
    module = path.partition(":")[0]
    if module.endswith(".py"):
        return f"write {_meant(path)}"
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and not (module + ".").startswith(f"{missing}."):
        return f"install {missing!r}, which it imports"
    if missing is not None:
        file = module.partition(".")[0]
        return f"put {file}.py into the study's folder or the current one, or add its folder to PYTHONPATH"
    return "correct it"
