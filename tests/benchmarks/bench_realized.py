"""Realized measures from minute bars: seconds and peak memory, against a pandas groupby-apply, and how they grow.

    python tests/benchmarks/bench_realized.py [--assets 20] [--years 1] [--spy PATH]     (make bench runs the default)
    python tests/benchmarks/bench_realized.py --assets 500 --years 10 --folder BIG_DISK  (about 500 million rows)

Simulated one-minute OHLCV bars, one parquet file an asset, written to a temporary folder (38 bytes a row) and deleted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).resolve()
MINUTES = 390
PEER_DAYS = 250

CHILD = """
import json, resource, sys, time
start = time.perf_counter()
from ssmfin import realized_measures
options = {"calendar": sys.argv[2], "cache": False}
columns = json.loads(sys.argv[3])
found = realized_measures(sys.argv[1], columns=columns, **options)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mib": peak, "rows": found.notes["rows"], "sessions": found.frame.height}))
"""


def sessions(years: int) -> np.ndarray:
    """(days,) opening moments on New York's clock, microseconds, from the exchange's calendar (full days only)."""
    from ssmfin.data.intraday.calendars import calendar_named, wall_clock

    first = np.datetime64("2010-01-01", "us").astype(np.int64)
    last = np.datetime64(f"{2010 + years}-01-01", "us").astype(np.int64)
    table = calendar_named("XNYS").between(int(first), int(last))
    full = (table.length == MINUTES * 60_000_000) & (table.open >= first) & (table.open < last)
    return wall_clock(table.open[full], "America/New_York")


def write_asset(folder: Path, number: int, opens: np.ndarray) -> int:
    """One asset's bars: Brownian prices with volatility that differs from day to day."""
    generator = np.random.default_rng(number)
    days = len(opens)
    stamps = (opens[:, None] + np.arange(MINUTES) * 60_000_000).ravel()
    sigma = 0.01 * np.exp(0.4 * generator.standard_normal((days, 1))) / np.sqrt(MINUTES)
    close = 50.0 * np.exp(np.cumsum((sigma * generator.standard_normal((days, MINUTES))).ravel()))
    opened = np.concatenate([close[:1], close[:-1]])
    spread = np.exp(np.abs(generator.standard_normal(len(close))) * 1e-4)
    frame = pl.DataFrame(
        {
            "symbol": pl.Series([f"A{number:03d}"]).new_from_index(0, len(close)),
            "timestamp": pl.Series(stamps).cast(pl.Datetime("us")),
            "open": opened,
            "high": np.maximum(opened, close) * spread,
            "low": np.minimum(opened, close) / spread,
            "close": close,
            "volume": generator.integers(1, 10_000, len(close)).astype(np.int32),
        }
    )
    frame.write_parquet(folder / f"A{number:03d}.parquet", row_group_size=1 << 18)
    return frame.height


def run(source: str, calendar: str, columns: dict[str, str]) -> dict[str, float]:
    """Our time and peak memory in a process of its own, imports included."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, calendar, json.dumps(columns)], capture_output=True, text=True, check=True
    )
    out: dict[str, float] = json.loads(done.stdout)
    return out


def peer(file: Path, days: int) -> tuple[float, int]:
    """The same ten measures of one asset by pandas groupby-apply: (seconds, rows)."""
    import pandas as pd

    mu = 0.8308609  # E|z|^(4/3)

    def measures(day: pd.DataFrame) -> pd.Series:
        stamps = pd.date_range(day.index[0].normalize() + pd.Timedelta("9h30min"), periods=79, freq="5min")
        known = day["close"].set_axis(day.index + pd.Timedelta("1min"))
        fine = pd.date_range(stamps[0], periods=391, freq="1min")
        price = np.log(known.reindex(fine, method="ffill").fillna(day["open"].iloc[0]))
        r = price.reindex(stamps).diff().dropna().to_numpy()
        p = price.to_numpy()
        n, size = len(r), np.abs(r)
        rv, bv = np.sum(r**2), np.pi / 2 * n / (n - 1) * np.sum(size[1:] * size[:-1])
        tpq = n * n / (n - 2) / mu**3 * np.sum((size[2:] * size[1:-1] * size[:-2]) ** (4 / 3))
        med = np.median(np.stack([size[:-2], size[1:-1], size[2:]]), axis=0)
        z = np.sqrt(n) * (1 - bv / rv) / np.sqrt((np.pi**2 / 4 + np.pi - 5) * max(1.0, tpq / bv**2))
        x = np.diff(p)
        dense = np.mean([np.sum(np.diff(p[k::2]) ** 2) for k in range(2)])
        sparse = np.mean([np.sum(np.diff(p[k::20]) ** 2) for k in range(20)])
        wide = int(np.ceil(3.5134 * (dense / 390 / sparse) ** 0.4 * 390**0.6))
        share = np.arange(1, wide + 1) / (wide + 1.0)
        weights = np.where(share <= 0.5, 1 - 6 * share**2 + 6 * share**3, 2 * (1 - share) ** 3)
        return pd.Series(
            {
                "rv": rv,
                "rv_ss": np.mean([np.sum(np.diff(p[k::5]) ** 2) for k in range(5)]),
                "bv": bv,
                "medrv": np.pi / (6 - 4 * np.sqrt(3) + np.pi) * n / (n - 2) * np.sum(med**2),
                "rq": n / 3 * np.sum(r**4),
                "tpq": tpq,
                "rs_pos": np.sum(r[r > 0] ** 2),
                "rs_neg": np.sum(r[r < 0] ** 2),
                "rk": np.sum(x**2) + 2 * sum(w * np.sum(x[h:] * x[:-h]) for h, w in enumerate(weights, 1)),
                "jump": max(rv - bv, 0.0) if z > 3.09 else 0.0,
            }
        )

    frame = pd.read_parquet(file).iloc[: days * MINUTES].set_index("timestamp")
    start = time.perf_counter()
    frame.groupby(frame.index.normalize())[["open", "close"]].apply(measures)
    return time.perf_counter() - start, len(frame)


def show(what: str, result: dict[str, float]) -> None:
    each = 1e9 * result["seconds"] / result["rows"]
    print(
        f"{what:34s} {result['rows']:12,.0f} rows {result['seconds']:8.2f} s {each:7.0f} ns/row "
        f"{result['peak_mib']:8.0f} MiB peak",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=20)
    parser.add_argument("--years", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="where to write the bars; default the system's")
    parser.add_argument("--spy", type=Path, default=HERE.parents[3] / "shared/data/spy_bars_1min.parquet")
    options = parser.parse_args()
    if options.spy.exists():
        show("SPY, three years, imports included", run(str(options.spy), "XNYS", {"close": "price"}))
    opens = sessions(options.years)
    with tempfile.TemporaryDirectory(prefix="bars-", dir=options.folder) as name:
        folder = Path(name)
        total = 0
        sizes = sorted({max(1, options.assets // 4), max(1, options.assets // 2), options.assets})
        for number in range(options.assets):
            total += write_asset(folder, number, opens)
            if number + 1 in sizes and options.assets <= 100:
                show(f"{number + 1} assets, {options.years} years", run(name, "XNYS", {}))
        if options.assets > 100:
            show(f"{options.assets} assets, {options.years} years", run(name, "XNYS", {}))
        days = min(PEER_DAYS, len(opens))
        from ssmfin import realized_measures

        few = [str(folder / f"A{number:03d}.parquet") for number in range(min(10, options.assets))]
        source = {"kind": "parquet", "path": few}
        realized_measures(few[0], calendar="XNYS", cache=False)
        start = time.perf_counter()
        realized_measures(source, calendar="XNYS", cache=False)
        ours = (time.perf_counter() - start) / (len(few) * len(opens) * MINUTES)
        seconds, rows = peer(folder / "A000.parquet", days)
        print(
            f"pandas groupby-apply: {1e9 * seconds / rows:,.0f} ns/row; ours, {len(few)} assets, in process: "
            f"{1e9 * ours:,.0f} ns/row; ratio {seconds / rows / ours:.0f}"
        )


if __name__ == "__main__":
    main()
