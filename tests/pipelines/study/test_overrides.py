"""`--set`: any key, any YAML value, later ones win, and the study given is not touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ssmfin.errors import InputError
from ssmfin_pipelines.study.overrides import apply_overrides, read_override

STUDY: dict[str, Any] = {
    "seed": 7,
    "target": {"horizons": [1, 5]},
    "walk_forward": {"test": {"size": 63}},
    "models": None,
}


def changed(*texts: str) -> Any:
    before = copy.deepcopy(STUDY)
    result = apply_overrides(STUDY, [read_override(text) for text in texts])
    assert before == STUDY
    return result


@pytest.mark.parametrize(
    "text, path, value",
    [
        ("seed=8", ("seed",), 8),
        ("walk_forward.test.size=21", ("walk_forward", "test", "size"), 21),
        ("walk_forward.refit=2", ("walk_forward", "refit"), 2),
        ("target.horizons=[1, 22]", ("target", "horizons"), [1, 22]),
        ("target.horizons.1=22", ("target", "horizons", 1), 22),
        ("models.s4d={kind: s4d, seeds: [0, 1]}", ("models", "s4d"), {"kind": "s4d", "seeds": [0, 1]}),
        ("models.s4d.context=64", ("models", "s4d", "context"), 64),
        ("data.source.path=/a=b/*.csv", ("data", "source", "path"), "/a=b/*.csv"),
        ("data.source.path=*.parquet", ("data", "source", "path"), "*.parquet"),
        ("name=NO", ("name",), "NO"),
        ("name='5'", ("name",), "5"),
        ("models=", ("models",), None),
        ("evaluate.mcs_size=1e-1", ("evaluate", "mcs_size"), 0.1),
    ],
)
def test_an_override_sets_its_key(text: str, path: tuple[str | int, ...], value: object) -> None:
    here = changed(text)
    for part in path:
        here = here[part]
    assert here == value


def test_the_last_override_wins() -> None:
    assert changed("seed=1", "seed=2")["seed"] == 2


@pytest.mark.parametrize("text", ["seed", "=1", "a..b=1", ".a=1", "a={", "a: 1"])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        read_override(text)


@pytest.mark.parametrize("text", ["seed.x=1", "target.horizons.2=1", "target.horizons.last=1", "target.horizons.0.x=1"])
def test_a_key_below_something_without_keys_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        changed(text)


def test_null_leaves_a_model_or_a_feature_out():
    root = {"models": {"harq": {"kind": "harq"}, "shar": {"kind": "shar"}}, "features": {"har": {"kind": "har_lags"}}}
    changed = apply_overrides(root, [read_override("models.harq=null"), read_override("features.har=null")])
    assert changed == {"models": {"shar": {"kind": "shar"}}, "features": {}}
    with pytest.raises(InputError, match=r"models has no 'hraq' to leave out.*harq"):
        apply_overrides(root, [read_override("models.hraq=null")])
