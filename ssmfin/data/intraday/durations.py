"""Owns lengths of time as people write them: `5min`, `30s`, `1h`; microseconds inside."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_UNITS = {"ms": 1_000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000}
_FORM = re.compile(r"([1-9]\d{0,8})\s*(ms|s|min|h)")
DAY = 86_400_000_000


def microseconds(text: str) -> int:
    """A length of time in microseconds.

    >>> microseconds("5min")
    300000000
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"no such length of time, {text!r}; write it as 5min, 30s, 250ms or 1h")
    length = int(match[1]) * _UNITS[match[2]]
    if length > DAY:
        raise ValueError(f"{text!r} is longer than a day; use at most 24h")
    return length


def duration_text(length: int) -> str:
    """Microseconds as people write them, in the largest unit that divides them.

    >>> duration_text(300_000_000), duration_text(5_400_000_000)
    ('5min', '90min')
    """
    unit = next((name for name in ("h", "min", "s", "ms") if length % _UNITS[name] == 0), None)
    return f"{length // _UNITS[unit]}{unit}" if unit else f"{length}us"


def _checked(text: str) -> str:
    microseconds(text)
    return text.replace(" ", "")


Duration = Annotated[str, AfterValidator(_checked)]
