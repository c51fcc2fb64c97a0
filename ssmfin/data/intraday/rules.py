"""Owns the rules by which ticks and days are flagged: name, whether the day becomes unusable, and the remedy."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One rule.

    Attributes:
        spoils: the day is marked unusable; else the count is only reported.
        droppable: with `bad_ticks: drop` the rows are left out instead, and the day stays.
        meaning: what was found. remedy: what the user can do.
    """

    spoils: bool
    droppable: bool
    meaning: str
    remedy: str


RULES: dict[str, Rule] = {
    "not_a_price": Rule(True, True, "the price is zero, negative, missing or infinite", "correct or leave out the row"),
    "crossed_quote": Rule(True, True, "the bid is above the ask", "correct or leave out the quote"),
    "spike": Rule(
        True,
        True,
        "one to three prices jump by more than ten typical moves and come back by 90 %",
        "correct the ticks, or leave them out with bad_ticks: drop",
    ),
    "duplicate_stamp": Rule(
        True, True, "one stamp has two different prices", "keep the right one; is an id column or a time zone missing?"
    ),
    "out_of_order": Rule(
        True, True, "a stamp is earlier than that of the row before", "check the stamps, sort by time"
    ),
    "skipped_time": Rule(
        True, False, "the local time does not exist, daylight saving skips it", "give stamps in UTC, or set time_zone"
    ),
    "ambiguous_time": Rule(
        True, False, "the local time exists twice, the clock was set back", "give stamps in UTC, or with an offset"
    ),
    "no_time_zone": Rule(
        True, False, "the stamp has no time zone where others of its column have one", "give all stamps one"
    ),
    "scattered": Rule(
        True, False, "rows of the session lie far apart in the source", "sort the source by id and time, or by time"
    ),
    "few_ticks": Rule(True, False, "the session has fewer than two prices", "nothing can be measured on this day"),
    "one_price": Rule(True, False, "one price repeats all day", "was the feed down, or trading halted?"),
    "gap": Rule(True, False, "no row for longer than max_gap", "raise max_gap if the asset trades seldom"),
    "stale": Rule(
        True, False, "the same price for longer than max_stale", "raise max_stale if the asset trades seldom"
    ),
    "low_coverage": Rule(
        True, False, "fewer intervals with a row than min_coverage", "sample less often, or lower min_coverage"
    ),
    "zero_variance": Rule(
        True, False, "no sampled price differs from the first", "sample more often: prices moved only between samples"
    ),
    "missing_session": Rule(False, False, "the market was open and there is no row", "is a file missing?"),
    "unreadable_stamp": Rule(False, False, "the stamp is missing or no time", "correct it; its day is not known"),
    "outside_session": Rule(False, False, "the row lies outside the session and is not used", "is the calendar right?"),
    "repeated_row": Rule(False, False, "the row is an exact copy", "harmless; the file may have been joined twice"),
    "bar_range": Rule(False, False, "open or close lie outside low to high", "high and low are not used here"),
    "wide_range": Rule(
        False, False, "high or low lie more than ten typical moves off", "a bad tick in it; high and low are not used"
    ),
}
