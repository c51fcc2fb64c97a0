"""Damaged and empty parquet files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.errors import InputError


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    file = tmp_path / "whole.parquet"
    pl.DataFrame(
        {"unique_id": ["a"] * 3, "ds": ["2020-01-01", "2020-01-02", "2020-01-03"], "rv": [1.0, 2, 3]}
    ).write_parquet(file)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "is empty, 0 bytes"),
        (lambda raw: raw[:-7], "truncated"),
        (lambda raw: raw[: len(raw) // 2], "truncated"),
        (lambda raw: b"unique_id,ds,rv\n", "not a parquet file.*kind: csv"),
        (lambda raw: b"PAR1PAR1", "damaged"),
        (lambda raw: b"PAR1" + b"\xff" * (len(raw) - 8) + b"PAR1", "damaged"),
        (lambda raw: raw[:4] + raw[40:], "damaged"),
    ],
)
def test_damaged_file_is_refused_by_name(tmp_path: Path, whole: bytes, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "rv.parquet"
    file.write_bytes(damage(whole))
    with pytest.raises(InputError, match=r"rv\.parquet.*" + message):
        load_panel(file)


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rv.parquet"
    pl.DataFrame(schema={"unique_id": pl.String, "ds": pl.Date, "rv": pl.Float64}).write_parquet(file)
    with pytest.raises(InputError, match="has no rows"):
        load_panel(file)


def test_types_of_ids_and_numbers_are_brought_to_ours(tmp_path: Path) -> None:
    file = tmp_path / "rv.parquet"
    frame = pl.DataFrame(
        {"unique_id": [600519, 600519, 7], "ds": ["2020-01-01", "2020-01-02", "2020-01-01"], "n": [1, 2, 3]}
    )
    frame = frame.with_columns(
        pl.col("ds").str.to_datetime().dt.cast_time_unit("ns"),
        small=pl.Series([1.5, 2.5, 3.5], dtype=pl.Float32),
        up=pl.Series([True, False, True]),
    )
    frame.with_columns(
        sector=pl.Series(["x", "x", "y"], dtype=pl.Categorical), at=pl.col("ds").dt.time()
    ).write_parquet(file)
    panel = load_panel(file)
    assert panel.frame.schema == {"unique_id": pl.String, "ds": pl.Date} | dict.fromkeys(
        ["n", "small", "up"], pl.Float64
    )
    assert panel.ids == ("600519", "7")
    assert set(panel.notes["left_out_columns"]) == {"sector", "at"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_within_is_an_input_error_or_other_values_and_prints_nothing(
    tmp_path: Path, whole: bytes, capfd: pytest.CaptureFixture[str], damage: list[tuple[float, int]]
) -> None:
    raw = bytearray(whole)
    for place, byte in damage:
        raw[4 + int(place * (len(raw) - 9))] = byte
    file = tmp_path / "rv.parquet"
    file.write_bytes(bytes(raw))
    said = ""
    try:
        panel = load_panel(file, target="rv", positive=True)
    except InputError as error:
        said = str(error)
    assert "rv.parquet" in said or panel.frame.height > 0
    assert capfd.readouterr().err == ""
