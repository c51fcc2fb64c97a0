"""Two-sided results can be looked at, and are refused wherever a feature or a panel is wanted."""

import numpy as np
import polars as pl
import pytest

import ssmfin as sf
from ssmfin.classical.smoothed import Smoothed
from ssmfin.data.panel import Panel
from ssmfin.errors import InputError
from ssmfin.features.columns import Columns
from ssmfin.features.har import HarLags
from ssmfin.features.kalman import KalmanFeatures
from ssmfin.features.regime import RegimeFeatures
from ssmfin.features.smoothed import SmoothedPanel


@pytest.fixture(scope="module")
def smoothed(walks, train):
    return KalmanFeatures("local_level", column="y").fit(train).smoothed(walks)


def test_a_smoothed_panel_is_closer_to_the_truth_and_has_a_frame_of_its_own(smoothed, walks):
    frame = smoothed.to_frame()
    assert isinstance(smoothed, Smoothed)
    assert frame.columns == ["unique_id", "ds", "smoothed__level", "smoothed__level_se"]
    assert frame.select("unique_id", "ds").equals(walks.select("unique_id", "ds"))
    filtered = KalmanFeatures("local_level", column="y", emit=["level", "level_se"]).fit(walks).transform(walks)
    own = frame.filter(unique_id="id0")
    assert (own["smoothed__level_se"][5:] <= filtered.filter(unique_id="id0")["level_se"][5:] * 1.05).all()
    np.testing.assert_allclose(own["smoothed__level"][-1], filtered.filter(unique_id="id0")["level"][-1], rtol=0.2)


def test_smoothed_regimes_are_probabilities_under_names_of_their_own(walks, train):
    frame = RegimeFeatures("switching_variance", column="r").fit(train).smoothed(walks).to_frame()
    assert frame.columns[2:] == ["smoothed__regime_0", "smoothed__regime_1"]
    np.testing.assert_allclose(frame["smoothed__regime_0"] + frame["smoothed__regime_1"], 1.0, rtol=1e-9)


def test_the_harness_refuses_a_smoothed_result_and_says_why(smoothed, walks):
    why = "is computed from data after t, so a backtest that uses it reads the future"
    leak = walks.join(smoothed.to_frame(), on=["unique_id", "ds"])
    folds = sf.WalkForward(train=80, validation=20, test=20, horizons=[1])
    for given in (smoothed, Smoothed(("level",), smoothed.mean, None, smoothed.log_likelihood)):
        with pytest.raises(InputError, match=why):
            sf.evaluate({}, given, target="y", folds=folds)
        with pytest.raises(InputError, match=why):
            HarLags("y").fit(given)
    with pytest.raises(InputError, match=f"column 'smoothed__level' is smoothed.*{why}"):
        sf.evaluate({}, leak, target="y", folds=folds, reference="har")
    with pytest.raises(InputError, match=why):
        Columns(["smoothed__level"]).fit_transform(leak)
    with pytest.raises(InputError, match=why):
        KalmanFeatures(column="smoothed__level").fit(Panel(leak))
    with pytest.raises(TypeError, match="no array of features"):
        np.asarray(smoothed)
    renamed = leak.rename({"smoothed__level": "other__smoothed__level"})
    with pytest.raises(InputError, match=why):
        Columns(["other__smoothed__level"]).fit_transform(renamed)


def test_a_frame_of_smoothed_values_stays_smoothed_through_parquet_and_pandas(smoothed, tmp_path):
    frame = smoothed.to_frame()
    frame.write_parquet(tmp_path / "s.parquet")
    again = pl.read_parquet(tmp_path / "s.parquet")
    for given in (again, again.to_pandas()):
        with pytest.raises(InputError, match="is smoothed"):
            HarLags("smoothed__level").fit_transform(given)
    assert isinstance(smoothed, SmoothedPanel)
