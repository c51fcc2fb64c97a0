"""`ssmfin measures`: one command from bars to a panel and a page; mistakes end with 2 and a sentence."""

import datetime

import numpy as np
import polars as pl
import pytest

from ssmfin_pipelines.cli import main


@pytest.fixture
def bars(tmp_path, monkeypatch):
    monkeypatch.setenv("SSMFIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    (tmp_path / "bars").mkdir()
    for name in ("AA", "BB"):
        parts = []
        for k in range(3):
            start = datetime.datetime(2020, 1, 6, 9, 30) + datetime.timedelta(days=k)
            price = 100 * np.exp(np.cumsum(5e-4 * generator.standard_normal(390)))
            stamps = [start + datetime.timedelta(minutes=i) for i in range(390)]
            parts.append(pl.DataFrame({"time": stamps, "last_price": price}))
        pl.concat(parts).write_parquet(tmp_path / "bars" / f"{name}.parquet")
    return tmp_path


def test_a_folder_of_bars_becomes_a_panel_and_a_page(bars, capsys):
    arguments = ["measures", "bars", "-o", "rv.parquet", "--calendar", "XNYS", "--column", "close=last_price"]
    assert main([*arguments, "--estimators", "rv,bv", "--quality", "quality.html", "--set", "max_gap=1h"]) == 0
    out = capsys.readouterr().out
    assert "rv.parquet: 6 sessions of 2 ids, 6 usable; open, close, log_return, overnight_variance, rv, bv" in out
    frame = pl.read_parquet(bars / "rv.parquet")
    assert frame["unique_id"].to_list() == ["AA"] * 3 + ["BB"] * 3
    assert (bars / "quality.html").read_text("utf-8").startswith("<!doctype html>")
    assert len(list((bars / "cache").iterdir())) == 1
    assert main(arguments) == 2
    assert "rv.parquet exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bars", "--calendar", "XNYX"], "no exchange that we know"),
        (["bars", "--calendar", "XNYS"], "no price; map one"),
        (["nowhere", "--calendar", "XNYS"], "says neither parquet nor csv"),
        (["bars", "--calendar", "XNYS", "--set", "sampling=1min"], "use --sampling"),
        (["bars", "--calendar", "XNYS", "--set", "max_gaps=1h"], "did you mean 'max_gap'"),
        (["bars", "--calendar", "XNYS", "--column", "close"], "not of the form NAME=VALUE"),
        (["bars", "--calendar", "XNYS", "--column", "close=last_price", "--estimators", "rvx"], "estimators"),
    ],
)
def test_mistakes_are_said_in_words(bars, capsys, arguments, message):
    assert main(["measures", *arguments, "-o", "rv.parquet"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not (bars / "rv.parquet").exists()
