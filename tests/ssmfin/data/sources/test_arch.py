"""The embedded data, against arch's own loader."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ssmfin.data.loading import load_panel
from ssmfin.data.sources import ArchSource
from ssmfin.errors import InputError


@pytest.mark.parametrize("name", ["sp500", "nasdaq"])
def test_values_are_those_of_the_package(name: str) -> None:
    import importlib

    theirs = importlib.import_module(f"arch.data.{name}").load()
    ours = ArchSource(series=name).read()  # type: ignore[arg-type]
    assert ours.columns == ["unique_id", "ds", "open", "high", "low", "close", "volume"]
    assert np.array_equal(ours["ds"].to_numpy(), theirs.index.to_numpy().astype("datetime64[D]"))
    for column in ("Open", "High", "Low", "Close", "Volume"):
        assert np.array_equal(ours[column.lower()].to_numpy(), theirs[column].to_numpy().astype(float))


def test_default_is_both_indices_and_loads_clean() -> None:
    panel = load_panel({"kind": "arch"}, measures={"kind": "range"}, target="parkinson", positive=True)
    assert panel.ids == ("nasdaq", "sp500")
    assert panel.frame.height == 2 * 5031
    assert panel.notes["dropped"] == {}


def test_vix_is_a_close_and_does_not_mix_with_prices() -> None:
    assert ArchSource(series="vix").read().columns == ["unique_id", "ds", "close"]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mixes vix.*exogenous source"):
        ArchSource(series=("sp500", "vix")).read()


def test_reading_does_not_import_the_package() -> None:
    code = (
        "import sys; from ssmfin.data.sources import ArchSource; ArchSource().read();"
        "print([m for m in ('arch', 'statsmodels', 'pandas', 'torch', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install arch"):
        ArchSource().read()
