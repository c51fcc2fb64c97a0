"""Text files: what is read, and with which line and remedy the rest is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.data.sources import CsvSource
from ssmfin.errors import InputError

GOOD = "unique_id,ds,rv\na,2020-01-01,1.5\na,2020-01-02,2.5\nb,2020-01-02,3.5\n"


def load(tmp_path: Path, content: str | bytes, name: str = "rv.csv", **keys: object):  # type: ignore[no-untyped-def]
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    options = {k: keys.pop(k) for k in ("target", "positive", "on_breach", "columns", "date_format") if k in keys}
    return load_panel({"kind": "csv", "path": str(file), **keys}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "same",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        "\n" + GOOD.replace("\n", "\n\n"),
        "\ufeff" + GOOD,
        GOOD.replace("2.5", ' "2.5" ').replace(' "', '"').replace('" ', '"'),
        GOOD.replace("1.5", " 1.50"),
        GOOD.replace("2020-01-02", "2020-01-02T00:00"),
        GOOD.replace("2020-01-01", "2020-01-01 00:00:00.000"),
        "rv,ds,unique_id\n1.5,2020-01-01,a\n2.5,2020-01-02,a\n3.5,2020-01-02,b\n".replace("rv,ds", "rv,ds"),
        ",unique_id,ds,rv\n0,a,2020-01-01,1.5\n1,a,2020-01-02,2.5\n2,b,2020-01-02,3.5\n",
        "unique_id,ds,rv\nb,2020-01-02,3.5\na,2020-01-02,2.5\na,2020-01-01,1.5\n",
    ],
    ids=[
        "plain",
        "crlf",
        "no-last-newline",
        "blank-lines",
        "bom",
        "quotes",
        "spaces",
        "datetime",
        "mixed-datetime",
        "columns",
        "index",
        "newest-first",
    ],
)
def test_equivalent_files_give_the_same_panel(tmp_path: Path, same: str) -> None:
    assert load(tmp_path, same).frame.select("unique_id", "ds", "rv").equals(load(tmp_path, GOOD).frame)


def test_delimiter_and_decimal_comma(tmp_path: Path) -> None:
    german = GOOD.replace(",", ";").replace(".", ",")
    assert load(tmp_path, german, delimiter=";", decimal=",").fingerprint() == load(tmp_path, GOOD).fingerprint()
    tabs = GOOD.replace(",", "\t")
    assert load(tmp_path, tabs, delimiter="\t").fingerprint() == load(tmp_path, GOOD).fingerprint()


def test_compressed_file_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, gzip.compress(GOOD.encode()), "rv.csv.gz").fingerprint() == load(tmp_path, GOOD).fingerprint()


def test_ids_are_text_even_if_they_look_like_something_else(tmp_path: Path) -> None:
    panel = load(
        tmp_path,
        "".join(["unique_id,ds,rv\n", *(f"{i},2020-01-0{d},1\n" for i in ("NO", "NA", "007", "1e3") for d in (1, 2))]),
    )
    assert panel.ids == ("007", "1e3", "NA", "NO")


def test_missing_cells_are_null_and_notes_tell_of_text_columns(tmp_path: Path) -> None:
    panel = load(
        tmp_path, "unique_id,ds,rv,x,sector\na,2020-01-01,1,,tech\na,2020-01-02,2,NA,tech\na,2020-01-03,3,4,oil\n"
    )
    assert panel.frame["x"].to_list() == [None, None, 4.0]
    assert panel.notes["left_out_columns"] == {"sector": "text, 'tech' for example"}


def test_uniform_offset_is_dropped_and_noted(tmp_path: Path) -> None:
    panel = load(tmp_path, GOOD.replace("-01,", "-01T16:00:00Z,").replace("-02,", "-02T16:00:00+00:00,"))
    assert panel.notes["time_zone"] == "+00:00"
    assert str(panel.dates[0]) == "2020-01-01T16:00:00.000000"


def test_date_format_reads_other_dates(tmp_path: Path) -> None:
    other = GOOD.replace("2020-01-01", "01.01.2020").replace("2020-01-02", "02.01.2020")
    assert load(tmp_path, other, date_format="%d.%m.%Y").fingerprint() == load(tmp_path, GOOD).fingerprint()
    compact = GOOD.replace("2020-01-0", "2020010")
    assert load(tmp_path, compact, date_format="%Y%m%d").fingerprint() == load(tmp_path, GOOD).fingerprint()


def test_dates_of_another_form_are_told_with_the_users_own_column_and_a_keyword(tmp_path: Path) -> None:
    mine = "Symbol,Date,rv\na,04/01/2000,1\na,14/01/2000,1\n"
    named = {"unique_id": "Symbol", "ds": "Date"}
    with pytest.raises(InputError, match=r"column Date holds no ISO date, '04/01/2000'; set date_format='%d/%m/%Y' "):
        load(tmp_path, mine, columns=named)
    with pytest.raises(InputError, match=r"Date is missing"):
        load(tmp_path, mine.replace("04/01/2000", ""), columns=named, date_format="%d/%m/%Y")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["rv.csv is empty", "0 bytes"]),
        (b" \n\n", ["rv.csv is empty"]),
        ("unique_id,ds,rv\n", ["has no rows", "rv"]),
        (GOOD.replace("2.5", "2.5\0"), ["line 3", "null byte"]),
        (GOOD.encode().replace(b"b,", b"\xe9,"), ["line 4", "not UTF-8", "\\xe9"]),
        (GOOD.encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
        (GOOD + "b,2020-01-0", ["line 5", "2 fields", "cut off"]),
        (GOOD + "b,2020-01-03,1,5\n", ["line 5", "4 fields", "decimal"]),
        (GOOD + '"b",2020-01-03,1,5\n', ["line 5", "4 fields"]),
        ("unique_id,ds,rv,rv\na,2020-01-01,1,1\n", ["line 1", "repeats", "['rv']"]),
        (GOOD.replace(",", ";"), ["line 1", 'set delimiter: ";"']),
        (GOOD.replace(",", "\t"), ["line 1", 'set delimiter: "\\t"']),
        (
            GOOD.replace("2.5", "2.5%"),
            ["rv is not a number", "'a' on 2020-01-02 (line 3): '2.5%'", "leave the cell empty"],
        ),
        (GOOD.replace("2.5", '"2,5"'), ["line 3", "'2,5'", "source.decimal"]),
        (GOOD.replace("2.5", '"1,002.5"'), ["line 3", "'1,002.5'"]),
        (GOOD.replace("a,2020-01-02", "a,2020-13-02"), ["ds is not a date", "line 3", "'2020-13-02'", "YYYY-MM-DD"]),
        (GOOD.replace("a,2020-01-02", "a,2020-02-30"), ["ds is not a date", "line 3", "'2020-02-30'"]),
        (GOOD.replace("a,2020-01-02", "a,20-01-02"), ["ds is not a date", "line 3"]),
        (GOOD.replace("2020-01-0", "1/1/0"), ["holds no ISO date", "line 2", "set date_format"]),
        (GOOD.replace("a,2020-01-02", "a,"), ["ds is missing", "line 3"]),
        (GOOD.replace("a,2020-01-02", ",2020-01-02"), ["unique_id is missing", "line 3"]),
        (
            GOOD.replace("a,2020-01-02", "a,2020-01-02T00:00Z"),
            ["mixes time zones", "line 3", "convert all dates to one zone"],
        ),
        (
            GOOD.replace("01-01", "01-01T16:00-05:00").replace("01-02", "01-02T16:00-04:00"),
            ["mixes time zones", "line 2", "line 3", "one zone"],
        ),
        (GOOD.encode()[:4].replace(b"uniq", b"PAR1") + GOOD.encode(), ["is a parquet file", "kind: parquet"]),
        (gzip.compress(GOOD.encode(), mtime=0)[:-12], ["damaged gzip"]),
        (GOOD.replace("2.5", '"2.5'), ["line 3", "check its quotes"]),
        (GOOD.replace("2.5", '"2.5"x'), ["line 3", "check its quotes"]),
    ],
)
def test_broken_file_is_refused_with_line_value_and_remedy(
    tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, content, target="rv", positive=True)
    for word in ["rv.csv", *words]:
        assert word in str(caught.value)


def test_line_numbers_survive_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    content = (
        'unique_id,ds,rv,comment\n\na,2020-01-01,1,"two\nlines"\n\na,2020-01-02,x,"three\n\nlines"\n'
        "a,2020-01-03,y,z\na,2020-01-04,1,\na,2020-01-05,1,\n"
    )
    with pytest.raises(InputError) as caught:
        load(tmp_path, content)
    assert "(line 6): 'x'" in str(caught.value)
    assert "(line 9): 'y'" in str(caught.value)


def test_row_of_one_of_many_files_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(GOOD)
    (tmp_path / "two.csv").write_text(GOOD.replace("a,", "c,").replace("b,", "d,").replace("2.5", "-2.5"))
    with pytest.raises(InputError, match=r"'c' on 2020-01-02 \(.*two.csv line 3\): -2.5"):
        load_panel(f"{tmp_path}/*.csv", target="rv", positive=True)


def test_marks_that_collide_are_refused() -> None:
    with pytest.raises(InputError, match="delimiter and decimal are both ','"):
        load_panel({"kind": "csv", "path": "x.csv", "decimal": ","})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='a,1\n";.-T:Z2020\r\t ', max_size=120).map(str.encode))
def test_any_bytes_are_either_a_panel_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "rv.csv"
    for content in (raw, GOOD.encode() + raw):
        file.write_bytes(content)
        said = ""
        try:
            panel = load_panel({"kind": "csv", "path": str(file)}, target="rv")
        except InputError as error:
            said = str(error)
        assert str(file) in said or panel.frame.select("unique_id", "ds").is_unique().all()


def test_validating_a_source_opens_nothing() -> None:
    assert CsvSource(path=["a.csv", "b.csv"]).path == ("a.csv", "b.csv")
