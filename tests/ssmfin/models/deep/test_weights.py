"""Fitted models on disk: all of them comes back, bit for bit, from two plain files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ssmfin.errors import InputError
from ssmfin.models.deep.forecaster import DeepForecaster
from ssmfin.models.sequence.gru import GRU
from ssmfin.models.ssm.s4d import S4D

SMALL = {"context": 24, "width": 8, "segment": 48, "device": "cpu", "epochs": 1}


@pytest.mark.parametrize(
    "model",
    [
        S4D(**SMALL, state=4, calendar=True, id_embedding=True, ensemble=2),
        S4D(**SMALL, state=4, pooled=False, residual="ridge", head="lognormal"),
        S4D(**SMALL, state=4, residual="none", head="quantiles", precision="float64"),
        GRU(**SMALL, head="event", sessions="reset"),
        GRU(**SMALL, match_parameters=2000, head="gaussian"),
    ],
    ids=lambda model: f"{model.kind}-{model.head}",
)
def test_what_is_loaded_forecasts_the_same_bits(model, design, training, moved, origins, tmp_path) -> None:
    fitted = moved(model.fit(training, seed=1), 0.05)
    rows = origins(design, 270, 329)
    fitted.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "weights.safetensors"]
    for again in (DeepForecaster.load(tmp_path / "model"), type(model).load(tmp_path / "model")):
        assert again.forecaster == model
        assert (again.predict(design, rows) == fitted.predict(design, rows)).all()
        one, other = (each.predict_quantiles(design, rows, [0.1, 0.9]) for each in (fitted, again))
        assert (one is None and other is None) or np.array_equal(one, other)
        events = [each.predict_event(design, rows) for each in (fitted, again)]
        assert events[0] is None or (events[0] == events[1]).all()
        assert again.stream().ids == design.ids


def test_a_target_without_a_log_comes_back_with_its_filter(
    make_design, make_training_set, simulate, origins, moved, tmp_path
) -> None:
    design = make_design(simulate(2, 300), transform="none")
    fitted = moved(S4D(**SMALL, state=4).fit(make_training_set(design, 250, size=200, validation=50), seed=0))
    fitted.save(tmp_path)
    rows = origins(design, 250, 290)
    assert (S4D.load(tmp_path).predict(design, rows) == fitted.predict(design, rows)).all()


def test_the_configuration_says_in_plain_text_what_the_weights_are(training, tmp_path) -> None:
    S4D(**SMALL, state=4).fit(training, seed=1).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["kind"], config["parameters"]["width"]) == ("s4d", 8)
    assert config["target"]["horizons"] == [1, 5]
    assert config["feature_names"] == list(training.design.feature_names)


def test_files_that_are_not_ours_are_refused(training, tmp_path) -> None:
    with pytest.raises(InputError, match="holds no fitted model"):
        S4D.load(tmp_path)
    S4D(**SMALL, state=4).fit(training, seed=1).save(tmp_path)
    with pytest.raises(InputError, match="of kind 's4d', not 'gru'"):
        GRU.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="is not of format"):
        S4D.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="holds no fitted model"):
        S4D.load(tmp_path)
