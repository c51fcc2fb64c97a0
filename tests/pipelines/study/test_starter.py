"""`ssmfin init`: what it makes of a file's columns, and that what it writes is a study that fits the file."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.study import study_from
from ssmfin_pipelines.study.starter import embedded_facts, look_at, starter_text
from ssmfin_pipelines.study.tree import parse

DAYS = pl.date_range(pl.date(2015, 1, 1), pl.date(2019, 12, 31), eager=True)
VALUES = [1e-4 * (1 + index * 37 % 23) for index in range(len(DAYS))]


def written(path: Path) -> dict[str, object]:
    values = parse(starter_text(look_at(path)), "study.yaml").value
    study = study_from(values)
    study.experiment(study.load()).tasks()
    return dict(values)


def test_a_long_panel_is_recognised(tmp_path: Path) -> None:
    frame = pl.concat(
        [
            pl.DataFrame({"symbol": [name] * len(DAYS), "date": DAYS, "ret": VALUES, "rv5": VALUES})
            for name in ("NO", ".SPX")
        ]
    )
    frame.write_parquet(tmp_path / "my panel.parquet")
    values = written(tmp_path / "my panel.parquet")
    assert values["name"] == "my-panel"
    assert values["data"]["columns"] == {"ds": "date", "unique_id": "symbol"}  # type: ignore[index]
    assert values["target"]["column"] == "rv5"  # type: ignore[index]
    assert values["target"]["transform"] == "log"  # type: ignore[index]


def test_prices_become_a_range_variance(tmp_path: Path) -> None:
    pl.DataFrame({"Date": DAYS, "Open": 1.0, "High": 2.0, "Low": VALUES, "Close": 1.5, "Volume": 5}).write_csv(
        tmp_path / "spy.csv"
    )
    values = written(tmp_path / "spy.csv")
    assert values["data"]["measures"] == {"kind": "range", "estimators": ["parkinson"]}  # type: ignore[index]
    assert values["target"]["column"] == "parkinson"  # type: ignore[index]


def test_semicolons_and_decimal_commas_are_recognised(tmp_path: Path) -> None:
    rows = "".join(
        f"{day};{str(value).replace('.', ',')}\n" for day, value in zip(DAYS, [1.5, 2.25] * 913, strict=True)
    )
    (tmp_path / "rv.csv").write_text("date;rv\n" + rows)
    values = written(tmp_path / "rv.csv")
    assert values["data"]["source"]["delimiter"] == ";"  # type: ignore[index]
    assert values["data"]["source"]["decimal"] == ","  # type: ignore[index]


def test_values_without_a_logarithm_are_not_given_one(tmp_path: Path) -> None:
    pl.DataFrame({"date": DAYS, "spread": [value - 1e-3 for value in VALUES]}).write_csv(tmp_path / "s.csv")
    values = written(tmp_path / "s.csv")
    assert values["target"]["transform"] == "none"  # type: ignore[index]
    assert "qlike" not in values["evaluate"]["losses"]  # type: ignore[index]


@pytest.mark.parametrize("count", [60, 150, 400, 1499, 1500])
def test_windows_fit_the_number_of_dates(count: int, tmp_path: Path) -> None:
    pl.DataFrame({"date": DAYS[:count], "rv": VALUES[:count]}).write_csv(tmp_path / "rv.csv")
    written(tmp_path / "rv.csv")


def test_names_that_yaml_would_misread_are_quoted(tmp_path: Path) -> None:
    pl.DataFrame({"date": DAYS, "yes: no # 1e3": VALUES}).write_parquet(tmp_path / "1.parquet")
    values = written(tmp_path / "1.parquet")
    assert values["target"]["column"] == "yes: no # 1e3"  # type: ignore[index]


def test_the_embedded_study_is_valid() -> None:
    assert study_from(parse(starter_text(embedded_facts()), "study.yaml").value).name == "sp500-volatility"


def test_a_file_without_a_date_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1.0], "y": [2.0]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="looks like a date"):
        look_at(tmp_path / "x.parquet")
