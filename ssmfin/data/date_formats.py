"""Owns dates that are not ISO: the forms that read a whole column, and what to say where two do."""

from __future__ import annotations

import re

import polars as pl

FORMATS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d", "%d.%m.%y", "%d/%m/%y",
    "%m/%d/%y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M",
    "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%Y%m%d %H:%M:%S", "%Y%m%d%H%M%S",
)  # fmt: skip
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


def is_iso(text: pl.Series) -> bool:
    """Whether dates are written as YYYY-MM-DD, with or without a time; judged by the first fifty."""
    return all(_ISO.fullmatch(value) for value in text.head(50))


def formats_of(text: pl.Series) -> list[str]:
    """The forms of `FORMATS` that read every text of a column; more than one where no field exceeds 12.

    Args:
        text: (rows,) strings, stripped, none of them empty.

    >>> formats_of(pl.Series(["01/03/2000", "01/14/2000"])), formats_of(pl.Series(["01/03/2000"]))
    (['%m/%d/%Y'], ['%d/%m/%Y', '%m/%d/%Y'])
    """
    distinct = text.unique()
    return [form for form in FORMATS if _reads(distinct, form) is not None]


def in_order_of_time(text: pl.Series, formats: list[str]) -> list[str]:
    """Those of the forms under which time changes its direction least often: rows are as a rule in order of time."""
    turns = {form: _turns(_reads(text, form)) for form in formats}
    return [form for form in formats if turns[form] == min(turns.values())]


def read_as(text: str, form: str) -> str:
    """A date as a form reads it, ISO.

    >>> read_as("01/03/2000", "%d/%m/%Y")
    '2000-03-01'
    """
    found = _reads(pl.Series([text]), form)
    return "no date" if found is None else str(found[0]).removesuffix(" 00:00:00")


def choices(text: str, formats: list[str]) -> str:
    """Forms with what each makes of a date.

    >>> choices("01/03/2000", ["%d/%m/%Y", "%m/%d/%Y"])
    "'%d/%m/%Y' (2000-03-01) or '%m/%d/%Y' (2000-01-03)"
    """
    return " or ".join(f"{form!r} ({read_as(text, form)})" for form in formats)


def format_remedy(text: pl.Series, key: str, *, iso: str = "YYYY-MM-DD", sets: str = ": ") -> str:
    """What to do about a column of dates that are not ISO.

    Args:
        key: the setting that takes a form. iso: how to write the dates otherwise. sets: between key and form, "=" of a
            keyword in Python.

    >>> format_remedy(pl.Series(["01/03/2000", "14/03/2000"]), "data.date_format")
    "set data.date_format: '%d/%m/%Y' (2000-03-01)"
    >>> format_remedy(pl.Series(["14/03/2000"]), "date_format", sets="=")
    "set date_format='%d/%m/%Y' (2000-03-14)"
    """
    text = text.drop_nulls()
    found = formats_of(text) if len(text) else []
    if not found:
        return f"write dates as {iso}, or set {key} (strftime, such as '%d %B %Y')"
    if len(found) == 1:
        return f"set {key}{sets}{choices(text[0], found)}"
    return f"no value tells day from month: set {key} to {choices(text[0], found)}, whichever is right"


def _reads(text: pl.Series, form: str) -> pl.Series | None:
    """The moments, None if one of them is not written so."""
    if "%y" in form and text.str.contains(r"\d{4}").any():
        return None
    if "%Y" in form and not text.str.contains(r"\d{4}").all():
        return None
    try:
        return text.str.to_datetime(form, strict=True) if "%H" in form else text.str.to_date(form, strict=True)
    except pl.exceptions.PolarsError:
        return None


def _turns(moments: pl.Series | None) -> int:
    """How often time changes its direction."""
    if moments is None or len(moments) < 3:
        return 0
    step = moments.to_physical().diff().drop_nulls().sign()
    step = step.filter(step != 0)
    return int((step != step.shift()).sum())
