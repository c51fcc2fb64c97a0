"""YAML to plain values: YAML 1.2 scalars, lines, limits, and nothing but InputError for whatever text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin_pipelines.study.tree import MAX_DEPTH, dotted, dump, parse


def value_of(text: str) -> Any:
    return parse(f"key: {text}\n", "study.yaml").value["key"]


@pytest.mark.parametrize(
    "text, value",
    [
        ("NO", "NO"), ("ON", "ON"), ("yes", "yes"), ("off", "off"), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None), ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-7", -7), ("+3", 3), ("0x1F", 31),
        ("0o17", 15), ("1_000", 1000), ("000001", "000001"), ("-0", 0), ("1:30", "1:30"), ("2020-01-31", "2020-01-31"),
        ("'5'", "5"), ('"a\\tb"', "a\tb"), ("1.2.3", "1.2.3"), ("[1, [2]]", [1, [2]]), ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    tree = parse("a: 1\nb:\n  c: [1,\n      2]\n  # note\n  d: {e: 5}\n", "study.yaml")
    lines = {dotted(path): line for path, line in tree.lines.items()}
    assert lines == {"a": 1, "b": 2, "b.c": 3, "b.c[0]": 3, "b.c[1]": 4, "b.d": 6, "b.d.e": 6}


def test_aliases_and_merges_give_copies_of_their_anchor() -> None:
    tree = parse("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [{y: 7}, *a]}\n", "study.yaml")
    assert tree.value == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": {"x": 1, "y": 7}}
    assert not tree.problems


@pytest.mark.parametrize("levels", [5, 9, 2000])
def test_a_bomb_is_refused_before_it_is_expanded(levels: int) -> None:
    lines = ["k0: &k0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]"]
    lines += [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, levels)]
    with pytest.raises(InputError, match="aliases expand"):
        parse("\n".join(lines[:3000]) + "\n", "study.yaml")


def test_a_long_chain_of_aliases_is_too_deep() -> None:
    lines = ["k0: &k0 [1]"] + [f"k{i}: &k{i} [*k{i - 1}]" for i in range(1, 400)]
    with pytest.raises(InputError, match=f"{MAX_DEPTH} levels"):
        parse("\n".join(lines) + "\n", "study.yaml")


def test_depth_up_to_the_limit_is_read() -> None:
    text = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "\n"
    assert parse(text, "study.yaml").value["a"] != []
    with pytest.raises(InputError, match="deeper"):
        parse(text.replace("[]", "[[]]"), "study.yaml")


@settings(max_examples=150, deadline=None)
@example("a: &a\n- *a")
@example("? {a: 1}\n: 2")
@example("- &x [*x]")
@example("!!binary aGk=")
@example("!!set {a, b}")
@example("a: !!int x")
@example("%TAG ! tag:x,2000:\n---\na: !b c")
@example("\ufeffa: 1")
@example("a: 1\r\nb: 2")
@example("{" * 2000)
@example("a: <<")
@example("<<: 1")
@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"])
        | st.sampled_from("{}[]:,-?&*!|>'\"%@`#\n\t ~<0.e"),
        max_size=60,
    )
)
def test_any_text_is_read_or_refused_with_the_name_of_the_file(text: str) -> None:
    message = "study.yaml"
    try:
        parse(text, "study.yaml")
    except InputError as error:
        message = str(error)
    assert message.startswith("study.yaml")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["NO", "1e-3", "007", "2020-01-01", "null", "*.csv", "a: b", "# x", "1_0", "="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@example({"a": {"\x85": None}})
@example({"a": "\u2028", "b": "指数 é"})
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), plain, min_size=1, max_size=4))
def test_what_is_written_reads_back_as_the_same_values(values: dict[str, Any]) -> None:
    tree = parse(dump(values), "study.yaml")
    assert tree.value == values
    assert not tree.problems
