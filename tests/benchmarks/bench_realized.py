"""Realized measures from minute bars: seconds and peak memory, how they grow, and against a pandas groupby-apply.

    python tests/benchmarks/bench_realized.py [--assets 20] [--years 1] [--spy PATH]     (make bench runs the default)
    python tests/benchmarks/bench_realized.py --assets 500 --years 10 --folder BIG_DISK  (about 500 million rows)

Simulated one-minute OHLCV bars, one parquet file an asset, written to a temporary folder (38 bytes a row) and deleted.
Both sides compute the same ten measures, which is checked; ours also reads the files (the peer's time begins with the
frame in memory), checks the rows and judges the days. Wall clock and processor time, the best of three in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def run(source: str, calendar: str, columns: dict[str, str], compiled: str | None = None) -> dict[str, float]:
    """Our time and peak memory in a process of its own, imports included; `compiled` is where numba keeps its work."""
    environment = os.environ | ({} if compiled is None else {"NUMBA_CACHE_DIR": compiled})
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, calendar, json.dumps(columns)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    out: dict[str, float] = json.loads(done.stdout)
    return out


def peer(frame: Any) -> Any:
    """The same ten measures of one asset by pandas groupby-apply."""
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
        noise = np.sum((p[2:] - p[:-2]) ** 2) / (2 * 389)
        slow = np.sum((p[20:] - p[:-20]) ** 2) * 390 / (371 * 20)
        wide = int(np.ceil(3.5134 * (noise / slow) ** 0.4 * 390**0.6))
        x = np.diff(np.concatenate([[p[:2].mean()], p[2:-2], [p[-2:].mean()]]))
        share = np.arange(1, wide + 1) / (wide + 1.0)
        weights = np.where(share <= 0.5, 1 - 6 * share**2 + 6 * share**3, 2 * (1 - share) ** 3)
        return pd.Series(
            {
                "rv": rv,
                "rv_ss": np.sum((p[5:] - p[:-5]) ** 2) * 390 / (386 * 5),
                "bv": bv,
                "medrv": np.pi / (6 - 4 * np.sqrt(3) + np.pi) * n / (n - 2) * np.sum(med**2),
                "rq": n / 3 * np.sum(r**4),
                "tpq": tpq,
                "rs_pos": np.sum(r[r > 0] ** 2),
                "rs_neg": np.sum(r[r < 0] ** 2),
                "rk": (np.sum(x**2) + 2 * sum(w * np.sum(x[h:] * x[:-h]) for h, w in enumerate(weights, 1)))
                * (390 / 388.5),
                "jump": max(rv - bv, 0.0) if z > 3.09 else 0.0,
            }
        )

    return frame.groupby(frame.index.normalize())[["open", "close"]].apply(measures)


def compare(files: list[Path], days: int) -> None:
    """Both sides in turns in this process, each warm: ours on all files, the peer on some days of the first."""
    import pandas as pd

    from ssmfin import realized_measures

    source = {"kind": "parquet", "path": [str(file) for file in files]}
    frame = pd.read_parquet(files[0]).iloc[: days * MINUTES].set_index("timestamp")
    found = realized_measures(source, calendar="XNYS", cache=False)  # loads what is compiled
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for _ in range(3):
        with clock(times["ours"], found.notes["rows"]):
            realized_measures(source, calendar="XNYS", cache=False)
        with clock(times["peer"], len(frame)):
            theirs = peer(frame)
    ours = found.frame.filter(pl.col("unique_id") == found.frame["unique_id"][0]).head(len(theirs))
    for name in theirs.columns:
        np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-6, err_msg=name)
    (wall, processor), (peer_wall, peer_processor) = (tuple(map(min, zip(*times[side], strict=True))) for side in times)
    print(
        f"pandas groupby-apply, the same ten measures: {peer_wall:,.0f} ns/row; ours, {len(files)} assets, in process: "
        f"{wall:,.0f} ns/row; ratio {peer_wall / wall:.0f} (processor time {peer_processor:,.0f} against "
        f"{processor:,.0f} ns/row, ratio {peer_processor / processor:.0f})"
    )


@contextmanager
def clock(times: list[tuple[float, float]], rows: int) -> Iterator[None]:
    """Notes (wall clock, processor time) in nanoseconds a row."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    times.append(((time.perf_counter() - wall) * 1e9 / rows, (time.process_time() - processor) * 1e9 / rows))


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
        run(str(options.spy), "XNYS", {"close": "price"})  # compiles where nothing is compiled yet
        show("SPY, three years, imports included", run(str(options.spy), "XNYS", {"close": "price"}))
    opens = sessions(options.years)
    with tempfile.TemporaryDirectory(prefix="bars-", dir=options.folder) as name:
        folder = Path(name)
        files = [folder / f"A{number:03d}.parquet" for number in range(options.assets)]
        write_asset(folder, 0, opens)
        with tempfile.TemporaryDirectory(prefix="compiled-") as compiled:
            cold, warm = (run(str(files[0]), "XNYS", {}, compiled)["seconds"] for _ in range(2))
        print(f"the first call on a machine compiles: {cold:.1f} s against {warm:.1f} s afterwards", flush=True)
        sizes = sorted({max(1, options.assets // 4), max(1, options.assets // 2), options.assets})
        grown = []
        for number in range(options.assets):
            write_asset(folder, number, opens)
            if number + 1 in sizes and (options.assets <= 100 or number + 1 == options.assets):
                grown.append(run(name, "XNYS", {}))
                show(f"{number + 1} assets, {options.years} years", grown[-1])
        if len(grown) > 2:
            slope, fixed = np.polyfit([one["rows"] for one in grown], [one["seconds"] for one in grown], 1)
            print(f"time grows in proportion to rows: {fixed:.2f} s to start, then {1e9 * slope:,.0f} ns a row")
        compare(files[:10], min(PEER_DAYS, len(opens)))


if __name__ == "__main__":
    main()
