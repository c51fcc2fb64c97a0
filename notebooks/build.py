"""Owns the way from notebooks/*.py to executed notebooks: `python notebooks/build.py [--quick] [NAME ...]`.

The .py files (jupytext, percent format) are the source; the .ipynb with their outputs are built beside them and are not
kept under version control. `--quick` sets SSMFIN_NOTEBOOK_QUICK=1, for which the notebooks choose small settings.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
QUICK = "SSMFIN_NOTEBOOK_QUICK"
SECONDS = 600  # for one cell


def sources(names: list[str]) -> list[Path]:
    """The notebooks of these names (all if none), or a complaint."""
    known = sorted(HERE.glob("[0-9]_*.py"))
    for name in names:
        if Path(name).stem not in {path.stem for path in known}:
            print(f"error: no notebook {name!r}; known: {', '.join(path.stem for path in known)}", file=sys.stderr)
            raise SystemExit(2)
    return [path for path in known if not names or path.stem in {Path(name).stem for name in names}]


def build(source: Path, folder: Path) -> Path:
    """Execute one notebook in this folder and write it, with what it had come to if a cell fails."""
    import jupytext
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    book = jupytext.read(source)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}.ipynb"
    with tempfile.TemporaryDirectory(prefix="ssmfin-") as sockets:
        # sockets of the file system where there are any: the kernel warns that those of the network are not encrypted
        local = {"transport": "ipc", "ip": f"{sockets}/kernel"} if os.name == "posix" else {}
        kernel = AsyncKernelManager(kernel_name="python3", **local)
        client = NotebookClient(book, km=kernel, timeout=SECONDS, resources={"metadata": {"path": str(HERE)}})
        client.owns_km = True  # so that it ends the kernel too
        try:
            client.execute()
        finally:
            nbformat.write(book, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks.")
    parser.add_argument("names", nargs="*", help="some of them, such as 1_first_study; default: all")
    parser.add_argument("--quick", action="store_true", help="small settings, as in the tests")
    parser.add_argument("--to", type=Path, default=HERE, help="folder of the .ipynb; default: beside the sources")
    chosen = parser.parse_args()
    if chosen.quick:
        os.environ[QUICK] = "1"
    floors = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "pipelines")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*floors, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # ipykernel warns of frozen modules otherwise
    books = sources(chosen.names)
    missing = [name for name in ("jupytext", "nbformat", "nbclient", "ipykernel") if find_spec(name) is None]
    if missing:
        print(
            f"error: {', '.join(missing)} not installed, which notebooks need; run them by `make notebooks "
            f"NAMES={chosen.names[0] if chosen.names else '1_first_study'}`, or pip install 'ssmfin[notebooks]' first.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    for source in books:
        began = time.monotonic()
        target = build(source, chosen.to)
        print(f"{target} ({time.monotonic() - began:.0f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
