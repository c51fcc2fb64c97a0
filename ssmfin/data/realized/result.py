"""Owns the result of a pass over intraday data: daily measures, what was found wrong, and the way into a panel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ssmfin.data.panel import Panel
from ssmfin.data.sources import FrameSource
from ssmfin.errors import InputError

KEYS = ("unique_id", "ds", "known_at", "session_close", "usable")


@dataclass(frozen=True, eq=False)
class Quality:
    """What was found in the source, by asset, day and rule.

    Attributes:
        days: unique_id, ds, usable, rows, coverage (share of sampling intervals with a row), longest_gap_s,
            longest_stale_s; one row a session with any row.
        flags: unique_id, ds (null where the stamp cannot be read), rule, rows (1 for a rule of the whole day), spoils
            (the rule makes the day unusable).
        signature: unique_id, minutes, variance (mean over usable sessions of the RV at that interval).
        periodicity: unique_id, intervals (of the session), position (from 0), factor of volatility, sessions.
    """

    days: pl.DataFrame
    flags: pl.DataFrame
    signature: pl.DataFrame
    periodicity: pl.DataFrame

    @property
    def by_rule(self) -> pl.DataFrame:
        """rule, spoils, days, rows, the most frequent first."""
        return (
            self.flags.group_by("rule", "spoils")
            .agg(pl.len().cast(pl.Int64).alias("days"), pl.col("rows").sum())
            .sort(["spoils", "days", "rule"], descending=[True, True, False])
        )

    @property
    def unusable(self) -> pl.DataFrame:
        """unique_id, ds, rules (comma-separated) of the unusable sessions."""
        bad = self.days.filter(~pl.col("usable")).select("unique_id", "ds")
        why = (
            self.flags.filter("spoils")
            .group_by("unique_id", "ds", maintain_order=True)
            .agg(pl.col("rule").sort().str.join(", ").alias("rules"))
        )
        return bad.join(why, on=["unique_id", "ds"], how="left", maintain_order="left")


@dataclass(frozen=True, eq=False)
class RealizedPanel:
    """Daily measures from intraday prices; what `realized_measures` returns.

    Attributes:
        frame: one row a session with data, sorted: unique_id, ds (Date of the session), known_at (Date: the close of
            that session), session_close (the moment, UTC), usable, open and close (as stored, not adjusted), log_return
            and overnight_variance (since the last usable close, adjusted), the estimators, then volume and order flow
            where the source has them. All values are null on an unusable day.
        quality: what was found wrong.
        notes: plain facts: source, kind, calendar, sampling, rows, sessions, unusable, ...
    """

    frame: pl.DataFrame
    quality: Quality
    notes: dict[str, Any] = field(default_factory=dict)

    def panel(self) -> Panel:
        """The usable sessions as a panel; how many were left out stands in its notes.

        Raises:
            InputError: no session is usable.
        """
        from ssmfin.data.loading import load_panel

        panel = load_panel(FrameSource(frame=self.usable_rows()))
        return Panel(panel.frame, {**panel.notes, **self.panel_notes()})

    def usable_rows(self) -> pl.DataFrame:
        """The panel's columns of the usable sessions, values that are never there left out.

        Raises:
            InputError: no session is usable; says by which rules.
        """
        kept = self.frame.filter("usable").drop("session_close", "usable")
        if kept.is_empty():
            rules = self.quality.by_rule.filter("spoils")
            why = ", ".join(f"{row['rule']} ({row['days']:,} days)" for row in rules.iter_rows(named=True))
            raise InputError(
                f"{self.notes.get('source', 'the source')} has no usable session, flagged are {why or 'none'}; "
                f"see the quality report, and check calendar, time_zone and max_gap."
            )
        return kept

    def panel_notes(self) -> dict[str, Any]:
        """What a study's report says about the days that were left out."""
        rules = self.quality.by_rule
        return {
            "intraday": {
                key: self.notes[key] for key in ("source", "kind", "calendar", "sampling", "rows", "sessions")
            },
            "unusable_days": [
                {"unique_id": row[0], "days": row[1], "of": row[2]}
                for row in self.quality.days.group_by("unique_id")
                .agg((~pl.col("usable")).sum().alias("bad"), pl.len().alias("all"))
                .filter(pl.col("bad") > 0)
                .sort("unique_id")
                .iter_rows()
            ],
            "flagged": [
                {"rule": row["rule"], "days": row["days"], "rows": row["rows"], "unusable": bool(row["spoils"])}
                for row in rules.iter_rows(named=True)
            ],
        }

    def __repr__(self) -> str:
        good = int(self.frame["usable"].sum()) if self.frame.height else 0
        return (
            f"RealizedPanel({self.frame.height:,} sessions, {good:,} usable, "
            f"{self.frame['unique_id'].n_unique()} ids, columns {', '.join(self.frame.columns[5:])})"
        )
