"""Reading a study: every mistake in one message, in the order of the file, each with its line."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.errors import InputError
from ssmfin_pipelines.study import read_study, study_from

BASE = """\
name: base
data:
  source: {kind: arch, series: [sp500]}
  measures: {kind: range}
target: {column: parkinson}
"""


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_all_mistakes_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = BASE + (
        "seed: x\n"
        "walk_forward: {tset: {size: 21}}\n"
        "models:\n"
        "  one: {kind: s4d, contxt: 1, features: [nope]}\n"
        "  two: {kind: s4x}\n"
        "  three: {kind: s4d, features: [hra]}\n"
        "evaluate: {reference: loghar}\n"
    )
    with pytest.raises(InputError) as caught:
        read_study(write(tmp_path, text), ["execution.workers=0"])
    lines = str(caught.value).split("\n")
    assert "is wrong in 8 places" in lines[0]
    assert [line.partition(", line ")[2].partition(":")[0] for line in lines[1:-1]] == [
        "6",
        "7",
        "9",
        "9",
        "10",
        "11",
        "12",
    ]
    assert lines[-1].strip().startswith("--set execution.workers=0: execution.workers is 0;")


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "seed: -1\n")
    with pytest.raises(InputError) as caught:
        read_study(path)
    assert str(caught.value) == f"{path}, line 6: seed is -1; give at least 0."


def test_tickers_that_look_like_words_stay_tickers(tmp_path: Path) -> None:
    text = BASE.replace(
        "{kind: arch, series: [sp500]}", "{kind: csv, path: x.csv}\n  ids: [NO, ON, TRUE_, 'null', 000001, 600519]"
    )
    assert read_study(write(tmp_path, text)).data.ids == ("NO", "ON", "TRUE_", "null", "000001", "600519")


def test_relative_paths_are_looked_for_here_then_beside_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "here").mkdir()
    text = BASE.replace("{kind: arch, series: [sp500]}", "{kind: csv, path: rv.csv}").replace(
        "  measures: {kind: range}\n", ""
    )
    study = write(tmp_path / "configs", text)
    monkeypatch.chdir(tmp_path / "here")

    def paths(study: Path) -> tuple[str, ...]:
        return read_study(study).data.source.path  # type: ignore[union-attr]

    assert paths(study) == ("rv.csv",)  # in neither place: the message shall name what the user wrote
    write(tmp_path / "configs", "ds,rv\n", "rv.csv")
    assert paths(Path("../configs/study.yaml")) == ("../configs/rv.csv",)
    write(tmp_path / "here", "ds,rv\n", "rv.csv")
    assert paths(study) == ("rv.csv",)


def test_a_class_is_imported_only_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, "from sklearn.linear_model import Ridge as Mine\nimported = True\n", "module_of_a_user.py")
    path = write(tmp_path, BASE + 'models: {mine: {kind: "module_of_a_user:Mine", alpha: 0.5}}\n')
    with pytest.raises(InputError, match=r"line 6: .*--allow-imports"):
        read_study(path)
    assert "module_of_a_user" not in sys.modules
    study = read_study(path, allow_imports=True)
    assert study.models["mine"].parameters == {"alpha": 0.5}
    assert study.models["mine"].forecaster().family == "custom"
    path.write_text(path.read_text().replace("alpha", "alhpa"))
    with pytest.raises(InputError, match=r"line 6: .*'alhpa'.*did you mean 'alpha'"):
        read_study(path, allow_imports=True)
    sys.modules.pop("module_of_a_user")


def test_plain_data_are_checked_alike() -> None:
    values = {"name": "x", "data": {"source": {"kind": "arch"}}, "target": {"column": "close", "horizon": 1}}
    with pytest.raises(InputError, match="target has no key 'horizon'; did you mean 'horizons'"):
        study_from(values)
    values["target"] = {"column": "close", "horizons": [2]}
    assert study_from(values).target.horizons == (2,)


FULL: dict[str, Any] = {
    "name": "full",
    "seed": 3,
    "data": {
        "source": {"kind": "csv", "path": ["a.csv", "b.csv"], "delimiter": ";"},
        "columns": {"unique_id": "symbol"},
        "ids": ["NO", "000001"],
        "start": "2001-01-01",
        "measures": {"kind": "range", "estimators": ["parkinson"]},
        "closes": {"time": "16:00", "zone": "America/New_York"},
        "exogenous": [{"name": "vix", "source": {"kind": "arch", "series": ["vix"]}, "known_at": {"column": "when"}}],
    },
    "target": {"column": "parkinson", "horizons": [2, 10]},
    "walk_forward": {"train": {"kind": "expanding", "size": 300}, "validation": {"size": 60}, "start": "2003-06-01"},
    "features": {"har": {"kind": "har_lags", "windows": [1, 10]}},
    "models": {"s4d": {"kind": "s4d", "features": ["har"], "seeds": [4, 2], "context": 32}},
    "benchmarks": {"lightgbm": {"num_leaves": 7}, "slow": {"kind": "ewma", "decay": 0.99}},
    "evaluate": {"losses": ["mae"], "reference": "slow", "mcs_size": 0.25},
    "execution": {"backend": "inline", "workers": 3},
    "output": {"directory": "out"},
}
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["kind", "s4d", "har", "../x", "a:b", "2020-02-30", "0", "log", "csv", "\0"])
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("kind"), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in below for place in places(item, (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(places(FULL)[1:]), st.sampled_from(["replace", "add", "remove"]), st.text(max_size=5), anything)
def test_a_study_with_anything_anywhere_is_read_or_refused_with_a_remedy(
    place: tuple[str | int, ...], action: str, key: str, value: Any
) -> None:
    values = copy.deepcopy(FULL)
    here: Any = values
    for part in place[:-1]:
        here = here[part]
    if action == "remove":
        del here[place[-1]]
    elif action == "add" and isinstance(here[place[-1]], dict):
        here[place[-1]][key] = value
    else:
        here[place[-1]] = value
    try:
        study = study_from(values)
    except InputError as error:
        told = str(error)
    else:
        told = "" if study_from(study.resolved()) == study else "the resolved study is another one"
    assert all(";" in line for line in told.splitlines())
