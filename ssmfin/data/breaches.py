"""Owns the list of everything that is wrong with one source's rows, and how it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ssmfin.data.wording import KEYWORDS, Wording

ROW = "__row"  # number of the row in the source, over all its files; it travels with the data until loading is over
SHOWN = 10  # rows named per kind of breach


@dataclass(frozen=True)
class Kind:
    """One kind of breach: `wrong` says what is wrong, `items` name the first rows, `remedy` says what to do."""

    wrong: str
    remedy: str
    items: tuple[str, ...]
    count: int
    droppable: bool
    most: str = ""  # the ids with most of them, where not all are named


@dataclass
class Breaches:
    """Breaches of the panel contract in one source, collected over all checks and reported at once.

    Attributes:
        label: the source's name in messages.
        locate: row of the source to file, line.
        say: how settings are named in remedies.
        kinds: what was found, in order of the checks.
        rows: the source's rows which a droppable breach concerns.
    """

    label: str
    locate: Callable[[int], str]
    say: Wording = KEYWORDS
    kinds: list[Kind] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, wrong: str, remedy: str, *items: str) -> None:
        """A breach of the whole table, which leaving out rows would not mend."""
        self.kinds.append(Kind(wrong, remedy, tuple(items[:SHOWN]), len(items), droppable=False))

    def flag(
        self,
        frame: pl.DataFrame,
        mask: pl.Series,
        wrong: str,
        remedy: str,
        show: Callable[[dict[str, Any]], str],
        *,
        droppable: bool = True,
        leave: pl.Series | None = None,
    ) -> None:
        """A breach by single rows.

        Args:
            frame: holds ROW, and unique_id and ds where they are known.
            mask: (rows,) bool, the rows that breach; nothing happens if there is none.
            wrong, remedy: the two halves of the sentence, without the rows.
            show: a row, as a dict, to the offending value.
            droppable: leaving out these rows mends it.
            leave: (rows,) bool, the rows to leave out if they are fewer than `mask`.
        """
        count = int(mask.sum())
        if not count:
            return
        found = frame.filter(mask)
        items = tuple(f"{self._name(row)}: {show(row)}" for row in found.head(SHOWN).iter_rows(named=True))
        self.kinds.append(Kind(wrong, remedy, items, count, droppable, _most(found)))
        if droppable:
            self.rows.append((found if leave is None else frame.filter(leave))[ROW].to_numpy())

    def _name(self, row: dict[str, Any]) -> str:
        """id and date of a row as far as they are known, and its place in the file."""
        known = [repr(row["unique_id"])] if row.get("unique_id") is not None else []
        if row.get("ds") is not None:
            known.append(f"on {moment(row['ds'])}")
        place = self.locate(row[ROW])
        return f"{' '.join(known)} ({place})" if known else place

    def bad(self, frame: pl.DataFrame) -> pl.Series:
        """(rows,) bool: the rows of `frame` that a droppable breach concerns."""
        if not self.rows:
            return pl.repeat(False, frame.height, eager=True, dtype=pl.Boolean)
        return frame[ROW].is_in(pl.Series(np.unique(np.concatenate(self.rows)), dtype=pl.UInt32).implode())

    def counts(self) -> dict[str, int]:
        """Rows per kind of breach, for the notes of a panel."""
        return {kind.wrong: kind.count for kind in self.kinds}

    @property
    def fatal(self) -> list[Kind]:
        return [kind for kind in self.kinds if not kind.droppable]

    def message(self, *, dropping: bool = False) -> str:
        """All breaches as one message; empty if there is none.

        Args:
            dropping: `on_breach` is drop already: only what that does not mend is told, if there is any.
        """
        if not self.kinds:
            return ""
        fatal = self.fatal
        kinds = fatal if dropping and fatal else self.kinds
        total = sum(max(kind.count, 1) for kind in kinds)
        places = "1 place" if total == 1 else f"{total:,} places"
        way_out, drop = "correct the data", self.say("on_breach", "drop")
        if dropping and fatal:
            way_out += f" ({drop} does not mend this)"
        elif not dropping and fatal and len(fatal) < len(kinds):
            remain = ", ".join(f'"{kind.wrong}"' for kind in fatal)
            way_out += f"; {drop} leaves rows out, but does not mend {remain}"
        elif not dropping and not fatal:
            way_out += f", or leave those rows out with {drop}"
        lines = [f"{self.label} breaks the panel contract in {places}; {way_out}."]
        for kind in kinds:
            rows = f" in {kind.count:,} rows" if kind.count > 1 else ""
            lines.append(f"- {kind.wrong}{rows}; {kind.remedy}{':' if kind.items else '.'}")
            lines += [f"    {item}" for item in kind.items]
            if kind.count > len(kind.items) > 0:
                lines.append(f"    and {kind.count - len(kind.items):,} more{kind.most}")
        return "\n".join(lines)


def _most(found: pl.DataFrame) -> str:
    """Which ids have most of the rows found, said only where several have some and not every row is shown."""
    if found.height <= SHOWN or "unique_id" not in found.columns or found["unique_id"].n_unique() < 2:
        return ""
    most = found.group_by("unique_id").len().sort(["len", "unique_id"], descending=[True, False]).head(3)
    return "; most in " + ", ".join(f"{name!r} ({count:,})" for name, count in most.rows())


def moment(value: Any) -> str:
    """A date or a datetime as text; midnight is a date.

    >>> import datetime
    >>> moment(datetime.datetime(2020, 1, 2))
    '2020-01-02'
    """
    return str(value).removesuffix(" 00:00:00")
