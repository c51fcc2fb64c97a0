"""Owns the timing of a large panel: 500 ids x 5,000 dates from parquet, loaded, checked, HAR features built.

    python tests/benchmarks/bench_panel_load.py [--ids 500] [--dates 5000] [--order id|date] [--files 1]

Prints seconds and the peak of resident memory of the process that loads, next to those of an empty load (imports only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

_LOAD = """
import json, resource, sys, time
started = time.perf_counter()
from ssmfin.data.loading import load_panel
imported = time.perf_counter()
path, target = sys.argv[1:]
panel = load_panel(path, columns={"unique_id": "symbol", "ds": "date"}, target=target, positive=True)
loaded = time.perf_counter()
from ssmfin.features.har import HarLags
features = HarLags(target, scale="log").fit(panel).transform(panel)
featured = time.perf_counter()
panel.fingerprint()
hashed = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 / (1024 if sys.platform == "darwin" else 1)
print(json.dumps({"rows": panel.frame.height, "ids": len(panel.ids), "import_s": imported - started,
                  "load_s": loaded - imported,
                  "features_s": featured - loaded, "fingerprint_s": hashed - featured, "peak_gib": peak}))
"""


def write_panel(folder: Path, *, ids: int, dates: int, order: str, files: int) -> str:
    """A panel of random variances and returns with holidays; answers the path or glob of its files."""
    generator = np.random.default_rng(0)
    days = np.busday_offset(np.datetime64("2000-01-03"), np.arange(dates))
    market, day = np.nonzero(generator.random((ids, dates)) >= 0.035)
    log_rv = -9.5 + 0.8 * generator.standard_normal(len(market))
    names = pl.Series([f"ID{k:05d}" for k in range(ids)])
    frame = pl.DataFrame(
        {
            "symbol": names.gather(pl.Series(market)),
            "date": days[day],
            "rv": np.exp(log_rv),
            "log_return": np.exp(log_rv / 2) * generator.standard_normal(len(market)),
        }
    )
    if order == "date":
        frame = frame.sort("date", "symbol")
    if files == 1:
        frame.write_parquet(folder / "panel.parquet")
        return str(folder / "panel.parquet")
    for k, part in enumerate(np.array_split(np.arange(ids), files)):
        frame.filter(pl.Series(np.isin(market, part))).write_parquet(folder / f"panel_{k:04d}.parquet")
    return str(folder / "panel_*.parquet")


def measure(path: str, target: str = "rv") -> dict[str, float]:
    """Seconds and GiB of one load in a process of its own."""
    command = [sys.executable, "-c", _LOAD, path, target]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="time loading and checking a large panel")
    parser.add_argument("--ids", type=int, default=500)
    parser.add_argument("--dates", type=int, default=5000)
    parser.add_argument("--order", choices=["id", "date"], default="id")
    parser.add_argument("--files", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_panel(Path(folder), **vars(arguments))
        result = measure(path)
    print(
        f"{result['rows']:,.0f} rows, {result['ids']} ids: load and check {result['load_s']:.2f} s, "
        f"HAR features {result['features_s']:.2f} s (with the import of scikit-learn), "
        f"fingerprint {result['fingerprint_s']:.2f} s, peak {result['peak_gib']:.2f} GiB (imports "
        f"{result['import_s']:.2f} s)"
    )


if __name__ == "__main__":
    main()
