"""Owns the phrases that sentences about results share: lists, horizons, p-values, durations, the name of a step."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl


def step_name(dates: pl.Series) -> str:
    """What one row of the panel is called, from the usual distance between dates: day, week, month, else step."""
    dates = dates.unique().sort()
    if dates.dtype != pl.Date or len(dates) < 3:
        return "step"
    days = dates.diff().drop_nulls().dt.total_days().median()
    gap = float(days) if isinstance(days, int | float) else 0.0
    return "day" if gap <= 4 else "week" if 5 <= gap <= 9 else "month" if 26 <= gap <= 35 else "step"


def horizons_named(horizons: Iterable[int], step: str) -> str:
    """Horizons and their step, which is singular.

    >>> horizons_named([1], "day"), horizons_named([1, 5, 22], "day")
    ('1 day', '1, 5 and 22 days')
    """
    horizons = list(horizons)
    return f"{listed(map(str, horizons))} {step}{'' if horizons == [1] else 's'}"


def listed(names: Iterable[str]) -> str:
    """Names in a row.

    >>> listed("a"), listed("ab"), listed("abc"), listed("")
    ('a', 'a and b', 'a, b and c', 'none')
    """
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def p_words(p: float) -> str:
    """A p-value with as many digits as matter.

    >>> p_words(0.0002), p_words(0.0214), p_words(0.347)
    ('p < 0.001', 'p = 0.021', 'p = 0.35')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def duration_words(seconds: float) -> str:
    """A time in two units at most.

    >>> duration_words(0.8), duration_words(42), duration_words(192), duration_words(7500)
    ('0.8 s', '42 s', '3 min 12 s', '2 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
