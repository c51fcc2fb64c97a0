"""The panel object: its fingerprint, its views, its checks."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.data.loading import load_panel
from ssmfin.data.panel import Panel
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.errors import InputError

_PRINT = """
from ssmfin.data.loading import load_panel
from ssmfin.data.synthetic import simulate_volatility_panel
print(load_panel(simulate_volatility_panel(4, 50, seed=1).frame).fingerprint())
"""


@pytest.fixture(scope="module")
def panel() -> Panel:
    return load_panel(simulate_volatility_panel(4, 50, seed=1).frame)


def test_views_are_sorted_and_typed(panel: Panel) -> None:
    assert panel.ids == ("market_0", "market_1", "market_2", "market_3")
    assert panel.dates.dtype == np.dtype("datetime64[D]")
    assert (np.diff(panel.dates) > np.timedelta64(0)).all()
    assert panel.value_columns == ("rv", "log_return")
    assert "4 ids" in repr(panel)


def test_fingerprint_is_the_same_in_another_process(panel: Panel) -> None:
    done = subprocess.run([sys.executable, "-c", _PRINT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == panel.fingerprint()
    assert pickle.loads(pickle.dumps(panel)).fingerprint() == panel.fingerprint()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fingerprint_changes_with_any_cell(data: st.DataObject) -> None:
    frame = simulate_volatility_panel(3, 20, seed=2).frame
    row = data.draw(st.integers(0, frame.height - 1))
    name = data.draw(st.sampled_from(["rv", "log_return"]))
    old = frame[name][row]
    new = data.draw(st.sampled_from([None, 0.0, float(np.nextafter(old, 1.0)), -old]))
    changed = frame.with_columns(
        pl.when(pl.int_range(frame.height) == row).then(pl.lit(new, pl.Float64)).otherwise(name).alias(name)
    )
    assert Panel(changed).fingerprint() != Panel(frame).fingerprint()


def test_fingerprint_tells_names_order_and_missing_from_zero(panel: Panel) -> None:
    frame = panel.frame
    others = [
        frame.rename({"rv": "rw"}),
        frame.select("unique_id", "ds", "log_return", "rv"),
        frame[:-1],
        frame.with_columns(pl.lit(0.0).alias("x")),
        frame.with_columns(pl.lit(None, pl.Float64).alias("x")),
        frame.with_columns(pl.col("ds").cast(pl.Datetime("us"))),
        frame.with_columns(pl.col("unique_id").replace("market_1", "market_11")),
    ]
    prints = {Panel(other).fingerprint() for other in [frame, *others]}
    assert len(prints) == len(others) + 1


def test_fingerprint_ignores_chunks_and_notes(panel: Panel) -> None:
    frame = panel.frame
    chunked = pl.concat([frame[:7], frame[7:30], frame[30:]], rechunk=False)
    assert Panel(chunked, {"source": "x"}).fingerprint() == panel.fingerprint()


def test_target_can_be_required_later(panel: Panel) -> None:
    panel.require_target("rv", positive=True)
    with pytest.raises(InputError, match=r"(?s)log_return is not positive .*'market_0' on"):
        panel.require_target("log_return", positive=True)
    with pytest.raises(InputError, match="did you mean 'rv'"):
        panel.require_target("rvv")


def test_frame_of_other_types_is_no_panel() -> None:
    with pytest.raises(InputError, match="use load_panel"):
        Panel(pl.DataFrame({"unique_id": ["a"], "ds": ["2020-01-01"]}))


def test_missing_values_are_null_inside_and_nan_in_pandas() -> None:
    frame = pl.DataFrame({"unique_id": "a", "ds": ["2020-01-01", "2020-01-02"], "x": [float("nan"), 1.0]})
    panel = load_panel(frame)
    assert panel.frame["x"].to_list() == [None, 1.0]
    assert np.isnan(panel.to_pandas()["x"][0])
