"""Owns the words for text that is not YAML: what the parser found, said to someone who never wrote a parser."""

from __future__ import annotations

import re

from ruamel.yaml.error import MarkedYAMLError

_REMEDIES = (
    ("'\\t'", "indent with spaces, not tabs"),
    ("mapping values are not allowed", "check the indentation, and put text that holds ': ' in quotes"),
    ("undefined alias", "put text that starts with * in quotes"),
    ("another document", "keep one document and remove the other '---'"),
    ("incompatible YAML", "remove the %YAML line"),
    ("could not find expected ':'", "write `key: value`, with a space after the colon"),
    ("expected <block end>", "line the keys up: the same indentation for keys of the same level"),
    ("escape character", "double the backslash, or use single quotes"),
    ("cannot start any token", "put the value in quotes"),
    ("duplicate anchor", "use each &name once"),
)
# what the parser says, and what that means
_PROBLEMS = (
    ("mapping values are not allowed", "it holds a second ': ' or is indented too far"),
    ("expected <block end>", "its indentation fits no line above"),
    ("expected ',' or", "a comma or a closing bracket is missing before it"),
    ("found character '\\t'", "it is indented with a tab"),
    ("unexpected end of stream", "a quote is never closed"),
    ("undefined alias", "a value that starts with * refers to another one"),
    ("another document", "a second document begins there"),
)
_COLONS = ("mapping values are not allowed", "could not find expected ':'")


def syntax_error(error: MarkedYAMLError, text: str, name: str) -> str:
    """Where the text stops being YAML, in what way, and what to do; `name` is how the message calls the file."""
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark is not None else 1
    lines = text.splitlines()
    number = min(number, len(lines))
    problem = (error.problem or error.context or "a syntax error").splitlines()[0]
    opened = error.context_mark.line + 1 if error.context_mark is not None else number
    context = error.context or ""
    missing = _missing_colon(lines, number) if "flow" not in context and any(s in problem for s in _COLONS) else None
    if missing is not None:
        number, key = missing
        problem, remedy = f"a ':' is probably missing after {key!r}", "write `key: value`, with a space after the colon"
        return _told(name, number, lines, problem, remedy)
    if "quoted scalar" in context and "end of stream" in problem:
        remedy = f"close the quote opened on line {opened}"
    elif "flow" in context:
        remedy = f"close the bracket opened on line {opened}, and put commas between its items"
    else:
        remedy = next(
            (text for sign, text in _REMEDIES if sign in problem), "check the indentation, quotes and brackets"
        )
    problem = next((text for sign, text in _PROBLEMS if sign in problem), problem)
    return _told(name, number, lines, problem, remedy)


def _missing_colon(lines: list[str], number: int) -> tuple[int, str] | None:
    """The line and the key that seem to lack their colon: `har {...` on the line itself, `har` or `size 60` above."""
    if found := re.match(r"\s*(?:- )?([\w.-]+)\s+[{\[]", lines[number - 1]):
        return number, found[1]
    above = (n for n in range(number - 1, 0, -1) if lines[n - 1].split("#")[0].strip())
    before = next(above, None)
    if before is None:
        return None
    found = re.fullmatch(r"\s*([\w.-]+)(?:\s+[^\s:]+)?\s*", lines[before - 1].split("#")[0])
    return None if found is None else (before, found[1])


def _told(name: str, number: int, lines: list[str], problem: str, remedy: str) -> str:
    shown = lines[number - 1].strip(" \r")[:60]
    return f"{name}, line {number}: {shown!r} is not valid YAML, {problem}; {remedy}."
