"""The notebooks run from top to bottom on small settings, show what they draw, and complain of nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))
STORIES = 6
COMPLAINT = re.compile(r"\b\w*Warning\b|Traceback")


def test_there_is_a_notebook_for_each_story():
    assert [int(path.name[0]) for path in SOURCES] == list(range(1, STORIES + 1))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_sources_name_no_place_on_a_machine(source):
    found = re.findall(r"""["'(](?:/(?:home|root|tmp|work|Users|mnt|data)\b|[A-Z]:\\)[^"']*""", source.read_text())
    assert not found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_complains_of_nothing(source, tmp_path):
    command = [sys.executable, str(FOLDER / "build.py"), "--quick", "--to", str(tmp_path), source.stem]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-6000:]
    book = json.loads((tmp_path / f"{source.stem}.ipynb").read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    texts = [text for output in outputs for text in _texts(output)]
    assert not [text for text in texts if COMPLAINT.search(text)]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    # a figure that is shown as text, <Figure size 640x480>, is not shown
    assert not [text for text in texts if text.startswith("<Figure")]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def _texts(output):
    if "text" in output:
        return ["".join(output["text"])]
    if "image/png" in output.get("data", {}):
        return []
    return ["".join(text) for kind, text in output.get("data", {}).items() if kind == "text/plain"]


def test_without_jupytext_the_builder_says_what_to_do(tmp_path: Path):
    code = (
        "import importlib.util as u, runpy, sys; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'jupytext' else found(name, *rest)\n"
        f"sys.argv = ['build.py', '6_streaming', '--to', {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(FOLDER / 'build.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "jupytext not installed" in done.stderr
    assert "make notebooks NAMES=6_streaming" in done.stderr
    assert list(tmp_path.iterdir()) == []
