"""The house itself: floors, import weight, and that what the metadata promises is used."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"ssmfin_kernels": ROOT / "kernels", "ssmfin": ROOT, "ssmfin_pipelines": ROOT / "pipelines"}
# Needed without an import of ours, and how one sees that it is used.
USED_THROUGH = {"pyarrow": ".to_pandas()"}  # polars hands frames to pandas through it
IMPORT_NAMES = {"ruamel.yaml": "ruamel", "scikit-learn": "sklearn", "jinja2": "jinja2"}


def modules():
    return [path for name, base in FLOORS.items() for path in sorted((base / name).rglob("*.py"))]


def imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_imports_only_go_down():
    from importlinter.application.use_cases import SUCCESS, lint_imports
    from importlinter.configuration import configure

    configure()
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), is_debug_mode=False, cache_dir=None) == SUCCESS


def test_the_ground_floor_knows_torch_and_nothing_else():
    allowed = set(sys.stdlib_module_names) | {"torch", "triton", "numba", "llvmlite", "numpy", "ssmfin_kernels"}
    for path in sorted((ROOT / "kernels/ssmfin_kernels").rglob("*.py")):
        assert imported(path) <= allowed, path


def test_every_core_dependency_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    used = set().union(*(imported(path) for path in modules()))
    used |= {name for name, sign in USED_THROUGH.items() if any(sign in path.read_text() for path in modules())}
    for requirement in project["dependencies"]:
        name = requirement.split(">")[0].split(";")[0].strip()
        assert IMPORT_NAMES.get(name, name) in used, f"{name} is a core dependency that no module imports"


def test_nothing_else_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {IMPORT_NAMES.get(r.split(">")[0], r.split(">")[0]) for r in project["dependencies"]}
    known |= {"pydantic_core", "markupsafe", "llvmlite", "PIL"}  # come with pydantic, jinja2, numba and matplotlib
    known |= set(sys.stdlib_module_names) | set(FLOORS)
    extras = {"ray": "ray.py"}  # an extra's package -> the one module that may import it
    for path in modules():
        assert imported(path) <= known | {name for name, module in extras.items() if path.name == module}, path


@pytest.mark.parametrize(
    "statement, heavy",
    [
        ("import ssmfin", ["torch", "lightgbm", "statsmodels", "sklearn", "pandas", "polars", "matplotlib", "arch"]),
        ("import ssmfin_pipelines.cli", ["torch", "lightgbm", "statsmodels", "sklearn", "pandas", "polars", "numpy"]),
        ("import ssmfin; ssmfin.WalkForward", ["torch", "lightgbm", "statsmodels", "sklearn", "matplotlib"]),
        ("import ssmfin; ssmfin.S4D", ["torch", "lightgbm", "statsmodels", "sklearn", "matplotlib"]),
    ],
)
def test_heavy_packages_are_imported_only_where_they_are_used(statement, heavy):
    code = f"{statement}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
