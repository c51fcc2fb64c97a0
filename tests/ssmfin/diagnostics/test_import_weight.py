"""The room of diagnostics costs nothing until something is drawn or tested."""

import subprocess
import sys


def test_heavy_packages_wait_for_their_use():
    heavy = ["matplotlib", "scipy", "torch", "pandas", "statsmodels"]
    code = f"import ssmfin.diagnostics, sys; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_figure_needs_no_pyplot():
    code = (
        "import sys, numpy as np, ssmfin as sf;"
        "sf.plot_diagnostics(np.sin(np.arange(99.0))).savefig('/dev/null', format='png');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
