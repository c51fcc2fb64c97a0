"""The page on realized measures: self-contained, safe against ids, says what was found."""

import datetime
import re

import numpy as np
import polars as pl
import pytest

from ssmfin import InputError, measures_report, realized_measures
from ssmfin.reporting.measures import _numbers, _source, render_measures
from ssmfin.reporting.measures_figures import SPOILED, calendar_colours

EVIL = "<script>alert('x')</script>"


def bars(ids, days=6, defect=True):
    generator = np.random.default_rng(0)
    parts = []
    for name in ids:
        for k in range(days):
            start = datetime.datetime(2020, 1, 6, 9, 30) + datetime.timedelta(days=k)
            close = 100 * np.exp(np.cumsum(5e-4 * generator.standard_normal(390)))
            if defect and k == 1:
                close[200:300] = close[200]
            stamps = [start + datetime.timedelta(minutes=i) for i in range(390)]
            parts.append(pl.DataFrame({"symbol": name, "timestamp": stamps, "close": close}))
    return pl.concat(parts)


def measured(*ids, **options):
    return realized_measures(bars(ids, **options), calendar="XNYS", cache=False)


@pytest.mark.parametrize("ids", [("A",), ("A", EVIL, "C")])
def test_the_page_is_self_contained_and_escapes_ids(ids):
    page = render_measures(measured(*ids))
    assert EVIL not in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|@import|url\((?!data:)", page)
    assert ("&lt;script&gt;" in page) == (EVIL in ids)
    assert page.count("<img") == 4 - (len(ids) > 1)  # calendar (one asset), signature, pattern, flagged days


def test_the_page_says_which_days_are_unusable_and_why():
    page = render_measures(measured("A"))
    assert "4 of 5 sessions are usable." in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "2020-01-07" in page
    assert "the same price for longer than max_stale" in page
    clean = render_measures(measured("A", defect=False))
    assert "No rule was broken." not in clean  # Saturday's rows lie outside the session
    assert "outside_session" in clean


def test_the_same_measures_give_the_same_bytes():
    found = measured("A", "B")
    assert render_measures(found) == render_measures(found)


def test_a_source_of_one_day_and_one_of_nothing_usable_have_a_page():
    assert "1 of 1 sessions" in render_measures(measured("A", days=1)).replace("\N{NO-BREAK SPACE}", " ")
    frozen = realized_measures(bars(["A"]).with_columns(pl.lit(1.0).alias("close")), calendar="XNYS", cache=False)
    assert "0 of 5 sessions" in render_measures(frozen).replace("\N{NO-BREAK SPACE}", " ")


def test_the_report_is_written_whole_or_refused_in_words(tmp_path):
    found = measured("A")
    path = measures_report(found, tmp_path / "quality.html")
    assert path.read_text("utf-8").endswith("</html>\n") or path.read_text("utf-8").endswith("</html>")
    assert [item.name for item in tmp_path.iterdir()] == ["quality.html"]
    with pytest.raises(InputError, match="no such folder"):
        measures_report(found, tmp_path / "none" / "quality.html")


def test_a_day_of_the_calendar_is_all_red_or_all_of_its_coverage():
    days = measured("A").quality.days
    colours = np.round(255 * calendar_colours(days)).astype(int)
    assert colours.shape == (1, 31, 3)
    red = [int(SPOILED[i : i + 2], 16) for i in (1, 3, 5)]
    spoiled = days.filter(~pl.col("usable"))["ds"].dt.day().to_list()
    assert spoiled == [7]
    is_red = (colours[0] == red).all(axis=1)
    assert (np.flatnonzero(is_red) + 1).tolist() == spoiled
    open_days = np.flatnonzero((colours[0] != 255).any(axis=1)) + 1
    assert open_days.tolist() == days["ds"].dt.day().to_list()  # no session: white


@pytest.mark.parametrize("months", [1, 30])
def test_the_calendar_has_a_legend_and_a_form_for_phones(months):
    page = render_measures(measured("A", days=30 * months))
    calendar = page[page.index('id="coverage"') : page.index('id="shape"')]
    for words in ("unusable", "every interval has a row", "no session"):
        assert words in calendar
    assert SPOILED in calendar
    assert 'width="1124"' in calendar
    assert '<source media="screen and (max-width: 640px)"' in calendar


def test_few_unusable_days_of_one_of_many_assets_can_be_seen():
    frames = bars(["B"], days=60, defect=False), bars(["A"], days=60)
    page = render_measures(realized_measures(pl.concat(frames), calendar="XNYS", cache=False))
    marks = re.findall(rf"linear-gradient\(to top, {SPOILED} (\d+)%", page)
    assert marks == ["20"]  # one day of about twenty, in a cell of a month
    assert re.search(r'title="A, 2020-01: coverage 100 %, 1 of \d+ days unusable"', page)


def test_words_are_for_one_day_and_for_a_path():
    page = render_measures(measured("A"))
    assert "stale (1 day: the same price for longer than max_stale)" in page
    assert "1 days" not in page
    assert _source("/data/bars/spy.parquet", "prices") == ("spy.parquet", "prices; in /data/bars")
    assert _source("a table", "prices") == ("a table", "prices")


def test_numbers_of_a_measure_share_a_unit():
    found = measured("A")
    ((name, low, middle, high, unit, count),) = _numbers(found.frame, ["rv"])
    exponent = int(unit.removeprefix("×10").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    assert (name, count) == ("rv", "4")
    assert float(middle) * 10**exponent == pytest.approx(found.frame["rv"].median(), rel=1e-3)
    assert 1 <= float(middle) < 10
    assert float(low) < float(middle) < float(high)
