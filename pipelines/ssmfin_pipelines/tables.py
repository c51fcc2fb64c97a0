"""Owns plain text for a terminal or a pipe: tables, folded lines, how wide they may be."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Lines of a table; the columns numbered in `right` are aligned to the right.

    >>> text_table(("model", "n"), [("har", "12"), ("s4d", "7")], right={1})
    ['model   n', '-----  --', 'har    12', 's4d     7']
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(cells)
        ).rstrip()

    return [line(head), "  ".join("-" * width for width in widths), *map(line, rows)]


def terminal_width(otherwise: int = 100, most: int = 120) -> int:
    """Columns to write in, 60 to `most`: the terminal's, or `otherwise` where there is none."""
    return max(60, min(shutil.get_terminal_size((otherwise, 24)).columns, most))


def folded(text: str, width: int) -> str:
    """Folded to the width; a number stays with its sign."""
    from ssmfin.reporting.style import typeset

    lines = textwrap.fill(typeset(text), width, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")
