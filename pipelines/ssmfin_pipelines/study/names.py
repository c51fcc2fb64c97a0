"""Owns which names a study may use: they end up in paths, in `--set` keys and in tables."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from ssmfin.errors import InputError

NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_SAFE = re.compile(NAME_PATTERN[1:-1])


def safe_name(name: str) -> str:
    """The name itself, if it is safe in a path and in a `--set` key.

    Raises:
        InputError: it has other characters, is empty or too long.

    >>> safe_name("sp500-volatility")
    'sp500-volatility'
    """
    if not _SAFE.fullmatch(name):
        raise InputError(
            f"the name {name[:80]!r} is not allowed; use 1 to 64 letters, digits, '-' and '_', beginning with a letter "
            "or digit."
        )
    return name


Name = Annotated[str, AfterValidator(safe_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
