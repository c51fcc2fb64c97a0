"""What every file source answers about paths, whichever its format."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from ssmfin.data.loading import load_panel
from ssmfin.data.sources import CsvSource, ParquetSource
from ssmfin.data.sources.files import stem
from ssmfin.errors import InputError


def write(path: Path, name: str, values: list[float], first: str = "2020-01-01") -> None:
    ds = pl.date_range(
        pl.lit(first).str.to_date(), pl.lit(first).str.to_date() + pl.duration(days=len(values) - 1), eager=True
    )
    frame = pl.DataFrame({"unique_id": [name] * len(values), "ds": ds, "rv": values})
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(["b", "a", "c"]):
        write(tmp_path / f"{name}.parquet", name, [1.0 + k, 2.0, 3.0])
        write(tmp_path / f"{name}.csv", name, [1.0 + k, 2.0, 3.0])
    return tmp_path


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_order_and_repetition_of_paths_do_not_matter(folder: Path, kind: str) -> None:
    paths = [str(folder / f"{name}.{kind}") for name in "cab"]
    panels = [
        load_panel({"kind": kind, "path": path})
        for path in (paths, paths[::-1], [*paths, paths[0]], f"{folder}/*.{kind}", [f"{folder}/[ab].{kind}", paths[0]])
    ]
    assert len({panel.fingerprint() for panel in panels}) == 1
    assert panels[0].ids == ("a", "b", "c")


def test_csv_and_parquet_of_the_same_values_give_the_same_panel(folder: Path) -> None:
    assert load_panel(f"{folder}/*.csv").fingerprint() == load_panel(f"{folder}/*.parquet").fingerprint()


def test_nested_glob_finds_files_of_any_depth(folder: Path) -> None:
    deep = folder / "x" / "y"
    deep.mkdir(parents=True)
    write(deep / "d.parquet", "d", [1.0, 2.0])
    assert load_panel(f"{folder}/**/*.parquet").ids == ("a", "b", "c", "d")


def test_file_name_with_glob_characters_is_taken_literally(tmp_path: Path) -> None:
    write(tmp_path / "rv[1].parquet", "a", [1.0, 2.0])
    assert load_panel(tmp_path / "rv[1].parquet").ids == ("a",)


def test_id_from_filename_keeps_dots_and_drops_format_endings(tmp_path: Path) -> None:
    for name in ("BRK.B", "007"):
        (tmp_path / f"{name}.csv").write_text("ds,rv\n2020-01-01,1\n2020-01-02,2\n")
    panel = load_panel({"kind": "csv", "path": f"{tmp_path}/*.csv", "id_from_filename": True})
    assert panel.ids == ("007", "BRK.B")
    assert stem(Path("x/ES.parquet")) == "ES"


def test_one_single_series_without_an_id_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "spx.csv").write_text("ds,rv\n2020-01-01,1\n2020-01-02,2\n")
    assert load_panel(tmp_path / "spx.csv").ids == ("spx",)


def test_a_missing_file_is_not_taken_for_another_of_the_same_ending(tmp_path: Path) -> None:
    (tmp_path / "bin.csv").write_text("date,rv\n2020-01-01,1\n")
    for name, close in (("missing.csv", False), ("bin.csw", True), ("bins.csv", True)):
        with pytest.raises(InputError) as caught:
            load_panel({"kind": "csv", "path": str(tmp_path / name)})
        assert str(caught.value).endswith("did you mean 'bin.csv'?" if close else "check the name.")


def test_nothing_is_opened_before_the_rows_are_asked_for() -> None:
    source = ParquetSource(path="nowhere/at/all.parquet")
    assert source.describe() == "nowhere/at/all.parquet"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{d}/missing.csv", ["missing.csv does not exist", "check the name"]),
        ("{d}/a.csw", ["a.csw does not exist", "did you mean 'a.csv'?"]),
        ("{d}/no/such/a.csv", ["does not exist", "neither does its directory"]),
        ("{d}", ["is a directory", "*.parquet"]),
        ("{d}/*.feather", ["matches no files", "check the directory"]),
        ("{d}/d*", ["matches 1 directories"]),
        ("https://example.com/rv.csv", ["is an address", "download"]),
        ("", ["is empty", "give a path"]),
        ("{d}/link.csv", ["is a link to", "where there is nothing"]),
        ("a\0b.csv", ["null byte"]),
        ("x" * 5000 + ".csv", ["cannot be looked up"]),
        ("~nobody_of_that_name/a.csv", ["cannot be looked up"]),
    ],
)
def test_path_that_names_no_file_is_refused_with_its_remedy(folder: Path, path: str, words: list[str]) -> None:
    (folder / "dir").mkdir()
    (folder / "link.csv").symlink_to(folder / "gone.csv")
    with pytest.raises(InputError) as caught:
        load_panel({"kind": "csv", "path": path.format(d=folder)})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device files here")
def test_device_is_refused_instead_of_read_forever() -> None:
    with pytest.raises(InputError, match="not a regular file"):
        load_panel({"kind": "csv", "path": "/dev/zero"})


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "a", [1.0, 2.0])
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(InputError, match=r"a\.csv cannot be read"):
        load_panel(tmp_path / "a.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_with_different_columns_are_not_stacked(folder: Path, kind: str) -> None:
    frame = pl.DataFrame({"unique_id": ["d", "d"], "ds": ["2020-01-01", "2020-01-02"], "variance": [1.0, 2.0]})
    file = folder / f"d.{kind}"
    frame.write_parquet(file) if kind == "parquet" else frame.write_csv(file)
    with pytest.raises(InputError, match=r"d\.\w+ has other columns than .*without \['rv'\] and with \['variance'\]"):
        load_panel(f"{folder}/*.{kind}")


def test_read_stacks_the_stored_columns(folder: Path) -> None:
    assert CsvSource(path=f"{folder}/*.csv").read().schema == dict.fromkeys(["unique_id", "ds", "rv"], pl.String)
    assert ParquetSource(path=f"{folder}/*.parquet").read().shape == (9, 3)
