"""What a fitted network uses of the past: slopes that finite differences agree with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ssmfin as sf
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.models.deep.memory import OLDEST, sensitivity_by_age

SMALL = {"layers": 2, "width": 4, "segment": 64, "context": 16, "device": "cpu", "precision": "float64"}
FITS = {
    "s4d": sf.S4D(**SMALL, epochs=3, early_stopping=False),
    "mamba": sf.Mamba(**SMALL, epochs=3, early_stopping=False, ensemble=2),
    "each id its own": sf.GRU(**SMALL, epochs=3, early_stopping=False, pooled=False),
    "tcn": sf.TCN(**SMALL, epochs=3, early_stopping=False),
}


@pytest.fixture(scope="module")
def panel():
    return simulate_volatility_panel(ids=2, dates=420, seed=1).frame


@pytest.mark.parametrize("model", FITS)
def test_it_is_what_a_small_change_of_each_input_does_to_the_correction(model, panel) -> None:
    trained = sf.fit(FITS[model], panel, target="rv", horizons=[1, 5], train=300, validation=60)
    fitted, design = trained.fitted, trained.design(panel)
    found = sensitivity_by_age(fitted, design)
    last = design.starts[1:] - 1
    scale, step = fitted.reader.scale.scale, 1e-6
    for age in (0, 1, 3, 10):
        expected = 0.0
        for row in last:
            for column in range(design.features.shape[1]):
                ends = []
                for sign in (1, -1):
                    features = design.features.copy()
                    features[row - age, column] += sign * step * scale[column]
                    ends.append(fitted.corrections(replace(design, features=features), np.array([row])))
                slopes = np.abs(ends[0] - ends[1]) / (2 * step)  # (members, 1, H)
                expected += slopes.sum() / len(slopes) / len(last)
        assert found[age] == pytest.approx(expected, rel=1e-4, abs=1e-12), age


def test_a_network_that_learned_nothing_uses_nothing(panel) -> None:
    stayed = sf.fit(sf.S4D(**SMALL, epochs=0), panel, target="rv", horizons=[1], train=300, validation=60)
    found = stayed.fitted.memory(stayed.design(panel))
    assert not found.sensitivity.any()
    assert len(found.sensitivity) <= OLDEST
    assert [one.learned for one in found.layers] == [False, False]


def test_no_row_after_the_newest_is_used_nor_more_than_a_finite_window_holds(panel) -> None:
    model = sf.TCN(**SMALL, epochs=3, early_stopping=False)
    trained = sf.fit(model, panel, target="rv", horizons=[1], train=300, validation=60)
    found = sensitivity_by_age(trained.fitted, trained.design(panel))
    used = np.flatnonzero(found)
    assert used[0] == 0
    assert used[-1] < 200


def test_looking_does_not_change_what_is_forecast(panel) -> None:
    trained = sf.fit(FITS["mamba"], panel, target="rv", horizons=[1], train=300, validation=60)
    before = trained.forecast(panel)
    trained.fitted.memory(trained.design(panel))
    assert trained.forecast(panel).equals(before)
