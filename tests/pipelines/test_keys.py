"""Owns the promises of keys: equal content, equal name, in any process; any change that matters, another name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin_pipelines import keys

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict) -> None:
    turned = dict(reversed(list(value.items())))
    assert keys.canonical_json(value) == keys.canonical_json(turned)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_different_lists_of_parts_have_different_digests(a: list[str], b: list[str]) -> None:
    assert (keys.digest(*a) == keys.digest(*b)) == (a == b)


@pytest.mark.parametrize("change", [{"identity": {"model": "har", "seed": 2}}, {"data": "other"}, {"code": "newer"}])
def test_a_task_key_changes_with_identity_data_and_code(change: dict) -> None:
    def key(identity: dict, data: str, code: str) -> str:
        return keys.task_key(identity, data_fingerprint=data, code=code)

    base = {"identity": {"model": "har", "seed": 1}, "data": "data", "code": "code"}
    assert key(**base) == key(**base)
    assert key(**base) != key(**{**base, **change})
    assert len(key(**base)) == 32


def test_a_run_folder_does_not_depend_on_how_it_is_run_but_on_what() -> None:
    study = {"name": "vol", "seed": 1, "execution": {"workers": 1}, "output": {"directory": "runs"}}
    folder = keys.run_folder("vol", study, "f")
    assert folder == keys.run_folder("vol", {**study, "execution": {"workers": 8}, "output": {}}, "f")
    assert folder != keys.run_folder("vol", {**study, "seed": 2}, "f")
    assert folder != keys.run_folder("vol", study, "g")
    assert folder.startswith("vol-")
    assert len(folder) == len("vol-") + 10


def test_the_code_version_is_the_same_in_another_process_and_needs_no_heavy_import() -> None:
    script = (
        "import sys; from ssmfin_pipelines import keys; print(keys.code_version());"
        "print(sorted({'torch', 'lightgbm', 'statsmodels', 'sklearn', 'arch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == [keys.code_version(), "[]"]


def test_the_version_of_a_users_model_follows_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "keys_test_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text("A = 1\n")
    first = keys.external_code_version.__wrapped__("keys_test_models.mine")
    assert first == keys.external_code_version.__wrapped__("keys_test_models.mine")
    (package / "mine.py").write_text("A = 2\n")
    assert first != keys.external_code_version.__wrapped__("keys_test_models.mine")
