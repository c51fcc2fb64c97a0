"""`ssmfin init`: what it makes of a file's columns, and that what it writes is a study that fits the file and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.cli import main
from ssmfin_pipelines.study import study_from
from ssmfin_pipelines.study.looking import embedded_facts, look_at
from ssmfin_pipelines.study.starter import settle, starter_text
from ssmfin_pipelines.study.tree import parse

DAYS = pl.date_range(pl.date(2015, 1, 1), pl.date(2019, 12, 31), eager=True)
VALUES = [1e-4 * (1 + index * 37 % 23) for index in range(len(DAYS))]


def written(path: Path) -> dict[str, object]:
    text, study, _ = settle(look_at(path))
    values = parse(text, "study.yaml").value
    assert study_from(values) == study
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


RNG = np.random.default_rng(0)
N = 300
WEEKDAYS = [day for day in DAYS if day.weekday() < 5][:N]
CLOSE = 100.0 * np.exp(np.cumsum(0.01 * RNG.standard_normal(N)))
VARIANCE = 1e-4 * np.exp(0.5 * RNG.standard_normal(N))


def prices(rows: int = N) -> dict[str, object]:
    swing = np.exp(0.01 + 0.01 * RNG.random(rows))
    close = CLOSE[:rows]
    return {"Open": close, "High": close * swing, "Low": close / swing, "Close": close, "Volume": 1_000.0}


def ohlc_with_defects(folder: Path) -> Path:
    frame = pl.DataFrame({"Date": WEEKDAYS, **prices()})
    flat = (pl.int_range(N) % 150 == 7).fill_null(False)
    frame.with_columns(
        High=pl.when(flat).then("Close").otherwise("High"), Low=pl.when(flat).then("Close").otherwise("Low")
    ).write_csv(folder / "spy.csv")
    return folder / "spy.csv"


def realized_variance(folder: Path) -> Path:
    frame = pl.DataFrame(
        {"symbol": ["a"] * N, "date": WEEKDAYS, "rv": VARIANCE, "ret": np.diff(np.log(CLOSE), prepend=4.6)}
    )
    frame.write_csv(folder / "rv.csv")
    return folder / "rv.csv"


def returns_alone(folder: Path) -> Path:
    returns = np.diff(np.log(CLOSE), prepend=np.log(100.0))
    pl.DataFrame({"day": WEEKDAYS, "log_ret": returns}).write_csv(folder / "ret.csv")
    return folder / "ret.csv"


def hours(folder: Path) -> Path:
    start = pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 13, 11), "1h", eager=True)
    pl.DataFrame({"timestamp": start, **prices(len(start))}).write_parquet(folder / "hour.parquet")
    return folder / "hour.parquet"


def german(folder: Path) -> Path:
    rows = [
        f"{day:%d.%m.%Y};{close:.2f};{value:.9f}".replace(".", ",").replace(",", ".", 2)
        for day, close, value in zip(WEEKDAYS, CLOSE, VARIANCE, strict=True)
    ]
    (folder / "kurse.csv").write_text("Datum;Kurs;RV\n" + "\n".join(rows) + "\n")
    return folder / "kurse.csv"


@pytest.mark.parametrize(
    "make, target, transform, reference",
    [
        (ohlc_with_defects, "parkinson", "log", "log_har"),
        (realized_variance, "rv", "log", "log_har"),
        (returns_alone, "log_ret", "none", "zero"),
        (hours, "parkinson", "log", "log_har"),
        (german, "RV", "log", "log_har"),
    ],
)
def test_files_of_five_shapes_give_studies_that_run(
    make: Callable[[Path], Path],
    target: str,
    transform: str,
    reference: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = make(tmp_path)
    assert main(["init", file.name]) == 0
    values = parse((tmp_path / "study.yaml").read_text(), "study.yaml").value
    assert (values["target"]["column"], values["target"]["transform"]) == (target, transform)
    assert values["evaluate"]["reference"] == reference
    quick = ("models.s4d.epochs=1", "benchmarks.lightgbm.max_rounds=5", "walk_forward.test.size=120")
    sets = [part for item in (*quick, "execution.backend=inline", "output.report=none") for part in ("--set", item)]
    assert main(["validate", "study.yaml", "--data"]) == 0
    assert main(["run", "study.yaml", *sets]) == 0
    (board,) = (tmp_path / "runs").glob("*/leaderboard.parquet")
    assert reference in pl.read_parquet(board)["model"].to_list()


def test_rows_that_breach_the_contract_are_left_out_and_counted(tmp_path: Path) -> None:
    text, study, _ = settle(look_at(ohlc_with_defects(tmp_path)))
    assert study.data.on_breach == "drop"
    assert "#   parkinson is not positive and a log is taken of it: 2 rows" in text


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%d-%b-%Y", "%Y/%m/%d"])
def test_dates_are_read_as_they_are_written(form: str, tmp_path: Path) -> None:
    lines = [f"{day:{form}},{value}" for day, value in zip(WEEKDAYS, VARIANCE, strict=True)]
    (tmp_path / "x.csv").write_text("Tag,rv\n" + "\n".join(lines) + "\n")
    values = written(tmp_path / "x.csv")
    assert values["data"]["date_format"] == form  # type: ignore[index]


def test_day_and_month_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("date,rv\n01/01/2020,1.0\n02/02/2020,1.0\n03/03/2020,2.0\n")
    with pytest.raises(
        InputError,
        match=r"3 rows, too few .* Besides, .* more than one way, '01/01/2020'; say which with --date-format "
        r"'%d/%m/%Y' \(2020-01-01\) or --date-format '%m/%d/%Y' \(2020-01-01\) \(data.date_format of a study\), or",
    ):
        look_at(tmp_path / "x.csv")


def test_the_whole_column_tells_day_from_month(tmp_path: Path) -> None:
    early = ["01/02/2020", "02/01/2020", "03/03/2020"] * 900  # neither order of time nor a field above 12
    (tmp_path / "x.csv").write_text("date,rv\n" + "".join(f"{day},1.0\n" for day in [*early, "12/31/2020"]))
    assert look_at(tmp_path / "x.csv").date_format == "%m/%d/%Y"


def test_a_date_format_that_is_given_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    years = range(1920, 2020)  # one row a year: in order of time either way
    rows = "".join(f"05/03/{year},{value}\n" for year, value in zip(years, VALUES, strict=False))
    (tmp_path / "x.csv").write_text("date,rv\n" + rows)
    command = ["init", str(tmp_path / "x.csv"), "-o", str(tmp_path / "s.yaml"), "--force"]
    assert main(command) == 2
    assert "--date-format '%d/%m/%Y' (1920-03-05) or --date-format '%m/%d/%Y' (1920-05-03)" in capsys.readouterr().err
    for form, first in (("%d/%m/%Y", "1920-03-05"), ("%m/%d/%Y", "1920-05-03")):
        assert main([*command, "--date-format", form]) == 0
        assert f'  date_format: "{form}"  # 05/03/1920 is {first}\n' in (tmp_path / "s.yaml").read_text()
    capsys.readouterr()
    assert main(["init", str(tmp_path / "x.csv"), "-o", str(tmp_path / "n.yaml"), "--date-format", "%Y"]) == 2
    assert "has no column that --date-format '%Y' reads" in capsys.readouterr().err
    assert not (tmp_path / "n.yaml").exists()


@pytest.mark.parametrize("row", ["2000-01-03", "01/03/2000"])
def test_a_file_of_one_row_is_told_to_be_too_short(row: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"date,rv\n{row},1.0\n")
    with pytest.raises(InputError, match=r"has 1 (row|date), too few for a study; give at least 60 dates"):
        settle(look_at(tmp_path / "x.csv"))


def test_prices_alone_are_no_target(tmp_path: Path) -> None:
    pl.DataFrame({"date": DAYS, "Adj Close": VALUES, "volume": VALUES}).write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"has prices, .* neither high and low, nor a variance, nor returns; add one"):
        look_at(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "names",
    [
        ("Eröffnung", "Hoch", "Tief", "Schluss"),
        ("PX_OPEN", "PX_HIGH", "PX_LOW", "PX_LAST"),
        ("Open", "High", "Low", "Close/Last"),
        ("EROEFFNUNG", "Höchstkurs", "Tiefstkurs", "Schlusskurs"),
    ],
)
def test_prices_under_other_names_become_a_range_variance(names: tuple[str, ...], tmp_path: Path) -> None:
    ours = ("open", "high", "low", "close")
    columns = dict(zip(names, (prices()[name.title()] for name in ours), strict=True))
    pl.DataFrame({"Datum": WEEKDAYS, **columns}).write_csv(tmp_path / "dax.csv", separator=";")
    values = written(tmp_path / "dax.csv")
    assert values["data"]["columns"] == {"ds": "Datum", **dict(zip(ours, names, strict=True))}  # type: ignore[index]
    assert values["target"]["column"] == "parkinson"  # type: ignore[index]


def test_an_adjusted_close_outside_of_high_and_low_is_not_the_close(tmp_path: Path) -> None:
    frame = pl.DataFrame({"Date": WEEKDAYS, **prices()}).rename({"Close": "Adj Close"})
    frame.write_csv(tmp_path / "x.csv")
    assert look_at(tmp_path / "x.csv").columns["close"] == "Adj Close"
    frame.with_columns(pl.col("Adj Close") * 0.7).write_csv(tmp_path / "x.csv")
    facts = look_at(tmp_path / "x.csv")
    assert facts.target == "parkinson"
    assert "close" not in facts.columns


def test_a_column_that_moves_like_a_price_is_no_target(tmp_path: Path) -> None:
    frame = pl.DataFrame({"date": WEEKDAYS, "DAX": CLOSE})
    frame.write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"column 'DAX' looks like a price, not a variance, .* `high` and `low`"):
        look_at(tmp_path / "x.csv")
    frame.with_columns(quantity=pl.Series(VARIANCE)).write_csv(tmp_path / "x.csv")
    assert look_at(tmp_path / "x.csv").target == "quantity"


def test_validate_and_run_warn_of_a_log_of_prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text, *_ = settle(look_at(realized_variance(tmp_path)))
    pl.DataFrame({"symbol": ["a"] * N, "date": WEEKDAYS, "rv": VARIANCE, "kurs": CLOSE, "ret": 0.01}).write_csv(
        tmp_path / "rv.csv"
    )
    (tmp_path / "study.yaml").write_text(text)
    warning = "warning: target.column 'kurs' looks like a price, not a variance"
    assert main(["validate", "study.yaml", "--data"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(["validate", "study.yaml", "--data", "--set", "target.column=kurs"]) == 0
    assert warning in capsys.readouterr().out
    quick = ("models.s4d.epochs=1", "benchmarks.lightgbm.max_rounds=5", "walk_forward.test.size=120")
    settings = ("target.column=kurs", *quick, "execution.backend=inline", "output.report=none")
    sets = [part for item in settings for part in ("--set", item)]
    assert main(["run", "study.yaml", *sets]) == 0
    assert capsys.readouterr().err.count(warning) == 1


def test_a_few_dates_are_too_few(tmp_path: Path) -> None:
    pl.DataFrame({"date": DAYS[:50], "rv": VALUES[:50]}).write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="has 50 dates, too few"):
        settle(look_at(tmp_path / "x.csv"))


def test_the_schema_is_written_beside_the_study_for_the_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", realized_variance(tmp_path).name, "--schema"]) == 0
    assert "# yaml-language-server: $schema=study.schema.json" in (tmp_path / "study.yaml").read_text().splitlines()
    assert json.loads((tmp_path / "study.schema.json").read_text())["title"] == "ssmfin study"
    assert main(["init", "rv.csv", "-o", "other.yaml"]) == 0
    assert not any(line.startswith("# yaml-language") for line in (tmp_path / "other.yaml").read_text().splitlines())
    assert (
        main(["init", "rv.csv", "-o", "third.yaml", "--schema"]) == 2
    )  # the schema is there: not over another unasked


def three_series(column: str, names: tuple[object, ...] = (".GDAXI", ".FTSE", ".SPX")) -> pl.DataFrame:
    return pl.concat([pl.DataFrame({"Date": WEEKDAYS, column: [name] * N, "RV": VARIANCE}) for name in names])


@pytest.mark.parametrize("column", ["Index", "market", "ISIN", "code", "Wert"])
@pytest.mark.parametrize("by_date", [False, True])
@pytest.mark.parametrize("names", [(".GDAXI", ".FTSE", ".SPX"), (101, 7, 33)])
def test_a_column_that_names_series_is_the_id(
    column: str, by_date: bool, names: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known by its name, or by its values alone: few of them, and no two rows of one date have the same."""
    frame = three_series(column, names)
    (frame.sort("Date", maintain_order=True) if by_date else frame).write_csv(tmp_path / "x.csv")
    study = tmp_path / "s.yaml"
    assert main(["init", str(tmp_path / "x.csv"), "-o", str(study)]) == 0
    guessed = ", by its values; if that is wrong: --id COLUMN --force" if column == "Wert" else ""
    assert f"3 series, named by column {column}{guessed}\n" in capsys.readouterr().err
    assert f"unique_id: {column}}}" in study.read_text()
    assert ("found by its values" in study.read_text()) == bool(guessed)
    assert "on_breach" not in study.read_text()
    assert main(["validate", str(study), "--data"]) == 0
    assert f"data: {3 * N:,} rows, 3 ids, {N:,} dates" in capsys.readouterr().out


def test_columns_that_name_no_series_are_no_ids(tmp_path: Path) -> None:
    """A row number called Index or id, trade counts, and states beside dates that are unique already."""
    frame = pl.DataFrame({"Date": WEEKDAYS, "RV": VARIANCE}).with_columns(
        pl.int_range(N).alias("Index"), pl.int_range(N).alias("id"), code=pl.int_range(N) % 5, state=pl.lit("open")
    )
    frame.write_csv(tmp_path / "x.csv")
    assert look_at(tmp_path / "x.csv").ids == 1
    for other in ({"hour": [9, 10]}, {"clock": ["09:30", "16:00"]}, {"trades": range(60)}):
        ((name, values),) = other.items()
        column = [list(values)[(row * 7 + late * 31) % len(values)] for late in (0, 1) for row in range(N)]
        pl.concat([frame.drop("Index", "id", "code", "state")] * 2).with_columns(
            pl.Series(name, column), VARIANCE=pl.int_range(2 * N)
        ).write_csv(tmp_path / "y.csv")
        with pytest.raises(InputError, match=r"dates start over 1 time in the file, 300 of 600 rows repeat the date"):
            look_at(tmp_path / "y.csv")


def test_the_id_column_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = three_series("Wert").with_columns(Land=pl.lit("x") + pl.col("Wert"))
    frame.write_csv(tmp_path / "x.csv")
    command = ["init", str(tmp_path / "x.csv"), "-o", str(tmp_path / "s.yaml"), "--force"]
    assert main([*command, "--id", "Land"]) == 0
    assert "unique_id: Land}" in (tmp_path / "s.yaml").read_text()
    capsys.readouterr()
    for name, message in (
        ("Lant", "--id is 'Lant', which is no column of"),
        ("Date", "--id is 'Date', which holds the dates of"),
        ("RV", "600 of 900 rows repeat the date of another row of the same 'RV'; keep one row for each date, or if"),
    ):
        assert main([*command, "--id", name]) == 2
        assert message in capsys.readouterr().err


def test_dates_that_repeat_without_an_id_column_are_refused(tmp_path: Path) -> None:
    """Dropping what repeats would throw away nearly all rows, or choose between rows nobody can choose between."""
    frame = three_series("Wert").drop("Wert").with_columns(other=pl.int_range(3 * N) * 0.5)
    remedy = r"if a column names the series, give it: --id NAME \(columns: RV, other\)"
    frame.write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match=rf"dates start over 2 times in the file, 600 of 900 rows .*; {remedy}"):
        look_at(tmp_path / "x.csv")
    frame.sort("Date").write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match=rf"x.csv: 600 of 900 rows repeat the date of another row; {remedy}"):
        look_at(tmp_path / "x.csv")
    one = pl.concat([frame.head(N), frame.slice(5, 1)])
    one.sort("Date").write_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="repeat the date"):
        look_at(tmp_path / "x.csv")


def test_many_rows_that_breach_the_contract_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["init", str(tmp_path / "x.csv"), "-o", str(tmp_path / "s.yaml")]
    frame = three_series("symbol")
    rows = pl.int_range(3 * N)
    frame.with_columns(RV=pl.when(rows % 9 == 4).then(float("nan")).otherwise("RV")).write_csv(tmp_path / "x.csv")
    assert main(command) == 2
    assert (
        "100 of 900 rows cannot be used, too many to leave out (RV is the target and is missing (NaN): 100 rows); "
        "correct or delete them in the file." in capsys.readouterr().err
    )
    assert not (tmp_path / "s.yaml").exists()
    frame.with_columns(RV=pl.when(rows % 20 == 4).then(float("nan")).otherwise("RV")).write_csv(tmp_path / "x.csv")
    assert main(command) == 0
    assert (
        "45 of 900 rows are left out (on_breach: drop): RV is the target and is missing (NaN): 45 rows"
        in capsys.readouterr().err
    )
