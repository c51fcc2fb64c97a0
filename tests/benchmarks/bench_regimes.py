"""Owns the timing of regime models: a panel of two-regime switching variances against a loop of statsmodels fits.

    python tests/benchmarks/bench_regimes.py [--series 200] [--steps 2500] [--peer 10]

The loop is timed on `--peer` of the series and scaled to all (it costs the same for each); all of ours are timed. Both
in one process; the likelihoods of the timed fits are compared. Filtering and one more row are timed as well.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core: read by the linear algebra library when it loads

import argparse
import time
import warnings

import numpy as np

from ssmfin.classical.regime import MarkovRegression, filter_series, fit


def simulated_returns(series: int, steps: int, seed: int = 0) -> np.ndarray:
    """(series, steps) daily returns, calm and wild stretches of 25 to 200 days, wild 1.5 to 4 times as volatile."""
    rng = np.random.default_rng(seed)
    leave = rng.uniform(0.005, 0.04, (series, 2))
    regime = np.zeros((series, steps), dtype=np.int64)
    for t in range(1, steps):
        moves = rng.random(series) < leave[np.arange(series), regime[:, t - 1]]
        regime[:, t] = np.where(moves, 1 - regime[:, t - 1], regime[:, t - 1])
    ratio = rng.uniform(1.5, 4.0, (series, 1))
    return 0.0003 + 0.008 * rng.standard_normal((series, steps)) * np.where(regime > 0, ratio, 1.0)


def main() -> None:
    """Print ratios; exit with 1 where likelihoods are worse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--peer", type=int, default=10)
    options = parser.parse_args()
    import statsmodels.api as sm

    B, T = options.series, options.steps
    y = simulated_returns(B, T)
    spec = MarkovRegression(regimes=2, mean="common", variance="switching")
    found = fit(spec, y[:2])  # numba compiles at the first call
    filter_series(found, y[:2])

    began = time.perf_counter()
    found = fit(spec, y)
    ours = time.perf_counter() - began
    states = ", ".join(f"{n} {name}" for name, n in zip(*np.unique(found.status, return_counts=True), strict=True))
    print(f"ssmfin: {B} series x {T} fitted in {ours:.2f} s ({states})", flush=True)

    began = time.perf_counter()
    gaps = []
    for b in np.linspace(0, B - 1, options.peer).astype(int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sm.tsa.MarkovRegression(100 * y[b], 2, trend="c", switching_trend=False, switching_variance=True)
            peer = model.fit(disp=0)
        gaps.append(found.log_likelihood[b] - (peer.llf + T * np.log(100)))
    theirs = (time.perf_counter() - began) / options.peer * B
    gap = np.array(gaps)
    print(f"statsmodels: {theirs:.1f} s ({options.peer} timed, scaled); ratio {theirs / ours:.0f}", flush=True)
    print(
        f"log-likelihood, ours less theirs: {gap.min():.1e} to {gap.max():.1e}; "
        f"worse by 1e-3: {(gap < -1e-3).mean():.0%}"
    )

    began = time.perf_counter()
    past = filter_series(found, y)
    print(f"filter, all rows: {1e3 * (time.perf_counter() - began):.0f} ms")
    began = time.perf_counter()
    for _ in range(10):
        filter_series(found, y[:, -1:], carry=past.carry)
    print(f"filter, one more row of {B} series: {1e2 * (time.perf_counter() - began):.2f} ms")
    if (gap < -1e-3).mean() > 0.01:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
