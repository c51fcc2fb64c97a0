"""Owns plain tables for a terminal or a pipe."""

from __future__ import annotations

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
