"""The corpus of wrong input: one message, exit code 2, no traceback, nothing on standard output, nothing left behind.

Studies that are wrong as text are the files in `studies`; the `# expect:` lines at the top of each are the message,
line by line, where ` ... ` stands for anything. Wrong data, broken files and wrong arguments are the tables below.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from ssmfin_pipelines.cli import main

STUDIES = sorted((Path(__file__).parent / "studies").glob("*.yaml"))

GOOD = """\
name: small
data:
  source: {kind: csv, path: rv.csv}
target: {column: rv, horizons: [1]}
walk_forward: {train: {size: 60}, validation: {size: 10}, test: {size: 10}}
execution: {backend: inline}
"""


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content; folders too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def refused(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must refuse its input; everything that always holds is checked here."""
    before = listing(folder)
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert listing(folder) == before
    return err.removeprefix("error: ")


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(STUDIES) >= 60
    assert len(DATA) >= 40


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_wrong_study_is_refused_with_line_value_and_remedy(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(file, "study.yaml")
    expected = re.findall(r"^# expect: (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert expected, "the file says what to expect"
    message = refused(["validate", "study.yaml"], tmp_path, capsys)
    assert "study.yaml" in message
    lines = message.strip().split("\n")
    assert len(lines) == len(expected)
    for line, wanted in zip(lines, expected, strict=True):
        told = line.strip().replace("study.yaml, ", "").replace("study.yaml", "FILE")
        assert re.fullmatch(re.escape(wanted).replace(re.escape(" ... "), ".*"), told), told


@dataclass(frozen=True)
class Data:
    """A study that is right and data that are not.

    Attributes:
        make: writes the files into the current folder. expected: parts of the message. overrides: of the study.
        commands: the commands that must refuse it; `run` alone where the data are loaded by it only.
    """

    make: Callable[[], object]
    expected: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    commands: tuple[str, ...] = field(default=("validate", "run"))


def dates(count: int) -> list[str]:
    return [str(day) for day in pl.date_range(pl.date(2020, 1, 1), pl.date(2022, 1, 1), eager=True)[:count]]


def table(changes: dict[int, str | None] | None = None, *, count: int = 120, header: str = "unique_id,ds,rv") -> str:
    """A csv of one id whose line `n` (1 is the header) is replaced, or dropped if None."""
    lines = [header, *(f"a,{day},{1.0 + (index * 7 % 11) / 10}" for index, day in enumerate(dates(count)))]
    for number, text in (changes or {}).items():
        lines[number - 1] = text  # type: ignore[call-overload]
    return "\n".join(line for line in lines if line is not None) + "\n"


def csv(text: str | bytes, name: str = "rv.csv") -> Callable[[], object]:
    return lambda: Path(name).write_bytes(text.encode() if isinstance(text, str) else text)


def both(*steps: Callable[[], object]) -> Callable[[], object]:
    return lambda: [step() for step in steps]


def frame(count: int = 120, **columns: pl.Expr) -> pl.DataFrame:
    base = pl.DataFrame(
        {"unique_id": ["a"] * count, "ds": dates(count), "rv": [1.0 + index % 7 for index in range(count)]}
    )
    return base.with_columns(pl.col("ds").str.to_date()).with_columns(**columns)


def parquet(values: pl.DataFrame, name: str = "rv.parquet") -> Callable[[], object]:
    return lambda: values.write_parquet(name)


def truncated_parquet() -> None:
    frame().write_parquet("rv.parquet")
    raw = Path("rv.parquet").read_bytes()
    Path("rv.parquet").write_bytes(raw[: len(raw) // 2])


def damaged_parquet() -> None:
    frame().write_parquet("rv.parquet")
    raw = Path("rv.parquet").read_bytes()
    Path("rv.parquet").write_bytes(raw[:20] + b"\xff" * (len(raw) - 40) + raw[-20:])


PARQUET = ("data.source={kind: parquet, path: rv.parquet}",)
OHLC = ("data.measures={kind: range, estimators: [parkinson]}", "target.column=parkinson")
PRICES = "unique_id,ds,high,low,close\n"


def prices(line: int, text: str) -> str:
    rows = [f"a,{day},{2 + index % 3},1,1.5" for index, day in enumerate(dates(120))]
    rows[line - 2] = text
    return PRICES + "\n".join(rows) + "\n"


DATA: dict[str, Data] = {
    "no_such_file": Data(lambda: None, ("rv.csv does not exist", "check the name")),
    "a_directory": Data(lambda: Path("rv.csv").mkdir(), ("rv.csv", "is a directory")),
    "empty_file": Data(csv(""), ("rv.csv is empty", "0 bytes")),
    "header_alone": Data(csv("unique_id,ds,rv\n"), ("rv.csv has no rows", "give it data")),
    "glob_without_a_match": Data(
        lambda: None, ("nothing/*.csv matches no files", "check the directory"), ("data.source.path=nothing/*.csv",)
    ),
    "text_in_a_number": Data(
        csv(table({5: "a,2020-01-04,n.a. yet"})),
        ("rv.csv", "rv is not a number", "'a' on 2020-01-04 (line 5): 'n.a. yet'", "leave the cell empty"),
    ),
    "decimal_commas": Data(
        csv(table().replace(".", ",")), ("rv.csv line 2 has 4 fields where the header has 3", "decimal")
    ),
    "target_column_misspelt": Data(
        csv(table(header="unique_id,ds,rv5")),
        ("rv.csv lacks the column rv (target.column; did you mean 'rv5'?); it has [", "'rv5'"),
    ),
    "target_column_in_the_other_case": Data(
        csv(table(header="unique_id,ds,RV")),
        ("rv.csv lacks the column ret (features.mine.columns), and rv (target.column; did you mean 'RV'?); it has [",),
        ("features={mine: {kind: columns, columns: [ret]}}",),
    ),
    "target_column_of_words": Data(
        csv("unique_id,ds,rv\n" + "".join(f"a,{day},calm\n" for day in dates(120))), ("rv is not a number", "'calm'")
    ),
    "no_date_column": Data(csv(table(header="unique_id,when,rv")), ("rv.csv lacks the column ds", "'when'")),
    "date_column_by_another_name": Data(
        csv(table(header="unique_id,date,rv")), ("lacks the column ds", "data.columns: {ds: date}")
    ),
    "renamed_column_not_there": Data(
        csv(table(header="unique_id,date,rv")), ("no column 'dat'", "did you mean 'date'?"), ("data.columns={ds: dat}",)
    ),
    "two_columns_of_one_name": Data(csv(table(header="unique_id,ds,ds")), ("rv.csv line 1", "['ds']", "its own name")),
    "date_that_does_not_exist": Data(
        csv(table({4: "a,2020-02-30,1.0"})), ("ds is not a date", "line 4", "'2020-02-30'", "YYYY-MM-DD")
    ),
    "dates_of_another_order": Data(
        csv("unique_id,ds,rv\n" + "".join(f"a,{day[8:]}/{day[5:7]}/{day[:4]},1.0\n" for day in dates(120))),
        ("rv.csv", "holds no ISO date", "'01/01/2020'", "set data.date_format: '%d/%m/%Y' (2020-01-01)"),
    ),
    "dates_of_two_readings": Data(
        csv("unique_id,ds,rv\n" + "".join(f"a,0{i % 9 + 1}/03/{2000 + i // 9},1.0\n" for i in range(90))),
        (
            "'01/03/2000'; no value tells day from month: set data.date_format to '%d/%m/%Y' (2000-03-01) or",
            "'%m/%d/%Y' (2000-01-03), whichever is right",
        ),
    ),
    "dates_read_by_another_form": Data(
        csv("unique_id,ds,rv\n" + "".join(f"a,{day[5:7]}/{day[8:]}/{day[:4]},1.0\n" for day in dates(120))),
        ("is not written as '%d/%m/%Y' says, '01/13/2020'; set data.date_format: '%m/%d/%Y' (2020-01-01)",),
        ("data.date_format=%d/%m/%Y",),
    ),
    "date_missing": Data(csv(table({6: "a,,1.0"})), ("ds is missing", "line 6", "give every row a date")),
    "id_missing": Data(csv(table({6: ",2020-01-05,1.0"})), ("unique_id is missing", "line 6", "give every row an id")),
    "row_stored_twice": Data(
        csv(table({7: "a,2020-01-05,1.6"})), ("'a' on 2020-01-05", "line 7", "a row is stored twice", "keep one")
    ),
    "two_values_for_one_date": Data(
        csv(table({7: "a,2020-01-05,9.9"})), ("(unique_id, ds) is not unique", "'a' on 2020-01-05", "rv = 9.9")
    ),
    "dates_not_in_order": Data(
        csv(table({7: "a,2020-01-08,1.0", 9: "a,2020-01-06,1.0"})),
        ("not in order", "2020-01-06", "line 9", "sort the file"),
    ),
    "mixed_time_zones": Data(
        csv(table({4: "a,2020-01-03T16:00:00+01:00,1.0", 5: "a,2020-01-04T16:00:00-05:00,1.0"})),
        ("mixes time zones", "line 4", "line 5", "convert all dates to one zone"),
    ),
    "variance_of_zero": Data(
        csv(table({8: "a,2020-01-07,0.0"})),
        ("rv is not positive", "'a' on 2020-01-07 (line 8): 0.0", "target.transform: none"),
    ),
    "negative_variance": Data(
        csv(table({8: "a,2020-01-07,-1e-4"})), ("rv is not positive", "'a' on 2020-01-07 (line 8): -0.0001")
    ),
    "target_missing": Data(
        csv(table({8: "a,2020-01-07,"})), ("rv is the target and is missing", "line 8", "leave the row out")
    ),
    "target_all_missing": Data(
        csv("unique_id,ds,rv\n" + "".join(f"a,{day},NaN\n" for day in dates(120))),
        ("rv is the target and has no value at all", "120 empty rows", "choose another column"),
    ),
    "infinite_value": Data(csv(table({9: "a,2020-01-08,inf"})), ("rv is infinite", "line 9", "inf", "write a number")),
    "value_of_1e308": Data(csv(table({9: "a,2020-01-08,1e308"})), ("too large", "line 9", "1e+308", "check its unit")),
    "several_breaches_at_once": Data(
        csv(table({8: "a,2020-01-07,0", 9: "a,2020-01-08,inf", 10: "a,2020-01-09,x", 12: "a,2020-01-10,1.9"})),
        ("is not positive", "is infinite", "is not a number", "line 8", "line 9", "line 10", "data.on_breach: drop"),
    ),
    "one_date_alone": Data(csv(table(count=1)), ("the panel has a single date, 2020-01-01", "at least two dates")),
    "window_longer_than_the_data": Data(
        csv(table(count=40)),
        ("walk_forward.train.size is 60", "longer than the panel (40 dates)", "use 20 or less, which leaves 20 dates"),
    ),
    "window_that_leaves_no_forecast": Data(
        csv(table()), ("complete training rows", "walk_forward.train.min_rows"), ("walk_forward.train.min_rows=60",)
    ),
    "walk_forward_starts_after_the_data": Data(
        csv(table()), ("walk_forward.start is 2030-01-01", "after the last date"), ("walk_forward.start=2030-01-01",)
    ),
    "walk_forward_starts_too_early": Data(
        csv(table()), ("walk_forward.start is 2020-01-05", "2020-02-29 or later"), ("walk_forward.start=2020-01-05",)
    ),
    "id_not_there": Data(csv(table()), ("no id 'b'", "correct data.ids"), ("data.ids=[b]",)),
    "start_after_the_data": Data(csv(table()), ("no rows from 2030-01-01", "data.start"), ("data.start=2030-01-01",)),
    "text_that_is_not_utf8": Data(
        csv(table().encode() + b"a,2020-06-01,\xe9\n"), ("rv.csv line 122", "not UTF-8", "save it as UTF-8")
    ),
    "text_in_utf16": Data(csv(table().encode("utf-16")), ("rv.csv", "UTF-16", "save it as UTF-8")),
    "null_byte": Data(csv(table({3: "a,2020-01-02,1\x00"})), ("rv.csv line 3", "null byte")),
    "line_cut_off": Data(csv(table()[:-12]), ("rv.csv line 121 has 2 fields where the header has 3", "cut off")),
    "other_delimiter": Data(csv(table().replace(",", ";")), ("rv.csv line 1", 'set delimiter: ";"')),
    "damaged_gzip": Data(
        csv(gzip.compress(table().encode())[:60], "rv.csv.gz"),
        ("rv.csv.gz is a damaged gzip", "write it again"),
        ("data.source.path=rv.csv.gz",),
    ),
    "truncated_parquet": Data(truncated_parquet, ("rv.parquet is a truncated parquet file", "write it again"), PARQUET),
    "damaged_parquet": Data(damaged_parquet, ("rv.parquet is a damaged parquet file", "write it again"), PARQUET),
    "empty_parquet": Data(csv("", "rv.parquet"), ("rv.parquet is empty, 0 bytes",), PARQUET),
    "csv_named_parquet": Data(csv(table(), "rv.parquet"), ("rv.parquet is not a parquet file", "kind: csv"), PARQUET),
    "parquet_named_csv": Data(parquet(frame(), "rv.csv"), ("rv.csv is a parquet file", "kind: parquet")),
    "target_is_a_list_column": Data(parquet(frame(rv=pl.concat_list("rv"))), ("rv", "give numbers"), PARQUET),
    "dates_are_numbers": Data(
        parquet(frame(ds=pl.int_range(120))), ("ds is of type Int64", "data.date_format"), PARQUET
    ),
    "files_of_different_columns": Data(
        both(csv(table(), "one.csv"), csv(table(header="unique_id,ds,rv5"), "two.csv")),
        ("two.csv has other columns than one.csv", "['rv']"),
        ("data.source.path=[one.csv, two.csv]",),
    ),
    "several_files_without_an_id": Data(
        both(csv("ds,rv\n2020-01-01,1\n", "one.csv"), csv("ds,rv\n2020-01-01,1\n", "two.csv")),
        ("lacks the column unique_id", "source.id_from_filename: true"),
        ("data.source.path=[one.csv, two.csv]",),
    ),
    "high_below_low": Data(
        csv(prices(5, "a,2020-01-04,0.5,1,0.7")),
        ("high is below low", "'a' on 2020-01-04 (line 5): high 0.5, low 1.0"),
        OHLC,
    ),
    "price_of_zero": Data(csv(prices(5, "a,2020-01-04,0,0,0")), ("is not a positive price", "(line 5): 0.0"), OHLC),
    "prices_missing_for_measures": Data(csv(table()), ("rv.csv lacks the column high", "low"), OHLC),
    "feature_column_not_there": Data(
        csv(table()), ("vix", "column"), ("features.vix={kind: columns, columns: [vix]}",)
    ),
    "known_before_its_date": Data(
        csv("unique_id,ds,rv,known_at\n" + "".join(f"a,{day},1,2019-01-01\n" for day in dates(120))),
        ("known_at is before ds", "known at 2019-01-01"),
    ),
    "exogenous_of_two_series": Data(
        both(csv(table()), csv(table().replace("a,2020-01-0", "b,2020-01-0"), "two.csv")),
        ("data.exogenous 'other'", "holds 2 series", "by_id"),
        ("data.exogenous=[{name: other, source: {kind: csv, path: two.csv}}]",),
    ),
    "loss_needs_a_positive_target": Data(
        csv(table({100: "a,2020-04-08,-1"})),
        ("qlike", "needs a positive target", "evaluate.losses"),
        ("target.transform=none", "evaluate.reference=har"),
    ),
    "reference_needs_a_positive_target": Data(
        csv(table({100: "a,2020-04-08,-1"})),
        ("evaluate.reference", "'log_har'", "-1", "such as 'har'"),
        ("target.transform=none",),
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_wrong_data_are_refused_with_place_value_and_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = DATA[name]
    Path("study.yaml").write_text(GOOD)
    case.make()
    overrides = [part for text in case.overrides for part in ("--set", text)]
    for command in case.commands:
        extra = ["--data"] if command == "validate" else []
        message = refused([command, "study.yaml", *extra, *overrides], tmp_path, capsys)
        for part in case.expected:
            assert part in message


def test_the_same_study_with_right_data_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(GOOD)
    csv(table())()
    assert main(["validate", "study.yaml", "--data"]) == 0
    parquet(frame())()
    assert main(["validate", "study.yaml", "--data", "--set", *PARQUET]) == 0
    csv(prices(5, "a,2020-01-04,2,1,1.5"))()
    assert main(["validate", "study.yaml", "--data", *(part for text in OHLC for part in ("--set", text))]) == 0
    assert "120 dates from 2020-01-01" in capsys.readouterr().out


FILES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("study.yaml does not exist", "ssmfin init")),
    "empty": (b"", ("study.yaml is empty", "ssmfin init")),
    "blank": (b"\n  \n", ("study.yaml is empty",)),
    "not_utf8": (GOOD.encode() + b"seed: \xff\n", ("study.yaml, line 7", "not UTF-8", "0xff", "save it as UTF-8")),
    "utf16": (GOOD.encode("utf-16"), ("study.yaml, line 1", "not UTF-8", "save it as UTF-8")),
    "null_character": (GOOD.encode() + b"seed: \x00\n", ("study.yaml, line 7", "#x00", "not allowed")),
    "escape_character": (GOOD.encode() + b"seed: \x1b[31m\n", ("study.yaml, line 7", "#x1b", "not allowed")),
    "too_large": (GOOD.encode() + b"# padding\n" * 40_000, ("study.yaml is larger than 256 KiB", "not data")),
    "too_many_values": (
        GOOD.encode() + b"seed: [" + b"1," * 30_000 + b"1]\n", ("study.yaml, line 7", "more than 20,000 values"),
    ),
    "parquet": (b"PAR1" + bytes(range(128, 256)), ("study.yaml", "not UTF-8")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_study_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content, expected = FILES[name]
    if content is not None:
        Path("study.yaml").write_bytes(content)
    message = refused(["validate", "study.yaml"], tmp_path, capsys)
    for part in expected:
        assert part in message


def test_a_directory_is_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").mkdir()
    assert "study.yaml is a directory" in refused(["run", "study.yaml"], tmp_path, capsys)


ARGUMENTS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "set_without_a_value": (["validate", "study.yaml", "--set", "seed"], ("'seed'", "KEY=VALUE")),
    "set_without_a_key": (["validate", "study.yaml", "--set", "=1"], ("'=1'", "KEY=VALUE")),
    "set_of_an_unknown_key": (
        ["validate", "study.yaml", "--set", "walk_forward.tset.size=21"],
        ("--set walk_forward.tset.size=21", "no key 'tset'", "did you mean 'test'?"),
    ),
    "set_of_a_wrong_value": (
        ["validate", "study.yaml", "--set", "walk_forward.test.size=0"],
        ("--set walk_forward.test.size=0", "is 0", "give at least 1"),
    ),
    "set_below_a_number": (
        ["validate", "study.yaml", "--set", "target.column.x=1"],
        ("'rv'", "has no keys", "set target.column"),
    ),
    "set_past_a_list": (["validate", "study.yaml", "--set", "target.horizons.7=1"], ("list of 1 items", "use 0 to 0")),
    "set_of_broken_yaml": (
        ["validate", "study.yaml", "--set", "target.horizons=[1, 5"],
        ("--set target.horizons=[1, 5", "bracket"),
    ),
    "set_of_a_tag": (
        ["validate", "study.yaml", "--set", "seed=!!python/name:os.system x"],
        ("--set seed", "'!!python/name:os.system x'"),
    ),
    "set_of_a_path_as_a_name": (
        ["validate", "study.yaml", "--set", "name=../../x"],
        ("--set name=../../x", "'../../x' is not allowed"),
    ),
    "shard_zero": (["run", "study.yaml", "--shard", "0/2"], ("--shard is '0/2'", "between 1 and N")),
    "shard_past_the_last": (["run", "study.yaml", "--shard", "3/2"], ("--shard is '3/2'", "--shard 1/2")),
    "shard_of_words": (["run", "study.yaml", "--shard", "one"], ("--shard is 'one'", "I/N")),
    "import_of_nothing": (
        ["validate", "study.yaml", "--allow-imports", "--set", "models={mine: {kind: 'no_such_module_here:Model'}}"],
        ("no_such_module_here",),
    ),
    "data_for_a_study": (["run", "rv.csv"], ("rv.csv is a file of data, not a study", "`ssmfin init rv.csv -o study")),
    "models_of_a_dotted_class": (["models", "my_model.Mine"], ("not the path of a class; write my_model:Mine",)),
    "models_of_no_module": (["models", "no_such_module_here:Mine"], ("put no_such_module_here.py into the study's",)),
    "init_with_a_date_format_of_no_file": (
        ["init", "-o", "new.yaml", "--date-format", "%d/%m/%Y"],
        ("no file is named", "ssmfin init FILE"),
    ),
    "init_with_an_id_of_no_file": (["init", "-o", "new.yaml", "--id", "x"], ("--id is 'x'", "no file is named")),
    "init_with_an_unknown_id": (["init", "rv.csv", "-o", "new.yaml", "--id", "zzz"], ("'zzz'", "no column of rv.csv")),
    "init_with_a_wrong_date_format": (
        ["init", "rv.csv", "-o", "new.yaml", "--date-format", "%d/%m/%Y"],
        ("rv.csv has no column that --date-format '%d/%m/%Y' reads", "leave it out"),
    ),
    "features_onto_a_folder": (["features", "study.yaml", "-o", "."], (". is a directory",)),
    "features_into_no_folder": (
        ["features", "study.yaml", "-o", "none/f.parquet"],
        ("none/f.parquet", "does not exist", "make it"),
    ),
    "features_onto_a_file": (["features", "study.yaml", "-o", "there.parquet"], ("there.parquet exists", "--force")),
    "features_into_csv": (["features", "study.yaml", "-o", "f.csv"], ("f.csv does not end in .parquet",)),
    "init_over_a_study": (["init", "rv.csv", "-o", "study.yaml"], ("study.yaml exists", "--force")),
    "init_of_nothing": (["init", "none.csv", "-o", "new.yaml"], ("none.csv does not exist",)),
    "init_of_a_folder": (["init", ".", "-o", "new.yaml"], ("is a directory",)),
    "init_of_another_format": (["init", "study.yaml", "-o", "new.yaml"], ("study.yaml", "neither .csv nor .parquet")),
    "init_without_dates": (["init", "nodate.csv", "-o", "new.yaml"], ("nodate.csv", "looks like a date", "['x', 'y']")),
    "init_without_numbers": (["init", "words.csv", "-o", "new.yaml"], ("words.csv", "no column of numbers")),
    "models_of_no_kind": (["models", "s4dd"], ("'s4dd' is unknown", "did you mean 's4d'?")),
    "report_of_nothing": (["report", "runs/none"], ("runs/none",)),
    "compare_of_one": (["compare", "runs/none"], ("two runs",)),
    "compare_of_nothing": (["compare", "runs/a", "runs/b"], ("runs/a does not exist", "give a run folder")),
    "compare_of_a_study": (["compare", "study.yaml", "rv.csv"], ("study.yaml is a file", "give a run folder")),
    "compare_of_no_run": (["compare", ".", ".."], ("holds no manifest.json", "it is no run", "give a run folder")),
    "compare_with_few_labels": (["compare", "a", "b", "--label", "x"], ("once for 2 runs, x", "one for each run")),
    "compare_with_many_labels": (["compare", "a", "b", *["--label", "x"] * 3], ("3 times for 2 runs", "or none")),
    "compare_with_equal_labels": (["compare", "a", "b", *["--label", "x"] * 2], ("alike, x, x", "give each run its")),
    "compare_into_another_format": (["compare", "a", "b", "--report", "c.pdf"], ("c.pdf does not end in .html",)),
    "compare_into_no_folder": (["compare", "a", "b", "--report", "none/c.html"], ("none/c.html", "does not exist")),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments_are_refused_with_value_and_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("study.yaml").write_text(GOOD)
    Path("there.parquet").write_bytes(b"mine")
    csv(table())()
    csv("x,y\n1,2\n", "nodate.csv")()
    csv("date,word\n2020-01-01,calm\n", "words.csv")()
    arguments, expected = ARGUMENTS[name]
    message = refused(arguments, tmp_path, capsys)
    for part in expected:
        assert part in message


@pytest.mark.parametrize("name", ["yaml_bomb", "yaml_python_tag", "five_mistakes_at_once"])
def test_a_real_process_answers_the_same(name: str, tmp_path: Path) -> None:
    file = next(file for file in STUDIES if file.stem == name)
    shutil.copy(file, tmp_path / "study.yaml")
    before = listing(tmp_path)
    command = [sys.executable, "-m", "ssmfin_pipelines.cli", "validate", "study.yaml"]
    # Messages do not depend on the locale: what a C locale cannot print must not become a traceback.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == before
