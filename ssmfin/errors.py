"""Owns the one exception for wrong input and the helpers that word it.

Form of every message: `<what> <is wrong>, <the value>; <what to do>.`
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class InputError(ValueError):
    """The user's input is wrong: a study, a file, a panel or an argument. The command line exits with 2."""

    def __init__(self, message: str) -> None:
        # a suggestion of `nearest` ends its sentence where it comes last
        super().__init__(re.sub(r"(did you mean '[^'\n]*'\?)\.(?=\s|$)", r"\1", message))


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the one that differs in case alone, else the closest, else all of them.

    >>> nearest("parkinsen", ["parkinson", "yang_zhang"])
    "did you mean 'parkinson'?"
    >>> nearest("rv", ["RV", "rv5"])
    "did you mean 'RV'?"
    """
    known = sorted(map(str, known))
    close = [other for other in known if other.casefold() == str(name).casefold()] or difflib.get_close_matches(
        str(name), known, n=1, cutoff=0.6
    )
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(known) if known else "there are none"


def validation_message(what: str, cls: type[BaseModel], error: ValidationError) -> str:
    """All of pydantic's complaints about one configuration as one message, with the nearest valid names."""
    lines = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            lines.append(f"{what} has no parameter {name!r}; {nearest(name, cls.model_fields)}.")
        else:
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{what}.{name} is {item['input']!r}; {text[0].lower()}{text[1:]}.")
    return "\n".join(lines)
