"""A message names a setting as its reader writes it: a keyword of `load_panel`, or a key of the study."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from ruamel.yaml import YAML

import ssmfin as sf
from ssmfin.data.wording import Wording
from ssmfin.errors import InputError

VALUES = [
    {"time": "16:00", "zone": "America/New_York"},
    {"kind": "range", "estimators": ["parkinson", "yang_zhang"]},
    {"ds": "Trade Date", "unique_id": "on"},
    {"column": "NO", "zone": "Europe/London"},
    {"ds": "2020-01-02", "x": 'a "b": c', "y": "3", "z": "- é"},
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_said_can_be_pasted(value) -> None:
    """Into a call of Python's, and under a key of YAML's (1.1 and 1.2)."""
    assert eval(f"dict({Wording()('closes', value)})") == {"closes": value}
    for version in ((1, 2), (1, 1)):
        yaml = YAML(typ="safe", pure=True)
        yaml.version = version
        assert yaml.load(Wording(study=True).entry("closes", value)) == {"closes": value}


BROKEN = pl.DataFrame(
    {
        "unique_id": ["a"] * 3,
        "ds": [dt.date(2020, 1, day) for day in (1, 2, 3)],
        "rv": [1e-4, 0.0, 2e-4],
    }
)


def test_the_same_breach_is_told_to_a_caller_and_to_a_study_in_their_own_words(tmp_path) -> None:
    path = tmp_path / "rv.parquet"
    BROKEN.write_parquet(path)
    with pytest.raises(InputError) as called:
        sf.load_panel(path, target="rv", positive=True)
    with pytest.raises(InputError) as in_study:
        sf.DataSpec(source={"kind": "parquet", "path": str(path)}).load(target="rv", positive=True)
    assert 'leave those rows out with on_breach="drop".' in str(called.value)
    assert "correct the values, or use positive=False:" in str(called.value)
    assert "data." not in str(called.value).replace(str(path), "")
    assert "leave those rows out with data.on_breach: drop." in str(in_study.value)
    assert "correct the values, or use target.transform: none:" in str(in_study.value)
    assert "=" not in str(in_study.value)


@pytest.mark.parametrize(
    "settings, python, study",
    [
        ({"ids": ["b"]}, "correct ids.", "correct data.ids."),
        ({"start": "2030-01-01"}, "correct start and end.", "correct data.start and data.end."),
        ({"columns": {"rv": "variance"}}, "correct columns,", "correct data.columns,"),
        (
            {"exogenous": [{"name": "x", "source": {"kind": "parquet"}, "known_at": {"time": "18:00", "zone": "UTC"}}]},
            'set closes={"time": "16:00", "zone": "America/New_York"}',
            'set data.closes: {time: "16:00", zone: America/New_York}',
        ),
    ],
)
def test_settings_are_named_for_their_reader(settings, python, study, tmp_path) -> None:
    path = tmp_path / "rv.parquet"
    BROKEN.with_columns(rv=1e-4).write_parquet(path)
    for entry in settings.get("exogenous", []):
        entry["source"]["path"] = str(path)
    with pytest.raises(InputError) as called:
        sf.load_panel(path, **settings)
    with pytest.raises(InputError) as in_study:
        sf.DataSpec(source={"kind": "parquet", "path": str(path)}, **settings).load()
    assert python in str(called.value)
    assert study in str(in_study.value)
