"""Owns how things look in a report: one colour and dash per model, and how numbers, times and dates are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INK = "#1f2430"
REALISED = "#a9b1bd"
SSM_ACCENT = "#b8441a"
FAMILY_LABELS = {
    "ssm": "SSM",
    "baseline": "baseline",
    "sequence": "sequence",
    "combination": "combination",
    "custom": "custom",
}

# Okabe-Ito and Paul Tol's muted set, split by temperature: state-space models are warm, the simple models cool.
# The models that everybody runs keep their colour from one report to the next.
_KNOWN = {
    "s4d": "#d55e00",
    "mamba": "#cc6699",
    "s5": "#e69f00",
    "mamba2": "#882255",
    "s4": "#cc3311",
    "hybrid": "#a8763e",
    "random_walk": "#8b93a1",
    "har": "#56a3d9",
    "log_har": "#332288",
    "ridge": "#0059a3",
    "panel_ridge": "#117733",
    "rolling_ridge": "#5b6f9b",
    "lightgbm": "#009e73",
    "ewma": "#7a8b2a",
    "garch": "#44aa99",
}
_PALETTES = {
    "ssm": ("#d55e00", "#cc6699", "#e69f00", "#882255", "#cc3311", "#a8763e"),
    "baseline": ("#117733", "#4477aa", "#88ccee", "#66794f", "#5b6f9b", "#999933"),
    "sequence": ("#aa4499", "#7b4fa3", "#c58bd0", "#5d3a6b"),
    "combination": ("#3d3d3d", "#76528b", "#8a6642"),
    "custom": ("#b8860b", "#6b5b3e", "#c9a227", "#8c6d1f"),
}
# Line patterns in points (on, off); the second and later models that share a colour differ by them.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.5, 1.5), (7.0, 2.0, 1.5, 2.0))


@dataclass(frozen=True)
class ModelStyle:
    """How one model is drawn everywhere: in plots, swatches and tables."""

    name: str
    family: str
    is_reference: bool
    colour: str
    dash: tuple[float, ...]
    width: float

    @property
    def badge(self) -> str:
        return FAMILY_LABELS.get(self.family, self.family)

    @property
    def family_class(self) -> str:
        """As a CSS class, from a fixed set."""
        return self.family if self.family in FAMILY_LABELS else "custom"

    @property
    def linestyle(self) -> Any:
        """In matplotlib's terms."""
        return (0, self.dash) if self.dash else "-"

    @property
    def dasharray(self) -> str:
        """In SVG's terms."""
        return " ".join(f"{length * self.width:g}" for length in self.dash)


def model_styles(models: Iterable[str], families: Mapping[str, str], reference: str) -> dict[str, ModelStyle]:
    """A style for every model, the same whatever the order in which they are named.

    >>> styles = model_styles(["s4d", "log_har"], {"s4d": "ssm", "log_har": "baseline"}, "log_har")
    >>> styles["s4d"].colour, styles["log_har"].is_reference
    ('#d55e00', True)
    """
    names = sorted(set(models) | set(families))
    fixed = {name: INK if name == reference else _KNOWN[name] for name in names if name == reference or name in _KNOWN}
    free = {family: [c for c in palette if c not in fixed.values()] for family, palette in _PALETTES.items()}
    used = dict.fromkeys(_PALETTES, 0)
    styles = {}
    for name in names:
        family = families.get(name, "custom")
        width = 1.9 if family == "ssm" else 1.3
        if name in fixed:
            dash = _DASHES[1] if name == reference else _DASHES[0]
            styles[name] = ModelStyle(name, family, name == reference, fixed[name], dash, width)
            continue
        kind = family if free.get(family) else "custom"
        position = used[kind]
        used[kind] += 1
        colour = free[kind][position % len(free[kind])]
        dash = _DASHES[position // len(free[kind]) % len(_DASHES)]
        styles[name] = ModelStyle(name, family, False, colour, dash, width)
    return styles


def typeset(text: str) -> str:
    """Keeps a number with its sign: no line may break inside "2 %", "p = 0.03" or "2 ± 1".

    >>> typeset("5 % (p = 0.03)")
    '5\\xa0% (p\\xa0=\\xa00.03)'
    """
    return re.sub(r"(?<=\d) (?=[%±])|(?<=\bp) (?=[=<>])|(?<=[=<>±]) (?=\d)", "\N{NO-BREAK SPACE}", text)


def headline_parts(headline: str) -> list[str]:
    """A verdict cut for the eye, no word changed: first what is to be read from afar, then sentence by sentence, and
    horizon by horizon.

    >>> headline_parts("No SSM wins: s4d loses 2 % more. It took 87 s.")
    ['No SSM wins:', 's4d loses 2 % more.', 'It took 87 s.']
    >>> headline_parts("No SSM wins: at 1 day, s4d loses (p = 0.1; p = 0.03 alone); at 5 days, s4d loses.")
    ['No SSM wins:', 'at 1 day, s4d loses (p = 0.1; p = 0.03 alone);', 'at 5 days, s4d loses.']
    """
    first, *rest = re.split(r"(?<=[:.!?;]) +(?=\S)", headline.strip(), maxsplit=1)
    if len(first) > 160:
        return [headline.strip()]
    return [first, *(re.split(r"(?<=[.!?]) +(?=[^\W\d])|(?<=;) (?=at \d+ \w+, )", rest[0]) if rest else [])]


def ratio_text(value: float | None) -> str:
    """Three decimals; a ratio that is out of proportion is written short.

    >>> ratio_text(0.93456), ratio_text(1234.5), ratio_text(None)
    ('0.935', '1,234', '–')
    """
    if value is None or not math.isfinite(value):
        return "∞" if value is not None and value == math.inf else "–"
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"


def p_text(value: float | None) -> str:
    """A p-value, never written as zero.

    >>> p_text(0.00004), p_text(0.0321), p_text(float("nan"))
    ('<0.001', '0.032', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def decimal_exponent(values: Iterable[float | None]) -> int:
    """The power of ten to take out of a column so that its middle reads as 1 to 10; 0 when it reads well as it is.

    >>> decimal_exponent([1.2e-8, 3.4e-8]), decimal_exponent([0.21, 0.35]), decimal_exponent([None])
    (-8, 0, 0)
    """
    sizes = sorted(abs(value) for value in values if value is not None and math.isfinite(value) and value != 0)
    if not sizes:
        return 0
    middle = sizes[len(sizes) // 2]
    exponent = max(math.floor(math.log10(middle)), -300)  # 10.0 ** -324 is zero
    return 0 if -2 <= exponent <= 3 else exponent


def scaled_text(value: float | None, exponent: int) -> str:
    """`value` / 10^exponent with three decimals (the exponent is in the column's head)."""
    if value is None or not math.isfinite(value):
        return "–"
    scaled = value / 10.0**exponent
    if abs(scaled) >= 1e6:
        return f"{scaled:.1e}"
    if exponent == 0 and 0 < abs(scaled) < 0.1:
        return f"{scaled:.4f}"
    return f"{scaled:,.3f}" if abs(scaled) < 1000 else f"{scaled:,.0f}"


def exponent_text(exponent: int) -> str:
    """10 to a power in Unicode superscripts: ``10⁻⁸``.

    >>> exponent_text(-8)
    '10⁻⁸'
    """
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def seconds_text(seconds: float | None) -> str:
    """A duration for people.

    >>> seconds_text(0.0042), seconds_text(75.4), seconds_text(7322)
    ('4.2 ms', '1 min 15 s', '2 h 2 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds <= 0:
        return "0 s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def count_text(value: Any) -> str:
    """A whole number with thousands separators.

    >>> count_text(1234567)
    '1,234,567'
    """
    return f"{int(value):,}"


def date_text(value: Any) -> str:
    """A date as 2018-07-31; a moment also with its time, to the minute."""
    if value is None:
        return "–"
    text = str(value)
    if len(text) > 10 and text[11:16] != "00:00":
        return text[:16]
    return text[:10]


def fact_text(value: Any) -> str:
    """A plain fact of any simple type, written for people.

    >>> fact_text(1622.96), fact_text(0.25849), fact_text(12345.6), fact_text(None)
    ('1,623', '0.2585', '12,346', '–')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        whole = (value.is_integer() or abs(value) >= 1e4) and abs(value) < 1e12
        return f"{value:,.0f}" if whole else f"{value:,.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{label_text(key)} {fact_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)
        return ", ".join(fact_text(item) for item in items) if items else "none"
    return str(value)


def label_text(key: str) -> str:
    """A key of a dict as a label: ``ids_never_forecast`` -> ``Ids never forecast``."""
    text = str(key).replace("_", " ").strip()
    return text[:1].upper() + text[1:]
