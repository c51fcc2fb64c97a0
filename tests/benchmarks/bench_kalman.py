"""Owns the timing of Kalman models: fitting, filtering and updating a panel, against loops of statsmodels.

    python tests/benchmarks/bench_kalman.py [--series 500] [--length 1000] [--sample 20] [--quick]

Loops of statsmodels are timed on a sample of the series, in the same run, and scaled to all of them; they use one core,
ours too unless --threads says more.

On a CUDA device (no table of statsmodels there, and no pandas, polars or pydantic needed):

    PYTHONPATH=.:kernels python tests/benchmarks/bench_kalman.py --device cuda --series 100000
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from ssmfin.classical.kalman import KalmanFit, Updater, filter_series, fit, specification

LEVEL = specification("local_level")


def random_levels(series: int, length: int, seed: int = 0) -> np.ndarray:
    """Random walks under noise, signal-to-noise ratios over four decades."""
    rng = np.random.default_rng(seed)
    ratio = 10 ** rng.uniform(-3, 1, (series, 1))
    walk = rng.standard_normal((series, length))
    np.multiply(walk, np.sqrt(ratio), out=walk)
    np.cumsum(walk, axis=1, out=walk)
    walk += rng.standard_normal((series, length))
    return walk


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Of several runs, the first left out."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def theirs(y: np.ndarray):  # type: ignore[no-untyped-def]
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    return UnobservedComponents(y, "llevel", use_exact_diffuse=True)


def bench_fit(series: int, length: int, sample: int) -> None:
    y = random_levels(series, length)
    seconds = median_seconds(lambda: fit(LEVEL, y), 3)
    found = fit(LEVEL, y)
    begin = time.perf_counter()
    parameters = [theirs(y[b]).fit(disp=False).params for b in range(sample)]
    loop = (time.perf_counter() - begin) / sample * series
    values = []
    for b, best in enumerate(parameters):
        model = theirs(y[b])
        model.update(best)
        values.append(model.ssm.loglike())
    behind = np.array(values) - found.log_likelihood[:sample]
    converged = (found.status == "converged").mean()
    print(f"fit, {series} x {length}, local level: {seconds:.3f} s, {100 * converged:.1f} % converged")
    print(
        f"  loop of statsmodels fits {loop:.1f} s (scaled from {sample}): {loop / seconds:.0f}x; log-likelihood behind "
        f"theirs by more than 1e-3 in {100 * (behind > 1e-3).mean():.0f} % of the sample (most {behind.max():.1e}), "
        f"ahead by more than 1e-3 in {100 * (behind < -1e-3).mean():.0f} %"
    )


def bench_filter(series: int, length: int, sample: int) -> None:
    """What `model.filter` of statsmodels returns, ours as returned, with some columns, and with all of it read."""
    y = random_levels(series, length)
    known = KalmanFit.at(LEVEL, np.ones((series, 2)))

    def with_columns() -> object:
        past = filter_series(known, y)
        return past.output("level"), past.standardised_innovation

    def with_all() -> object:
        past = filter_series(known, y)
        states = past.predicted_state, past.predicted_covariance, past.filtered_state, past.filtered_covariance
        observed = past.predicted_mean, past.innovation, past.innovation_covariance, past.standardised_innovation
        return states, observed, past.log_score, past.log_likelihood

    models = [theirs(y[b]) for b in range(sample)]

    def loop(one: Callable[..., object]) -> float:
        return median_seconds(lambda: [one(model) for model in models], 3) / sample * series

    plain, inner = loop(lambda model: model.filter([1.0, 1.0])), loop(lambda model: model.ssm.filter())
    print(f"filter, {series} x {length}: a loop of statsmodels takes {plain:.2f} s by model.filter, ", end="")
    print(f"{inner:.2f} s by its innermost ssm.filter, which makes no results object")
    before = torch.get_num_threads()
    for threads in sorted({1, before, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        for what, run in (
            ("as returned: filtered states and variances, likelihood", lambda: filter_series(known, y)),
            ("with level, its variance, standardised innovations", with_columns),
            ("with everything read", with_all),
        ):
            seconds = median_seconds(run, 9)
            print(
                f"  {threads} thread(s), {what}: {1e3 * seconds:.0f} ms: {plain / seconds:.0f}x model.filter, "
                f"{inner / seconds:.0f}x ssm.filter"
            )
    torch.set_num_threads(before)


def bench_update(series: int) -> None:
    y = random_levels(series, 300)
    for spec, parameters in (
        (LEVEL, [1.0, 0.5]),
        (specification("local_linear_trend"), [1.0, 0.1, 0.01]),
        (specification("sum_of_ar1"), [0.0, 1.0, 0.95, 0.5, 0.1, 0.5]),
    ):
        known = KalmanFit.at(spec, np.tile(parameters, (series, 1)))
        updater = Updater(known, filter_series(known, y[:, :100]).carry)
        steps = iter(range(100, 300))
        milliseconds = 1e3 * median_seconds(lambda u=updater, s=steps: u.update(y[:, next(s)]), 150)  # type: ignore[misc]
        print(f"one new observation of {series} series, {spec.kind}: {milliseconds:.2f} ms")


def bench_growth() -> None:
    """Each size in a process of its own, so that none finds memory of the one before."""
    print("growth of the fit: seconds, and megabytes that the fit adds at its peak")
    for name, sizes in (
        ("series", ((500, 1000), (1000, 1000), (2000, 1000), (4000, 1000))),
        ("length", ((500, 1000), (500, 2000), (500, 4000), (500, 8000))),
    ):
        for series, length in sizes:
            command = [sys.executable, __file__, "--one", "--series", str(series), "--length", str(length)]
            print(f"  {name}: {subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()}")


def resident() -> float:
    """Megabytes of this process in memory (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def bench_one(series: int, length: int) -> None:
    fit(LEVEL, random_levels(50, 50))
    y = random_levels(series, length)
    before, peaks, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peaks[0] = max(peaks[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    found = fit(LEVEL, y)
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    peak = peaks[0] - before
    print(
        f"{series:5} x {length:5}  {seconds:6.2f} s  {peak:6.0f} MB  (data {y.nbytes / 2**20:.0f} MB, "
        f"{found.iterations.mean():.1f} steps)"
    )


def bench_kinds(series: int, length: int) -> None:
    y = random_levels(series, length)
    x = np.random.default_rng(1).standard_normal((series, length, 2))
    print(f"other kinds, {series} x {length}")
    for kind, options in (
        ("local_linear_trend", {}),
        ("ar1_plus_noise", {}),
        ("sum_of_ar1", {"terms": 2}),
        ("sum_of_ar1", {"terms": 3}),
        ("dynamic_regression", {"n_regressors": 2}),
    ):
        spec = specification(kind, **options)
        begin = time.perf_counter()
        found = fit(spec, y, x if spec.regressors else None)
        seconds = time.perf_counter() - begin
        share = 100 * (found.status == "converged").mean()
        print(f"  {kind:20} {options}: {seconds:6.2f} s, {share:.0f} % converged, {found.iterations.mean():.0f} steps")


def bench_device(device: str, series: int, length: int) -> None:
    print(f"{torch.cuda.get_device_name()}, {series} x {length}", flush=True)
    y = random_levels_on(device, series, length)
    begin = time.perf_counter()
    fit(LEVEL, y[:64], device=device)
    print(f"first fit, with compiling: {time.perf_counter() - begin:.1f} s", flush=True)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    found = fit(LEVEL, y, device=device)
    seconds = time.perf_counter() - begin
    print(
        f"fit: {seconds:.1f} s, {100 * (found.status == 'converged').mean():.2f} % converged, peak "
        f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
        flush=True,
    )
    here = fit(LEVEL, y[:200].cpu())
    apart = np.abs(found.log_likelihood[:200] - here.log_likelihood).max()
    print(f"log-likelihoods of the first 200 within {apart:.1e} of the CPU's")


def random_levels_on(device: str, series: int, length: int) -> torch.Tensor:
    """`random_levels`, drawn where they are used: a host takes longer to draw 10^8 numbers than a GPU to fit them."""
    rng = torch.Generator(device).manual_seed(0)
    real = {"dtype": torch.float64, "device": device, "generator": rng}
    ratio = 10 ** (4 * torch.rand(series, 1, **real) - 3)  # type: ignore[arg-type]
    walk = torch.randn(series, length, **real).mul_(ratio.sqrt()).cumsum_(1)  # type: ignore[arg-type]
    return walk.add_(torch.randn(series, length, **real))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=20, help="series of the statsmodels loops")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of ours")
    parser.add_argument("--one", action="store_true", help="one fit of this size: seconds and memory")
    parser.add_argument("--quick", action="store_true", help="leave out growth and other kinds")
    given = parser.parse_args()
    if given.device != "cpu":
        bench_device(given.device, given.series, given.length)
        return
    torch.set_num_threads(given.threads)
    if given.one:
        bench_one(given.series, given.length)
        return
    warnings.simplefilter("ignore")  # statsmodels warns of fits that stop early
    bench_fit(given.series, given.length, given.sample)
    bench_filter(4 * given.series, given.length, given.sample)
    bench_update(4 * given.series)
    if not given.quick:
        bench_growth()
        bench_kinds(given.series // 5, given.length)


if __name__ == "__main__":
    main()
