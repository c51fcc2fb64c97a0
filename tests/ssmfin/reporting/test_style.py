"""Colours are one to a model and numbers are written for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmfin.reporting.style import (
    FAMILY_LABELS,
    decimal_exponent,
    fact_text,
    model_styles,
    p_text,
    ratio_text,
    scaled_text,
    seconds_text,
)

families = st.dictionaries(st.text(max_size=8), st.sampled_from([*FAMILY_LABELS, "new"]), min_size=1, max_size=30)


@given(families=families)
def test_no_two_models_look_alike_while_patterns_last(families: dict[str, str]) -> None:
    styles = model_styles(families, families, reference=min(families))
    looks = [(style.colour, style.dash) for style in styles.values()]
    assert len(set(looks)) >= min(len(looks), 12)
    assert sum(style.is_reference for style in styles.values()) == 1


def test_a_model_keeps_its_colour_when_others_join() -> None:
    few = {"s4d": "ssm", "log_har": "baseline", "ridge": "baseline"}
    many = few | {"mamba": "ssm", "aaa": "ssm", "har": "baseline", "bbb": "baseline"}
    for name in few:
        assert model_styles(few, few, "log_har")[name] == model_styles(many, many, "log_har")[name]


@given(value=st.one_of(st.none(), st.floats()))
def test_every_float_has_a_short_text(value: float | None) -> None:
    for text in (ratio_text(value), scaled_text(value, decimal_exponent([value]))):
        assert 0 < len(text) <= 24
        assert "nan" not in text
        assert "None" not in text


@given(p=st.floats(min_value=0, max_value=1))
def test_a_p_value_is_never_written_as_zero(p: float) -> None:
    assert p_text(p) == "<0.001" if p < 0.001 else abs(float(p_text(p)) - p) <= 0.0005


@given(seconds=st.floats(min_value=0, max_value=1e9))
def test_a_duration_keeps_its_size(seconds: float) -> None:
    units = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}
    words = seconds_text(seconds).replace(",", "").split()
    read = sum(float(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert read == pytest.approx(seconds, rel=0.05, abs=1e-9)


@given(value=st.floats(min_value=1e-300, max_value=1e300))
def test_an_exponent_brings_a_column_to_readable_size(value: float) -> None:
    exponent = decimal_exponent([value, None, math.nan])
    assert 0.0099 < value / 10.0**exponent < 10_000


@pytest.mark.parametrize(
    "value,text",
    [
        (True, "yes"),
        (12345, "12,345"),
        (0.000123456, "0.0001235"),
        ([], "none"),
        ({"a_b": 1}, "A b 1"),
        (None, "–"),
        ({3, 1}, "1, 3"),
    ],
)
def test_facts_are_written_for_people(value: object, text: str) -> None:
    assert fact_text(value) == text
