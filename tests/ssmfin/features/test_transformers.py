"""Feature transformers follow scikit-learn's protocol over long frames, whatever kind of frame goes in."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone

from ssmfin.errors import InputError
from ssmfin.features.columns import Columns
from ssmfin.features.har import HarLags
from ssmfin.features.leverage import Leverage


def frame():
    days = [dt.date(2024, 1, d) for d in range(1, 9)]
    return pl.DataFrame(
        {
            "unique_id": ["b"] * 3 + ["a"] * 5,
            "ds": days[:3] + days[:5],
            "rv": [3.0, 1.0, 2.0, 1.0, 2.0, 4.0, 8.0, 16.0],
        }
    )


def test_lags_are_means_over_the_last_rows_of_the_own_id():
    out = HarLags("rv", windows=(1, 3)).fit_transform(frame())
    assert out.columns == ["unique_id", "ds", "lag_1", "lag_3"]
    assert out["unique_id"].to_list() == ["a"] * 5 + ["b"] * 3
    assert out["lag_1"].to_list() == [1.0, 2.0, 4.0, 8.0, 16.0, 3.0, 1.0, 2.0]
    np.testing.assert_allclose(out["lag_3"].to_numpy(), [np.nan, np.nan, 7 / 3, 14 / 3, 28 / 3, np.nan, np.nan, 2.0])


def test_logs_are_of_the_mean_not_the_mean_of_logs():
    levels = HarLags("rv", windows=(3,)).fit_transform(frame())["lag_3"].to_numpy()
    logs = HarLags("rv", windows=(3,), scale="log").fit_transform(frame())["lag_3"].to_numpy()
    np.testing.assert_allclose(logs, np.log(levels))


def test_pandas_in_gives_pandas_out_and_set_output_overrides():
    data = frame().to_pandas()
    assert isinstance(HarLags("rv").fit_transform(data), pd.DataFrame)
    assert isinstance(HarLags("rv").fit_transform(frame()), pl.DataFrame)
    assert isinstance(HarLags("rv").set_output(transform="pandas").fit_transform(frame()), pd.DataFrame)
    with pytest.raises(InputError, match="use 'default', 'polars' or 'pandas'"):
        HarLags("rv").set_output(transform="arrow")


def test_parameters_survive_a_clone_and_an_unfitted_transformer_says_so():
    lags = clone(HarLags("rv", windows=(1, 2), scale="log"))
    assert lags.get_params() == {"column": "rv", "windows": (1, 2), "scale": "log"}
    assert list(lags.get_feature_names_out()) == ["lag_1", "lag_2"]
    with pytest.raises(ValueError, match="not fitted"):
        lags.transform(frame())


def test_a_missing_column_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'rv'"):
        HarLags("rvv").fit_transform(frame())
    assert Columns(["rv"], scale="log").fit_transform(frame())["log_rv"][0] == 0.0


def test_leverage_is_the_fall_in_units_of_the_volatility_of_the_same_rows():
    data = frame().with_columns(r=pl.Series([0.1, -0.3, -0.1, 0.2, -0.4, -0.1, 0.3, -0.2]))
    plain = Leverage("r", windows=(1, 2)).fit_transform(data).filter(unique_id="b")
    np.testing.assert_allclose(plain["negative_1"], [0.0, -0.3, -0.1])
    np.testing.assert_allclose(plain["negative_2"], [np.nan, -0.1, -0.2])
    scaled = Leverage("r", windows=(1, 2), variance="rv").fit_transform(data).filter(unique_id="b")
    np.testing.assert_allclose(scaled["negative_1"], [0.0, -0.3, -0.1 / np.sqrt(2)])
    np.testing.assert_allclose(scaled["negative_2"], [np.nan, -0.2 / 2.0, -0.4 / np.sqrt(3)])
    missing = Leverage("r", windows=(1,), variance="rv").fit_transform(data.with_columns(rv=pl.lit(0.0)))
    assert missing["negative_1"].is_nan().all()
