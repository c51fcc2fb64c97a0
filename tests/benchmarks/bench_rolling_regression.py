"""Owns the timing of rolling least squares (har, log_har, ridge; a refit at every date) against a plain lstsq loop.

    python tests/benchmarks/bench_rolling_regression.py [--ids 21] [--dates 5000] [--window 1000]

The plain loop is one `numpy.linalg.lstsq` per id, horizon and window, from a slice of the rows (no masks, no tail, no
forecast, so it does less); it is timed on a sample of windows and scaled to all of them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core: read by the linear algebra library when it loads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time

import numpy as np

from ssmfin.models.baselines.har.members import HAR, LogHAR
from ssmfin.models.baselines.least_squares import ordinary_least_squares
from ssmfin.models.baselines.ridge import Ridge
from ssmfin.models.baselines.samples import WindowDates, walk_samples
from ssmfin.models.interface import Design, Target, Window

HORIZONS = (1, 5, 22)
TAIL = 125


def simulated_design(ids: int, dates: int, *, extra_features: int = 0, seed: int = 0) -> Design:
    """Log variances as slow plus fast autoregressions, every id on every date."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    slow = lfilter([0.08], [1, -0.99], rng.standard_normal((ids, dates)))
    fast = lfilter([0.3], [1, -0.7], rng.standard_normal((ids, dates)))
    value = 1e-4 * np.exp(slow + fast)
    total = np.concatenate([np.zeros((ids, 1)), np.cumsum(value, axis=1)], axis=1)
    lags = np.full((ids, dates, 3), np.nan)
    for j, width in enumerate((1, 5, 22)):
        lags[:, width - 1 :, j] = (total[:, width:] - total[:, :-width]) / width
    labels, known = np.full((ids, dates, 3), np.nan), np.full((ids, dates, 3), dates, dtype=np.int64)
    for j, h in enumerate(HORIZONS):
        labels[:, :-h, j] = (total[:, h + 1 :] - total[:, 1:-h]) / h
        known[:, :-h, j] = np.arange(h, dates)
    features = np.concatenate([np.log(lags), rng.standard_normal((ids, dates, extra_features))], axis=2)
    rows = ids * dates
    return Design(
        target=Target("rv", HORIZONS),
        ids=tuple(f"id{k:03d}" for k in range(ids)),
        dates=np.datetime64("2000-01-01") + np.arange(dates),
        id_index=np.repeat(np.arange(ids), dates),
        date_index=np.tile(np.arange(dates), ids),
        starts=np.arange(ids + 1) * dates,
        observed=value.reshape(rows),
        lag_means=lags.reshape(rows, -1),
        features=features.reshape(rows, -1),
        feature_names=tuple(f"f{j}" for j in range(features.shape[2])),
        labels=labels.reshape(rows, -1),
        label_known=known.reshape(rows, -1),
        columns={},
    )


def every_date(design: Design, window: int) -> list[Window]:
    """A rolling window that ends at every date from the first full one on (at most half the panel is warm-up)."""
    ids, dates = len(design.ids), len(design.dates)
    return [
        Window(
            train_start=max(0, cutoff - window + 1),
            cutoff=cutoff,
            labels_until=cutoff,
            validation_start=cutoff - TAIL + 1,
            fit_labels_until=cutoff - TAIL + 1,
            test_rows=np.arange(ids) * dates + cutoff,
        )
        for cutoff in range(min(window - 1, dates // 2), dates)
    ]


def time_ours(design: Design, windows: list[Window]) -> dict[str, float]:
    seconds = {}
    for model in (HAR(), LogHAR(), Ridge()):
        begin = time.perf_counter()
        model.walk(design, windows)
        seconds[model.kind] = time.perf_counter() - begin
    return seconds


def plain_loop(design: Design, windows: list[Window], *, sample: int, seed: int = 0) -> tuple[float, float]:
    """Seconds for all windows by the plain loop (scaled from a sample), and our largest relative difference there.

    The difference is in coefficients, standardised by the deviations of the columns, over the largest of the window.
    """
    rng = np.random.default_rng(seed)
    x, dates, complete = design.lag_means, WindowDates.of(windows), design.complete
    picks = [
        (int(rng.integers(len(design.ids))), int(rng.integers(len(HORIZONS))), int(rng.integers(len(windows))))
        for _ in range(sample)
    ]
    solutions, spent = [], 0.0
    for k, h, w in picks:
        first = int(design.starts[k])
        lo, hi = first + windows[w].train_start, first + windows[w].labels_until + 1 - HORIZONS[h]
        lo = max(lo, first + 21)
        begin = time.perf_counter()
        a = np.column_stack([np.ones(hi - lo), x[lo:hi]])
        solution = np.linalg.lstsq(a, design.labels[lo:hi, h], rcond=None)[0]
        spent += time.perf_counter() - begin
        solutions.append((solution[1:], x[lo:hi].std(axis=0)))
    worst = 0.0
    for (k, h, w), (slopes, deviation) in zip(picks, solutions, strict=True):
        one = WindowDates(*(bound[w : w + 1] for bound in dates))
        for _, (train,) in walk_samples(design, k, h, x, design.labels[:, h], complete, one, ("train",)):
            ours = ordinary_least_squares(train).coefficients[0]
            worst = max(worst, float(np.max(np.abs(ours - slopes) * deviation) / np.max(np.abs(slopes) * deviation)))
    return spent / sample * len(design.ids) * len(HORIZONS) * len(windows), worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=21)
    parser.add_argument("--dates", type=int, default=5000)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=1000, help="windows of the plain loop that are timed")
    parser.add_argument("--quick", action="store_true", help="leave out how the cost grows")
    given = parser.parse_args()

    design = simulated_design(given.ids, given.dates)
    windows = every_date(design, given.window)
    time_ours(design, windows[:50])  # imports and first calls
    seconds = time_ours(design, windows)
    total = sum(seconds.values())
    plain, worst = plain_loop(design, windows, sample=given.sample)
    print(
        f"{given.ids} ids x {len(HORIZONS)} horizons x {len(windows)} refits "
        f"({given.dates} dates, window {given.window})"
    )
    for kind, spent in seconds.items():
        print(f"  {kind:8} {spent:7.2f} s")
    print(f"  together {total:7.2f} s")
    print(f"  plain lstsq loop, one regression: {plain:.1f} s (scaled from {given.sample} windows)")
    print(
        f"  ratio, har to plain: {plain / seconds['har']:.0f}x; har + log_har to twice plain: "
        f"{2 * plain / (seconds['har'] + seconds['log_har']):.0f}x"
    )
    print(f"  largest relative difference of coefficients: {worst:.1e}")
    if given.quick:
        return
    print("growth: har, log_har, ridge in microseconds per id, horizon and refit (and seconds in all)")
    base = {"ids": 5, "dates": 4000, "window": 1000, "extra_features": 0}
    for name, values in {
        "ids": (5, 10, 20),
        "dates": (2000, 4000, 8000),
        "window": (250, 1000, 2000),
        "extra_features": (0, 7, 17),
    }.items():
        for value in values:
            size = base | {name: value}
            grown = simulated_design(size["ids"], size["dates"], extra_features=size["extra_features"])
            refits = every_date(grown, size["window"])
            spent = time_ours(grown, refits).values()
            each = 1e6 / (size["ids"] * len(HORIZONS) * len(refits))
            print(
                f"  {name:14} {value:5} ({len(refits)} refits): "
                + "  ".join(f"{each * s:6.1f}" for s in spent)
                + f"   ({sum(spent):.2f} s)"
            )


if __name__ == "__main__":
    main()
