"""The memory of a run's networks: kept in its folder, the same bytes however it is run, read by name."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

import ssmfin as sf
from ssmfin.diagnostics import memory, plot_memory
from ssmfin.errors import InputError
from ssmfin_pipelines.run import rebuild_report

sys.path.insert(0, str(Path(__file__).parent / "executors"))

from small_study import make_study, run

S4D = {"kind": "s4d", "layers": 1, "width": 4, "segment": 64, "context": 16, "epochs": 1, "early_stopping": False}
MODELS = {"net": {**S4D, "device": "cpu", "seeds": [0, 1]}, "toy": {"kind": "toy_models:Toy"}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outcome = run(make_study(tmp_path_factory.mktemp("reference"), models=MODELS))
    assert outcome.failures == []
    return outcome.directory


def test_the_folder_of_a_run_says_what_its_networks_remember(directory: Path) -> None:
    table = memory(directory)
    assert table.equals(memory(str(directory), "net"))
    stored = pl.read_parquet(directory / "memory.parquet")
    assert table.sort(stored.columns).select(stored.columns).equals(stored.sort(stored.columns))
    assert table.columns[:4] == ["model", "kind", "level", "days"]
    assert table.row(0)[:3] == ("net", "used", 0.05)
    assert table["cutoff"][0] == stored["cutoff"].max()
    wide = table.filter(kind="used").pivot("level", index=["model", "seed", "cutoff"], values="days")
    assert wide.columns[3:] == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    assert (wide["0.5"] <= wide["0.95"]).all()
    assert len(wide) == stored.filter(kind="used", level=0.5).height
    folds = pl.read_parquet(directory / "folds.parquet")
    assert table["cutoff"].unique().sort().to_list() == folds["cutoff"].unique().sort().to_list()
    assert set(table["seed"]) == {0, 1}
    figure = plot_memory(directory, "net", unit="days", title="Net")
    assert figure.get_suptitle() == "Net"
    assert figure.axes[0].get_ylabel() == "memory (days)"
    assert sf.plot_memory(directory).axes[0].get_title(loc="left") == "net"


def test_a_model_without_memory_or_another_folder_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model 'nett' has no memory in the run; did you mean 'net'\?"):
        memory(directory, "nett")
    with pytest.raises(InputError, match=r"holds no predictions\.parquet; give the folder of a finished run"):
        plot_memory(tmp_path)
    with pytest.raises(InputError, match="name is 'net', but the model is no run"):
        memory(sf.S4D(), "net")


def test_interrupted_and_resumed_it_has_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path, models=MODELS)
    again = run(study).directory
    assert (again / "memory.parquet").read_bytes() == (directory / "memory.parquet").read_bytes()
    done = sorted(again.glob("tasks/*/memory.parquet"))
    done[0].parent.joinpath("done").unlink()
    (again / "memory.parquet").unlink()
    assert run(study).complete
    assert (again / "memory.parquet").read_bytes() == (directory / "memory.parquet").read_bytes()


def test_a_report_written_again_shows_it_still(directory: Path) -> None:
    assert '<section id="memory">' in rebuild_report(directory).read_text()


def test_a_run_without_networks_says_that_it_keeps_none(tmp_path: Path) -> None:
    plain = run(make_study(tmp_path, models={"toy": {"kind": "toy_models:Toy"}})).directory
    assert not (plain / "memory.parquet").exists()
    with pytest.raises(InputError, match="keeps no memory; run a study with a state-space model"):
        memory(plain)
